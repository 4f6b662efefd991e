"""The log of a server process: one request, one id, from REST to the commit; as text and as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
import time

import httpx
import pytest

from timedb.run.launch import Service
from timedb.run.logs import JsonLines

UPLOAD = {
    "run_start_time": "2025-01-01T00:00:00Z",
    "value_rows": [{"value_key": "logged", "valid_time": "2025-01-01T00:00:00Z", "value": 1}],
}


def test_one_id_from_rest_through_flight_to_the_commit(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    expected = {("timedb.rest", "POST"), ("timedb.flight", "do_put"), ("timedb.storage", "committed")}
    with caplog.at_level(logging.INFO):
        headers = {"x-request-id": "one-request.7", "x-api-key": "a-key-that-nobody-may-read"}
        answer = httpx.post(f"{service.rest_url}/upload", json=UPLOAD, headers=headers)
        deadline = time.monotonic() + 30
        while not expected <= told(caplog) and time.monotonic() < deadline:
            time.sleep(0.01)  # the gateway's line is written after its answer
    assert answer.status_code == 200
    assert expected <= told(caplog)
    assert not [record for record in caplog.records if "nobody-may-read" in JsonLines().format(record)]


def told(caplog: pytest.LogCaptureFixture) -> set[tuple[str, str]]:
    """Logger and first word of the lines of the request."""
    lines = [json.loads(JsonLines().format(record)) for record in list(caplog.records)]
    return {(line["logger"], line["message"].split()[0]) for line in lines if is_of(line)}


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
