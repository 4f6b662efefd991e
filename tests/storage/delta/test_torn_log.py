"""A log that was damaged on the disk: the lake refuses to serve half of it, and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.lakes import (
    Stored,
    open_tenant,
    read,
    some_rows,
    tenant_folder,
    tiny_settings,
    unstamped,
    upload,
)
from tests.storage.operations import copy_lake
from timedb.contract.errors import Damaged, TimeDBError
from timedb.storage import Lake

DOCTOR = "run timedb doctor"
HINT = "_last_checkpoint"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with three runs, a checkpoint in between."""
    folder = tmp_path_factory.mktemp("sound") / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(5), "first")
        tenant.maintain()
        upload(tenant, some_rows(5, known=1), "second")
        upload(tenant, some_rows(6, series=("new", "south"), known=2), "third")
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy_lake(sound, tmp_path / "lake")
    return tmp_path / "lake"


def log_of(folder: Path, table: str = "values") -> Path:
    """The log of a table."""
    return tenant_folder(folder) / table / "_delta_log"


def commits(folder: Path, table: str = "values") -> list[Path]:
    """The commits of a table, oldest first."""
    return sorted(log_of(folder, table).glob("*.json"))


def rows_of(folder: Path) -> list[Stored]:
    """Every version of everything."""
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        return read(open_tenant(lake))


def refuses(folder: Path) -> Iterator[TimeDBError]:
    """The errors of a read and of an upload, each by a lake of its own."""
    for work in (lambda tenant: read(tenant), lambda tenant: upload(tenant, some_rows(2, known=9), "later")):
        with pytest.raises(Damaged) as caught, closing(Lake.open(str(folder), tiny_settings())) as lake:
            work(open_tenant(lake))
        yield caught.value


@pytest.mark.parametrize("torn", [b"", b"\n", b"{", b'{"add":', b"\x00" * 512], ids=repr)
def test_a_last_commit_that_is_empty_or_torn(folder: Path, torn: bytes) -> None:
    commits(folder)[-1].write_bytes(torn)
    for error in refuses(folder):
        assert DOCTOR in error.detail
        assert str(int(commits(folder)[-1].stem)) in error.detail


def test_a_last_commit_cut_anywhere(folder: Path) -> None:
    last = commits(folder)[-1]
    whole = last.read_bytes()
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        expected = read(open_tenant(lake))
    cuts = {*range(0, len(whole) - 1, 211), *(position for position, byte in enumerate(whole) if byte == ord("\n"))}
    cuts |= {cut + 1 for cut in cuts}
    for cut in sorted(cuts - {len(whole) - 1, len(whole)}):
        last.write_bytes(whole[:cut])
        with pytest.raises(Damaged, match=DOCTOR):
            rows_of(folder)
    last.write_bytes(whole)
    assert unstamped(rows_of(folder)) == unstamped(expected)


@pytest.mark.parametrize("table", ["series", "runs"])
def test_a_torn_commit_of_another_table(folder: Path, table: str) -> None:
    last = commits(folder, table)[-1]
    last.write_bytes(last.read_bytes()[:-20])
    with closing(Lake.open(str(folder), tiny_settings())) as lake, pytest.raises(Damaged, match=DOCTOR):
        upload(open_tenant(lake), some_rows(2, known=9), "later")


def test_a_lake_that_is_open_stops_too(folder: Path) -> None:
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        read(tenant)
        following = commits(folder)[-1]
        following = following.with_name(f"{int(following.stem) + 1:020d}.json")
        following.touch()
        with pytest.raises(Damaged, match=DOCTOR):
            read(tenant)
        with pytest.raises(Damaged, match=DOCTOR):
            upload(tenant, some_rows(2, known=9), "later")
        following.unlink()
        upload(tenant, some_rows(2, known=9), "later")
        assert len(read(tenant)) == 18


def test_a_commit_is_missing_amid_the_log(folder: Path) -> None:
    commits(folder)[-2].unlink()
    for error in refuses(folder):
        assert DOCTOR in error.detail


def garbage(log: Path) -> None:
    """A hint that is no JSON."""
    (log / HINT).write_bytes(b"\xff\xfenonsense")


def nowhere(log: Path) -> None:
    """A hint to a checkpoint that does not exist."""
    (log / HINT).write_text('{"version":999,"size":3}')


def empty(log: Path) -> None:
    """A hint without a byte."""
    (log / HINT).write_bytes(b"")


def none(log: Path) -> None:
    """No hint at all."""
    (log / HINT).unlink()


@pytest.mark.parametrize("damage", [garbage, nowhere, empty, none])
def test_a_bad_hint_hides_nothing(folder: Path, damage: Damage) -> None:
    expected = rows_of(folder)
    damage(log_of(folder))
    assert unstamped(rows_of(folder)) == unstamped(expected)


@pytest.mark.parametrize("size", [0, 4, 1000], ids=["empty", "torn", "cut short"])
def test_the_log_stands_in_for_a_bad_checkpoint(folder: Path, size: int) -> None:
    expected = rows_of(folder)
    (checkpoint,) = log_of(folder).glob("*.checkpoint*")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:size])
    assert unstamped(rows_of(folder)) == unstamped(expected)
    with closing(Lake.open(str(folder), tiny_settings(log_retention_hours=0, retention_hours=0))) as lake:
        upload(open_tenant(lake), some_rows(2, known=9), "later")
        open_tenant(lake).maintain()
        assert len(read(open_tenant(lake))) == len(expected) + 2
        assert commits(folder)[0].stem.endswith("0"), "nothing is cleaned that the bad checkpoint would need"


@pytest.mark.parametrize("size", [0, 4, 1000], ids=["empty", "torn", "cut short"])
def test_a_bad_checkpoint_without_the_commits_before_it(folder: Path, size: int) -> None:
    (checkpoint,) = log_of(folder).glob("*.checkpoint*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    commits(folder)[0].unlink()
    for error in refuses(folder):
        assert DOCTOR in error.detail


def test_a_data_file_is_missing(folder: Path) -> None:
    for victim in (tenant_folder(folder) / "values").glob("series_bucket=*/tier=fresh/*.parquet"):
        victim.unlink()
    with closing(Lake.open(str(folder), tiny_settings())) as lake, pytest.raises(Damaged):
        read(open_tenant(lake))
