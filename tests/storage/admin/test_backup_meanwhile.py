"""Backups of a lake that is written to, vacuumed and cleaned meanwhile: still one moment of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.storage.backups import MARKER, VALUES, Watched, once, restored
from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import (
    open_tenant,
    read,
    some_rows,
    tiny_settings,
    upload,
)
from tests.storage.operations import copy_lake, correct
from timedb.contract.errors import Busy, NotFound
from timedb.contract.wire import GetRun, ListRuns
from timedb.storage import Lake, Tenant
from timedb.storage.admin.backup import MANIFEST, back_up


@pytest.fixture
def lake(history: Path, lake_dir: Path) -> Iterator[Lake]:
    """A lake with a history."""
    copy_lake(history, lake_dir)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        yield lake


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
                for number in range(2):
                    Lake.backup(str(lake_dir), str(backup / str(number)))
            finally:
                stop.set()
            for writer in writers:
                writer.result()
    finally:
        other_lake.close()
    audit = read(tenant)
    for number in range(2):
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
