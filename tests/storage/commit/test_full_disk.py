"""A disk that is really full: clean errors, no row lost, and work goes on once there is room again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import Sent, difference, hour, open_tenant, read, scan_delta, tiny_settings, unstamped, upload
from tests.storage.model import Model
from tests.storage.results import Tally, record
from timedb.contract.errors import StorageFull, StorageRefused, TimeDBError
from timedb.storage import Lake, Tenant
from timedb.storage.delta.standing import Standing
from timedb.storage.delta.store import LocalStore
from timedb.storage.tables.clock import Clock
from timedb.storage.watch import Watch

DISK_BYTES = 1_200_000
BALLAST_BYTES = 400_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that soon is full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def random_rows(count: int, run: int) -> list[Sent]:
    """Rows that do not compress."""
    source = random.Random(run)
    return [
        Sent(("south", "a", "east")[index % 3], hour(index // 3), None, hour(run), source.random())
        for index in range(count)
    ]


def fill(tenant: Tenant, model: Model, first: int) -> tuple[int, TimeDBError]:
    """Upload until the disk is full: the run that failed, and how."""
    for run in range(first, first + 500):
        rows = random_rows(600 if run % 4 == 0 else 9, run)
        try:
            upload(tenant, rows, f"run-{run}", batch_rows=100)
        except TimeDBError as error:
            return run, error
        model.rows += model.upload(f"run-{run}", rows, 0)
    raise AssertionError("the disk never was full")


def test_uploads_fail_cleanly_and_go_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * BALLAST_BYTES)
    folder = small_disk / "lake"
    settings = tiny_settings(upload_chunk_rows=200, bulk_rows=300, compact_file_rows=2000, compact_input_rows=5000)
    model = Model()

    with closing(Lake.open(str(folder), settings)) as lake:
        tenant = open_tenant(lake)
        failed, error = fill(tenant, model, 0)
        assert isinstance(error, StorageFull)
        assert failed > 10
        rows = random_rows(600, failed)
        operations: tuple[Callable[[], object], ...] = (
            lambda: upload(tenant, rows, f"run-{failed}"),
            tenant.compact,
            tenant.maintain,
        )
        for operation in operations:
            with pytest.raises(StorageFull):
                operation()
        assert unstamped(read(tenant)) == unstamped(model.rows), "a full disk can be read"
        assert left_behind(folder) == []

    with closing(Lake.open(str(folder), settings)) as lake:
        tenant = open_tenant(lake)
        assert unstamped(read(tenant)) == unstamped(model.rows), "a lake on a full disk can be opened"
        ballast.unlink()
        upload(tenant, rows, f"run-{failed}")
        model.rows += model.upload(f"run-{failed}", rows, 0)
        tenant.maintain()
        assert list(disagreements(tenant, folder)) == []
        assert unstamped(read(tenant)) == unstamped(model.rows)

        last, error = fill(tenant, model, failed + 1)
        assert isinstance(error, StorageFull)
        audit = read(tenant)
        lost, doubled = difference(model.rows, audit)
        outcomes = Counter(acked=last, failed=2 + len(operations))
        record(Tally("uploads, compaction, maintenance", "full tmpfs", 2, outcomes, lost.total(), doubled.total()))
        assert unstamped(audit) == unstamped(model.rows) == unstamped(scan_delta(folder))


def test_health_tells_of_a_disk_that_is_full_or_read_only(small_disk: Path) -> None:
    folder = small_disk / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        upload(open_tenant(lake), random_rows(3, 0), "first")
        store, standing = LocalStore(folder), Standing(LocalStore(folder), "timedb-lake.json", "", max_age_seconds=1.0)
        watch = Watch(store, standing, Clock(600.0))
        watch.look()
        assert standing.storage_fault is None
        with suppress(OSError), open(small_disk / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * 4096)
        watch.look()
        assert "full" in str(standing.storage_fault)
        (small_disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        watch.look()
        assert "read-only" in str(standing.storage_fault)
        with pytest.raises(StorageRefused):
            upload(open_tenant(lake), random_rows(3, 1), "second")
        assert len(read(open_tenant(lake))) == 3
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        watch.look()
        assert standing.storage_fault is None
        upload(open_tenant(lake), random_rows(3, 1), "second")
