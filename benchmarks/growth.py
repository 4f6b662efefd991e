"""How the cost of each operation grows: ``python -m benchmarks.growth --json growth.json``.

Lakes are filled along one axis at a time, at 1, 10 and 100 times a base of 10 series with 10 runs of 48 hourly
values: more series, more runs (hence longer histories), more uploads that wait uncompacted (files). On each lake
every operation of fixed size is measured, the server being a process of its own that has nothing else to do. The
exponent is the slope of the straight line through the logarithms of cost and size: 0 is constant, 1 is proportional.

From these, :func:`projection` works out a year of 10,000 series with 96 runs a day; its method is in its docstring.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from benchmarks import servers
from benchmarks.history import HORIZON, START, small_upload
from benchmarks.measuring import cpu_seconds, machine, peak_mib, reset_peak
from timedb.client import Client, connect

__all__ = ["AXES", "exponents", "growth", "projection"]

AXES = ("series", "revisions", "files")
NEVER = 10**9  # no compaction but those asked for
BUCKETS, FRESH_FILES, FILE_ROWS = 16, 24, 2_000_000  # a lake's and the server's defaults
COLUMNS = ["series_key", "valid_time", "value"]


@dataclass(frozen=True)
class Plan:
    """The base of a lake, the factors, the rows of a bulk upload, and how often a small operation is timed."""

    series: int = 10
    runs: int = 10
    files: int = 10
    factors: tuple[int, ...] = (1, 10, 100)
    bulk_rows: int = 48_000
    times: int = 15


TINY = Plan(series=2, runs=2, files=2, factors=(1, 2), bulk_rows=96, times=2)


@dataclass
class Point:
    """One lake: where it stands, and the cost of each operation, in the unit that its name says."""

    axis: str
    factor: int
    series: int
    runs: int
    files: int
    costs: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def runs_of(series: int, first: int, count: int, name: str = "grown") -> pl.DataFrame:
    """Upload columns of runs of 48 hourly values, a run every two hours."""
    run = np.repeat(np.arange(first, first + count), series * HORIZON)
    number = np.tile(np.repeat(np.arange(series), HORIZON), count)
    hour = np.tile(np.arange(HORIZON), series * count)
    keys = pl.Series("series_key", [f"{name}-{index:05}" for index in range(series)], pl.Categorical)
    known = pl.lit(START) + pl.duration(hours=2 * pl.col("run"))
    return pl.DataFrame({"run": run, "hour": hour, "series_key": keys.gather(number)}).select(
        "series_key",
        (known + pl.duration(hours="hour")).dt.cast_time_unit("us").alias("valid_time"),
        known.dt.cast_time_unit("us").alias("known_time"),
        pl.Series("value", np.random.default_rng(first).normal(100, 15, len(run)).round(2)),
    )


def measure_point(point: Point, plan: Plan) -> None:
    """Fill a lake, measure every operation on it, then open it anew."""
    with tempfile.TemporaryDirectory(prefix="timedb-bench-") as folder:
        lake = Path(folder) / "lake"
        settings = {"compact_fresh_files": NEVER, "compact_fresh_rows": NEVER}
        with (
            servers.timedb(lake, **settings) as served,
            connect(served.flight_url, timeout=600, stream_timeout=3600) as client,
        ):
            _fill(client, served.pid, point)
            _operations(client, served.pid, point, plan)
            point.figures["log bytes"] = sum(path.stat().st_size for path in lake.glob("tenants/*/*/_delta_log/*"))
            point.figures["commits"] = len(list(lake.glob("tenants/*/values/_delta_log/*.json")))
        start = time.perf_counter()
        with servers.timedb(lake) as served, connect(served.flight_url) as client:
            client.status()
            point.costs["open of the lake, s"] = time.perf_counter() - start


def _fill(client: Client, pid: int, point: Point) -> None:
    frame = runs_of(point.series, 0, point.runs)
    client.upload(frame)
    before, started = cpu_seconds(pid), time.perf_counter()
    client.compact()
    point.costs["compaction of the history, us a row"] = 1e6 * (time.perf_counter() - started) / frame.height
    point.figures["compaction CPU, us a row"] = _cpu_since(before, pid, frame.height)
    status = client.status()
    point.figures |= {"rows": status["rows"], "bytes": status["bytes"], "files": status["files"]}
    point.figures["current rows"] = status["tiers"]["current"]["rows"]
    for number in range(point.files):
        client.upload(small_upload(f"waiting-{number % 10}", number))


def _operations(client: Client, pid: int, point: Point, plan: Plan) -> None:
    reset_peak(pid)
    name = f"grown-{point.series // 2:05}"
    number = iter(range(NEVER))
    small = partial(_timed, plan.times)
    costs = point.costs
    costs["small upload, s"] = small(lambda: client.upload(small_upload("small", next(number))))
    costs["flat of one series, s"] = small(lambda: client.read_arrow(series_keys=[name], columns=COLUMNS))
    costs["overlapping of one series, s"] = small(
        lambda: client.read_arrow(view="overlapping", series_keys=[name], columns=COLUMNS)
    )
    costs["list series, s"] = small(client.list_series)
    few = partial(_timed, max(2, plan.times // 5))
    costs["flat of all, s"] = few(lambda: client.read_arrow(columns=COLUMNS))
    costs["latest of all, s"] = few(lambda: client.read_arrow(view="latest", columns=COLUMNS))
    client.compact()  # what waited, so that the compaction below is of the bulk upload alone
    runs = max(1, plan.bulk_rows // (point.series * HORIZON))
    bulk = runs_of(point.series, point.runs, runs).head(plan.bulk_rows)
    started = time.perf_counter()
    client.upload(bulk)
    costs["bulk upload, us a row"] = 1e6 * (time.perf_counter() - started) / bulk.height
    before, started = cpu_seconds(pid), time.perf_counter()
    client.compact()
    costs["compaction of a bulk upload, us a row"] = 1e6 * (time.perf_counter() - started) / bulk.height
    point.figures["bulk compaction CPU, us a row"] = _cpu_since(before, pid, bulk.height)
    if (peak := peak_mib(pid)) is not None:
        costs["peak memory of the server, MiB"] = peak


def _timed(times: int, do: Callable[[], object]) -> float:
    seconds = []
    do()
    for _ in range(times):
        start = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _cpu_since(before: float | None, pid: int, rows: int) -> float:
    after = cpu_seconds(pid)
    return math.nan if before is None or after is None else 1e6 * (after - before) / rows


def growth(plan: Plan) -> list[Point]:
    """Every axis at every factor."""
    points = []
    for axis in AXES:
        for factor in plan.factors:
            grown = {name: factor if name == axis else 1 for name in AXES}
            series, runs = plan.series * grown["series"], plan.runs * grown["revisions"]
            point = Point(axis, factor, series, runs, plan.files * grown["files"])
            measure_point(point, plan)
            points.append(point)
            print(f"  {axis} x {factor}: {point.costs}", file=sys.stderr)
    return points


def exponents(points: list[Point]) -> dict[str, dict[str, float]]:
    """By operation and axis the exponent of growth, by least squares on the logarithms."""
    found: dict[str, dict[str, float]] = {}
    for operation in points[0].costs:
        for axis in AXES:
            mine = [point for point in points if point.axis == axis and operation in point.costs]
            sizes = np.log([point.factor for point in mine])
            costs = np.log([max(point.costs[operation], 1e-9) for point in mine])
            found.setdefault(operation, {})[axis] = float(np.polyfit(sizes, costs, 1)[0]) if len(mine) > 1 else math.nan
    return found


def projection(points: list[Point], *, series: int = 10_000, runs_a_day: int = 96, days: int = 365) -> dict[str, Any]:
    """What a year would take, computed and not measured.

    A run is one upload with 48 hourly values of every series, so most values are revised 191 times.

    - Rows: series x runs x 48. Bytes: those, by the bytes a row of the longest history measured.
    - Files: rows by ``compact_file_rows`` (2,000,000), and up to ``compact_fresh_files`` (24) fresh ones in each of 16
      buckets. Each run writes at most one file a bucket, which compaction replaces.
    - Log: one commit of values and one of runs for each run; each bucket is compacted once per 24 runs, a commit each.
      Bytes of it by the bytes a commit measured where uploads were many; ``log_retention_hours`` (720) keep 30 days.
    - Compaction: the processor time a row of the compaction of the largest lake, for each row that it writes. Those
      are the fresh ones, 24 runs of a bucket at a time, and the current ones that meet them in time, at most a file of
      2,000,000; fewer until the bucket has as many, which is soon.
    - Memory: the peak of the largest lake in series, grown by the exponent of series to 10,000 and by that of revisions
      to a year's (neither below 0).
    """
    runs = runs_a_day * days
    rows = series * runs * HORIZON
    longest = max((point for point in points if point.axis == "revisions"), key=lambda point: point.factor)
    widest = max((point for point in points if point.axis == "series"), key=lambda point: point.factor)
    busiest = max((point for point in points if point.axis == "files"), key=lambda point: point.factor)
    slopes = exponents(points)
    commits = runs + runs / FRESH_FILES * BUCKETS
    winners = series * (days * 24 + HORIZON) / BUCKETS
    written = 1 + min(FILE_ROWS, winners) / (FRESH_FILES * series * HORIZON / BUCKETS)
    cpu = widest.figures["compaction CPU, us a row"] * written
    memory = widest.costs.get("peak memory of the server, MiB", math.nan)
    memory *= (series / widest.series) ** max(0.0, slopes.get("peak memory of the server, MiB", {}).get("series", 0.0))
    memory *= (runs / widest.runs) ** max(0.0, slopes.get("peak memory of the server, MiB", {}).get("revisions", 0.0))
    log = (commits + runs) * busiest.figures["log bytes"] / busiest.figures["commits"] / 1e6
    return {
        "rows": rows,
        "GB of live files": rows * longest.figures["bytes"] / longest.figures["rows"] / 1e9,
        "live files after a compaction": math.ceil(rows / FILE_ROWS),
        "fresh files waiting, at most": FRESH_FILES * BUCKETS,
        "commits of values": round(commits),
        "log written, MB": log,
        "log kept, MB": log * 30 / days,
        "rows that compaction writes for each new one": written,
        "compaction, CPU hours": rows * cpu / 1e6 / 3600,
        "compaction, share of one core": rows * cpu / 1e6 / (days * 86_400),
        "peak memory, MiB": memory,
    }


def main() -> None:
    """Measure; JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small base and factors 1 and 2, to try it out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    facts = machine("benchmarks.growth")
    points = growth(TINY if options.tiny else Plan())
    method = "\n".join(line.removeprefix("    ") for line in str(projection.__doc__).splitlines()).strip()
    found = {"exponents": exponents(points), "projection": projection(points), "method": method}
    result = {**facts, "points": [vars(point) for point in points], **found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
