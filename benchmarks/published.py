"""Workloads that others have published figures of, repeated: ``python -m benchmarks.published --json published.json``.

What others published was measured elsewhere, on other machines and by other means, so it is quoted beside ours with its
source and never divided by it. Whoever ran in the same run (ArcticDB, where it is installed) stands in the same table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import servers
from benchmarks.arctic import ArcticDB
from benchmarks.bench import US, Bench, fingerprint
from benchmarks.clients import ROWS, names, uploads_at_once
from benchmarks.history import START, History, flat
from benchmarks.measuring import Measurement, Report, Wrong, machine, measure, measure_in_turn
from benchmarks.run import opened
from timedb.client import connect

__all__ = ["QUOTES", "WORKLOADS", "Quote"]

READ_SIZES = (1, 10, 32, 100, 212, 500, 1000, 3096, 5000, 8192, 10000, 10902, 50000, 92031, 100000, 497210)
POSITIONS = ("oldest", "middle", "newest")
FLAT = ["series_key", "valid_time", "value"]
REVISIONS = [*FLAT, "known_time"]


@dataclass(frozen=True)
class Quote:
    """What somebody published: of which workload, what, and where."""

    workload: str
    figure: str
    source: str


QUOTES = (
    Quote(
        "W1",
        "insert 14.6 to 15 s per 100,000 rows (5,700 to 6,900 rows/s); all 40,000 to 56,000 rows/s",
        "TimeDB with TimescaleDB, Feb 2026, rebase-energy/timedb scripts/benchmark_flat.py; machine not stated",
    ),
    Quote(
        "W1",
        "1 row 0.48 s, 1,000 rows 0.58 s, 10,000 rows 0.82 to 0.87 s, 100,000 rows 2.33 to 2.36 s, 497,210 rows 9.1 to "
        "10.3 s",
        "TimeDB with TimescaleDB, Feb 2026, scripts/benchmark_monte_carlo_queries.py; machine and link not stated",
    ),
    Quote(
        "W2",
        "all versions 34,100 to 35,200 rows/s, latest 30,800 to 31,700 rows/s",
        "TimeDB with TimescaleDB, Feb 2026, scripts/benchmark_overlapping.py; machine and link not stated",
    ),
    Quote(
        "W3",
        "all rows 1,242 ms, 10 % window 184 ms, most recent 125 ms, most recent as of a time 565 ms (19,866 ms before)",
        "timely-beliefs on PostgreSQL, Jul 2026, pull request 237, dev/bench_search_session.py",
    ),
    Quote(
        "W4",
        "1.7 million rows 349 ms on two lanes (556 ms on one), client to ClickHouse, `forecast_write @ 200` 219 ms",
        "TimeDB on ClickHouse, 2026, commits c97260b and 1b61ad2; other machines",
    ),
    Quote("W5", "reads after 1,000 appends are slow by design; a rewrite helps", "ArcticDB, Dec 2024, issue 2093"),
    Quote("W6", "142 of 2,000 commits of ten writers lost", "delta-rs, issue 3736"),
)


def one_long_series(bench: Bench, scale: int) -> None:
    """W1: 14 x 100,000 one-minute rows into one series; then ranges of it, old, middle and new."""
    each = 100_000 // scale
    value = pl.Series("value", np.random.default_rng(1).normal(50, 10, 14 * each).round(2))
    frame = _rows("long-1", START, timedelta(minutes=1), value)
    seconds = [_upload(bench, frame.slice(start, each), START) for start in range(0, 14 * each, each)]
    work = f"insert of {each:,} one-minute rows into one series"
    bench.report.add(Measurement("W1", work, US, seconds, each, checked=True))
    _read(bench, "W1", "read of all", partial(_fetch, bench, series_keys=["long-1"]), frame)
    choice = random.Random(1)
    for size in (size for size in READ_SIZES if size <= 14 * each):
        starts = dict(zip(POSITIONS, (0, choice.randint(0, 14 * each - size), 14 * each - size), strict=True))
        for position, first in starts.items():
            begin = START + timedelta(minutes=first)
            fetch = partial(
                _fetch,
                bench,
                series_keys=["long-1"],
                start_valid=begin,
                end_valid=begin + timedelta(minutes=size),
            )
            _read(bench, "W1", f"read of {size:,} rows, {position}", fetch, frame.slice(first, size))


def few_long_revisions(bench: Bench, scale: int) -> None:
    """W2: 10 revisions of 72,000 hourly rows, known an hour apart; all versions and latest, from each threshold on."""
    each, seconds, frames = 72_000 // scale, [], []
    for revision in range(10):
        value = pl.Series("value", np.random.default_rng(revision).normal(50, 10, each).round(2))
        known = START + timedelta(hours=revision)
        frames.append(_rows("revised-1", START, timedelta(hours=1), value).with_columns(known_time=pl.lit(known)))
        seconds.append(_upload(bench, frames[-1]))
    frame = pl.concat(frames).with_columns(pl.col("known_time").cast(pl.Datetime("us", "UTC")))
    bench.report.add(Measurement("W2", f"insert of a revision of {each:,} rows", US, seconds, each, checked=True))
    for share in (None, 0, 25, 50, 75, 100):
        start = None if share is None else START + timedelta(hours=9) * share / 100
        kept = frame if start is None else frame.filter(pl.col("known_time") >= start)
        said = "no filter" if share is None else f"start_known at {share} %"
        fetch = partial(_fetch, bench, series_keys=["revised-1"], start_known=start)
        _read(bench, "W2", f"all versions, {said}", partial(fetch, view="overlapping"), kept.select(REVISIONS))
        _read(bench, "W2", f"latest, {said}", fetch, flat(kept))


def beliefs(bench: Bench, scale: int) -> None:
    """W3: 500 events x 100 horizons x 2 sources, as in timely-beliefs' benchmark; a source is a series."""
    events, horizons = 500 // scale, 100 // scale
    index = pl.DataFrame({"event": range(events)}).join(pl.DataFrame({"horizon": range(horizons)}), how="cross")
    index = index.join(pl.DataFrame({"series_key": ["belief-0", "belief-1"]}), how="cross")
    event_start = pl.lit(START) + pl.duration(minutes=15 * pl.col("event"))
    frame = index.select(
        pl.col("series_key").cast(pl.Categorical),
        event_start.dt.cast_time_unit("us").alias("valid_time"),
        (event_start - pl.duration(hours="horizon")).dt.cast_time_unit("us").alias("known_time"),
        (pl.col("event") + pl.col("horizon")).cast(pl.Float64).alias("value"),
    ).sort("known_time")
    bench.report.add(
        Measurement("W3", "insert of all beliefs", US, [_upload(bench, frame)], frame.height, checked=True)
    )
    window = START + timedelta(minutes=15 * (events // 10))
    before = START - timedelta(hours=horizons // 2)
    fetch = partial(_fetch, bench, series_keys=["belief-0", "belief-1"])
    everything = partial(fetch, view="overlapping")
    _read(bench, "W3", "all rows", everything, frame.select(REVISIONS))
    _read(
        bench,
        "W3",
        "10 % window, all rows",
        partial(everything, end_valid=window),
        frame.filter(pl.col("valid_time") < window).select(REVISIONS),
    )
    _read(bench, "W3", "most recent", fetch, flat(frame))
    known = flat(frame.filter(pl.col("known_time") < before))
    _read(bench, "W3", "most recent as known at a time", partial(fetch, end_known=before), known)


def many_short_series(bench: Bench, scale: int) -> None:
    """W4: one run of 6,000 series x 288 values; 1, 30, 300, 1,500 and all series of it, flat and overlapping."""
    count, values = 6_000 // scale, 288 // scale
    series = [f"short-{number:05}" for number in range(count)]
    index = np.arange(count * values)
    frame = pl.DataFrame({"index": index, "number": index // values}).select(
        pl.Series("series_key", series, pl.Categorical).gather(index // values),
        (pl.lit(START) + pl.duration(minutes=15 * (pl.col("index") % values)))
        .dt.cast_time_unit("us")
        .alias("valid_time"),
        pl.lit(START, pl.Datetime("us", "UTC")).alias("known_time"),
        pl.Series("value", np.random.default_rng(4).normal(50, 10, count * values).round(2)),
    )
    seconds = [_upload(bench, frame)]
    bench.report.add(
        Measurement("W4", f"insert of {count:,} series x {values}", US, seconds, frame.height, checked=True)
    )
    for part in sorted({min(size, count) for size in (1, 30, 300, 1_500, 6_000)}):
        fetch, kept = partial(_fetch, bench, series_keys=series[:part]), frame.head(part * values)
        _read(bench, "W4", f"{part:,} series, latest", fetch, kept.select(FLAT))
        _read(bench, "W4", f"{part:,} series, overlapping", partial(fetch, view="overlapping"), kept.select(REVISIONS))


def small_appends(bench: Bench, scale: int) -> None:
    """W5: 1,000 small appends to one series, then a read of it, as it stands and after a compaction."""
    count = 1_000 // scale
    frame = _rows("appended-1", START, timedelta(hours=1), pl.Series("value", np.arange(float(ROWS * count))))
    frame = frame.with_columns(known_time=pl.lit(START, pl.Datetime("us", "UTC")))
    append = f"append of {ROWS} rows, {count:,} times"
    parts = [frame.slice(start, ROWS) for start in range(0, frame.height, ROWS)]
    seconds = [_upload(bench, part) for part in parts]
    bench.report.add(Measurement("W5", append, US, seconds, ROWS, checked=True))
    fetch = partial(_fetch, bench, series_keys=["appended-1"])
    _read(bench, "W5", "read of it all", fetch, frame.select(FLAT))
    bench.client.compact()
    _read(bench, "W5", "read of it all, compacted", fetch, frame.select(FLAT))
    if (arctic := bench.arctic) is not None:
        arctic.give("appended", frame)
        appended = partial(measure, times=count, warm=0, rows=ROWS)
        bench.report.add(appended("W5", append, arctic.name, lambda: arctic.append("appended", ROWS)))
        bench.report.add(
            measure(
                "W5",
                "read of it all",
                arctic.name,
                lambda: arctic.read("appended"),
                check=lambda _: (
                    fingerprint(arctic.answer("appended").drop("known_time")) == fingerprint(frame.select(FLAT))
                ),
                rows=frame.height,
            )
        )


def ten_writers(bench: Bench, scale: int) -> None:
    """W6: ten writers x 200 commits at once; none may be lost."""
    each = 200 // scale
    seconds = uploads_at_once("timedb", bench.served.flight_url, "writer", 0, clients=10, uploads=each)
    found = bench.fetch(view="overlapping", series_keys=names("writer", 10), columns=["value"]).num_rows
    if found != (wanted := 10 * (each + 1) * ROWS):
        raise Wrong(f"W6: {found} rows of {wanted}")
    work = f"ten writers at once, {each} commits each, none lost"
    bench.report.add(Measurement("W6", work, US, [seconds], 10 * each * ROWS, checked=True))
    bench.report.figures["W6 commits a second of ten writers, TimeDB"] = 10 * each / seconds


WORKLOADS: dict[str, Callable[[Bench, int], None]] = {
    "W1": one_long_series,
    "W2": few_long_revisions,
    "W3": beliefs,
    "W4": many_short_series,
    "W5": small_appends,
    "W6": ten_writers,
}


def _rows(series: str, start: datetime, step: timedelta, value: pl.Series) -> pl.DataFrame:
    times = pl.datetime_range(start, start + step * (len(value) - 1), step, time_unit="us", eager=True)
    names = pl.Series("series_key", [series], pl.Categorical).gather(np.zeros(len(value), np.uint32))
    return pl.DataFrame({"series_key": names, "valid_time": times, "value": value})


def _upload(bench: Bench, frame: pl.DataFrame, known_time: datetime | None = None) -> float:
    """Seconds of one upload."""
    taken = measure("", "", US, lambda: bench.client.upload(frame, known_time=known_time).rows, times=1, warm=0)
    return taken.seconds[0]


def _fetch(bench: Bench, **fields: Any) -> Any:
    columns = REVISIONS if fields.get("view") == "overlapping" else FLAT
    return bench.fetch(columns=columns, **{name: value for name, value in fields.items() if value is not None})


def _read(bench: Bench, target: str, work: str, fetch: Callable[[], Any], truth: pl.DataFrame) -> None:
    wanted = fingerprint(truth)
    found = measure_in_turn(
        target,
        work,
        {US: fetch},
        checks={US: lambda answer: fingerprint(pl.DataFrame(answer)) == wanted},
        times=bench.rounds,
        rows=truth.height,
        server=bench.served.pid,
    )
    bench.report.add(found[US])


def run(scale: int, rounds: int, only: Sequence[str] | None, peers: bool) -> Report:
    """The workloads, each on a lake of its own; sizes are divided by ``scale``."""
    report = Report()
    for target, workload in WORKLOADS.items():
        if only is not None and target not in only:
            continue
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timedb-bench-")))
            served = stack.enter_context(servers.timedb(folder / "lake"))
            client = stack.enter_context(connect(served.flight_url, timeout=600, stream_timeout=3600))
            bench = Bench(History(0, 0), pl.DataFrame(), folder, served, client, rounds=rounds, report=report)
            if peers and target == "W5":
                bench.arctic = stack.enter_context(opened(report, "arcticdb", partial(ArcticDB, folder)))
            workload(bench, scale)
    return report


def main() -> None:
    """Run what was asked for; Markdown on stdout, JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="divide the sizes by it, to try it out")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=5, help="how often a read is timed")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    facts = machine("benchmarks.published")
    report = run(options.scale, options.rounds, options.only, not options.no_peer)
    if options.json:
        result = {**facts, "quotes": [asdict(quote) for quote in QUOTES], **report.to_json()}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{report.to_markdown()}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
