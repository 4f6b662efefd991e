"""Each fault that a disk can do to a lake is found, and mended where nothing acknowledged is lost by it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import Stored, open_tenant, read, scan_table, some_rows, tenant_folder, tiny_settings, upload
from tests.storage.operations import copy_lake
from timedb.contract.wire import ListRuns
from timedb.storage import Lake
from timedb.storage.admin.table_doctor import TableDoctor
from timedb.storage.delta.store import LocalStore

Damage = Callable[[Path], Path]
"""Does something to a lake's folder; the file that it is about."""


@pytest.fixture(scope="module")
def sound(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with checkpoints and a commit after them; to be copied."""
    folder = tmp_path_factory.mktemp("sound") / "lake"
    copy_lake(history, folder)
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        open_tenant(lake).maintain()
        upload(open_tenant(lake), some_rows(6, known=80), "last")
    return folder


@pytest.fixture
def folder(sound: Path, lake_dir: Path) -> Path:
    """A copy of it."""
    copy_lake(sound, lake_dir)
    return lake_dir


def rows_of(folder: Path) -> Counter[Stored]:
    """Every version of everything; all readers agree, and every run has its row."""
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        assert list(disagreements(tenant, folder)) == []
        return Counter(read(tenant))


@pytest.fixture(scope="module")
def before(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter[Stored]:
    """The rows of the sound lake."""
    folder = tmp_path_factory.mktemp("before") / "lake"
    copy_lake(sound, folder)
    assert found(folder) == []
    return rows_of(folder)


def found(folder: Path, *, repair: bool = False, accept_loss: bool = False) -> list[tuple[str, bool]]:
    """What the doctor says: each fault, and whether it is mended."""
    findings = Lake.doctor(str(folder), repair=repair, accept_loss=accept_loss)
    return [(finding["fault"], finding["repaired"]) for finding in findings if not finding["notice"]]


def log(folder: Path, table: str = "values") -> Path:
    return tenant_folder(folder) / table / "_delta_log"


def next_commit(content: bytes) -> Damage:
    """A commit that was being written when the power went."""

    def damage(folder: Path) -> Path:
        last = max(log(folder).glob("*.json"))
        path = last.with_name(f"{int(last.stem) + 1:020d}.json")
        path.write_bytes(content)
        return path

    return damage


def torn_checkpoint(folder: Path) -> Path:
    path = max(log(folder).glob("*.checkpoint.parquet"))
    os.truncate(path, path.stat().st_size // 2)
    return path


def hint_to_nowhere(folder: Path) -> Path:
    (log(folder) / "_last_checkpoint").write_text('{"version":999,"size":3}')
    return log(folder) / "_last_checkpoint"


def old_orphan(folder: Path) -> Path:
    data = next((tenant_folder(folder) / "values").glob("series_bucket=*/tier=*/*.parquet"))
    path = data.with_name("upload-nobody.parquet")
    path.write_bytes(data.read_bytes())
    os.utime(path, (0, 0))
    return path


def left_aside(folder: Path) -> Path:
    path = log(folder) / ".aside-left"
    path.write_text("half")
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (torn_checkpoint, "bad checkpoint"),
        (hint_to_nowhere, "bad checkpoint hint"),
        (old_orphan, "orphan file"),
        (left_aside, "orphan file"),
    ],
)
def test_what_can_be_mended_without_loss(folder: Path, before: Counter[Stored], damage: Damage, fault: str) -> None:
    path = damage(folder)
    content = path.read_bytes()

    assert (fault, False) in found(folder)
    assert path.read_bytes() == content, "nothing is touched unless it is asked for"
    assert (fault, True) in found(folder, repair=True)
    assert not path.exists()
    assert found(folder) == []
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        assert Counter(read(open_tenant(lake))) == before
        upload(open_tenant(lake), some_rows(3, known=90), "afterwards")
    assert sum(rows_of(folder).values()) == sum(before.values()) + 3


@pytest.mark.parametrize("content", [b"", b'{"commitInfo":{}}\n{"add":{"path'])
def test_a_torn_commit_goes_only_when_its_loss_is_accepted(
    folder: Path, before: Counter[Stored], content: bytes
) -> None:
    """It may have been whole, and acknowledged, before."""
    path = next_commit(content)(folder)
    assert ("torn commit", False) in found(folder, repair=True)
    assert path.exists()
    assert found(folder, repair=True, accept_loss=True) == [("torn commit", True)]
    assert not path.exists()
    assert found(folder) == []
    assert rows_of(folder) == before


def test_a_run_without_a_row_is_written_from_the_log(folder: Path, before: Counter[Stored]) -> None:
    max(log(folder, "runs").glob("*.json")).unlink()
    assert found(folder) == [("log cut short", False)]
    assert found(folder, repair=True) == [("log cut short", True)]
    assert found(folder) == []
    assert "last" in scan_table(folder, "runs")["run_id"].to_list()
    assert rows_of(folder) == before
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        assert "last" in {run["run_id"] for run in open_tenant(lake).list_runs(ListRuns())}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_lost_rows_go_only_when_the_loss_is_accepted(folder: Path, before: Counter[Stored], damage: str) -> None:
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        live = open_tenant(lake).values.snapshot().files
    victim = next(tenant_folder(folder) / "values" / path for path in live if "tier=fresh" in path)
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(b"x" * victim.stat().st_size)
    fault = f"{damage} data file"

    assert found(folder, repair=True) == [(fault, False)]
    assert found(folder, repair=True, accept_loss=True) == [(fault, True)]
    assert found(folder) == []
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        left = Counter(read(open_tenant(lake)))
    assert left < before
    assert {row.run_id for row in before - left} == {"last"}


@pytest.mark.parametrize("kind", ["gap in the log", "torn commit"])
def test_what_needs_a_backup_is_left_as_it_is(folder: Path, before: Counter[Stored], kind: str) -> None:
    commits = sorted(log(folder).glob("*.json"))
    if kind == "gap in the log":
        commits[2].unlink()
    else:
        commits[2].write_bytes(b"")
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    said: list[Any] = Lake.doctor(str(folder), repair=True)
    assert (kind, False) in [(finding["fault"], finding["repaired"]) for finding in said]
    assert all("restore a backup" in finding["cure"] for finding in said if finding["fault"] == kind)
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == files
    assert rows_of(folder) == before, "a newer checkpoint has what the log has lost"


def test_a_file_that_may_be_on_its_way_in_is_left_alone(folder: Path) -> None:
    path = old_orphan(folder)
    os.utime(path)
    assert found(folder, repair=True) == []
    assert path.exists()
    assert left_behind(folder) != []


def test_what_a_server_commits_meanwhile_is_no_orphan(folder: Path, before: Counter[Stored]) -> None:
    """An upload may have staged its files more than an hour before it commits them under the doctor's eyes."""
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        (log(folder) / "_last_checkpoint").write_text('{"version":999,"size":3}')
        lost = next(tenant_folder(folder) / "values" / path for path in tenant.values.snapshot().files)
        lost.rename(lost.with_name("lost"))
        findings = TableDoctor("values", LocalStore(tenant_folder(folder) / "values"), repair=True).examine()
        assert {next(findings).fault, next(findings).fault} == {"bad checkpoint hint", "missing data file"}
        upload(tenant, some_rows(6, known=90), "meanwhile")
        for path in (tenant_folder(folder) / "values").rglob("*.parquet"):
            os.utime(path, (0, 0))
        assert [finding.fault for finding in findings if finding.fault == "orphan file"] == []
        lost.with_name("lost").rename(lost)
    assert sum(rows_of(folder).values()) == sum(before.values()) + 6


def test_lakes_in_each_other_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    for name in ("outer", "aside"):
        Lake.open(str(tmp_path / name), tiny_settings()).close()
    (tmp_path / "aside").rename(inner)
    for folder, other in ((outer, inner), (inner, outer)):
        (finding,) = Lake.doctor(str(folder))
        assert (finding["fault"], finding["repaired"]) == ("lake inside another", False)
        assert str(other) in finding["cure"]
        with closing(Lake.open(str(folder), tiny_settings())) as lake:
            lake.announce("here")
        assert str(other) in caplog.messages[-1]
    inner.rename(tmp_path / "aside")
    assert found(outer) == []
