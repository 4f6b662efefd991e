"""Backup and restore: one moment of a lake, whole or refused, whatever goes on meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from tests.storage.backups import MARKER, ROOT, VALUES, restored
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
from tests.storage.operations import copy_lake, correct
from timedb.contract.errors import Conflict, Internal, InvalidRequest, NotFound
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import from_micros
from timedb.contract.wire import GetRun, ListRuns, ListSeries, ReadTicket, RetentionRule
from timedb.storage import Lake, Tenant
from timedb.storage.admin.backup import MANIFEST, back_up
from timedb.storage.delta.object_store import ObjectStore
from timedb.storage.direct.duckdb_extension import load_delta
from timedb.storage.users.users import NewUser


@pytest.fixture
def lake(request: pytest.FixtureRequest, lake_dir: Path) -> Iterator[Lake]:
    """A lake; with a history where the test wants its tenant, else without a row."""
    if "tenant" in request.fixturenames:
        copy_lake(request.getfixturevalue("history"), lake_dir)
    lake = Lake.open(str(lake_dir), tiny_settings())
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def finished(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of that history; to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "backup"
    Lake.backup(str(history), str(folder))
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
    retried = upload(again, some_rows(18, known=70), "after")
    assert retried == {**receipt, "withdrawn_rows": 1}, "one that was retracted since"
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
        load_delta(connection)
        query = "SELECT count(*), count(DISTINCT run_id) FROM delta_scan(?)"
        counts = connection.execute(query, [str(backup / VALUES)]).fetchone()
    assert counts == (sum(rows.values()), len({row.run_id for row in rows}))
    logs = [path.name for path in (backup / VALUES / "_delta_log").glob("*.json")]
    assert logs == [f"{version:020d}.json"]


def test_a_backup_is_no_lake(finished: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no lake"):
        Lake.open(str(finished), tiny_settings())


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
    key = lake.create_user(NewUser(email="ann@example.com", tenant_id=other_id))["api_key"]

    Lake.backup(str(lake_dir), str(backup))
    folder = restored(backup)

    both = Lake.open(str(folder), tiny_settings())
    assert len(read(both.tenant(other_id))) == 5
    assert Counter(read(open_tenant(both))) == Counter(read(tenant))
    assert both.has_users
    found = both.users.find(key)
    assert found is not None
    assert found.tenant_id == other_id
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
def test_a_damaged_backup_is_refused(finished: Path, backup: Path, kind: str, damage: str) -> None:
    copy_lake(finished, backup)
    victim = min(backup.glob(FILES[kind]))
    DAMAGES[damage](victim)
    target = backup.parent / "restored"

    with pytest.raises(InvalidRequest) as refused:
        Lake.restore(str(backup), str(target))

    assert str(victim.relative_to(backup)) in refused.value.detail
    assert ("missing" if damage == "missing" else "damaged") in refused.value.detail
    assert not target.exists()


def test_a_backup_without_a_manifest_is_refused(finished: Path, backup: Path) -> None:
    copy_lake(finished, backup)
    (backup / MANIFEST).unlink()
    with pytest.raises(InvalidRequest, match=r"source: .* was not finished"):
        Lake.restore(str(backup), str(backup.parent / "restored"))


@pytest.mark.parametrize("damage", [damaged, DAMAGES["cut short"], lambda path: path.write_text("{}")])
def test_a_damaged_manifest_is_refused(finished: Path, backup: Path, damage: Callable[[Path], None]) -> None:
    copy_lake(finished, backup)
    damage(backup / MANIFEST)
    with pytest.raises(InvalidRequest, match=f"source: {MANIFEST} .* is damaged"):
        Lake.restore(str(backup), str(backup.parent / "restored"))


def test_a_backup_that_is_killed_is_refused(lake_dir: Path, tenant: Tenant, backup: Path) -> None:
    upload(tenant, some_rows(500, known=3, series=[f"series {number}" for number in range(40)]), "many")
    command = [sys.executable, "-m", "tests.storage.backups", str(lake_dir), str(backup)]
    killed = subprocess.run(command, check=False, cwd=ROOT)

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
        (lambda: Lake.backup(str(lake_dir), str(lake_dir / "backup")), "target: .* lies inside the lake"),
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
