"""Loads real temperature forecasts over Arrow Flight and asks three questions through three doors.

Start the service with ``make serve``, then:

    python examples/load_forecasts.py

On a lake with users the key is that of TIMEDB_API_KEY.

Running it again is safe: the run has a fixed run_id, so the second upload is a retry that adds nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import polars as pl

from timedb.client import Client, connect

CSV = Path(__file__).parent / "data" / "temperature_forecasts.csv"
RUN_ID = "example-temperature-forecasts"
NAME = "temperature"
ALL = {"quantile": ["0.05", "0.5", "0.95"]}
MEDIAN = {"quantile": "0.5"}

HOUR = datetime(2015, 3, 1, 9, tzinfo=UTC)
KNOWN_AT = datetime(2015, 2, 28, 12, tzinfo=UTC)
# "As known at T" includes T, but end_known excludes its own instant: ask for the microsecond after it.
END_KNOWN = KNOWN_AT + timedelta(microseconds=1)

POINT = ["series_id", "valid_time", "valid_time_end"]
REVISION = [*POINT, "known_time", "run_id"]


@dataclass
class Answers:
    """The three answers; each frame is sorted by its leading columns."""

    flat: pl.DataFrame
    """The latest known value of every hour: series_id, valid_time, value."""
    revisions: pl.DataFrame
    """What was said over time about one hour, at the median: known_time, value."""
    known: pl.DataFrame
    """What was known at one moment: series_id, valid_time, value."""


def read_forecasts() -> pl.DataFrame:
    """The CSV as columns of an upload; what a file calls belief time is the known_time."""
    frame = pl.read_csv(CSV, schema_overrides={"cumulative_probability": pl.String})
    return frame.select(
        pl.lit(NAME).alias("series_key"),
        # One name, told apart by labels: what the quantiles and sources of one quantity are.
        pl.struct(quantile="cumulative_probability", source="source").struct.json_encode().alias("labels"),
        instant("event_start").alias("valid_time"),
        instant("belief_time").alias("known_time"),
        pl.col("event_value").alias("value"),
    )


def instant(name: str) -> pl.Expr:
    """A text column as UTC times."""
    return pl.col(name).str.to_datetime("%Y-%m-%d %H:%M:%S%:z", time_unit="us", time_zone="UTC")


def load(client: Client) -> None:
    """Create the three series and send all forecasts as one run."""
    forecasts = read_forecasts()
    for labels in forecasts["labels"].unique().sort():
        client.create_series(
            NAME, unit="degC", description="Forecast of the air temperature", labels=json.loads(labels)
        )
    receipt = client.upload(forecasts, run_id=RUN_ID, workflow_id="examples/load_forecasts.py")
    print(f"{forecasts.height} rows are in the lake as run {RUN_ID}; written at {receipt.change_time}")


def ask_flight(client: Client) -> Answers:
    """The three answers over Arrow Flight."""
    return Answers(
        flat=client.read(labels=ALL).sort("series_id", "valid_time"),
        revisions=client.read(view="overlapping", labels=MEDIAN, start_valid=HOUR, end_valid=HOUR + timedelta(hours=1))
        .select("known_time", "value")
        .sort("known_time"),
        known=client.read(labels=ALL, end_known=END_KNOWN).sort("series_id", "valid_time"),
    )


def ask_rest(url: str) -> Answers:
    """The three answers as CSV over HTTP."""
    key = os.environ.get("TIMEDB_API_KEY")
    headers = {"Accept": "text/csv"} | ({"X-API-Key": key} if key else {})

    def get(labels: dict[str, Any], **parameters: str) -> pl.DataFrame:
        parameters |= {"labels": json.dumps(labels)}
        with urlopen(Request(f"{url}/values?{urlencode(parameters)}", headers=headers)) as response:
            body = response.read()
        times = ("valid_time", "known_time")
        frame = pl.read_csv(body)
        return frame.with_columns(
            pl.col(name).str.to_datetime(time_unit="us", time_zone="UTC") for name in times if name in frame.columns
        )

    hour = {"start_valid": HOUR.isoformat(), "end_valid": (HOUR + timedelta(hours=1)).isoformat()}
    columns = ["series_id", "valid_time", "value"]
    return Answers(
        flat=get(ALL).select(columns).sort("series_id", "valid_time"),
        revisions=get(MEDIAN, mode="overlapping", **hour).select("known_time", "value").sort("known_time"),
        known=get(ALL, end_known=END_KNOWN.isoformat()).select(columns).sort("series_id", "valid_time"),
    )


def ask_lake(lake: str, tenant_id: str) -> Answers:
    """The three answers from the Delta tables, past the service."""
    tables = f"{lake}/tenants/{tenant_id}"
    series = pl.scan_delta(f"{tables}/series").filter(name=NAME)
    values = pl.scan_delta(f"{tables}/values").join(series.select("series_id", "labels"), on="series_id")

    def standing(rows: pl.LazyFrame) -> pl.LazyFrame:
        latest = rows.sort("change_time").unique(REVISION, keep="last", maintain_order=True)
        return latest.filter(pl.col("retracted").ne_missing(True))

    def flat(rows: pl.LazyFrame) -> pl.DataFrame:
        ranked = standing(rows).sort("known_time", "change_time", "run_id")
        winners = ranked.unique(POINT, keep="last", maintain_order=True)
        return winners.select("series_id", "valid_time", "value").sort("series_id", "valid_time").collect()

    median = pl.col("labels").str.json_path_match("$.quantile") == MEDIAN["quantile"]
    return Answers(
        flat=flat(values),
        revisions=standing(values.filter(median, pl.col("valid_time") == HOUR))
        .select("known_time", "value")
        .sort("known_time")
        .collect(),
        known=flat(values.filter(pl.col("known_time") < END_KNOWN)),
    )


def show(answers: Answers, client: Client) -> None:
    """Print the answers with quantiles for series ids."""
    quantile = {one["series_id"]: one["labels"]["quantile"] for one in client.list_series(name=NAME)}

    def pivot(frame: pl.DataFrame) -> pl.DataFrame:
        named = frame.with_columns(pl.col("series_id").cast(pl.String).replace(quantile))
        return named.pivot("series_id", index="valid_time", values="value").sort("valid_time")

    print("\nThe latest known forecast of every hour (flat)", pivot(answers.flat), sep="\n")
    print(f"\nWhat was said over time about {HOUR:%Y-%m-%d %H:%M} UTC, median", answers.revisions, sep="\n")
    print(f"\nThe forecast as known at {KNOWN_AT:%Y-%m-%d %H:%M} UTC", pivot(answers.known), sep="\n")


def compare(answers: dict[str, Answers]) -> None:
    """Say that all doors gave the same three answers.

    Raises:
        SystemExit: they did not.
    """
    (first, expected), *others = answers.items()
    for door, found in others:
        for question in ("flat", "revisions", "known"):
            one, other = (plain(getattr(each, question)) for each in (expected, found))
            if not one.equals(other):
                raise SystemExit(f"{question}: {door} and {first} differ")
    print(f"\nThe same three answers through {', '.join(answers)}.")


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame whose identifiers are plain text, whichever way they travelled."""
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def main() -> None:
    """Load, ask through each door, show, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flight-url", default="grpc://127.0.0.1:8815")
    parser.add_argument("--rest-url", default="http://127.0.0.1:8000")
    parser.add_argument("--lake", default="./timedb-data", help="the folder that the service keeps its lake in")
    options = parser.parse_args()
    with connect(options.flight_url) as client:
        load(client)
        answers = {
            "Arrow Flight": ask_flight(client),
            "REST": ask_rest(options.rest_url),
            "the Delta tables": ask_lake(options.lake, client.status()["tenant_id"]),
        }
        show(answers["Arrow Flight"], client)
    compare(answers)


if __name__ == "__main__":
    main()
