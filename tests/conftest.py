"""What all tests share: no settings from the developer's own shell, one running service, the Hypothesis profiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from timedb.run.launch import Service

# Each example talks to a real service: its time says nothing, and shrinking one takes minutes. `quick` draws the same
# examples every time and reports the first that fails as it was drawn; `soak` draws many and shrinks.
PROFILE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("quick", derandomize=True, max_examples=7, phases=[Phase.explicit, Phase.generate], **PROFILE)
settings.register_profile("soak", max_examples=1000, phases=[*set(Phase) - {Phase.explain}], **PROFILE)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_shell() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TIMEDB_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _patience_with_a_busy_machine() -> None:
    # httpx gives up after five seconds unless told otherwise, in which a machine full of tests may answer nothing.
    from httpx._config import DEFAULT_TIMEOUT_CONFIG

    DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.connect = 60.0


@pytest.fixture(scope="session")
def service_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's lake."""
    return tmp_path_factory.mktemp("service") / "lake"


@pytest.fixture(scope="session")
def service(service_lake: Path) -> Iterator[Service]:
    """A Flight server and a REST gateway in this process, on free ports, over a lake of their own.

    One for the whole session: tests name their series and runs so that they do not meet.
    """
    # Here and not above: a test of one module needs neither server nor its import.
    from timedb.contract.settings import ServerSettings, load_settings
    from timedb.run.launch import start_service

    service = start_service(load_settings(ServerSettings, lake=str(service_lake), flight_port=0, rest_port=0))
    yield service
    service.stop()


@pytest.fixture
def lake_dir(tmp_path: Path) -> Path:
    """A folder in which a test may make a lake of its own."""
    return tmp_path / "lake"


@dataclass(frozen=True)
class Served:
    """A service in a process of its own."""

    flight_url: str
    rest_url: str
    lake: Path
    pid: int


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``timedb serve`` as a user starts it, on free ports."""
    lake = tmp_path_factory.mktemp("served") / "lake"
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(lake), "--flight-port", "0", "--rest-port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _wait_until_served(server, log.fileno(), lake)
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_served(server: subprocess.Popen[bytes], log: int, lake: Path, seconds: float = 60.0) -> Served:
    deadline = time.monotonic() + seconds
    while True:
        text = os.pread(log, 1 << 20, 0).decode(errors="replace")
        flight = re.search(r"grpc://[\d.]+:\d+", text)
        rest = re.search(r"http://[\d.]+:\d+", text)
        if flight and rest:
            return Served(flight[0], rest[0], lake, server.pid)
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"timedb serve did not come up (exit code {server.poll()}):\n{text[-3000:]}")
        time.sleep(0.05)
