"""Where a lake may lie: what readers of Delta tables would look for elsewhere is refused, the rest works for all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

import timedb as td
from tests.storage.lakes import open_tenant, read, some_rows, tenant_folder, tiny_settings, upload
from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import local_path
from timedb.storage import Lake
from timedb.storage.delta.object_store import ObjectStore

READABLE = ["q?x", "h#y", "with space", "trailing ", "å", "st*r", "br[a]ck", "quo'te", "a&b=c,d", "{semi};:$~"]
UNREADABLE = ["a%20b", "100%", "new\nline", "tab\there", "\x7f", "back\\slash", "\udc80"]


@pytest.mark.parametrize("name", ["".join(READABLE)])
def test_other_characters_work_for_every_reader(tmp_path: Path, name: str) -> None:
    lake = tmp_path / name / "lake"
    for address in (str(lake), f"file://{lake}", f"file://localhost{lake}"):
        with closing(Lake.open(address, tiny_settings())) as opened:
            tenant = open_tenant(opened)
            if address == str(lake):
                upload(tenant, some_rows(9), "run")
                tenant.maintain()
            assert len(read(tenant)) == 9
    assert td.scan_lake(lake).collect().height == 9
    assert sum(part.read().height for part in td.split_read(lake).parts) == 9
    assert DeltaTable(str(tenant_folder(lake) / "values")).to_pyarrow_table().num_rows == 9
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(td.duckdb_macros(lake))
        assert connection.execute("SELECT count(*) FROM timedb_flat()").fetchall() == [(9,)]
    Lake.backup(str(lake), str(tmp_path / name / "backup"))
    Lake.restore(str(tmp_path / name / "backup"), str(tmp_path / name / "restored"))
    with closing(Lake.open(str(tmp_path / name / "restored"), tiny_settings())) as opened:
        assert len(read(open_tenant(opened))) == 9


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_lake_is_not_made_where_readers_look_elsewhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    source = tmp_path / "lake"
    Lake.open(str(source), tiny_settings()).close()
    Lake.backup(str(source), str(tmp_path / "backup"))
    attempts: list[Callable[[str], object]] = [
        lambda path: Lake.open(path, tiny_settings()),
        lambda path: Lake.backup(str(source), path),
        lambda path: Lake.restore(str(tmp_path / "backup"), path),
    ]
    addresses = [str(folder), f"{folder}/lake", f"file://{folder}"]
    for attempt in attempts:
        for address in addresses:
            with pytest.raises(InvalidRequest, match=r"^(lake|target): .* has the character '.*', at which delta-rs"):
                attempt(address)
    assert not folder.exists()
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for address in ("lake", str(tmp_path / "link" / "lake")):
        with pytest.raises(InvalidRequest, match="has the character"):
            Lake.open(address, tiny_settings())
    assert list(folder.iterdir()) == []


def test_a_lake_that_lies_there_already_can_be_read_and_moved(tmp_path: Path) -> None:
    source = tmp_path / "lake"
    with closing(Lake.open(str(source), tiny_settings())) as made:
        upload(open_tenant(made), some_rows(9), "run")
        open_tenant(made).maintain()
    there = source.rename(tmp_path / "a%20b")
    with closing(Lake.open(str(there), tiny_settings())) as opened:
        upload(open_tenant(opened), some_rows(9, known=1), "more")
        open_tenant(opened).maintain()
        assert len(read(open_tenant(opened))) == 18
    with closing(Lake.open(str(there), tiny_settings())) as opened:
        assert len(read(open_tenant(opened))) == 18
    assert td.scan_lake(there, view="overlapping").collect().height == 18
    for macros in (td.duckdb_macros, td.spark_functions):
        with pytest.raises(InvalidRequest, match=r"^path: .* has the character '%'"):
            macros(there)
    assert Lake.doctor(str(there)) == []
    Lake.backup(str(there), str(tmp_path / "backup"))


def test_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has the character '\\x00'"):
        Lake.open(str(tmp_path / "a\0b"), tiny_settings())


@pytest.mark.parametrize("uri", ["file://lake", "file://elsewhere/lake", "file://"])
def test_a_file_address_names_a_folder_of_this_machine(uri: str) -> None:
    with pytest.raises(InvalidRequest, match="names no folder of this machine"):
        local_path(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/a?b", "s3://bucket/a#b", "az://container/lake?sig=x"])
def test_an_object_store_s_address_has_no_query(uri: str) -> None:
    with pytest.raises(InvalidRequest, match=r"has a \? or #"):
        ObjectStore(uri)
    with pytest.raises(InvalidRequest, match=r"has a \? or #"):
        td.scan_lake(uri)
