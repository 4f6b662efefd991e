"""A soak: writers, readers and clients that leave, all at once against ``timedb serve``, every answer checked.

The suite runs a short form. ``make soak-service SOAK_MINUTES=10`` runs it for as long as it says, holds the server's
memory, threads and file descriptors to be flat after a warm-up, and prints a table.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

import timedb as td
from tests.flight_server.flights import eventually
from tests.soak.leaving import Leaver
from tests.soak.ledger import COLUMNS, Auditor, Ledger, comparable, difference
from tests.soak.reading import WANTED, Reader
from tests.soak.sampling import FIGURES, Sampler, Trend, kinds_of
from tests.soak.work import Work, Worker
from tests.soak.writing import BulkWriter, Upkeep, Writer

MINUTES = float(os.environ.get("TIMEDB_TEST_SOAK_MINUTES") or 0)  # read before the tests' environment is cleared
LONG = MINUTES >= 2
SECONDS = 60 * MINUTES if MINUTES else 6.0
SAMPLE_SECONDS = 3.0 if LONG else 0.5
WARM_UP = 0.3
IDLE_SECONDS = 20.0 if LONG else 2.0

# What the line through the samples after the warm-up may grow by, until the end. The lake grows meanwhile, and with it
# what the server knows of its files; tokio keeps the threads of its busiest moment for ten seconds.
MAX_GROWTH = {"rss_mib": 64.0, "threads": 16.0, "fds": 6.0, "children": 1.0}
# How many more than before the first worker may be left once all have gone: pools and pollers that start late.
MAX_LEFT = {"fds": 16, "sockets": 8}

# Much happens in little time: compaction, checkpoints, files of their own; and a stalled client soon loses its place.
SETTINGS = {
    "BULK_ROWS": 10_000,
    "UPLOAD_CHUNK_ROWS": 8_000,
    "COMPACT_FRESH_FILES": 8,
    "COMPACT_FRESH_ROWS": 60_000,
    "MAINTENANCE_SECONDS": 0.5,
    "CHECKPOINT_COMMITS": 40,
    "MAX_IDLE_SECONDS": 2.0,
    "READ_CACHE_BYTES": 32 << 20,
    "SHUTDOWN_SECONDS": 10,
    "LOG_LEVEL": "warning",
}


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """``timedb serve`` in a process of its own, and its log."""
    log = folder / "log"
    environment = {f"TIMEDB_{name}": str(value) for name, value in SETTINGS.items()}
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(folder / "lake")]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--flight-port", "0", "--rest-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        yield server, log
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


def urls_in(log: Path) -> dict[str, str]:
    """Where the service says that it listens."""
    text = log.read_text(errors="replace")
    found = {kind: re.search(rf"{kind}://[\d.]+:\d+", text) for kind in ("grpc", "http")}
    return {kind: match[0] for kind, match in found.items() if match}


@pytest.mark.filterwarnings("ignore:run .* was in already:UserWarning")
def test_every_answer_is_right_and_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path) as (server, log):
        eventually(lambda: len(urls_in(log)) == 2, 60)
        work = Work(urls_in(log)["grpc"], urls_in(log)["http"])
        warm(work)
        sampler = Sampler(server.pid, tmp_path / "lake", SAMPLE_SECONDS)
        before = sampler.sample()
        sampler.start()
        run(work)
        sampler.stop()
        audit(work)
        left = what_is_left(sampler, before)
        kinds = kinds_of(server.pid)
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    trends = {name: sampler.trend(name, WARM_UP * SECONDS) for name in FIGURES}
    if MINUTES:
        (tmp_path / "samples.json").write_text(json.dumps(sampler.samples))
        with capsys.disabled():
            print(f"\n{report(work, trends, before, left)}\n\nAt the end: {kinds}")
    assert not work.wrong, "\n".join(work.wrong[:20])
    assert code == 0, log.read_text()[-3000:]
    said = log.read_text()
    assert "Traceback" not in said, said[-5000:]
    assert sum(work.done.values()) > (1000 if LONG else 30)
    for name, most in MAX_LEFT.items():
        assert left[name] <= before[name] + most, f"{name} left: {before[name]} -> {left[name]}"
    if LONG:
        for name, growth in MAX_GROWTH.items():
            assert trends[name].growth <= growth, f"{name} grew: {trends[name]}"


def warm(work: Work) -> None:
    """Have the server start what it starts once: the process of queries, the pools of threads."""
    reader = Reader(work, 999, 1.0)
    with td.connect(work.flight_url) as client:
        client.upload(
            pl.DataFrame({"series_key": ["warm"], "valid_time": [0], "value": [1.0]}).with_columns(
                pl.col("valid_time").cast(pl.Datetime("us", "UTC"))
            )
        )
        client.read(series_keys="warm")
    with reader.sql.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM flat")
        assert cursor.fetchall() == [(1,)]
    reader.http.get("/values").raise_for_status()
    reader.client.close()
    reader.leave()


def run(work: Work) -> None:
    """All workers at once, for the time that there is."""
    pace = 1.0 if LONG else 0.3
    workers: list[Worker] = [
        *(Writer(work, seed, 0.4 * pace) for seed in range(3)),
        BulkWriter(work, 1, 5.0 * pace),
        Upkeep(work, 1, 4.0 * pace),
        Leaver(work, 1, 0.6 * pace, stall_seconds=2.5),
        Leaver(work, 2, 0.6 * pace, stall_seconds=2.5),
        *(Reader(work, seed, 0.3 * pace) for seed in range(4)),
    ]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and len(work.wrong) < 50:
        time.sleep(0.2)
    work.stop()
    for worker in workers:
        worker.join(60)
        if worker.is_alive():
            work.fault(f"{worker.name} hangs")


def audit(work: Work) -> None:
    """At the end every acknowledged row is there once, and nothing else: by the server and in the tables themselves."""
    auditor = Auditor()
    with td.connect(work.flight_url) as client:
        for ledger in [*work.ledgers, *([work.bulk] if work.bulk else [])]:
            for view in ("overlapping", "flat"):
                found = client.read(
                    view=view, series_ids=ledger.ids, all_versions=view == "overlapping", columns=WANTED
                )
                _compare(work, auditor, ledger, found, view)
        gone = [one["name"] for one in client.list_series() if one["name"].startswith("gone-")]
        if gone:
            work.fault(f"series of uploads that never ended are there: {gone[:5]}")


def _compare(work: Work, auditor: Auditor, ledger: Ledger, found: pl.DataFrame, view: str) -> None:
    all_versions = view == "overlapping"
    truth = auditor.answer(ledger.rows(), ledger.ids, view=view, all_versions=all_versions, as_of=None)
    fault = difference(comparable(found, COLUMNS), truth)
    if fault is not None:
        work.fault(f"at the end, {view}: {fault}")


def what_is_left(sampler: Sampler, before: dict[str, float]) -> dict[str, float]:
    """What the server still holds once all clients have gone and it has had a moment to notice."""
    deadline = time.monotonic() + IDLE_SECONDS
    left = sampler.sample()
    while time.monotonic() < deadline and any(left[name] > before[name] for name in MAX_LEFT):
        time.sleep(0.2)
        left = sampler.sample()
    return left


def report(work: Work, trends: dict[str, Trend], before: dict[str, float], left: dict[str, float]) -> str:
    """The table."""
    lines = [f"{SECONDS / 60:g} minutes, {sum(work.done.values())} operations, wrong answers: {len(work.wrong)}", ""]
    lines += ["| operation | done | busy | p50 ms | p99 ms |", "|---|--:|--:|--:|--:|"]
    for name in sorted(work.done):
        taken = sorted(work.seconds[name])
        median, last = statistics.median(taken), taken[math.ceil(0.99 * (len(taken) - 1))]
        lines.append(f"| {name} | {work.done[name]} | {work.busy[name]} | {1e3 * median:.0f} | {1e3 * last:.0f} |")
    rows = {len(ledger.rows()) for ledger in work.ledgers}
    lines += [
        "",
        f"Rows of the writers: {sorted(rows)}, of the bulk writer: {len(work.bulk.rows()) if work.bulk else 0}",
    ]
    lines += ["", "| | before | mean | low | high | slope a minute | growth after warm-up | left at the end |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, trend in trends.items():
        lines.append(
            f"| {name} | {before[name]:.0f} | {trend.mean:.1f} | {trend.low:.0f} | {trend.high:.0f} "
            f"| {trend.per_minute:+.2f} | {trend.growth:+.1f} | {left[name]:.0f} |"
        )
    return "\n".join(lines)
