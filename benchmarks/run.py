"""Measures the service beside ClickHouse and the raw limits of what it is made of, in one run on one machine.

    make bench
    make bench BENCH_ARGS="--size medium --json result.json"
    make bench BENCH_ARGS="--only P2 P3 --no-peer"

Data is seeded, contestants take turns, every answer is checked after the clock has stopped. The service runs in a
process of its own, as users run it; its peak memory is the kernel's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from benchmarks import reads, servers, writes
from benchmarks.bench import Bench
from benchmarks.clickhouse import ClickHouse, numbered
from benchmarks.history import History, many_series
from benchmarks.measuring import machine
from benchmarks.targets import outcomes
from timedb.client import connect
from timedb.wire import UploadCommand


@dataclass(frozen=True)
class Size:
    """How much of each kind of data: the history's series and runs of 48 values, small uploads, the series of a wide
    run, series and values of the last-value read, rows over REST."""

    series: int
    runs: int
    small: int
    wide: int
    last: int
    values: int
    rest: int


SIZES = {
    "tiny": Size(series=4, runs=6, small=10, wide=5, last=7, values=10, rest=50),
    "small": Size(series=100, runs=250, small=200, wide=1000, last=1000, values=200, rest=20_000),
    "medium": Size(series=100, runs=4380, small=1000, wide=6000, last=4000, values=2000, rest=100_000),
}


def operations(bench: Bench, size: Size) -> dict[str, Callable[[], None]]:
    """Every operation under the targets that it measures; those that read come after the load."""
    return {
        "P2 P3 P5": lambda: reads.whole_history(bench),
        "P4": lambda: reads.one_series(bench),
        "P12": lambda: reads.rest_rows(bench, size.rest),
        "P6": lambda: reads.flat_under_uploads(bench),
        "P7": lambda: writes.small_uploads(bench, size.small),
        "P8": lambda: writes.wide_run(bench, size.wide),
        "P11": lambda: last_value(bench, size),
    }


def last_value(bench: Bench, size: Size) -> None:
    """P11 with its data: it comes last, for its rows would be in the way of the others."""
    frame = many_series(size.last, size.values, 5)
    for name in frame["series_key"].unique():
        bench.client.create_series(name, labels={"set": "last"})
    ids = {one["name"]: one["series_id"] for one in bench.client.list_series(labels={"set": "last"})}
    rows = frame.select(
        pl.col("series_key").cast(pl.String).replace_strict(ids).cast(pl.Categorical).alias("series_id"),
        "valid_time",
        "known_time",
        "value",
    )
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    bench.client.send(UploadCommand(), table.to_reader(max_chunksize=65_536))
    bench.client.compact()
    if bench.peer is not None:
        bench.peer.create("last")
        bench.peer.insert("last", numbered(frame))
        bench.peer.merge("last")
    reads.last_value(bench, frame)


def main() -> None:
    """Run what was asked for; Markdown on stdout, JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument(
        "--only", nargs="*", metavar="P", help="only these targets; the load (P1, P9, P10) is always there"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often a read is timed")
    parser.add_argument("--no-peer", action="store_true", help="leave ClickHouse out")
    parser.add_argument("--json", type=Path, help="where to write the measurements, for benchmarks.compare")
    options = parser.parse_args()
    facts, size = machine(), SIZES[options.size]
    history = History(size.series, size.runs)
    print(f"{history.rows:,} rows", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="timedb-bench-") as folder,
        servers.timedb(Path(folder) / "lake") as served,
        connect(served.flight_url, timeout=600, stream_timeout=3600) as client,
        contextlib.nullcontext() if options.no_peer else contextlib.closing(ClickHouse(Path(folder) / "peer")) as peer,
    ):
        bench = Bench(history, history.frame(), Path(folder), served, client, peer, options.rounds)
        writes.load(bench)
        for targets, operation in operations(bench, size).items():
            if options.only is None or set(options.only) & set(targets.split()):
                operation()
    report, found = bench.report, outcomes(bench.report)
    if options.json:
        result = {
            **facts,
            "rows": history.rows,
            "figures": report.figures,
            "targets": [{**asdict(one), "met": one.met} for one in found],
            "measurements": [{**asdict(one), "median": one.median} for one in report.measurements],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(f"- {name}: {fact}" for name, fact in {**facts, "rows": f"{history.rows:,}"}.items()))
    print("\n| | target | goal | found | |\n|---|---|---|--:|---|")
    print("\n".join(one.to_markdown() for one in found if one.found is not None))
    print(f"\n{report.to_markdown()}\n")
    print("\n".join(f"- {name}: {figure:.2f}" for name, figure in report.figures.items()))


if __name__ == "__main__":
    main()
