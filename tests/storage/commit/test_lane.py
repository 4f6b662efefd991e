"""The commit lane: change_times in the order of the commits, commits that are shared, a queue that is bounded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.inspection import left_behind
from tests.storage.lakes import (
    UPLOAD_SCHEMA,
    open_tenant,
    read,
    scan_delta,
    shuffled,
    some_rows,
    tiny_settings,
    unstamped,
    upload,
    upload_table,
)
from timedb.contract.errors import Busy, Conflict, Internal
from timedb.contract.times import parse_time, to_micros
from timedb.contract.wire import UploadCommand, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.commit.writes import Answer, CommitContext


def begin(tenant: Tenant, schema: pa.Schema = UPLOAD_SCHEMA, **fields: Any) -> Any:
    """Begin an upload."""
    return tenant.begin_upload(parse_object(UploadCommand, fields), schema, created_by=None)


def stamp(receipt: dict[str, Any]) -> int:
    """The change_time of a receipt."""
    return to_micros(parse_time(receipt["change_time"]))


def test_change_times_follow_the_commits(tenant: Tenant) -> None:
    receipts = [upload(tenant, some_rows(14 if number % 3 else 2, known=number)) for number in range(9)]
    stamps = [stamp(receipt) for receipt in receipts]
    assert stamps == sorted(set(stamps))
    assert [receipt["table_version"] for receipt in receipts] == list(range(1, 10))


def test_a_bulk_upload_that_was_encoded_long_ago_is_stamped_in_its_turn(tenant: Tenant, lake_dir: Path) -> None:
    going = begin(tenant, run_id="bulk")
    for batch in upload_table(some_rows(40, known=1)).to_batches(max_chunksize=10):
        going.add(batch)
    before = [stamp(upload(tenant, some_rows(3, known=known), f"small-{known}")) for known in (2, 3)]
    receipt = going.commit(40)
    assert stamp(receipt) > max(before)
    assert {row.change_time for row in read(tenant) if row.run_id == "bulk"} == {stamp(receipt)}
    assert len(read(tenant, as_of=stamp(receipt) - 1)) == 6
    assert len(read(tenant, as_of=stamp(receipt))) == 46
    assert unstamped(scan_delta(lake_dir)) == unstamped(read(tenant))


class Gate:
    """A write that keeps the lane busy until it is told to go on."""

    rows = stamps = 0
    key = None
    shareable = False

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def prepare(self, context: CommitContext) -> Answer:
        """Wait."""
        self.entered.set()
        assert self.opened.wait(60)
        return Answer({})


def while_the_lane_is_busy(tenant: Tenant, count: int, queued: int | None = None) -> list[dict[str, Any]]:
    """Uploads that all wait in the queue before the first of them gets its turn."""
    gate = Gate()
    with ThreadPoolExecutor(count + 1) as pool:
        busy = pool.submit(tenant.lane.submit, gate)
        assert gate.entered.wait(60)
        uploads = [
            pool.submit(upload, tenant, some_rows(3, known=number + 1), f"run-{number}") for number in range(count)
        ]
        while tenant.lane.queued < (queued or count):
            time.sleep(0.01)
        gate.opened.set()
        assert busy.result() == {}
        return [one.result() for one in uploads]


def test_uploads_that_wait_share_a_commit(tenant: Tenant, lake_dir: Path) -> None:
    receipts = while_the_lane_is_busy(tenant, 8)
    assert len({receipt["table_version"] for receipt in receipts}) == 1
    assert len({receipt["change_time"] for receipt in receipts}) == 8
    assert {(row.run_id, row.change_time) for row in read(tenant)} == {
        (receipt["run_id"], stamp(receipt)) for receipt in receipts
    }
    (file,) = (lake_dir / "tenants").rglob("tier=fresh/*.parquet")
    assert "series_bucket=mixed" in file.parts, "one of all buckets"


def test_a_full_queue_is_busy(lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings(max_queued_writes=3))) as lake:
        tenant = open_tenant(lake)
        with pytest.raises(Busy, match=r"3 writes are waiting"):
            while_the_lane_is_busy(tenant, 8, queued=3)
        assert len({row.run_id for row in read(tenant)}) >= 3, "those that were in the queue"


def test_a_refused_upload_does_not_hurt_those_it_would_share_a_commit_with(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(4), "run-3")
    with pytest.raises(Conflict):
        while_the_lane_is_busy(tenant, 6)
    assert {row.run_id for row in read(tenant)} == {f"run-{number}" for number in range(6)}
    assert left_behind(lake_dir) == []


def test_an_upload_whose_files_are_gone_does_not_hurt_the_others(tenant: Tenant, lake_dir: Path) -> None:
    going = begin(tenant, run_id="gone")
    for batch in upload_table(some_rows(40)).to_batches(max_chunksize=10):
        going.add(batch)
    gate = Gate()
    with ThreadPoolExecutor(3) as pool:
        busy = pool.submit(tenant.lane.submit, gate)
        assert gate.entered.wait(60)
        gone, other = pool.submit(going.commit, 40), pool.submit(upload, tenant, some_rows(3, known=1), "other")
        while tenant.lane.queued < 2:
            time.sleep(0.01)
        next(lake_dir.rglob("tier=fresh/*.parquet")).unlink()
        gate.opened.set()
        assert busy.result() == {}
        assert other.result()["rows"] == 3
        with pytest.raises(Internal):
            gone.result()
    going.abort()
    assert {row.run_id for row in read(tenant)} == {"other"}
    assert left_behind(lake_dir) == []


def test_retries_that_wait_beside_their_original(tenant: Tenant) -> None:
    gate = Gate()
    with ThreadPoolExecutor(7) as pool:
        busy = pool.submit(tenant.lane.submit, gate)
        assert gate.entered.wait(60)
        uploads = [pool.submit(upload, tenant, shuffled(some_rows(5), seed), "run") for seed in range(6)]
        while tenant.lane.queued < 6:
            time.sleep(0.01)
        gate.opened.set()
        assert busy.result() == {}
        receipts = [one.result() for one in uploads]
    assert all(receipt == receipts[0] for receipt in receipts)
    assert len(read(tenant)) == 5


def test_a_closed_lake_takes_no_more(lake_dir: Path) -> None:
    lake = Lake.open(str(lake_dir), tiny_settings())
    tenant = open_tenant(lake)
    upload(tenant, some_rows(3), "run")
    lake.close()
    with pytest.raises(Busy, match=r"stopping"):
        upload(tenant, some_rows(3), "late")
    assert len(read(tenant)) == 3
    lake.close()
