"""What the tests of the gateway share: uploads in one line, and the one check of an error's shape."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from timedb.contract.settings import ServerSettings, load_settings
from timedb.rest_gateway import Connections

START = "2025-01-01T00:00:00Z"


def upload(rest: httpx.Client, rows: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """Upload value rows as one run; the answer."""
    response = rest.post("/runs", json={"run_start_time": START, "value_rows": list(rows), **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def hours(name: str, values: Sequence[Any], day: str = "2025-01-01") -> list[dict[str, Any]]:
    """Value rows of one series, an hour apart."""
    return [
        {"valid_time": f"{day}T{hour:02d}:00:00Z", "value_key": name, "value": value}
        for hour, value in enumerate(values)
    ]


def read(rest: httpx.Client, name: str, **parameters: Any) -> dict[str, Any]:
    """``GET /values`` of one series as JSON."""
    response = rest.get("/values", params={"name": name, **parameters})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def assert_error(response: httpx.Response, status: int, code: str, *parts: str) -> None:
    """The answer is an error of the one shape, and its detail contains each of ``parts``."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["detail", "code", "request_id"]
    assert body["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert [part for part in parts if part not in body["detail"]] == [], body["detail"]
    for leak in ("Traceback", ".py", "grpc", "pydantic", "site-packages"):
        assert leak not in response.text


@contextmanager
def serving(app: FastAPI, settings: ServerSettings | None = None) -> Iterator[httpx.Client]:
    """The app in a real server, under the limits of connections that settings say."""
    connections = Connections.under(settings or load_settings(ServerSettings))
    listener = connections.listener(socket.create_server(("127.0.0.1", 0)))
    config = uvicorn.Config(
        app,
        http=connections.protocol,  # type: ignore[arg-type]
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
