"""Measures the service beside the raw limits of what it is made of, in one run on one machine.

    make bench
    make bench BENCH_ARGS="--series 100 --runs 4380 --json result.json"

Data is seeded, every answer is checked after the clock has stopped, medians are printed with the machine, the versions
and the command above them. The service runs in a process of its own, as users run it; its peak memory is the kernel's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
from pyarrow import flight

from benchmarks import servers
from benchmarks.history import History, flat, small_upload
from benchmarks.measuring import Measurement, Report, machine, measure
from timedb.client import Client, connect
from timedb.wire import ReadCommand, UploadCommand, parse_object

COLUMNS = ["series_key", "valid_time", "value"]


class Bench:
    """One run: the history, the service under test and what was measured."""

    def __init__(
        self, history: History, folder: Path, served: servers.Served, client: Client, *, small_uploads: int
    ) -> None:
        self.history = history
        self.small_uploads = small_uploads
        self.frame = history.frame()
        self.folder = folder
        self.served = served
        self.client = client
        self.report = Report()

    def load(self) -> None:
        """P1: the whole history as one upload, until acknowledged; then until compacted."""
        reader = self.frame.to_arrow(compat_level=pl.CompatLevel.oldest()).to_reader(max_chunksize=65_536)
        once: dict[str, Any] = {"times": 1, "warm": 0, "rows": self.history.rows, "server": self.served.pid}
        measurement, receipt = measure("load over Flight", lambda: self.client.send(UploadCommand(), reader), **once)
        measurement.checked = check(receipt["rows"] == self.history.rows)
        self.report.add(measurement)
        measurement, _ = measure("compact it", self.client.compact, **once)
        self.report.add(measurement)

    def read_all(self) -> None:
        """P2, P3, P5: everything, flat, overlapping, and flat as known midway."""
        midway = self.history.midway()
        known = self.frame.filter(pl.col("known_time") < midway)
        self._read("flat, all", flat(self.frame), columns=COLUMNS)
        self._read("flat, known midway", flat(known), columns=COLUMNS, end_known=midway)
        everything = self.frame.select("series_key", "valid_time", "known_time", "value")
        self._read("overlapping, all", everything, view="overlapping", columns=everything.columns)

    def read_one(self) -> None:
        """P4: seven days of one series over Flight and REST."""
        start, end = self.history.last_week()
        name = f"series-{self.history.series // 2:05}"
        mine = (pl.col("series_key") == name) & pl.col("valid_time").is_between(start, end, closed="left")
        truth = flat(self.frame.filter(mine))
        selection = {"series_keys": [name], "start_valid": start, "end_valid": end}
        self._read("one series, 7 days, flat", truth, times=50, columns=COLUMNS, **selection)
        with httpx.Client(base_url=self.served.rest_url, timeout=60) as http:
            query = {"name": name, "start_valid": start.isoformat(), "end_valid": end.isoformat()}
            measurement, answer = measure(
                "the same over REST", lambda: http.get("/values", params=query).json(), times=50, rows=truth.height
            )
        values = [row["value"] for row in answer["data"]]
        measurement.checked = check(values == truth.sort("valid_time")["value"].to_list())
        self.report.add(measurement)

    def upload_small(self) -> None:
        """P7: many uploads of 24 rows, one after the other; do the last take longer than the first?"""
        seconds: list[float] = []
        for number in range(self.small_uploads):
            table = small_upload("small", number)
            start = time.perf_counter()
            self.client.send(UploadCommand(rows=24), table.to_reader())
            seconds.append(time.perf_counter() - start)
        quarter = self.small_uploads // 4
        self.report.add(
            Measurement(f"upload of 24 rows, first {quarter} of {self.small_uploads}", seconds[:quarter], 24)
        )
        last = Measurement(f"upload of 24 rows, last {quarter}", seconds[-quarter:], 24)
        answer = self._fetch(parse_object(ReadCommand, {"series_keys": ["small"]}))
        last.checked = check(answer.num_rows == 24 * self.small_uploads)
        self.report.add(last)

    def raw_limits(self) -> None:
        """The same bytes without a database: Polars and local Parquet, Arrow Flight from memory."""
        rows = self.history.rows
        path = self.folder / "history.parquet"
        self.report.add(measure("Polars writes it to Parquet", lambda: self.frame.write_parquet(path), rows=rows)[0])
        read, again = measure("Polars reads it from Parquet", lambda: pl.read_parquet(path), rows=rows)
        read.checked = check(again.height == rows)
        self.report.add(read)
        work, winners = measure("Polars: flat from Parquet", lambda: flat(pl.read_parquet(path)), rows=rows)
        work.checked = check(winners.height == flat(self.frame).height)
        self.report.add(work)
        with servers.raw_flight(self.folder) as url, flight.connect(url) as raw:
            for name, like in (("flat", "flat, all"), ("overlapping", "overlapping, all")):
                ticket = flight.Ticket(name.encode())
                limit, answer = measure(f"raw Flight: {like}", partial(self._raw_get, raw, ticket))
                limit.rows = answer.num_rows
                limit.checked = check(answer.num_rows == self.report.find(like).rows)
                self.report.add(limit)
            put = measure("raw Flight: take the history and forget it", lambda: self._put(raw), rows=rows)[0]
            self.report.add(put)

    @staticmethod
    def _raw_get(raw: flight.FlightClient, ticket: flight.Ticket) -> pa.Table:
        return raw.do_get(ticket).read_all()

    def _put(self, raw: flight.FlightClient) -> None:
        table = self.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        writer, _ = raw.do_put(flight.FlightDescriptor.for_path("history"), table.schema)
        with writer:
            writer.write_table(table, max_chunksize=65_536)

    def _fetch(self, read: ReadCommand) -> pa.Table:
        with self.client.stream(read) as stream:
            return stream.read_all()

    def _read(self, name: str, truth: pl.DataFrame, times: int = 5, **fields: Any) -> None:
        read = parse_object(ReadCommand, fields)
        measurement, answer = measure(
            name, lambda: self._fetch(read), times=times, rows=truth.height, server=self.served.pid
        )
        measurement.checked = check(same(pl.DataFrame(answer), truth))
        self.report.add(measurement)
        if name.endswith(", all"):
            with pa.ipc.new_stream(self.folder / f"{name.partition(',')[0]}.arrow", answer.schema) as file:
                file.write_table(answer)


def same(answer: pl.DataFrame, truth: pl.DataFrame) -> bool:
    """Whether two frames hold the same rows, in whatever order."""
    order = [name for name in truth.columns if name != "value"]
    one, other = (
        frame.with_columns(pl.col("series_key").cast(pl.String)).select(truth.columns).sort(order)
        for frame in (answer, truth)
    )
    return one.equals(other)


def check(right: bool) -> str:
    """The word for the report.

    Raises:
        SystemExit: the answer is wrong; a wrong answer has no speed.
    """
    if not right:
        raise SystemExit("the answer is wrong")
    return "checked"


def ratios(report: Report) -> list[tuple[str, float]]:
    """How far the service is from the raw limits: throughput as a share of theirs."""

    def share(name: str, limit: str) -> float:
        return report.find(limit).median / report.find(name).median

    first, last = (one for one in report.measurements if one.name.startswith("upload of 24 rows"))
    return [
        ("load / Polars writing Parquet", share("load over Flight", "Polars writes it to Parquet")),
        ("load / raw Flight", share("load over Flight", "raw Flight: take the history and forget it")),
        ("flat / raw Flight of the same bytes", share("flat, all", "raw Flight: flat, all")),
        ("overlapping / raw Flight of the same bytes", share("overlapping, all", "raw Flight: overlapping, all")),
        ("small uploads: last / first (time)", last.median / first.median),
    ]


def main() -> None:
    """Run everything; Markdown on stdout, JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--runs", type=int, default=250, help="runs of 48 values a series")
    parser.add_argument("--small-uploads", type=int, default=200, help="uploads of 24 rows, one after the other")
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    options = parser.parse_args()
    facts, history = machine(), History(options.series, options.runs)
    print(f"{history.rows:,} rows", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="timedb-bench-") as folder,
        servers.timedb(Path(folder) / "lake") as served,
        connect(served.flight_url, timeout=600) as client,
    ):
        bench = Bench(history, Path(folder), served, client, small_uploads=options.small_uploads)
        for step in (bench.load, bench.read_all, bench.read_one, bench.upload_small, bench.raw_limits):
            step()
    report = bench.report
    shares = ratios(report)
    if options.json:
        found = {
            **facts,
            "rows": history.rows,
            "ratios": dict(shares),
            "measurements": [*map(asdict, report.measurements)],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(f"- {name}: {fact}" for name, fact in {**facts, "rows": f"{history.rows:,}"}.items()))
    print(f"\n{report.to_markdown()}\n\n| ratio | |\n|---|--:|")
    print("\n".join(f"| {name} | {share:.2f} |" for name, share in shares))


if __name__ == "__main__":
    main()
