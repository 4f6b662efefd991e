"""Measures the service beside its peers and the raw limits of what it is made of, in one run on one machine.

    make bench
    python -m benchmarks.run --size medium --json result.json
    python -m benchmarks.run --only P2 P3 --no-peer

Data is seeded, contestants take turns, every answer is checked after the clock has stopped. The service runs in a
process of its own, as users run it; its peak memory is the kernel's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from benchmarks import reads, servers, writes
from benchmarks.arctic import ArcticDB
from benchmarks.bench import Bench
from benchmarks.clickhouse import ClickHouse
from benchmarks.duckdb_parquet import DuckDB
from benchmarks.history import History, many_series
from benchmarks.measuring import Report, machine
from benchmarks.peers import Missing, Peer, numbered
from benchmarks.postgres import PostgreSQL
from benchmarks.small_writes import small_writes
from benchmarks.targets import outcomes
from timedb.client import connect
from timedb.contract.wire import UploadCommand

__all__ = ["add_peer_options", "opened"]

PEERS: dict[str, Callable[[Path], Peer]] = {"clickhouse": ClickHouse, "duckdb": DuckDB}
OTHERS = ("arcticdb", "postgres")
Made = TypeVar("Made", Peer, ArcticDB, PostgreSQL)


@dataclass(frozen=True)
class Size:
    """How much of the data: the history's series and runs of 48 values, small uploads of one client, of how many
    at once and of each of them, the series of a wide run, series and values of the last-value read, rows over REST,
    small uploads in a long row, corrections in one call."""

    series: int
    runs: int
    small: int
    clients: int
    each: int
    wide: int
    last: int
    values: int
    rest: int
    row: int
    corrections: int


SIZES = {
    "tiny": Size(
        series=4, runs=6, small=10, clients=2, each=2, wide=5, last=7, values=10, rest=50, row=40, corrections=100
    ),
    "small": Size(
        series=100,
        runs=250,
        small=200,
        clients=32,
        each=16,
        wide=1000,
        last=1000,
        values=200,
        rest=20_000,
        row=4000,
        corrections=100_000,
    ),
    "medium": Size(
        series=100,
        runs=4380,
        small=1000,
        clients=32,
        each=32,
        wide=6000,
        last=4000,
        values=2000,
        rest=100_000,
        row=100_000,
        corrections=100_000,
    ),
}


def operations(bench: Bench, size: Size) -> dict[str, Callable[[], None]]:
    """Every operation under the targets that it measures; those that read come after the load."""
    return {
        "P2 P3 P5": lambda: reads.whole_history(bench),
        "P4": lambda: reads.one_series(bench),
        "P12": lambda: reads.rest_rows(bench, size.rest),
        "P6": lambda: reads.flat_under_uploads(bench),
        "P7": lambda: small_uploads(bench, size),
        "P7a P7b P7d P13": lambda: small_writes(
            bench, clients=size.clients, each=size.each, row=size.row, corrections=size.corrections
        ),
        "P8": lambda: writes.wide_run(bench, size.wide),
        "P11": lambda: last_value(bench, size),
    }


def small_uploads(bench: Bench, size: Size) -> None:
    """P7, both halves."""
    writes.small_uploads(bench, size.small)
    writes.many_clients(bench, size.clients, size.each, min(3, bench.rounds))


def last_value(bench: Bench, size: Size) -> None:
    """P11 with its data: it comes last, for its rows would be in the way of the others."""
    frame = many_series(size.last, size.values, 5)
    labels = pl.lit('{"set":"last"}').cast(pl.Categorical).alias("labels")
    table = frame.with_columns(labels).to_arrow(compat_level=pl.CompatLevel.oldest())
    bench.client.send(UploadCommand(), table.to_reader(max_chunksize=65_536))  # makes the series
    del table
    bench.client.compact()
    given = numbered(frame)
    for peer in bench.peers:
        peer.create("last")
        peer.insert("last", given)
        peer.merge("last")
    reads.last_value(bench, frame)


@contextlib.contextmanager
def opened(report: Report, name: str, make: Callable[[], Made]) -> Iterator[Made | None]:
    """A peer, said in the report how it is configured; None, and said why, where it is not installed."""
    try:
        peer = make()
    except Missing as missing:
        report.peers[name] = f"left out: {missing}"
        print(f"  {name} is left out: {missing}", file=sys.stderr)
        yield None
        return
    report.peers[peer.name] = peer.how
    with contextlib.closing(peer):
        yield peer


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose peers."""
    parser.add_argument("--peers", nargs="*", choices=[*PEERS, *OTHERS], help="only these peers; all by default")
    parser.add_argument("--no-peer", dest="peers", action="store_const", const=[], help="leave all peers out")


def run(options: argparse.Namespace, size: Size) -> Bench:
    """All that was asked for."""
    history, report = History(size.series, size.runs), Report()
    wanted = [*PEERS, *OTHERS] if options.peers is None else options.peers
    print(f"{history.rows:,} rows", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timedb-bench-")))

        def peer(name: str, make: Callable[[], Made]) -> Made | None:
            return stack.enter_context(opened(report, name, make)) if name in wanted else None

        peers = [peer(name, partial(make, folder)) for name, make in PEERS.items()]
        arctic, postgres = peer("arcticdb", lambda: ArcticDB(folder)), peer("postgres", PostgreSQL)
        served = stack.enter_context(servers.timedb(folder / "lake"))
        client = stack.enter_context(connect(served.flight_url, timeout=600, stream_timeout=3600))
        bench = Bench(history, history.frame(), folder, served, client, rounds=options.rounds, report=report)
        bench.peers = [found for found in peers if found is not None]
        bench.arctic, bench.postgres = arctic, postgres
        writes.load(bench)
        for targets, operation in operations(bench, size).items():
            if options.only is None or set(options.only) & set(targets.split()):
                operation()
    return bench


def main() -> None:
    """Run what was asked for; Markdown on stdout, JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument(
        "--only", nargs="*", metavar="P", help="only these targets; the load (P1, P9, P10) is always there"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often a read is timed")
    add_peer_options(parser)
    parser.add_argument("--json", type=Path, help="where to write the measurements, for benchmarks.compare and .report")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that servers and folders go too
    facts: dict[str, Any] = machine("benchmarks.run")
    bench = run(options, SIZES[options.size])
    report, found, facts["rows"] = bench.report, outcomes(bench.report), bench.history.rows
    if options.json:
        targets = [{**asdict(one), "met": one.met} for one in found]
        options.json.write_text(json.dumps({**facts, "targets": targets, **report.to_json()}, indent=1) + "\n")
    print("\n".join(f"- {name}: {fact}" for name, fact in facts.items()))
    print("\n| | target | goal | found | |\n|---|---|---|--:|---|")
    print("\n".join(one.to_markdown() for one in found if one.found is not None))
    print(f"\n{report.to_markdown()}\n")
    print("\n".join(f"- {name}: {figure:.2f}" for name, figure in report.figures.items()))


if __name__ == "__main__":
    main()
