"""Several server processes on one lake: nothing lost, one order of change_times, one row a series, steady answers.

``make campaign`` runs ten processes with 200 commits each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

import pytest

from tests.storage.inspection import disagreements
from tests.storage.lakes import (
    Stored,
    difference,
    open_tenant,
    read,
    scan_table,
    tenant_folder,
    tiny_settings,
    unstamped,
)
from tests.storage.model import Model
from tests.storage.results import ALL, Tally, record
from tests.storage.writer_child import ROWS, SHARED, disputed_unit, rows_of
from timedb.contract.errors import TimeDBError
from timedb.contract.times import parse_time, to_micros
from timedb.contract.wire import ListSeries
from timedb.storage import Lake
from timedb.storage.delta.log import DeltaLog
from timedb.storage.delta.store import LocalStore

WRITERS, RUNS = (10, 200) if ALL else (3, 8)
ROOT = Path(__file__).parents[3]
NAMES = [f"writer-{number}" for number in range(WRITERS)]


class Child:
    """A process that speaks in lines of JSON; what it has acknowledged can be looked at while it runs."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.writer_child", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()

    def wait_ready(self) -> None:
        """Wait until it has opened the lake."""
        while not self.lines:
            assert self._process.poll() is None
            time.sleep(0.01)

    def go(self) -> None:
        """Let it begin."""
        self._pipe(self._process.stdin).write("go\n")
        self._pipe(self._process.stdin).flush()

    def finish(self) -> None:
        """Wait for its end; a compactor stops when nobody writes to it any more."""
        self._pipe(self._process.stdin).close()
        self._listener.join()
        assert self._process.wait() == 0

    def acknowledged(self) -> list[dict[str, Any]]:
        """The runs that it has been told are in, by a process that is well."""
        assert not self._process.poll(), "the process failed"
        return [line for line in list(self.lines) if "run_id" in line]

    def _listen(self) -> None:
        for line in self._pipe(self._process.stdout):
            self.lines.append(json.loads(line))

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


class Reader(threading.Thread):
    """Reads all the while and checks every answer for what must be there and what may."""

    def __init__(self, folder: Path, writers: list[Child]) -> None:
        super().__init__()
        self.answers = 0
        self.faults: list[str] = []
        self._folder = folder
        self._writers = writers
        self._done = threading.Event()

    def run(self) -> None:
        """Read, check, until told to stop."""
        with closing(Lake.open(str(self._folder), tiny_settings())) as lake:
            tenant = open_tenant(lake)
            while not self._done.is_set():
                known = {line["run_id"] for writer in self._writers for line in writer.acknowledged()}
                try:
                    audit = read(tenant)
                    flat = read(tenant, "flat", all_versions=False)
                except TimeDBError as error:
                    self.faults.append(f"a read failed: {error!r}")
                    return
                self.answers += 1
                self._check(known, audit, flat)
                self._done.wait(0.02)

    def stop(self) -> None:
        """Have it stop."""
        self._done.set()
        self.join()

    def _check(self, acknowledged: set[str], audit: list[Stored], flat: list[Stored]) -> None:
        rows = Counter(row.run_id for row in audit)
        if missing := acknowledged - rows.keys():
            self.faults.append(f"acknowledged runs are not there: {sorted(missing)[:5]}")
        if odd := {run_id: count for run_id, count in rows.items() if count != ROWS}:
            self.faults.append(f"runs in part or more than once: {odd}")
        if len({row.point for row in flat}) != len(flat):
            self.faults.append("two winners of one point")
        last: dict[str, int] = defaultdict(lambda: -1)
        seen: dict[str, set[int]] = defaultdict(set)
        for name, _, number in (run_id.partition("/") for run_id in rows):
            last[name] = max(last[name], int(number))
            seen[name].add(int(number))
        if any(seen[name] != set(range(number + 1)) for name, number in last.items()):
            self.faults.append("a later run of a writer is there, an earlier one is not")


@pytest.mark.timeout(3600 if ALL else 120)
def test_processes_that_write_compact_and_read_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake, ExitStack() as children:
        writers = [children.enter_context(Child(str(folder), name, str(RUNS))) for name in NAMES]
        compactor = children.enter_context(Child(str(folder), "compactor"))
        for child in (*writers, compactor):
            child.wait_ready()
        reader = Reader(folder, writers)
        reader.start()
        for child in (*writers, compactor):
            child.go()
        compacted, tenant = 0, open_tenant(lake)
        while any(len(writer.acknowledged()) < RUNS // 2 for writer in writers) and not reader.faults:
            compacted += tenant.compact()["buckets"]  # a second compactor, in another process than the first
            time.sleep(0.02)
        for writer in writers:
            writer.finish()
        compactor.finish()
        compacted += tenant.compact()["buckets"]
        reader.stop()

        assert reader.faults == []
        assert reader.answers >= 3
        assert compacted > 0
        assert compactor.lines[-1]["buckets"] > 0
        audit = read(tenant)
        problems = list(disagreements(tenant, folder))
        record(tally(writers, audit, problems))
        assert problems == []
        check_rows(folder, writers, audit)
        check_series(folder, lake, writers)


def expected_rows() -> list[Stored]:
    """What all writers together write."""
    return [
        row for name in NAMES for run in range(RUNS) for row in Model().upload(f"{name}/{run}", rows_of(name, run), 0)
    ]


def tally(writers: list[Child], audit: list[Stored], problems: list[str]) -> Tally:
    """The line of the campaign's table."""
    lost, doubled = difference(expected_rows(), audit)
    acked = sum(len(writer.acknowledged()) for writer in writers)
    what, races = f"{WRITERS} writing processes, 2 compactors, 1 reader", f"races of {RUNS} commits each"
    return Tally(what, races, acked, Counter(acked=acked), lost.total(), doubled.total(), problems)


def check_rows(folder: Path, writers: list[Child], audit: list[Stored]) -> None:
    """Every row once, stamped in the order of the commits."""
    assert unstamped(audit) == unstamped(expected_rows())
    stamps = [to_micros(parse_time(line["change_time"])) for writer in writers for line in writer.acknowledged()]
    assert len(stamps) == len(set(stamps)) == WRITERS * RUNS
    for writer in writers:
        own = [line["change_time"] for line in writer.acknowledged()]
        assert own == sorted(own)
    log = DeltaLog(LocalStore(tenant_folder(folder) / "values"))
    committed = [run["change_time"] for commit in log.commits_after(-1) for run in commit.info.get("uploads", ())]
    assert committed == sorted(committed)
    assert sorted(to_micros(parse_time(text)) for text in committed) == sorted(stamps)


def check_series(folder: Path, lake: Lake, writers: list[Child]) -> None:
    """Each series once, however many made it at the same time; of those who disputed a unit one has won."""
    names = [*NAMES, *SHARED, *(f"auto-{run}" for run in range(RUNS)), "disputed"]
    assert sorted(scan_table(folder, "series")["name"]) == sorted(names)
    units = {one["name"]: one["unit"] for one in open_tenant(lake).list_series(ListSeries())}
    assert {units[name] for name in SHARED} == {"MW"}
    refused = [line["conflict"] for writer in writers for line in writer.lines if "conflict" in line]
    (won,) = {name for name in NAMES if disputed_unit(name) == units["disputed"]}
    assert sorted([*refused, won]) == NAMES
