"""A server whose lake has gone from under it acknowledges nothing, answers nothing, and says why."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.disk import Disk, Point
from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.contract.errors import Busy, Damaged, InvalidRequest, OutcomeUnknown
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.wire import CreateSeries
from timedb.storage import Lake
from timedb.storage.tables.layout import FORMAT_VERSION

MARKER = "timedb-lake.json"
LOG = f"tenants/{OPEN_TENANT_ID}/values/_delta_log"


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    """A lake with one run."""
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "first")
        yield lake


def commit(version: int) -> str:
    return f"{LOG}/{version:020d}.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def delete(lake_dir: Path) -> None:
    assert Lake.delete(str(lake_dir))


def move_away(lake_dir: Path) -> None:
    lake_dir.rename(lake_dir.with_name("moved"))


def make_anew(lake_dir: Path) -> None:
    delete(lake_dir)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        for run in ("one", "two", "three", "four"):
            upload(open_tenant(lake), some_rows(6), run)


def restore_it_as_it_was(lake_dir: Path) -> None:
    backup = lake_dir.with_name("backup")
    Lake.backup(str(lake_dir), str(backup))
    delete(lake_dir)
    Lake.restore(str(backup), str(lake_dir))


def cut_deletion_short(lake_dir: Path) -> None:
    marker = json.loads((lake_dir / MARKER).read_text())
    (lake_dir / MARKER).write_text(json.dumps({**marker, "deleted_time": "2025-01-01T00:00:00.000000+00:00"}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (delete, "gone from its place"),
        (move_away, "gone from its place"),
        (make_anew, "another lake"),
        (restore_it_as_it_was, "another lake"),
        (cut_deletion_short, "being deleted"),
    ],
)
def test_nothing_is_done_with_another_lake_or_none(
    lake: Lake, lake_dir: Path, change: Callable[[Path], None], reason: str
) -> None:
    tenant = open_tenant(lake)
    key_less = lake.users
    change(lake_dir)
    before = contents(lake_dir)
    calls: list[Callable[[], object]] = [
        lambda: upload(tenant, some_rows(3), "second"),
        lambda: upload(tenant, some_rows(40), "bulk"),
        lambda: tenant.create_series(CreateSeries(name="new"), created_by=None),
        lambda: read(tenant),
        lambda: tenant.status(),
        lambda: tenant.maintain(),
        lambda: lake.tenant("a1b2c3d4-1111-4111-8111-111111111111"),
        lambda: lake.enable_users(),
        lambda: key_less.list_users(),
    ]
    for call in calls:
        with pytest.raises(Busy, match=reason):
            call()
    assert reason in (lake.fault(60.0) or "")
    assert contents(lake_dir) == before


def test_a_lake_that_is_moved_back_goes_on(lake: Lake, lake_dir: Path) -> None:
    tenant = open_tenant(lake)
    move_away(lake_dir)
    with pytest.raises(Busy, match="gone from its place"):
        upload(tenant, some_rows(3), "second")
    lake_dir.with_name("moved").rename(lake_dir)
    upload(tenant, some_rows(3), "second")
    assert Counter(row.run_id for row in read(tenant)) == {"first": 3, "second": 3}
    assert lake.fault(60.0) is None


def test_users_of_another_lake_are_none_of_this_one(lake: Lake, lake_dir: Path) -> None:
    move_away(lake_dir)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other:
        other.enable_users()
    with pytest.raises(Busy, match="another lake"):
        assert lake.has_users
    delete(lake_dir)
    lake_dir.with_name("moved").rename(lake_dir)
    assert not lake.has_users
    upload(open_tenant(lake), some_rows(3), "second")


def test_a_copy_of_an_older_state_is_not_gone_on_with(lake: Lake, lake_dir: Path) -> None:
    tenant, copy = open_tenant(lake), lake_dir.with_name("copy")
    shutil.copytree(lake_dir, copy)
    for run in ("second", "third"):
        upload(tenant, some_rows(3), run)
    move_away(lake_dir)
    copy.rename(lake_dir)
    before = contents(lake_dir)
    for _ in range(2):
        with pytest.raises(Damaged, match="ends at version 1, and was at version 3"):
            upload(tenant, some_rows(3), "fourth")
        with pytest.raises(Damaged, match="ends at version 1, and was at version 3"):
            read(tenant)
    assert contents(lake_dir) == before
    assert "ends at version 1" in (lake.fault(60.0) or "")
    with closing(Lake.open(str(lake_dir), tiny_settings())) as anew:
        upload(open_tenant(anew), some_rows(3), "second")
        assert Counter(row.run_id for row in read(open_tenant(anew))) == {"first": 3, "second": 3}


def test_a_server_that_slept_goes_on_where_the_log_has_got_to(lake_dir: Path) -> None:
    """Its next version's name is free again, as others have cleaned the log: no commit may go there."""
    settings = tiny_settings(log_retention_hours=0, retention_hours=0)
    with closing(Lake.open(str(lake_dir), settings)) as slept, closing(Lake.open(str(lake_dir), settings)) as other:
        upload(open_tenant(slept), some_rows(3), "first")
        for run in range(3):
            upload(open_tenant(other), some_rows(3), f"other/{run}")
            open_tenant(other).maintain()
        assert not (lake_dir / commit(2)).exists()
        upload(open_tenant(slept), some_rows(3), "last")
        expected = Counter({"first": 3, "last": 3, **{f"other/{run}": 3 for run in range(3)}})
        for lake in (slept, other):
            assert Counter(row.run_id for row in read(open_tenant(lake))) == expected
    assert Lake.doctor(str(lake_dir)) == []


@pytest.mark.parametrize("lost", [MARKER, commit(1)])
def test_a_commit_whose_base_goes_while_it_is_written_is_not_acknowledged(
    lake: Lake, lake_dir: Path, lost: str
) -> None:
    def lose(point: Point) -> None:
        if point.name == "link" and point.path.endswith(commit(2)):
            (lake_dir / lost).unlink()

    with Disk(lake_dir, observe=lose).watched(), pytest.raises(OutcomeUnknown):
        upload(open_tenant(lake), some_rows(3), "second")


def test_a_table_whose_log_has_gone_is_not_made_anew(lake: Lake, lake_dir: Path) -> None:
    shutil.rmtree(lake_dir / LOG)
    for call in (read, lambda tenant: upload(tenant, some_rows(3), "second")):
        with pytest.raises(Damaged, match="the table values is damaged: it is missing"):
            call(open_tenant(lake))
    assert not (lake_dir / LOG).exists()


def test_lakes_of_before_have_no_id_and_are_told_apart(lake_dir: Path) -> None:
    def make(created: str) -> None:
        lake_dir.mkdir()
        marker = {"format_version": FORMAT_VERSION, "bucket_digits": "1", "created_time": created}
        (lake_dir / MARKER).write_text(json.dumps(marker))

    make("2025-01-01T00:00:00.000000+00:00")
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "first")
        lake.enable_users()  # writes the marker anew
        upload(open_tenant(lake), some_rows(3), "second")
        delete(lake_dir)
        make("2025-01-02T00:00:00.000000+00:00")
        with pytest.raises(Busy, match="another lake"):
            upload(open_tenant(lake), some_rows(3), "third")


def test_a_deletion_that_was_cut_short_can_be_ended(lake: Lake, lake_dir: Path) -> None:
    cut_deletion_short(lake_dir)
    with pytest.raises(InvalidRequest, match="deleted in part"):
        Lake.open(str(lake_dir), tiny_settings())
    delete(lake_dir)
    assert not lake_dir.exists()


def test_looking_costs_a_stat_and_no_read(lake: Lake, lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, looks, stat = open_tenant(lake), Counter[str](), os.stat

    def counting(path: object, *args: object, **kwargs: object) -> os.stat_result:
        looks[str(path)] += 1
        return stat(path, *args, **kwargs)  # type: ignore[arg-type]

    upload(tenant, some_rows(3), "second")
    disk = Disk(lake_dir)
    monkeypatch.setattr(os, "stat", counting)
    with disk.watched():
        upload(tenant, some_rows(3), "third")
    # The values', the runs' and the series' tables: at each look at one of them, and before and after each commit.
    assert 0 < looks[str(lake_dir / MARKER)] <= 16
    assert [point for point in disk.points if point.path.endswith(MARKER)] == []


@pytest.mark.parametrize("rows", [3, 14], ids=["a small upload", "a bulk upload"])
def test_a_commit_keeps_its_files_although_nobody_can_look_at_the_lake_afterwards(
    lake: Lake, lake_dir: Path, rows: int
) -> None:
    marker, aside = lake_dir / MARKER, lake_dir / "aside"

    def hide(point: Point) -> None:
        if point.name == "link" and point.path.endswith(commit(2)):
            marker.rename(aside)
            marker.symlink_to(marker)  # a circle: that it is there or gone, nobody can say

    tenant = open_tenant(lake)
    with Disk(lake_dir, observe=hide).watched(), pytest.raises(OutcomeUnknown, match="could not be looked at"):
        upload(tenant, some_rows(rows), "second")
    marker.unlink()
    aside.rename(marker)
    assert len(read(tenant)) == 3 + rows, "the commit is in"
    assert upload(tenant, some_rows(rows), "second")["rows"] == rows, "and a retry says so"
