"""A server that may take little memory: each answer is right, or ``busy``, or ``too_large``; the server lives on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import httpx
import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families

import timedb as td

LIMIT_MB = 256
ROWS = 80_000
MEMORY_CODES = {"busy", "too_large"}
T0 = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class Server:
    """A service in a process of its own."""

    pid: int
    flight_url: str
    rest_url: str

    def memory(self, line: str) -> int:
        """MiB, as the kernel says."""
        found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) >> 10

    def refused(self) -> dict[str, float]:
        """How many calls got no memory, by code."""
        text = httpx.get(f"{self.rest_url}/metrics").text
        return {
            sample.labels["code"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "timedb_memory_refused_total"
        }


def rows(name: str, start: int, count: int = ROWS) -> pl.DataFrame:
    hours = pl.int_range(count, eager=True) * 3_600_000_000
    times = hours.cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"series_key": [name] * count, "valid_time": times, "value": hours.cast(pl.Float64) + start})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("memory")
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(folder / "lake"), "--json"]
    settings = {
        "TIMEDB_MEMORY_LIMIT_MB": str(LIMIT_MB),
        "TIMEDB_MEMORY_WAIT_SECONDS": "0.2",
        "TIMEDB_READ_CACHE_BYTES": "0",
        "PATH": "/usr/bin:/bin",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--flight-port", "0", "--rest-port", "0"], stdout=subprocess.PIPE, stderr=log, env=settings
        )
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Server(process.pid, said["flight_url"], said["rest_url"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (folder / "log").read_text()
        process.stdout.close()


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each says, all of them at the same time: its answer, or the code of its error."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except td.TimeDBError as error:
            return error.code
        except adbc_driver_manager.Error as error:
            found = re.search(r"(\w+): ", str(error).partition("] ")[2] or str(error))
            return found[1] if found else str(error)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


def test_whatever_is_asked_at_once_is_right_or_refused_for_memory(server: Server) -> None:
    with td.connect(server.flight_url) as client, httpx.Client(base_url=server.rest_url, timeout=60) as rest:
        for run in range(3):
            client.upload(rows("wide", run), run_id=f"wide-{run}", known_time=T0)
        body = json.dumps(
            {
                "run_start_time": "2025-01-01",
                "value_rows": [
                    {"valid_time": f"2025-01-01T00:00:00.{n:06}Z", "value_key": "body", "value": n} for n in range(ROWS)
                ],
            }
        ).encode()

        def posted(data: bytes) -> Any:
            answer = rest.post("/upload", content=data, headers={"Content-Type": "application/json"})
            return "ok" if answer.is_success else answer.json()["code"]

        def read() -> Any:
            found = client.read_arrow(series_keys="wide", view="overlapping", all_versions=True)
            return found.num_rows

        def asked() -> Any:
            with adbc.connect(server.flight_url, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*), sum(value) FROM flat")
                (found,) = cursor.fetchall()
                return found[0] >= ROWS

        def uploaded(number: int) -> Any:
            return client.upload(rows(f"other-{number}", 0), run_id=f"other-{number}").rows

        calls: list[Callable[[], Any]] = [read] * 6
        calls += [lambda: posted(body)] * 3
        calls += [asked] * 3
        calls += [lambda number=number: uploaded(number) for number in range(4)]  # type: ignore[misc]
        said = at_once(calls)
        counted = Counter(map(str, said))
        assert set(counted) <= {str(3 * ROWS), str(ROWS), "ok", "True", *MEMORY_CODES}, counted
        assert counted[str(3 * ROWS)], "one after the other they are served"
        # What could never be there is refused at once, before it is parsed.
        dense = b'{"run_start_time": "2025-01-01", "value_rows": [' + b",".join([b"{}"] * 590_000) + b"]}"
        assert posted(dense) == "too_large"
        assert server.refused()["too_large"] >= 1
        # Nothing is held any more, and what was acknowledged is there.
        assert read() == 3 * ROWS
        for number, answer in enumerate(said[-4:]):
            stored = client.list_series(name=f"other-{number}") and client.read(series_keys=f"other-{number}").height
            assert stored == (ROWS if answer == ROWS else []), answer
        assert client.health() == {"ok": True}
    assert server.memory("VmHWM") < 3 * LIMIT_MB, "estimates are no more than that"
