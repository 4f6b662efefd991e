"""Writes the readings of meters as they come, each a run of its own, over one stream.

Start the service with ``make serve``, then:

    python examples/append_measurements.py

On a lake with users the key is that of TIMEDB_API_KEY.

Running it again is safe: each run is named after its meter and its time, so that a second one adds nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from timedb.client import Client, connect

METERS = [f"example-meter-{number:02}" for number in range(1, 6)]
START = datetime(2025, 6, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
READINGS = 96


def readings() -> Iterator[tuple[str, datetime, float]]:
    """What the meters say, in the order in which it comes: (meter, end of the quarter of an hour, kWh)."""
    for quarter in range(READINGS):
        for number, meter in enumerate(METERS):
            yield meter, START + quarter * QUARTER, round(0.4 + 0.1 * number + 0.05 * (quarter % 4), 2)


def append(client: Client) -> int:
    """Send each reading as soon as it is there; how many rows are durable at the end."""
    receipts = []
    with client.writer(workflow_id="example-meters", unit="kWh") as writer:
        for meter, time, value in readings():
            rows = pl.DataFrame({"series_key": [meter], "valid_time": [time], "value": [value]})
            # Does not wait: the server answers each run once it is on the disk, many of them in one commit.
            receipts.append(writer.upload(rows, run_id=f"{meter}-{time:%Y%m%dT%H%M}", known_time=time + QUARTER))
    # Leaving the block has waited for all answers, and would have raised the first error.
    return sum(receipt.result().rows for receipt in receipts)


def main() -> None:
    """Append, then read the day's energy of each meter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flight-url", default="grpc://127.0.0.1:8815")
    options = parser.parse_args()
    with connect(options.flight_url) as client:
        print(f"{append(client)} readings are durable")
        end = START + timedelta(days=1)
        day = client.read(series_keys=METERS, start_valid=START, end_valid=end, columns=["series_key", "value"])
    energy = day.group_by("series_key").agg(pl.col("value").sum().round(2)).sort("series_key")
    for meter, value in energy.iter_rows():
        print(f"{meter}: {value} kWh")


if __name__ == "__main__":
    main()
