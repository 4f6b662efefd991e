"""``timedb.api:app``, as ASGI servers use it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

import timedb.api
from timedb.contract.errors import InvalidRequest
from timedb.run.launch import Service


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as freshly imported."""
    monkeypatch.delitem(vars(timedb.api), "app", raising=False)
    return timedb.api


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """The app under uvicorn, as ``uvicorn timedb.api:app`` runs it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def test_importing_it_starts_nothing(tmp_path: Path) -> None:
    code = "import sys, threading, timedb.api; print(*sys.modules, threading.active_count())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    *modules, threads = done.stdout.split()
    assert threads == "1"
    assert not {"storage", "flight_server", "rest_gateway"} & set(modules)
    assert list(tmp_path.iterdir()) == []


def test_without_a_flight_server_it_brings_its_own(
    api: ModuleType, lake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMEDB_LAKE", str(lake_dir))
    monkeypatch.setenv("TIMEDB_FLIGHT_PORT", "0")
    assert isinstance(api.app, FastAPI)
    assert not lake_dir.exists()
    for expected in ([], ["load"]):
        with served(api.app) as http:
            assert http.get("/").json()["name"] == "TimeDB API"
            assert http.get("/health").status_code == 200
            assert http.get("/docs").status_code == 200
            assert "/values" in http.get("/openapi.json").json()["paths"]
            assert http.get("/nothing-there").json()["code"] == "not_found"
            series = http.get("/list_timeseries").json()
            assert [each["series_key"] for each in series.values()] == expected
            assert http.post("/series", json={"name": "load"}).status_code == 200


def test_with_a_flight_server_it_is_a_gateway_alone(
    api: ModuleType, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMEDB_FLIGHT_URL", service.flight_url)
    with served(api.app) as http:
        assert http.get("/health").status_code == 200
        assert http.get("/list_timeseries").status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_does_not_fit_is_named(api: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_MAX_BODY_BYTES", "many")
    with pytest.raises(InvalidRequest, match="TIMEDB_MAX_BODY_BYTES: 'many'"):
        _ = api.app
    with pytest.raises(AttributeError):
        _ = importlib.import_module("timedb.api").application
