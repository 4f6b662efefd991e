"""The log of a server process: one request, one id, from REST to the commit; as text and as JSON lines."""

from __future__ import annotations

import json
import logging
import sys

import httpx
import pytest

from timedb.launch import Service
from timedb.logs import JsonLines

UPLOAD = {
    "run_start_time": "2025-01-01T00:00:00Z",
    "value_rows": [{"value_key": "logged", "valid_time": "2025-01-01T00:00:00Z", "value": 1}],
}


def test_one_id_from_rest_through_flight_to_the_commit(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        headers = {"x-request-id": "one-request.7", "x-api-key": "a-key-that-nobody-may-read"}
        answer = httpx.post(f"{service.rest_url}/upload", json=UPLOAD, headers=headers)
    assert answer.status_code == 200
    lines = [JsonLines().format(record) for record in caplog.records]
    found = {(line["logger"], line["message"].split()[0]) for line in map(json.loads, lines) if is_of(line)}
    assert {("timedb.rest", "POST"), ("timedb.flight", "do_put"), ("timedb.storage", "committed")} <= found
    assert not [line for line in lines if "nobody-may-read" in line]


def is_of(line: dict[str, str]) -> bool:
    """Whether a line names the request."""
    return line.get("request_id") == "one-request.7"


def test_a_line_is_one_object_whatever_the_message() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed = logging.LogRecord("timedb.flight", logging.ERROR, "-", 1, "%s failed\n", ("é",), sys.exc_info())
    line = JsonLines().format(failed)
    assert "\n" not in line
    body = json.loads(line)
    assert body["level"] == "error"
    assert body["message"] == "é failed\n"
    assert body["error"].endswith("ValueError: two\nlines")
    assert body["time"].endswith("+00:00")
    assert "request_id" not in body
    of_request = logging.LogRecord("a", logging.INFO, "-", 1, "do_put ms=1.0 request_id=r-1 peer=x", (), None)
    assert json.loads(JsonLines().format(of_request)) | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "a",
        "request_id": "r-1",
        "message": "do_put ms=1.0 peer=x",
    }
