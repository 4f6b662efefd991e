"""What an operator does to a lake, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import timedb as td
from tests.timedb.cli.test_cli import timedb
from tests.timedb.conftest import frame
from timedb.contract.settings import ServerSettings
from timedb.run.launch import start_service


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with one series of three values, and nobody serving it."""
    folder = tmp_path / "lake"
    settings = ServerSettings(lake=str(folder), flight_port=0, rest_port=0)
    service = start_service(settings, rest=False)
    try:
        with td.connect(service.flight_url) as client:
            client.upload(frame("wind", [1.0, 2.0, 3.0]), run_id="first")
    finally:
        service.stop()
    return folder


def _log(lake: Path) -> Path:
    return lake / "tenants" / "00000000-0000-0000-0000-000000000000" / "values" / "_delta_log"


def _values(lake: Path) -> list[float]:
    service = start_service(ServerSettings(lake=str(lake), flight_port=0, rest_port=0), rest=False)
    try:
        with td.connect(service.flight_url) as client:
            return client.read(ordered=True)["value"].to_list()
    finally:
        service.stop()


def test_the_doctor_finds_a_torn_commit_and_mends_it_when_asked(lake: Path) -> None:
    assert timedb("doctor", "--lake", str(lake), "--json").stdout == "[]\n"
    torn = _log(lake) / f"{2:020d}.json"
    torn.write_bytes(b"")
    found = timedb("doctor", "--lake", str(lake), "--json")
    assert found.returncode == 1
    assert [fault["fault"] for fault in json.loads(found.stdout)] == ["torn commit", "unreadable"]
    assert torn.exists()
    assert timedb("doctor", "--lake", str(lake), "--repair").returncode == 1
    assert torn.exists(), "what may have been acknowledged goes only when that is accepted"
    mended = timedb("doctor", "--lake", str(lake), "--repair", "--accept-loss", "--yes", "--json")
    assert mended.returncode == 0
    assert [(fault["fault"], fault["repaired"]) for fault in json.loads(mended.stdout)] == [("torn commit", True)]
    assert timedb("doctor", "--lake", str(lake)).returncode == 0
    assert _values(lake) == [1.0, 2.0, 3.0]


def test_a_lake_of_the_newest_format_needs_no_upgrade(lake: Path) -> None:
    done = timedb("upgrade", "--lake", str(lake), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"from": 2, "to": 2, "tables": 0})
    assert "newest format already" in done.stderr


def test_the_doctor_gives_rows_up_only_when_told_to(lake: Path) -> None:
    (lost,) = _log(lake).parent.rglob("*.parquet")
    lost.unlink()
    only_repair = timedb("doctor", "--lake", str(lake), "--repair", "--json")
    assert only_repair.returncode == 1
    assert [fault["fault"] for fault in json.loads(only_repair.stdout)] == ["missing data file"]
    assert "does nothing without --repair" in timedb("doctor", "--lake", str(lake), "--accept-loss", "--yes").stderr
    assert timedb("doctor", "--lake", str(lake), "--repair", "--accept-loss", "--yes").returncode == 0
    assert _values(lake) == []


def test_a_backup_is_restored_elsewhere(lake: Path, tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    assert json.loads(timedb("backup", str(backup), "--lake", str(lake), "--json").stdout)["files"] > 0
    assert timedb("restore", str(backup), "--lake", str(restored)).returncode == 0
    assert _values(restored) == _values(lake) == [1.0, 2.0, 3.0]
    again = timedb("restore", str(backup), "--lake", str(restored))
    assert again.returncode != 0
    assert again.stderr.startswith("error: invalid_request: ")


def test_retention_tells_before_it_removes(lake: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps([{"name": "wind", "drop_after_days": 1}]))
    service = start_service(ServerSettings(lake=str(lake), flight_port=0, rest_port=0), rest=False)
    try:
        with td.connect(service.flight_url) as client:
            now = datetime.now(UTC).replace(microsecond=0)
            client.upload(frame("wind", [9.0], now + timedelta(hours=1)), run_id="new")
            told = timedb("retention", str(rules), "--json", TIMEDB_FLIGHT_URL=service.flight_url)
            assert told.returncode == 0, told.stderr
            assert client.read(series_keys=["wind"]).height == 4
            done = timedb("retention", str(rules), "--apply", "--yes", "--json", TIMEDB_FLIGHT_URL=service.flight_url)
            assert done.returncode == 0, done.stderr
            assert client.read(series_keys=["wind"])["value"].to_list() == [9.0]
            rules.write_text("[")
            assert "is not JSON" in timedb("retention", str(rules), TIMEDB_FLIGHT_URL=service.flight_url).stderr
    finally:
        service.stop()


def test_a_file_in_the_place_of_a_lake_is_named_and_no_traceback_shown(lake: Path, tmp_path: Path) -> None:
    backup, file = tmp_path / "backup", tmp_path / "file"
    assert timedb("backup", str(backup), "--lake", str(lake)).returncode == 0
    file.write_text("mine")
    for place in (file, file / "below"):
        for command in (("restore", str(backup)), ("delete", "--yes"), ("create",)):
            said = timedb(*command, "--lake", str(place))
            assert said.returncode == 2
            assert said.stderr.startswith(f"error: invalid_request: --lake: '{file}")
            assert "Traceback" not in said.stderr
    assert file.read_text() == "mine"


def test_an_error_of_the_disk_is_a_line(lake: Path) -> None:
    (lake / "timedb-lake.json").unlink()
    (lake / "timedb-lake.json").mkdir()
    command = [sys.executable, "-m", "timedb", "upgrade", "--lake", str(lake)]  # a process logs, a test is logged of
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stderr.startswith("the lake could not be read or written: IsADirectoryError: ")
    assert "Traceback" not in said.stderr
