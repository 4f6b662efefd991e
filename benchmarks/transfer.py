"""The whole history into the service and out of it again, by a client that holds none of it, beside raw Flight.

    python -m benchmarks.transfer
    python -m benchmarks.transfer --series 100 --runs 250 --rounds 3

The client is a process of its own that makes rows as it sends them and forgets rows as it gets them; what it sent and
what came back are compared by count and sums. The raw server takes the same bytes, or sends them from memory. Peak
memory is the kernel's, of client and server, for each direction by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import flight

from benchmarks import servers
from benchmarks.history import HORIZON, START
from benchmarks.measuring import Wrong, machine, peak_mib, reset_peak
from timedb.client import connect
from timedb.contract.wire import ReadCommand

HOUR = 3_600_000_000
COLUMNS = ["series_key", "valid_time", "known_time", "value"]
TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("series_key", pa.dictionary(pa.int32(), pa.string())),
        ("valid_time", TIME),
        ("known_time", TIME),
        ("value", "f8"),
    ]
)
RAW = "answer"


@dataclass
class Sums:
    """What tells one set of rows from another, whatever their order: times in hours, values in hundredths."""

    rows: int = 0
    valid: int = 0
    known: int = 0
    cents: int = 0
    mixed: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch."""
        start = int(START.timestamp() * 1e6)
        valid, known = (
            (batch.column(name).cast(pa.int64()).to_numpy() - start) // HOUR for name in ("valid_time", "known_time")
        )
        cents = np.rint(batch.column("value").to_numpy() * 100).astype(np.int64)
        keys = batch.column("series_key")
        number = np.array([int(name.rpartition("-")[2]) for name in keys.dictionary.to_pylist()], np.int64)
        series = number[keys.indices.to_numpy()] + 1
        self.rows += batch.num_rows
        self.valid += int(valid.sum())
        self.known += int(known.sum())
        self.cents += int(cents.sum())
        # Which value belongs to which series and times.
        self.mixed += int((cents * (series * 7919 + valid * 31 + known) % 1_000_003).sum())


def made(series: int, runs: int) -> Iterator[pa.RecordBatch]:
    """The history, about 64k rows at a time, in the order in which forecasts are made."""
    names = pa.array([f"series-{index:05}" for index in range(series)])
    at_once = max(1, 65_536 // (series * HORIZON))
    start = int(START.timestamp() * 1e6)
    chance = np.random.default_rng(20240101)
    for first in range(0, runs, at_once):
        count = min(at_once, runs - first)
        known = start + np.repeat(np.arange(first, first + count), series * HORIZON) * (2 * HOUR)
        hour = np.tile(np.arange(HORIZON), count * series)
        codes = np.tile(np.repeat(np.arange(series, dtype=np.int32), HORIZON), count)
        values = np.rint(chance.standard_normal(len(codes), np.float32) * 1500.0 + 10_000.0).astype(np.float64) / 100.0
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(codes), names),
            pa.array(known + hour * HOUR).cast(TIME),
            pa.array(known).cast(TIME),
            pa.array(values),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


# The client, in a process of its own: what it did as JSON on standard output.


def send(url: str, series: int, runs: int) -> int:
    """Upload the history."""
    with connect(url, stream_timeout=3600) as client:
        return client.upload(pa.RecordBatchReader.from_batches(SCHEMA, made(series, runs))).rows


def send_raw(url: str, series: int, runs: int) -> int:
    """Send the history to a server that forgets it."""
    rows = 0
    with flight.connect(url) as client:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path(RAW), SCHEMA)
        for batch in made(series, runs):
            writer.write_batch(batch)
            rows += batch.num_rows
        writer.done_writing()
        reader.read()
        writer.close()
    return rows


def take(url: str, each: Callable[[pa.RecordBatch], None]) -> None:
    """Read every revision, batch by batch."""
    read = ReadCommand(view="overlapping", columns=COLUMNS)
    with connect(url, stream_timeout=3600) as client, client.stream(read) as stream:
        for batch in stream:
            each(batch)


def take_raw(url: str, each: Callable[[pa.RecordBatch], None]) -> None:
    """The same from a server's memory."""
    with flight.connect(url) as client:
        for chunk in client.do_get(flight.Ticket(RAW.encode())):
            each(chunk.data)


def work(what: str, url: str, series: int, runs: int, folder: Path) -> None:
    """What the client's process does."""
    sums, rows = Sums(), 0

    def count(batch: pa.RecordBatch) -> None:
        nonlocal rows
        rows += batch.num_rows

    started = time.perf_counter()
    if what == "make":
        for batch in made(series, runs):
            sums.add(batch)
    elif what in ("up", "raw up"):
        rows = (send if what == "up" else send_raw)(url, series, runs)
    elif what in ("down", "raw down"):
        (take if what == "down" else take_raw)(url, count)
    elif what == "check":
        take(url, sums.add)
    else:
        _keep(url, folder)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rows": rows, "peak": peak_mib(os.getpid()), "sums": asdict(sums)}))


def _keep(url: str, folder: Path) -> None:
    """Write the answer into a file, with one dictionary for all of it, for the raw server."""
    with connect(url) as client:
        names = pa.array(sorted(one["name"] for one in client.list_series()))

    with pa.ipc.new_stream(folder / f"{RAW}.arrow", SCHEMA) as file:

        def keep(batch: pa.RecordBatch) -> None:
            keys = batch.column("series_key")
            codes = pc.index_in(keys.dictionary, names).cast(pa.int32()).take(keys.indices)
            columns = [pa.DictionaryArray.from_arrays(codes, names), *batch.columns[1:]]
            file.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))

        take(url, keep)


@dataclass
class Figures:
    """What one direction took, a figure a round.

    Attributes:
        seconds, raw: Seconds of the service and of raw Flight.
        server, client: Peak memory, MiB.
    """

    seconds: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)

    def row(self, name: str, rows: int) -> str:
        """A line of the table."""
        ours, raw = statistics.median(self.seconds), statistics.median(self.raw)
        ratio = statistics.median(b / a for a, b in zip(self.seconds, self.raw, strict=True))
        return (
            f"| {name} | {ours:.2f} s | {rows / ours / 1e6:.2f} M | {raw:.2f} s | {ratio:.3f} "
            f"| {max(self.server):.0f} MiB | {max(self.client):.0f} MiB |"
        )


class Transfer:
    """One run of all of it."""

    def __init__(self, series: int, runs: int, folder: Path) -> None:
        self.rows = series * runs * HORIZON
        self.figures = {name: Figures() for name in ("up", "down, as uploaded", "down, compacted")}
        self.compaction: list[float] = []
        self._size = (series, runs)
        self._folder = folder
        self._truth = self._client("make")["sums"]

    def _client(self, what: str, url: str = "-") -> dict[str, Any]:
        size = [str(number) for number in self._size]
        command = [sys.executable, "-m", "benchmarks.transfer", "--work", what, "--url", url, "--series", size[0]]
        done = subprocess.run(
            [*command, "--runs", size[1], "--folder", str(self._folder)], stdout=subprocess.PIPE, check=True, text=True
        )
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def _measure(self, name: str, what: str, served: servers.Served, raw: str) -> None:
        figures = self.figures[name]
        other = self._client(f"raw {what}", raw)
        reset_peak(served.pid)
        ours = self._client(what, served.flight_url)
        figures.server.append(peak_mib(served.pid) or 0.0)
        if {ours["rows"], other["rows"]} != {self.rows}:
            raise Wrong(f"{name}: {ours['rows']} and {other['rows']} rows of {self.rows}")
        figures.seconds.append(ours["seconds"])
        figures.raw.append(other["seconds"])
        figures.client.append(ours["peak"])

    def round(self) -> None:
        """A new lake: in, out, compacted, out again."""
        lake = self._folder / "lake"
        with servers.timedb(lake) as served:
            empty = self._folder / "empty"
            empty.mkdir(exist_ok=True)
            with servers.raw_flight(empty) as raw:
                self._measure("up", "up", served, raw)
            if not (self._folder / f"{RAW}.arrow").exists():
                self._client("keep", served.flight_url)
            with servers.raw_flight(self._folder) as raw:
                self._measure("down, as uploaded", "down", served, raw)
                self._check(served)
                reset_peak(served.pid)
                with connect(served.flight_url, stream_timeout=3600) as client:
                    client.compact()
                self.compaction.append(peak_mib(served.pid) or 0.0)
                self._measure("down, compacted", "down", served, raw)
                self._check(served)
        shutil.rmtree(lake)

    def _check(self, served: servers.Served) -> None:
        if self._client("check", served.flight_url)["sums"] != self._truth:
            raise Wrong("what came back is not what was sent")


def main() -> None:
    """Run it; Markdown on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--runs", type=int, default=4380)
    parser.add_argument("--rounds", type=int, default=1)
    for inner in ("--work", "--url", "--folder"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.url, options.series, options.runs, Path(options.folder))
        return
    facts = machine() | {"command": " ".join(["python -m benchmarks.transfer", *sys.argv[1:]])}
    with tempfile.TemporaryDirectory(prefix="timedb-transfer-") as folder:
        transfer = Transfer(options.series, options.runs, Path(folder))
        for _ in range(options.rounds):
            transfer.round()
    facts["load at the end"] = f"{os.getloadavg()[0]:.1f} in the minute before"
    print("\n".join(f"- {name}: {fact}" for name, fact in {**facts, "rows": f"{transfer.rows:,}"}.items()))
    print("\n| | service | rows/s | raw Flight | speed against raw | server's peak | client's peak |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    print("\n".join(figures.row(name, transfer.rows) for name, figures in transfer.figures.items()))
    peak = max(transfer.compaction)
    print(f"\nEvery row came back as it went in. The server's peak while it compacted: {peak:.0f} MiB.")


if __name__ == "__main__":
    main()
