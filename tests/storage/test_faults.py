"""Nothing is lost and nothing doubled whatever file operation fails, and wherever the process dies.

Here some points of each operation are tried; ``TIMEDB_TEST_CAMPAIGN=1`` tries them all, kills a process at every
single one, and prints the table (``make campaign``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage import Lake
from tests.storage.campaign import Tally, Trial, dying, failing, killing
from tests.storage.disk import Disk, Fault, Kind
from tests.storage.lakes import open_tenant
from tests.storage.operations import Operation, copy_lake, operations
from timedb.errors import OutcomeUnknown

ALL = bool(os.environ.get("TIMEDB_TEST_CAMPAIGN"))  # read before the tests' environment is cleared
OPERATIONS = operations()
# How many points of each operation are tried where not all are.
FEW: dict[Kind, int] = {"eio": 1, "late": 1, "doubt": 1, "enospc": 1, "short": 1, "broken": 1}
DEATHS = 2
KILLED = {"small upload": 40, "bulk upload": 50, "compaction": 25, "checkpoint": 30}


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[Tally]]:
    """The campaign's table; printed at the end of a whole one."""
    lines: list[Tally] = []
    yield lines
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if ALL and terminal is not None:
        terminal.ensure_newline()
        for tally in lines:
            terminal.write_line(tally.line())


def judge(tally: Tally, table: list[Tally]) -> None:
    """Nothing lost, nothing doubled, no disagreement between any two of the lake's readers."""
    table.append(tally)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert (tally.lost, tally.doubled) == (0, 0)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.timeout(7200 if ALL else 120)
def test_the_disk_fails_and_the_process_dies(operation: Operation, tmp_path: Path, table: list[Tally]) -> None:
    trial = Trial(operation, tmp_path)
    points = trial.points()
    shift = OPERATIONS.index(operation)
    tallies = [failing(trial, kind, points, None if ALL else few, shift=3 * shift) for kind, few in FEW.items()]
    tallies += [
        dying(trial, points, None if ALL else DEATHS, power_cut=power_cut, shift=shift) for power_cut in (False, True)
    ]
    for tally in tallies:
        assert tally.tried > 0 or tally.fault == "short"
        judge(tally, table)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.timeout(7200 if ALL else 120)
def test_kill_9(operation: Operation, tmp_path: Path, table: list[Tally]) -> None:
    if not ALL and operation.name not in KILLED:
        pytest.skip("only in the whole campaign: every child process takes a second to start")
    tally = killing(Trial(operation, tmp_path), itertools.count(1) if ALL else [KILLED[operation.name]])
    assert tally.tried > 0
    judge(tally, table)


@pytest.mark.parametrize(
    ("name", "table", "who"),
    [
        ("small upload", "values", "another lake"),
        ("bulk upload", "values", "the same lake"),
        ("correction", "values", "another lake"),
        ("small upload", "series", "the same lake"),
        ("series creation", "series", "the same lake"),
        ("series change", "series", "another lake"),
    ],
)
def test_what_a_retry_acknowledges_is_durable(name: str, table: str, who: str, tmp_path: Path) -> None:
    """The disk breaks between a commit and its fsync, so the outcome is unknown; a retry answers; the power goes."""
    trial = Trial(next(one for one in OPERATIONS if one.name == name), tmp_path)
    operation, folder, image = trial.operation, tmp_path / "lake", tmp_path / "image"
    commit = next(
        point.number for point in trial.points() if point.name == "link" and f"/{table}/_delta_log/" in point.path
    )
    copy_lake(tmp_path / "template", folder)
    with closing(Lake.open(str(folder), operation.lake_settings())) as lake:
        tenant = open_tenant(lake)
        with Disk(folder, fault=Fault("broken", commit + 1)).watched() as disk:
            with pytest.raises(OutcomeUnknown):
                operation.run(tenant)
            disk.repair()
            if who == "the same lake":
                operation.run(tenant)
            else:
                with closing(Lake.open(str(folder), operation.lake_settings())) as other:
                    operation.run(open_tenant(other))
            with disk.still():
                disk.power_cut(folder, image)
    verdict = trial.examine(image, "acked")
    assert not verdict.problems, "\n".join(verdict.problems)
