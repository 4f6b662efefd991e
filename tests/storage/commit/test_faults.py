"""Nothing is lost and nothing doubled whatever file operation fails, and wherever the process dies.

Here some points of each operation are tried, kinds of faults in turn; ``make campaign`` tries them all and kills a
process at every file operation that changes anything.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from tests.storage.campaign import Trial, dying, failing, killing
from tests.storage.disk import Disk, Fault, Kind
from tests.storage.lakes import open_tenant
from tests.storage.operations import Operation, copy_lake, operations
from tests.storage.results import ALL, Tally, record, stands
from timedb.contract.errors import OutcomeUnknown
from timedb.storage import Lake

OPERATIONS = operations()
FAULTS: list[Kind] = [kind for kind in get_args(Kind) if kind != "kill"]
# Where not all points are tried: every how many kinds of fault an operation gets one, and where a process is killed.
EVERY = 3
KILLED = {"bulk upload": 40}
LIMIT = 10_000 if ALL else 120


def judge(tally: Tally) -> None:
    """Nothing lost, nothing doubled, no disagreement between any two of the lake's readers."""
    record(tally)
    assert tally.tried > 0
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.clean


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.timeout(LIMIT)
def test_the_disk_fails_and_the_process_dies(operation: Operation, tmp_path: Path) -> None:
    shift = OPERATIONS.index(operation)
    trial = Trial(operation, tmp_path)
    points = trial.points()
    for kind in FAULTS if ALL else FAULTS[shift % EVERY :: EVERY]:
        if not stands(operation.name, kind):
            judge(failing(trial, kind, points, None if ALL else 1, shift=3 * shift))
    for power_cut in (False, True) if ALL else (shift % 2 == 0,):
        if not stands(operation.name, "power cut" if power_cut else "death"):
            judge(dying(trial, points, None if ALL else 1, power_cut=power_cut, shift=shift))


def test_a_file_that_is_made_although_the_disk_says_it_failed_is_removed(tmp_path: Path) -> None:
    """Whichever file of an upload it is, of those that are written piece by piece."""
    trial = Trial(next(one for one in OPERATIONS if one.name == "small upload"), tmp_path)
    points = [point for point in trial.points() if point.name == "create" and point.path.endswith(".parquet")]
    assert len(points) > 1
    judge(failing(trial, "late", points, len(points)))


@pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if ALL or one.name in KILLED],
    ids=lambda operation: operation.name,
)
@pytest.mark.timeout(LIMIT)
def test_kill_9(operation: Operation, tmp_path: Path) -> None:
    if stands(operation.name, "kill -9"):
        return
    trial = Trial(operation, tmp_path)
    if ALL:
        points = trial.points()
        # A death before a read leaves what one before the next change does.
        tally = killing(trial, [point.number for point in points if point.name != "read"], points)
    else:
        tally = killing(trial, [KILLED[operation.name]])
    judge(tally)


@pytest.mark.parametrize(
    ("name", "table", "who"),
    [
        ("small upload", "values", "another lake"),
        ("bulk upload", "values", "the same lake"),
        ("correction", "values", "another lake"),
        ("small upload", "series", "the same lake"),
        ("series creation", "series", "the same lake"),
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
