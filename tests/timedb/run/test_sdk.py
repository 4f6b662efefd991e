"""The notebook's facade: in the notebook's order, and in every other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import timedb as td
from timedb.run.launch import Service

NOTEBOOK = """
import timedb as td
td.delete()
td.create()
td.create()
assert td.check_api() is False
assert td.start_api_background() is True
assert td.check_api() is True
assert td.start_api_background() is True
import timedb.run.sdk
url = timedb.run.sdk._session.api_url
import json, urllib.request
def post(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
post("/series", {"name": "temperature", "unit": "celsius"})
print("series:", len(json.load(urllib.request.urlopen(url + "/list_timeseries"))))
td.delete()
assert td.check_api() is False
td.delete()
td.create()
assert td.start_api_background() is True
print("series:", len(json.load(urllib.request.urlopen(url + "/list_timeseries"))))
"""


def run(code: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, which has to end by itself."""
    environment = {**os.environ, **settings}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def free_port() -> str:
    """A port that nobody listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def test_the_notebook_runs_in_its_order(tmp_path: Path, free_port: str) -> None:
    done = run(NOTEBOOK, tmp_path, TIMEDB_REST_PORT=free_port, TIMEDB_FLIGHT_PORT="0")
    assert done.returncode == 0, done.stderr
    url = f"http://127.0.0.1:{free_port}"
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        "✓ Nothing to delete: there is no lake at ./timedb-data",
        "Creating database schema...",
        "✓ Schema created successfully: the lake is at ./timedb-data",
        "✓ Schema exists already: the lake at ./timedb-data stays as it is",
        f"❌ API is not running on {url}!",
        "   Please start it by running: td.start_api_background()",
    ]
    assert f"Starting TimeDB API server on {url}..." in lines
    assert "✓ API is running" in lines
    assert "  Name: TimeDB API" in lines
    assert "    - read_values: GET /values - Read time series values" in lines
    assert "✓ API server started successfully" in lines
    assert f"✓ API is already running on {url}" in lines
    assert [line for line in lines if line.startswith("series:")] == ["series: 1", "series: 0"]
    assert f"✓ API server on {url} stopped" in lines
    assert done.stderr == ""


def test_an_api_of_another_process_is_not_taken_for_the_one_to_be_started(tmp_path: Path, service: Service) -> None:
    """Deleted, made anew and "started": what was written then went into the lake of whoever had the port."""
    rest, flight = (url.rpartition(":")[2] for url in (service.rest_url, service.flight_url))
    code = f"""
import timedb as td
td.create()
td.delete()
for start in (lambda: td.start_api_background(port={rest}), lambda: td.start_api(port={rest})):
    try:
        start()
    except td.InvalidRequest as error:
        print("refused:", error)
assert td.check_api("{service.rest_url}/") is True
import os
os.environ["TIMEDB_FLIGHT_PORT"] = "{flight}"
try:
    td.start_api_background(port=0)
except td.InvalidRequest as error:
    print("refused:", error)
"""
    done = run(code, tmp_path, TIMEDB_FLIGHT_PORT="0")
    assert done.returncode == 0, done.stderr
    background, foreground, embedded = (line for line in done.stdout.splitlines() if line.startswith("refused: "))
    assert f"a TimeDB API of another process answers at {service.rest_url}" in background
    assert "port=0" in background
    assert f"cannot listen on 127.0.0.1 port {rest}" in foreground
    assert f"cannot listen on 127.0.0.1 port {flight}" in embedded
    assert "  Started by: another process" in done.stdout.splitlines()


def test_an_api_on_another_lake_is_not_taken_for_the_one_to_be_started(tmp_path: Path, free_port: str) -> None:
    code = """
import os, timedb as td
assert td.start_api_background()
os.environ["TIMEDB_LAKE"] = "other"
try:
    td.start_api_background()
except td.InvalidRequest as error:
    print("refused:", error)
td.stop_api()
assert td.start_api_background()
assert os.path.exists("other/timedb-lake.json")
"""
    done = run(code, tmp_path, TIMEDB_REST_PORT=free_port, TIMEDB_FLIGHT_PORT="0")
    assert done.returncode == 0, done.stderr
    (refused,) = (line for line in done.stdout.splitlines() if line.startswith("refused: "))
    assert "for the lake ./timedb-data and not for the lake other; td.stop_api()" in refused


def test_an_address_that_something_else_has_is_an_error(tmp_path: Path) -> None:
    code = """
import socket, timedb as td
with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    try:
        td.start_api_background(port=port)
    except td.InvalidRequest as error:
        print(error)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cannot listen on 127.0.0.1 port" in done.stdout


def test_a_background_api_stops_when_asked_and_several_may_run(tmp_path: Path) -> None:
    code = """
import timedb as td
from timedb.run.sdk import _session
assert td.start_api_background(port=0)
assert td.start_api_background(port=0)
first, second = (service.rest_url for service in _session.services)
assert first != second
assert td.check_api(first) and td.check_api(second)
td.stop_api()
assert not td.check_api(first) and not td.check_api(second)
td.stop_api()
"""
    done = run(code, tmp_path, TIMEDB_FLIGHT_PORT="0")
    assert done.returncode == 0, done.stderr


def test_the_foreground_api_ends_at_an_interrupt(tmp_path: Path) -> None:
    code = """
import os, signal, threading, time, urllib.request
import timedb as td
from timedb.run.sdk import _session
def interrupt():
    while not _session.services:
        time.sleep(0.01)
    urllib.request.urlopen(_session.api_url).close()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
td.start_api(port=0)
print("ended")
"""
    done = run(code, tmp_path, TIMEDB_FLIGHT_PORT="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended"


def test_a_lake_may_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    td.create("somewhere/else")
    assert (tmp_path / "somewhere" / "else").is_dir()
    td.delete(lake="somewhere/else")
    assert "the lake at somewhere/else is gone" in capsys.readouterr().out
    assert not (tmp_path / "somewhere" / "else").exists()
