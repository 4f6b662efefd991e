"""Clients and servers that come and go in one process leave nothing behind: fifty times with ``make soak-service``."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import timedb as td
from tests.flight_server.flights import eventually, rows_of
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ReadCommand
from timedb.flight_server import FlightService, start_flight_server
from timedb.run.launch import start_service
from timedb.storage import Lake

# Read before the tests' environment is cleared.
TIMES = 50 if os.environ.get("TIMEDB_TEST_SOAK_MINUTES") else 5
MAX_GROWTH_KIB = 400
"""A time, of resident memory: what an allocator keeps, not what a lake or server takes (several MiB)."""


def descriptors() -> int:
    """File descriptors that are open."""
    return len(os.listdir("/proc/self/fd"))


def memory_kib() -> int:
    """Resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def threads() -> set[str]:
    """Python threads that run; gRPC's own, which Python calls Dummy, are a pool of the process."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("Dummy")}


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Does something again and again, and compares what there is then with what there was after the first times."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def repeat(once: Callable[[], None]) -> None:
        for _ in range(3):
            once()
        gc.collect()
        before, running, size = descriptors(), threads(), memory_kib()
        for _ in range(TIMES):
            once()
        gc.collect()
        eventually(lambda: threads() <= running)
        eventually(lambda: descriptors() <= before + 2)
        assert list(folder.iterdir()) == []
        grown = (memory_kib() - size) / TIMES
        if TIMES > 20:  # before, the pools of the libraries still grow to what they are
            print(
                f"fds {before} -> {descriptors()}, threads {len(running)} -> {len(threads())}, {grown:.0f} KiB a time"
            )
            assert grown < MAX_GROWTH_KIB

    return repeat


def test_clients_come_and_go(again: Callable[[Callable[[], None]], None], flight_service: FlightService) -> None:

    def once() -> None:
        with td.connect(flight_service.url) as client:
            client.upload(rows_of("comes-and-goes"), run_id="comes-and-goes", known_time="2025-01-01T00:00:00Z")
            assert client.read(series_keys="comes-and-goes").height == 3
            with client.stream(ReadCommand()) as stream:
                next(stream)

    again(once)


def test_lakes_and_flight_servers_come_and_go(again: Callable[[Callable[[], None]], None], lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, shutdown_seconds=2.0)

    def once() -> None:
        lake = Lake.open(settings.lake, settings)
        service = start_flight_server(lake, settings)
        with td.connect(service.url) as client:
            client.upload(rows_of("served"), run_id="served", known_time="2025-01-01T00:00:00Z")
            assert client.read(series_keys="served").height == 3
        service.stop()
        lake.close()

    again(once)


def test_whole_services_come_and_go(again: Callable[[Callable[[], None]], None], lake_dir: Path) -> None:
    settings = load_settings(
        ServerSettings, lake=str(lake_dir), flight_port=0, rest_port=0, metrics_port=0, shutdown_seconds=2.0
    )

    def once() -> None:
        with start_service(settings) as service, td.connect(service.flight_url) as client:
            assert client.health() == {"ok": True}

    again(once)
