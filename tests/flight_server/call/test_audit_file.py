"""The audit log on a disk that is full: what is done has its line, and what could have none is not done."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import flight

from tests.flight_server.flights import act, fails
from timedb.flight_server import FlightService
from timedb.flight_server.call.audit import AUDIT_LOGGER
from timedb.flight_server.call.audit_file import AuditFile

Start = Callable[..., FlightService]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def audited() -> Iterator[Callable[[Path], AuditFile]]:
    """Has the audit log written to a file, as ``TIMEDB_AUDIT_LOG`` does."""
    logger, handlers = logging.getLogger(AUDIT_LOGGER), []

    def write_to(path: Path) -> AuditFile:
        handlers.append(handler := AuditFile(str(path)))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        return handler

    yield write_to
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """What the log says."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def fill(path: Path) -> None:
    """Leave no byte of a disk free."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def test_what_has_no_line_is_not_done(start: Start, small_disk: Path, audited: Callable[[Path], AuditFile]) -> None:
    log = small_disk / "audit.log"
    audited(log)
    numbers = itertools.count()
    with flight.connect(start().url) as client:

        def make() -> str:
            found: str = act(client, "create_series", {"name": f"audited-{next(numbers)}"})["series_id"]
            return found

        made = [make()]
        fill(small_disk / "others")
        made.append(make())
        with fails("storage_full", "audit log"):
            while len(made) < 100:
                made.append(make())
        assert [each["series_id"] for each in lines(log) if each["code"] == "ok"] == made, (
            "the room that was kept took the last"
        )
        (small_disk / "others").unlink()
        made.append(make())
        listed = {each["series_id"] for each in act(client, "list_series", {"search": "audited"})["series"]}
    assert listed == set(made)
    assert [each["code"] for each in lines(log)] == ["ok"] * (len(made) - 1) + ["storage_full", "ok"]


def test_a_log_that_may_not_grow_refuses_what_would_change_something(
    start: Start, tmp_path: Path, audited: Callable[[Path], AuditFile]
) -> None:
    audited(Path("/dev/full"))
    with flight.connect(start().url) as client:
        with fails("storage_full", "audit log", "nothing is changed"):
            act(client, "create_series", {"name": "without-a-line"})
        assert act(client, "list_series", {"name": "without-a-line"}) == {"series": []}


def test_the_file_is_its_owner_s_and_may_be_moved_away(tmp_path: Path, audited: Callable[[Path], AuditFile]) -> None:
    path = tmp_path / "audit.log"
    handler = audited(path)
    logging.getLogger(AUDIT_LOGGER).info("one")
    path.rename(tmp_path / "moved")
    logging.getLogger(AUDIT_LOGGER).info("two")
    assert ((tmp_path / "moved").read_text(), path.read_text()) == ("one\n", "two\n")
    assert path.stat().st_mode & 0o777 == 0o600
    handler.require_room()
    assert (tmp_path / "audit.log.room").exists()
    handler.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit.log", "moved"]
