"""Backup and restore: one moment of a lake, whole or refused, whatever goes on meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from storage import Lake, Tenant
from storage.backup import MANIFEST, back_up
from storage.object_store import ObjectStore
from storage.store import LocalStore, StoredFile
from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import (
    hour,
    open_tenant,
    read,
    read_table,
    scan_delta,
    some_rows,
    tiny_settings,
    upload,
)
from tests.storage.operations import correct, write_history
from timedb.errors import Busy, Conflict, Internal, InvalidRequest, NotFound
from timedb.identity import OPEN_TENANT_ID
from timedb.times import from_micros
from timedb.wire import GetRun, ListRuns, ListSeries, ReadTicket, RetentionRule

MARKER = "timedb-lake.json"
VALUES = f"tenants/{OPEN_TENANT_ID}/values"


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    lake = Lake.open(str(lake_dir), tiny_settings())
    yield lake
    lake.close()


@pytest.fixture
def tenant(lake: Lake) -> Tenant:
    """A tenant with rows in every tier, corrections, a withdrawal and an update_id."""
    tenant = open_tenant(lake)
    write_history(tenant)
    return tenant


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Where a backup is made."""
    return tmp_path / "backup"


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Tenant]]:
    """Opens lakes for as long as the test takes."""
    lakes: list[Lake] = []

    def open_lake(folder: Path) -> Tenant:
        lakes.append(Lake.open(str(folder), tiny_settings(), create=False))
        return open_tenant(lakes[-1])

    yield open_lake
    for lake in lakes:
        lake.close()


def restored(backup: Path, name: str = "restored") -> Path:
    """The folder of a lake made from a backup."""
    folder = backup.parent / name
    Lake.restore(str(backup), str(folder))
    return folder


def everything(tenant: Tenant) -> dict[str, Any]:
    """All that a tenant answers."""
    plan = tenant.plan_read(ReadTicket())
    half = (hour(0), plan.as_of)
    return {
        "audit": Counter(read(tenant)),
        "flat": Counter(read(tenant, "flat", all_versions=False)),
        "overlapping": Counter(read(tenant, all_versions=False)),
        "as of each change": [
            Counter(read(tenant, "flat", all_versions=False, as_of=row.change_time))
            for row in sorted(read(tenant))[::9]
        ],
        "version": (plan.table_version, half),
        "runs": tenant.list_runs(ListRuns()),
        "series": tenant.list_series(ListSeries()),
    }


def test_a_restored_lake_answers_as_the_lake_did(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    before = everything(tenant)
    made = Lake.backup(str(lake_dir), str(backup))
    upload(tenant, some_rows(18, known=70), "after")

    folder = backup.parent / "restored"
    assert Lake.restore(str(backup), str(folder)) == made

    assert everything(opened(folder)) == before
    assert Lake.doctor(str(folder)) == []
    assert left_behind(folder) == []


def test_what_is_in_is_known_to_be_in_after_restoration(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    receipt = upload(tenant, some_rows(30, known=50), "bulk", known_time=from_micros(hour(50)))
    answer = correct(tenant, "second", 4.5, "an update")
    Lake.backup(str(lake_dir), str(backup))

    other = opened(restored(backup))
    rows = Counter(read(other))
    assert upload(other, some_rows(30, known=50), "bulk", known_time=from_micros(hour(50))) == receipt
    assert correct(other, "second", 4.5, "an update") == answer
    with pytest.raises(Conflict):
        upload(other, some_rows(31, known=50), "bulk")
    assert Counter(read(other)) == rows


def test_a_restored_lake_goes_on(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    Lake.backup(str(lake_dir), str(backup))
    folder = restored(backup)
    other = opened(folder)
    version = other.values.snapshot().version

    receipt = upload(other, some_rows(18, known=70), "after")
    assert receipt["table_version"] == version + 1
    correct(other, "after", 1.5, "an update")
    other.maintain()
    again = opened(folder)
    assert upload(again, some_rows(18, known=70), "after") == receipt
    assert again.get_run(GetRun(run_id="after"))["rows"] == 18
    assert list(disagreements(again, folder)) == []
    assert Lake.doctor(str(folder)) == []


@pytest.mark.parametrize("at_checkpoint", [True, False])
def test_other_engines_open_a_backup_as_it_lies(
    lake_dir: Path, tenant: Tenant, backup: Path, at_checkpoint: bool
) -> None:
    if at_checkpoint:
        tenant.maintain()
    Lake.backup(str(lake_dir), str(backup))
    rows = Counter(read(tenant))
    version = tenant.values.snapshot().version

    assert Counter(scan_delta(backup)) == rows
    table = DeltaTable(str(backup / VALUES))
    assert table.version() == version
    assert table.to_pyarrow_table().num_rows == sum(rows.values())
    with duckdb.connect() as connection:
        connection.execute("LOAD delta")
        query = "SELECT count(*), count(DISTINCT run_id) FROM delta_scan(?)"
        counts = connection.execute(query, [str(backup / VALUES)]).fetchone()
    assert counts == (sum(rows.values()), len({row.run_id for row in rows}))
    logs = [path.name for path in (backup / VALUES / "_delta_log").glob("*.json")]
    assert logs == [f"{version:020d}.json"]


def test_a_backup_is_no_lake(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    Lake.backup(str(lake_dir), str(backup))
    with pytest.raises(InvalidRequest, match="is no lake"):
        Lake.open(str(backup), tiny_settings())


def test_a_backup_of_a_lake_without_values(lake_dir: Path, lake: Lake, backup: Path) -> None:
    Lake.backup(str(lake_dir), str(backup))
    empty = Lake.open(str(restored(backup, "of-nothing")), tiny_settings(), create=False)
    empty.close()

    tenant = open_tenant(lake)
    Lake.backup(str(lake_dir), str(backup.with_name("second")))
    other_lake = Lake.open(str(restored(backup.with_name("second"))), tiny_settings(), create=False)
    other = open_tenant(other_lake)
    assert read(tenant) == read(other) == []
    upload(other, some_rows(3), "run")
    assert other.get_run(GetRun(run_id="run"))["rows"] == 3
    other_lake.close()


def test_users_and_other_tenants_are_in(
    lake_dir: Path, lake: Lake, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    other_id = "11111111-1111-1111-1111-111111111111"
    upload(lake.tenant(other_id), some_rows(5), "theirs")
    write_deltalake(str(lake_dir / "users" / "keys"), pa.table({"hash": ["x", "y"]}))

    Lake.backup(str(lake_dir), str(backup))
    folder = restored(backup)

    assert pl.read_delta(str(folder / "users" / "keys"))["hash"].to_list() == ["x", "y"]
    both = Lake.open(str(folder), tiny_settings())
    assert len(read(both.tenant(other_id))) == 5
    assert Counter(read(open_tenant(both))) == Counter(read(tenant))
    assert both.has_users
    both.close()


def test_what_retention_removed_stays_refused(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    asked = tenant.plan_read(ReadTicket()).as_of
    assert tenant.apply_retention([RetentionRule(labels={}, thin_after_days=0, keep_last=1)], dry_run=False)["rows"]
    Lake.backup(str(lake_dir), str(backup))

    other = opened(restored(backup))
    assert Counter(read(other)) == Counter(read(tenant))
    with pytest.raises(InvalidRequest, match="as_of"):
        read_table(other, as_of=asked)


def test_a_lake_on_an_object_store(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    back_up(ObjectStore(f"file://{lake_dir}"), MARKER, backup)
    assert Counter(read(opened(restored(backup)))) == Counter(read(tenant))


def test_hard_links_leave_the_lake_as_it_is(lake_dir: Path, tenant: Tenant, backup: Path, lake: Lake) -> None:
    tenant.compact()
    rows = Counter(read(tenant))
    times = {path: path.stat().st_mtime_ns for path in lake_dir.rglob("*.parquet")}

    Lake.backup(str(lake_dir), str(backup), hard_links=True)

    live = [lake_dir / VALUES / path for path in tenant.values.snapshot().files]
    assert {path.stat().st_nlink for path in live} == {2}
    assert {path: path.stat().st_mtime_ns for path in times} == times
    lake.close()
    assert Lake.delete(str(lake_dir))
    assert Counter(scan_delta(restored(backup))) == rows


# While others write


class Watched(LocalStore):
    """A lake's folder in which others do something just before a file is read or a folder is listed."""

    def __init__(self, root: Path, before: Callable[[Path], None]) -> None:
        super().__init__(root)
        self.before = before

    def below(self, path: str) -> Watched:
        return Watched(self.root / path, self.before)

    def open(self, path: str) -> str:
        self.before(self.root / path)
        return super().open(path)

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        self.before(self.root / folder)
        return super().list(folder)


def once(condition: Callable[[Path], bool], work: Callable[[Path], None]) -> Callable[[Path], None]:
    """Do something the first time that a condition is true of what is read or listed."""
    done = threading.Event()

    def before(path: Path) -> None:
        if not done.is_set() and condition(path):
            done.set()
            work(path)

    return before


def test_what_comes_after_the_values_were_pinned_is_not_half_in(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    before = Counter(read(tenant))

    def write(_: Path) -> None:
        upload(tenant, some_rows(18, known=70), "later")
        correct(tenant, "later", 2.5, "a later update")
        upload(tenant, some_rows(4, known=71, series=["new series"]), "latest")

    back_up(Watched(lake_dir, once(lambda path: path.match("values/_delta_log/*.json"), write)), MARKER, backup)

    folder = restored(backup)
    other = opened(folder)
    assert Counter(read(other)) == before
    assert list(disagreements(other, folder)) == []
    with pytest.raises(NotFound):
        other.get_run(GetRun(run_id="later"))
    upload(other, some_rows(18, known=70), "later")
    assert correct(other, "later", 2.5, "a later update")["updated"]
    assert list(disagreements(other, folder)) == []


def test_files_that_are_vacuumed_meanwhile(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    def half_done(path: Path) -> bool:
        return path.suffix == ".parquet" and any((backup / VALUES).glob("*/*/*.parquet"))

    def vacuum(path: Path) -> None:
        upload(tenant, some_rows(4, known=71), "meanwhile")
        tenant.compact()
        for file in tenant.values.log.removed_since(0.0):
            tenant.values.store.delete(file)
        assert not path.exists()

    back_up(Watched(lake_dir, once(half_done, vacuum)), MARKER, backup)

    folder = restored(backup)
    assert Counter(read(opened(folder))) == Counter(read(tenant))
    assert left_behind(folder) == []
    manifest = json.loads((backup / MANIFEST).read_text())["backup"]
    assert {file["path"] for file in manifest["files"]} == {
        str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file() and path.name != MANIFEST
    }


@pytest.mark.parametrize("moment", ["when it is listed", "when it is read"])
def test_a_log_that_is_cleaned_meanwhile(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant], moment: str
) -> None:
    listings = count()

    def is_due(path: Path) -> bool:
        if moment == "when it is read":
            return path.name == f"{0:020d}.json"
        # The first listing finds the tenants, the second opens the table, the third is about what to copy.
        return path == lake_dir / VALUES / "_delta_log" and next(listings) == 2

    def clean(path: Path) -> None:
        for number in range(2):
            upload(tenant, some_rows(4, known=71 + number), f"meanwhile {number}")
            tenant.values.checkpoint()
        for commit in range(tenant.values.snapshot().version - 1):
            tenant.values.store.delete(f"_delta_log/{commit:020d}.json")

    back_up(Watched(lake_dir, once(is_due, clean)), MARKER, backup)
    assert Counter(read(opened(restored(backup)))) == Counter(read(tenant))
    assert "meanwhile 1" in {run["run_id"] for run in tenant.list_runs(ListRuns())}


def test_files_that_never_last_are_given_up(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    numbers = count()

    def vacuum(path: Path) -> None:
        if path.match("tier=fresh/*.parquet"):
            upload(tenant, some_rows(40, known=71), f"meanwhile {next(numbers)}")
            path.unlink()

    with pytest.raises(Busy, match="TIMEDB_RETENTION_HOURS"):
        back_up(Watched(lake_dir, vacuum), MARKER, backup)
    assert not backup.exists()


def test_backups_while_clients_write(
    lake_dir: Path, tenant: Tenant, backup: Path, opened: Callable[[Path], Tenant]
) -> None:
    other_lake = Lake.open(str(lake_dir), tiny_settings())
    servers = [tenant, open_tenant(other_lake)]
    stop = threading.Event()
    receipts: dict[str, dict[str, Any]] = {}

    def rows_of(number: int) -> list[Any]:
        return some_rows(5 + number % 20, known=number, value=float(number), first=number % 7)

    def write(server: int) -> None:
        number = 0
        while not stop.is_set():
            run_id = f"server {server} run {number}"
            receipts[run_id] = upload(servers[server], rows_of(number), run_id)
            if number % 3 == 0:
                correct(servers[server], "second", float(number), f"server {server} update {number}")
            if number % 5 == 0:
                servers[server].maintain()
            number += 1

    try:
        with ThreadPoolExecutor() as pool:
            writers = [pool.submit(write, server) for server in range(2)]
            try:
                for number in range(3):
                    Lake.backup(str(lake_dir), str(backup / str(number)))
            finally:
                stop.set()
            for writer in writers:
                writer.result()
    finally:
        other_lake.close()
    audit = read(tenant)
    for number in range(3):
        folder = restored(backup / str(number), f"restored-{number}")
        other = opened(folder)
        rows = read(other)
        newest = max(row.change_time for row in rows)
        assert Counter(rows) == Counter(row for row in audit if row.change_time <= newest)
        assert Lake.doctor(str(folder)) == []
        assert list(disagreements(other, folder)) == []
        in_before = {row.run_id for row in rows}
        for run_id, receipt in receipts.items():
            again = upload(other, rows_of(int(run_id.rpartition(" ")[2])), run_id)
            assert (again == receipt) or run_id not in in_before
        assert list(disagreements(other, folder)) == []
        assert {run["run_id"] for run in other.list_runs(ListRuns())} >= receipts.keys()


# What is not whole is refused


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "damaged": damaged,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "missing": lambda path: path.unlink(),
}
FILES = {
    "a data file": f"{VALUES}/series_bucket=*/tier=*/*.parquet",
    "a commit": f"{VALUES}/_delta_log/*.json",
    "a checkpoint": f"tenants/{OPEN_TENANT_ID}/runs/_delta_log/*.parquet",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_backup_is_refused(lake_dir: Path, tenant: Tenant, backup: Path, kind: str, damage: str) -> None:
    Lake.backup(str(lake_dir), str(backup))
    victim = min(backup.glob(FILES[kind]))
    DAMAGES[damage](victim)
    target = backup.parent / "restored"

    with pytest.raises(InvalidRequest) as refused:
        Lake.restore(str(backup), str(target))

    assert str(victim.relative_to(backup)) in refused.value.detail
    assert ("missing" if damage == "missing" else "damaged") in refused.value.detail
    assert not target.exists()


def test_a_backup_without_a_manifest_is_refused(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    Lake.backup(str(lake_dir), str(backup))
    (backup / MANIFEST).unlink()
    with pytest.raises(InvalidRequest, match=r"source: .* was not finished"):
        Lake.restore(str(backup), str(backup.parent / "restored"))


@pytest.mark.parametrize("damage", [damaged, DAMAGES["cut short"], lambda path: path.write_text("{}")])
def test_a_damaged_manifest_is_refused(
    lake_dir: Path, tenant: Tenant, backup: Path, damage: Callable[[Path], None]
) -> None:
    Lake.backup(str(lake_dir), str(backup))
    damage(backup / MANIFEST)
    with pytest.raises(InvalidRequest, match=f"source: {MANIFEST} .* is damaged"):
        Lake.restore(str(backup), str(backup.parent / "restored"))


def die(path: Path) -> None:
    """The end of the process, once it reads a data file."""
    if path.match("tier=fresh/*.parquet"):
        os.kill(os.getpid(), 9)


def test_a_backup_that_is_killed_is_refused(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    upload(tenant, some_rows(500, known=3, series=[f"series {number}" for number in range(40)]), "many")
    code = (
        "from tests.storage.test_backup import *; back_up(Watched(Path(sys.argv[1]), die), MARKER, Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(lake_dir), str(backup)], check=False)

    assert killed.returncode == -9
    assert any(backup.rglob("*.json"))
    with pytest.raises(InvalidRequest, match="was not finished"):
        Lake.restore(str(backup), str(backup.parent / "restored"))
    with pytest.raises(InvalidRequest, match="is not empty"):
        Lake.backup(str(lake_dir), str(backup))
    with pytest.raises(InvalidRequest, match="is no lake"):
        Lake.open(str(backup), tiny_settings())


def test_a_damaged_lake_gives_no_backup(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    victim = lake_dir / VALUES / min(tenant.values.snapshot().files)
    os.truncate(victim, 10)
    backup.mkdir()

    with pytest.raises(Internal, match="timedb doctor"):
        Lake.backup(str(lake_dir), str(backup))

    assert list(backup.iterdir()) == []


def test_targets_and_sources_that_do_not_fit(lake_dir: Path, tenant: Tenant, backup: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: Lake.backup(str(lake_dir), str(full)), "target: .* is not empty"),
        (lambda: Lake.backup(str(lake_dir), str(full / "mine")), "target: .* is no folder"),
        (lambda: Lake.backup(str(lake_dir), str(lake_dir / "backup")), "target: .* is inside the lake"),
        (lambda: Lake.backup(str(lake_dir), "s3://bucket/backup"), "target: 's3://bucket/backup' is no local folder"),
        (lambda: Lake.restore("s3://bucket/backup", str(backup)), "source: 's3://bucket/backup' is no local folder"),
        (lambda: Lake.restore(str(full), str(backup)), "source: .* is no backup"),
        (lambda: Lake.restore(str(full / "mine"), str(backup)), "source: .* is no backup"),
    ]
    for refused, words in refusals:
        with pytest.raises(InvalidRequest, match=words):
            refused()
    with pytest.raises(NotFound, match="lake: there is no lake"):
        Lake.backup(str(full), str(backup))
    Lake.backup(str(lake_dir), str(backup))
    for target in (full, lake_dir):
        with pytest.raises(InvalidRequest, match=r"target: .* is not empty"):
            Lake.restore(str(backup), str(target))
    assert [path.name for path in full.iterdir()] == ["mine"]
