"""Opening, making and deleting lakes, and the tenants in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.disk import Disk, Fault
from tests.storage.lakes import SERIES, open_tenant, read, scan_delta, some_rows, tiny_settings, unstamped, upload
from tests.storage.model import Model
from tests.storage.operations import write_history
from timedb.contract.errors import Internal, InvalidRequest, NotFound, TimeDBError
from timedb.contract.identity import OPEN_TENANT_ID, series_bucket, series_id_for
from timedb.contract.wire import ListSeries
from timedb.storage import Lake
from timedb.storage.admin.upgrade import Step
from timedb.storage.delta.store import Store
from timedb.storage.tables.layout import FORMAT_VERSION

MARKER = "timedb-lake.json"
EMPTY = [".timedb-known", MARKER]
"""What lies in a lake that nobody has written to."""
OTHER_TENANT = "a1b2c3d4-1111-4111-8111-111111111111"


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_new_lake_and_an_old_one(lake_dir: Path) -> None:
    with pytest.raises(NotFound, match="there is no lake"):
        Lake.open(str(lake_dir), tiny_settings(), create=False)
    assert not lake_dir.exists()
    Lake.open(str(lake_dir), tiny_settings()).close()
    Lake.open(str(lake_dir), tiny_settings(), create=False).close()
    assert json.loads((lake_dir / MARKER).read_text())["format_version"] == FORMAT_VERSION == 2


def test_made_by_many_at_once(lake_dir: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        lakes = list(pool.map(lambda _: Lake.open(str(lake_dir), tiny_settings()), range(8)))
        receipts = list(
            pool.map(lambda one: upload(open_tenant(one[1]), some_rows(3), f"run-{one[0]}"), enumerate(lakes))
        )
    assert len({receipt["change_time"] for receipt in receipts}) == 8
    for lake in lakes:
        assert len(read(open_tenant(lake))) == 24
        lake.close()
    assert not list(lake_dir.rglob(".aside-*"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format_version": "x", "bucket_digits": 1}', b"\xff"], ids=repr
)
def test_a_marker_that_is_none(lake_dir: Path, content: bytes) -> None:
    lake_dir.mkdir()
    (lake_dir / MARKER).write_bytes(content)
    with pytest.raises(TimeDBError):
        Lake.open(str(lake_dir), tiny_settings())


def test_a_newer_format(lake_dir: Path) -> None:
    lake_dir.mkdir()
    (lake_dir / MARKER).write_text('{"format_version": 99, "bucket_digits": 1}')
    with pytest.raises(InvalidRequest, match="format version 99"):
        Lake.open(str(lake_dir), tiny_settings())


def test_an_older_format_is_lifted_step_by_step(lake_dir: Path) -> None:
    old, current = FORMAT_VERSION, FORMAT_VERSION + 2
    steps: dict[int, Step] = {old + 1: lambda store: store.replace("made-up", store.read("made-up") + b", then this")}
    with pytest.raises(NotFound, match="there is no lake"):
        Lake.upgrade(str(lake_dir))
    Lake.open(str(lake_dir), tiny_settings()).close()
    before = json.loads((lake_dir / MARKER).read_text())
    assert Lake.upgrade(str(lake_dir)) == {"from": old, "to": old, "tables": 0}

    with pytest.raises(InvalidRequest, match=f"format version {old} cannot be lifted"):
        Lake.upgrade(str(lake_dir), newest=current, steps=steps)
    assert json.loads((lake_dir / MARKER).read_text()) == before

    steps[old] = lambda store: store.replace("made-up", b"first this")
    assert Lake.upgrade(str(lake_dir), newest=current, steps=steps) == {"from": old, "to": current, "tables": 0}
    assert (lake_dir / "made-up").read_text() == "first this, then this"
    assert json.loads((lake_dir / MARKER).read_text()) == {**before, "format_version": current}
    with pytest.raises(InvalidRequest, match=f"format version {current}"):
        Lake.upgrade(str(lake_dir))


def test_an_upgrade_goes_on_where_it_was_stopped(lake_dir: Path) -> None:
    taken: list[int] = []
    old = FORMAT_VERSION

    def stopped(store: Store) -> None:
        taken.append(2)
        raise OSError("stopped")

    Lake.open(str(lake_dir), tiny_settings()).close()
    with pytest.raises(Internal):
        Lake.upgrade(str(lake_dir), newest=old + 2, steps={old: lambda store: taken.append(1), old + 1: stopped})
    Lake.upgrade(str(lake_dir), newest=old + 2, steps={old + 1: lambda store: taken.append(2)})
    assert taken == [1, 2, 2]


def test_a_lake_that_must_be_lifted_is_not_opened(lake_dir: Path) -> None:
    lake_dir.mkdir()
    (lake_dir / MARKER).write_text('{"format_version": 0, "bucket_digits": 1}')
    with pytest.raises(InvalidRequest, match="timedb upgrade"):
        Lake.open(str(lake_dir), tiny_settings())


def test_a_file_where_the_lake_should_be(lake_dir: Path) -> None:
    lake_dir.write_text("mine")
    for folder in (lake_dir, lake_dir / "below"):
        with pytest.raises(TimeDBError):
            Lake.open(str(folder), tiny_settings())
    assert lake_dir.read_text() == "mine"


def test_a_folder_of_something_else(lake_dir: Path) -> None:
    lake_dir.mkdir()
    (lake_dir / "mine").write_text("keep")
    with pytest.raises(InvalidRequest, match="holds something else"):
        Lake.open(str(lake_dir), tiny_settings())
    with pytest.raises(InvalidRequest, match="holds something else"):
        Lake.delete(str(lake_dir))
    assert (lake_dir / "mine").read_text() == "keep"


def test_a_lake_is_made_neither_inside_another_nor_around_it(lake_dir: Path, tmp_path: Path) -> None:
    outer, inner = lake_dir, lake_dir / "deep" / "lake"
    Lake.open(str(outer), tiny_settings()).close()
    (tmp_path / "link").symlink_to(outer)
    for place in (inner, outer / "tenants", tmp_path / "link" / "lake", tmp_path / "other" / ".." / "lake" / "inner"):
        with pytest.raises(InvalidRequest, match=r"^lake: .* lies inside the lake at .*; use that lake"):
            Lake.open(str(place), tiny_settings())
    assert names(outer) == EMPTY
    around = tmp_path / "around"
    Lake.open(str(around / "deep" / "lake"), tiny_settings()).close()
    with pytest.raises(InvalidRequest, match=r"^lake: .* holds the one at .*deep/lake', .*; use that one"):
        Lake.open(str(around), tiny_settings())
    assert [path.name for path in around.iterdir()] == ["deep"]
    Lake.open(str(around / "deep" / "beside"), tiny_settings()).close()


def test_no_backup_is_made_or_restored_inside_a_lake(lake_dir: Path, tmp_path: Path) -> None:
    other, backup = tmp_path / "other", tmp_path / "backup"
    for lake in (lake_dir, other):
        Lake.open(str(lake), tiny_settings()).close()
    Lake.backup(str(lake_dir), str(backup))
    works: tuple[Callable[[], object], ...] = (
        lambda: Lake.backup(str(lake_dir), str(other / "backup")),
        lambda: Lake.restore(str(backup), str(other / "lake")),
    )
    for work in works:
        with pytest.raises(InvalidRequest, match=r"^target: .* lies inside the lake at"):
            work()
    assert names(other) == EMPTY


def test_what_a_process_that_died_has_left_is_nothing_else(lake_dir: Path) -> None:
    lake_dir.mkdir()
    (lake_dir / ".aside-0123").write_bytes(b'{"format_')
    Lake.open(str(lake_dir), tiny_settings()).close()


def test_deleting(lake_dir: Path) -> None:
    assert not Lake.delete(str(lake_dir))
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "run")
    (lake_dir / "mine").write_text("keep")
    assert Lake.delete(str(lake_dir))
    assert [path.name for path in lake_dir.iterdir()] == ["mine"]
    (lake_dir / "mine").unlink()
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        assert read(open_tenant(lake)) == []
    assert Lake.delete(str(lake_dir))


@pytest.mark.parametrize("work", [Lake.delete, Lake.doctor, Lake.upgrade])
def test_a_disk_that_fails_is_an_error_of_ours(lake_dir: Path, work: Callable[[str], object]) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "run")
    with Disk(lake_dir, fault=Fault("broken", 1)).watched(), pytest.raises(Internal):
        work(str(lake_dir))
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        assert len(read(open_tenant(lake))) == 3


def test_tenants_do_not_see_each_other(lake: Lake) -> None:
    one, other = open_tenant(lake), lake.tenant(OTHER_TENANT)
    upload(one, some_rows(3), "run")
    assert (read(other), other.list_series(ListSeries())) == ([], [])
    upload(other, some_rows(6, value=100.0), "run")
    assert len(read(one)) == 3
    assert len(read(other)) == 6
    own, others = ({series["series_id"] for series in tenant.list_series(ListSeries())} for tenant in (one, other))
    assert len(own) == len(others) == 3
    assert not own & others
    with pytest.raises(NotFound):
        read(other, series_ids=sorted(own))


def test_a_tenant_has_one_name(lake: Lake) -> None:
    assert lake.tenant(OTHER_TENANT.upper()) is lake.tenant(OTHER_TENANT)


@pytest.mark.parametrize("name", ["", "..", "../../etc", "nobody"], ids=repr)
def test_what_is_no_tenant(lake: Lake, lake_dir: Path, name: str) -> None:
    with pytest.raises(TimeDBError):
        lake.tenant(name)
    assert names(lake_dir) == EMPTY


@pytest.mark.parametrize("digits", ["2", "full"])
def test_buckets_of_any_size_answer_the_same(lake_dir: Path, digits: str) -> None:
    settings = tiny_settings(bucket_digits=digits)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        write_history(open_tenant(lake))
        audit, model = read(open_tenant(lake)), Model()
        model.rows = audit
        for _ in range(2):
            for view in ("flat", "overlapping"):
                assert Counter(read(open_tenant(lake), view, all_versions=False)) == Counter(model.answer(view))
            assert unstamped(scan_delta(lake_dir)) == unstamped(audit)
            open_tenant(lake).maintain()
    width = None if digits == "full" else int(digits)
    expected = {series_bucket(series_id_for(OPEN_TENANT_ID, name, None), width) for name in SERIES}
    folders = (lake_dir / "tenants" / OPEN_TENANT_ID / "values").glob("series_bucket=*")
    assert {path.name.partition("=")[2] for path in folders} == expected | {"mixed"}
    with closing(Lake.open(str(lake_dir), tiny_settings(), create=False)) as lake:
        assert unstamped(read(open_tenant(lake))) == unstamped(audit), "the lake's own width counts, not the setting"
