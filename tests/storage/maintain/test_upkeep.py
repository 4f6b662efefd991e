"""Upkeep by itself: whatever is written, and for however long, what there is on the disk stays bounded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import open_tenant, read, some_rows, tenant_folder, tiny_settings, unstamped, upload
from timedb.contract.wire import GetRun, ListRuns
from timedb.storage import Lake, Tenant
from timedb.storage.delta.log import checkpoint_version, commit_version

HOUR = 3600.0
SETTINGS = {"mixed_files": 4, "move_rows": 200, "compact_fresh_files": 3, "compact_file_rows": 2000}


def kept(folder: Path) -> Counter[str]:
    """How many files of each kind the tenant's tables have."""
    found: Counter[str] = Counter()
    for path in tenant_folder(folder).rglob("*"):
        if path.is_file():
            name = path.relative_to(tenant_folder(folder)).as_posix()
            kind = "checkpoint" if checkpoint_version(name) >= 0 else "commit" if commit_version(name) >= 0 else "data"
            found[f"{name.partition('/')[0]} {kind}"] += 1
    return found


def steady(tenant: Tenant, first: int, count: int) -> None:
    """Uploads, with a look of upkeep and the writing of records now and then, as time would bring them."""
    for number in range(first, first + count):
        upload(tenant, some_rows(6, known=number, first=number), f"run-{number}")
        if number % 5 == 4:
            tenant.records.write()
            tenant.upkeep.look()


@pytest.fixture
def impatient(lake_dir: Path) -> Iterator[Tenant]:
    """A tenant whose readers are promised nothing."""
    settings = tiny_settings(**SETTINGS, retention_hours=0, log_retention_hours=0)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        yield open_tenant(lake)


def test_nothing_grows_under_a_steady_load(impatient: Tenant, lake_dir: Path) -> None:
    bounds = {"values data": 60, "values commit": 130, "values checkpoint": 4, "runs data": 40, "runs commit": 40}
    most: Counter[str] = Counter()
    besides = set()
    for part in range(3):
        steady(impatient, part * 60, 60)
        most |= kept(lake_dir)
        live, replaced, rest = newest_checkpoint(lake_dir)
        assert live <= bounds["values data"]
        assert replaced == 0
        besides.add(tuple(rest.items()))
    assert {kind: most[kind] for kind in bounds if most[kind] > bounds[kind]} == {}
    assert len(besides) == 1, "but for the live files, checkpoints are alike"
    assert len(unstamped(read(impatient))) == 6 * 180
    assert len(impatient.list_runs(ListRuns(limit=1000))) == 180
    assert left_behind(lake_dir) == []
    assert list(disagreements(impatient, lake_dir)) == []
    assert impatient.get_run(GetRun(run_id="run-3"))["rows"] == 6


def newest_checkpoint(folder: Path) -> tuple[int, int, Counter[str]]:
    """How many live files it names, how many replaced ones, and how many actions of each other kind."""
    (path,) = sorted((tenant_folder(folder) / "values/_delta_log").glob("*.checkpoint.parquet"))[-1:]
    actions = pq.read_table(path)
    named = Counter({kind: len(actions[kind].drop_null()) for kind in actions.column_names})
    return named.pop("add"), named.pop("remove", 0), named


def test_what_readers_are_promised_stays_and_no_more(lake_dir: Path) -> None:
    settings = tiny_settings(**SETTINGS, retention_hours=2, log_retention_hours=3)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        steady(tenant, 0, 40)
        before = kept(lake_dir)
        old = tenant.values.snapshot()
        steady(tenant, 40, 40)
        assert kept(lake_dir)["values data"] > before["values data"]
        assert all((tenant_folder(lake_dir) / "values" / path).exists() for path in old.files), "promised"
        for number in range(2):
            tenant.values.checkpoint()
            upload(tenant, some_rows(6, known=number), f"last-{number}")
    age(lake_dir, 2.5 * HOUR)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        aged = kept(lake_dir)
        tenant.upkeep.look()
        now = kept(lake_dir)
        replaced = old.files.keys() - tenant.values.snapshot().files.keys()
        assert replaced
        assert not any((tenant_folder(lake_dir) / "values" / path).exists() for path in replaced)
        assert now["values commit"] == aged["values commit"], "the log is kept for longer"
    age(lake_dir, 2.5 * HOUR)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        tenant.upkeep.look()
        now = kept(lake_dir)
        assert now["values commit"] < 20
        assert now["values checkpoint"] == 2
        assert len(read(tenant)) == 6 * 82
        assert left_behind(lake_dir) == []


def age(folder: Path, seconds: float) -> None:
    """Let all files have been written so much earlier."""
    for path in tenant_folder(folder).rglob("*"):
        found = path.stat()
        os.utime(path, (found.st_atime - seconds, found.st_mtime - seconds))


def test_what_a_killed_server_leaves_goes_by_itself(lake_dir: Path) -> None:
    settings = tiny_settings(retention_hours=1, log_retention_hours=1)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        upload(open_tenant(lake), some_rows(6), "run")
    values = tenant_folder(lake_dir) / "values"
    left = [values / "series_bucket=mixed/tier=fresh/upload-orphan.parquet", values / "_delta_log/.aside-1234"]
    for path in left:
        path.write_bytes(b"half of a file")
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        open_tenant(lake).upkeep.look()
        assert all(path.exists() for path in left), "a server may still be writing it"
        age(lake_dir, 3 * HOUR)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        open_tenant(lake).upkeep.look()
        assert not any(path.exists() for path in left)
        assert len(read(open_tenant(lake))) == 6


def test_debts_and_disk_are_in_the_status(impatient: Tenant, lake_dir: Path) -> None:
    for number in range(3):
        upload(impatient, some_rows(6, known=number), f"run-{number}")
    status: dict[str, Any] = impatient.status()
    assert status["debts"] == {
        "mixed_files": 3,
        "mixed_rows": 18,
        "fresh_files": 3,
        "fresh_rows": 18,
        "unwritten_records": 3,
    }
    impatient.maintain()
    status = impatient.status()
    assert set(status["debts"].values()) == {0}
    disk = status["disk"]
    files = [path for path in tenant_folder(lake_dir).rglob("*") if path.is_file() and path.parent.name != "tenants"]
    tables = [path for path in files if path.parent != tenant_folder(lake_dir)]
    assert disk["files"] == len(tables)
    assert disk["bytes"] == sum(path.stat().st_size for path in tables)
    assert disk["replaced_bytes"] == 0
    assert disk["live_bytes"] + disk["log_bytes"] + disk["checkpoint_bytes"] == disk["bytes"]
