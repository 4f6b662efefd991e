"""A clock that is far wrong stamps nothing, removes nothing, and says so; within the limit everything goes on."""

from __future__ import annotations

import os
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.contract.errors import Busy
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import now
from timedb.contract.wire import RetentionRule
from timedb.storage import Lake
from timedb.storage.delta.standing import running_seconds
from timedb.storage.tables.clock import Clock

YEAR = timedelta(days=365)
WALL = "timedb.storage.tables.clock._wall_seconds"
RUNNING = "timedb.storage.tables.clock.running_seconds"


def test_a_clock_behind_the_last_change_time_stamps_nothing(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        with monkeypatch.context() as ahead:  # for a minute
            ahead.setattr("timedb.storage.commit.lane.now", lambda: now() + YEAR)
            upload(tenant, some_rows(2, known=1), "of the jump")
        for _ in range(2):
            with pytest.raises(Busy, match="behind the last change_time"):
                upload(tenant, some_rows(2), "later")
        assert "behind the last change_time" in (lake.fault(60.0) or "")
        status = tenant.status()
        assert status["change_time_ahead_seconds"] > YEAR.total_seconds() - 3600
        assert "behind the last change_time" in status["clock_fault"]
        assert [line for line in caplog.messages if "behind the last" in line] != []
        assert len(read(tenant)) == 2, "reads go on"
    patient = tiny_settings(max_clock_skew_seconds=2 * YEAR.total_seconds())
    with closing(Lake.open(str(lake_dir), patient)) as lake:
        tenant = open_tenant(lake)
        rows = [row._replace(known_time=None) for row in some_rows(2, value=50.0)]
        upload(tenant, rows, "later")
        flat = read(tenant, "flat", all_versions=False)
        assert {row.run_id for row in flat} == {"later"}, "its known_time is not before the last change_time"
        assert lake.fault(60.0) is None


def test_a_clock_that_has_jumped_stamps_and_removes_nothing(lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(retention_hours=24, log_retention_hours=24)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        for run in range(3):
            upload(tenant, some_rows(6, known=run), f"run-{run}")
        monkeypatch.setattr(WALL, lambda: time.time() + 10 * 86400)
        with pytest.raises(Busy, match="jumped ahead by 10 days"):
            upload(tenant, some_rows(6, known=9), "later")
        assert "jumped ahead" in (lake.fault(60.0) or "")
        with pytest.raises(Busy, match="jumped ahead"):
            tenant.apply_retention([RetentionRule(labels={}, drop_after_days=1)], dry_run=False)
        files = set(lake_dir.rglob("*.parquet"))
        assert tenant.maintain()["vacuumed_files"] == 0
        assert files <= set(lake_dir.rglob("*.parquet")), "what was replaced seconds ago stays for its readers"
        monkeypatch.undo()
        upload(tenant, some_rows(6, known=9), "later")
        assert len(read(tenant)) == 24


def test_a_clock_is_compared_with_that_of_the_store() -> None:
    clock = Clock(600.0)
    clock.compare(time.time() + 300)
    assert clock.fault is None
    for offset, side in ((-3600, "1:00:00 ahead of"), (3600, "1:00:00 behind")):
        clock.compare(time.time() + offset)
        assert side in str(clock.fault)
    clock.compare(time.time())
    clock.check(0)
    assert clock.fault is None


def test_a_server_that_starts_long_after_the_last_write_says_so_and_removes_nothing_for_a_week(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(retention_hours=24)
    with closing(Lake.open(str(lake_dir), settings)) as lake, monkeypatch.context() as then:
        then.setattr("timedb.storage.commit.lane.now", lambda: now() - YEAR)
        upload(open_tenant(lake), some_rows(2, known=1), "of last year")
    left = lake_dir / "tenants" / OPEN_TENANT_ID / "values" / "left.parquet"
    left.write_bytes(b"of a broken write")
    yesterday = time.time() - 2 * 86400
    os.utime(left, (yesterday, yesterday))
    rule = [RetentionRule(labels={}, drop_after_days=1)]
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        lake.look()
        tenant = open_tenant(lake)
        assert "365 days" in str(lake.warning)
        assert lake.fault(60.0) is None, "a lake may have been idle"
        assert [line for line in caplog.messages if "after the last write to its lake" in line] != []
        upload(tenant, some_rows(2, known=2), "of today")
        assert "365 days" in tenant.status()["clock_warning"], "who looks later still learns of it"
        with pytest.raises(Busy, match="removed by its age"):
            tenant.apply_retention(rule, dry_run=False)
        assert tenant.maintain()["vacuumed_files"] == 0
        assert left.exists(), "by the last write and the time since it is not old"
        week = running_seconds() + 8 * 86400
        monkeypatch.setattr(RUNNING, lambda: week)
        tenant.maintain()
        assert not left.exists(), "nobody said that the clock is wrong"
        tenant.apply_retention(rule, dry_run=False)
        monkeypatch.undo()
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        lake.look()
        assert lake.warning is None, "it was written to today"


def test_a_clock_that_is_set_right_before_the_first_write_is_doubted_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    last = time.time() - 60
    monkeypatch.setattr(WALL, lambda: last + YEAR.total_seconds())
    clock = Clock(600.0)
    clock.begin(int(last * 1e6))
    assert "365 days" in str(clock.warning)
    monkeypatch.setattr(WALL, lambda: last + 90)
    assert clock.warning is None
    clock.begin(0)
    assert clock.warning is None, "a new lake"
    patient = Clock(2 * YEAR.total_seconds())
    patient.begin(int((last - YEAR.total_seconds()) * 1e6))
    assert patient.warning is None


def test_a_file_system_of_another_clock_is_found_out_before_the_first_write(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WALL, lambda: time.time() + YEAR.total_seconds())
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        names = {path.name for path in lake_dir.iterdir()}
        lake.look()
        assert "ahead of the store's" in str(lake.fault(60.0))
        with pytest.raises(Busy):
            upload(open_tenant(lake), some_rows(1), "never")
        assert names == {path.name for path in lake_dir.iterdir()} - {"tenants"}, "nothing is left of the look"


def test_all_stamps_of_a_batch_are_past_when_it_is_acknowledged(lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for run, rows in enumerate((5, 40, 5)):
            upload(tenant, some_rows(rows, known=run), f"run-{run}")
            assert len(read(tenant, as_of=now())) == len(read(tenant)), "as_of now sees all of it"
