"""Every page has its checksum, a restamped one too, and no read gives values of a page that has not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.storage.lakes import SERIES, open_tenant, read, some_rows, tenant_folder, tiny_settings, upload
from tests.storage.operations import copy_lake
from timedb.contract.errors import Damaged
from timedb.storage import Lake, Tenant
from timedb.storage.delta.pages import check_pages, crc_varint


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with small and bulk uploads, some of them compacted."""
    folder = tmp_path_factory.mktemp("sound") / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for run in range(3):
            upload(tenant, some_rows(30, known=run), f"bulk-{run}")
        tenant.compact()
        for run in range(16):  # of the checksums of stamps, one in 16 is shorter than the others
            upload(tenant, some_rows(15, known=10 + run), f"more-{run}")
        upload(tenant, some_rows(6, known=50), "small")
    return folder


@pytest.fixture
def lake(sound: Path, lake_dir: Path) -> Iterator[Lake]:
    """A copy of it."""
    copy_lake(sound, lake_dir)
    with closing(Lake.open(str(lake_dir), tiny_settings(read_cache_bytes=0))) as lake:
        yield lake


def live(tenant: Tenant, lake_dir: Path) -> list[Path]:
    """The files that hold the values."""
    return [tenant_folder(lake_dir) / "values" / path for path in tenant.values.snapshot().files]


def test_every_page_has_the_checksum_that_others_check(lake: Lake, lake_dir: Path) -> None:
    files = live(open_tenant(lake), lake_dir)
    assert len(files) > 20
    for path in (*files, *lake_dir.rglob("runs/*.parquet"), *lake_dir.rglob("series/*.parquet")):
        assert check_pages(str(path)), path
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_a_checksum_is_encoded_as_thrift_does_it() -> None:
    for crc, encoded in ((0, b"\x00"), (1, b"\x02"), (0xFFFFFFFF, b"\x01"), (0x60E989DC, b"\xb8\xa7\xcc\x8e\x0c")):
        assert crc_varint(crc) == encoded


READS: dict[str, Callable[[Tenant], object]] = {
    "all": read,
    "flat": lambda tenant: read(tenant, "flat", all_versions=False),
    "one series": lambda tenant: read(tenant, series_keys=[SERIES[0]], start_valid=0, end_valid=2**52),
    "as known": lambda tenant: read(tenant, "flat", all_versions=False, end_known=2**52),
    "latest": lambda tenant: read(tenant, "latest", all_versions=False),
    "compaction": Tenant.compact,
}


@pytest.mark.parametrize("name", READS)
def test_flipped_bytes_are_no_values(lake: Lake, lake_dir: Path, name: str) -> None:
    tenant = open_tenant(lake)
    READS[name if name != "compaction" else "all"](tenant)  # nothing of a file that was sound is believed later
    for path in live(tenant, lake_dir):
        column = pq.read_metadata(path).row_group(0)
        places = [
            column.column(number).data_page_offset + column.column(number).total_compressed_size // 2
            for number in range(column.num_columns)
            if column.column(number).path_in_schema == "value"
        ]
        with open(path, "r+b") as file:
            file.seek(places[0])
            held = file.read(4)
            file.seek(places[0])
            file.write(bytes(byte ^ 0x55 for byte in held))
    if name == "flat":
        found = [one for one in Lake.doctor(str(lake_dir)) if not one["notice"]]
        assert {one["fault"] for one in found} == {"damaged data file"}
        assert len({one["path"] for one in found}) == len(live(tenant, lake_dir)), "each of them, not the first"
    before = sorted(lake_dir.rglob("*.parquet"))
    with pytest.raises(Damaged, match=r"the file series_bucket=.*\.parquet of the table values is damaged: restore"):
        READS[name](tenant)
    assert set(before) <= set(lake_dir.rglob("*.parquet"))


def _restored(lake_dir: Path, folder: Path) -> str:
    """A lake that was restored from a backup."""
    Lake.backup(str(lake_dir), str(folder / "backup"))
    Lake.restore(str(folder / "backup"), str(folder / "restored"))
    return str(folder / "restored")


def test_commits_of_others_and_runs_that_do_not_add_up_are_named(lake: Lake, lake_dir: Path, tmp_path: Path) -> None:
    assert [one for one in Lake.doctor(str(lake_dir)) if not one["notice"]] == []
    values = str(tenant_folder(lake_dir) / "values")
    DeltaTable(values).delete("run_id = 'small' AND value > 2.0")
    found = [one for one in Lake.doctor(str(lake_dir)) if not one["notice"]]
    assert [one["fault"] for one in found] == ["commit of another writer", "run with other rows than recorded"]
    assert "delta-rs" in found[0]["cure"]
    assert "DELETE" in found[0]["cure"]
    assert (found[1]["path"], found[1]["loss"]) == ("small", "3 of its 6 rows are there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timedb.storage.admin.doctor._SHOWN", 1)
        taken = Lake.doctor(str(lake_dir), accept_foreign=True)
        assert Lake.doctor(str(lake_dir)) == taken, "once for all"
    assert [one["fault"] for one in taken if "taken for meant" in one["cure"]] == [one["fault"] for one in found]
    assert [one for one in taken if not one["notice"]] == []
    copied = _restored(lake_dir, tmp_path)
    assert [one for one in Lake.doctor(copied, verify=True) if not one["notice"]] == [], "a backup knows of it, too"
    assert any("taken for meant" in one["cure"] for one in Lake.doctor(copied))
    DeltaTable(values).delete("run_id = 'small' AND value > 1.0")
    again = [one for one in Lake.doctor(str(lake_dir)) if not one["notice"]]
    assert [one["fault"] for one in again] == [one["fault"] for one in found], "what comes later is a fault again"
    assert again[1]["loss"] == "2 of its 6 rows are there"
    assert [one for one in Lake.doctor(str(lake_dir), accept_foreign=True) if not one["notice"]] == []
    DeltaTable(values).optimize.compact()
    quiet = [one for one in Lake.doctor(str(lake_dir)) if one["fault"] == "commit of another writer"]
    assert [one["notice"] for one in quiet] == [True, True, True]
    (unchecked,) = [one for one in Lake.doctor(str(lake_dir)) if one["fault"] == "files without checksums"]
    assert unchecked["notice"]
    assert sum(row.run_id == "small" for row in read(open_tenant(lake))) == 2, "what others wrote is read"
