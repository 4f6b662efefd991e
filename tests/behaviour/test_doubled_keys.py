"""A key that stands twice in one object of JSON is refused by name, at every door that reads JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import polars as pl
import pytest
from pyarrow import flight

import timedb as td
from tests.flight_server.flights import act, fails
from tests.timedb.cli.test_cli import timedb

if TYPE_CHECKING:
    from timedb.client import Client
    from timedb.run.launch import Service

TWICE = r"the key '{key}' stands twice in one object"
ROW = '{"valid_time": "2025-01-01T00:00:00Z", "value_key": "doubled", "value": 1, "value": 2}'
RUN = '"run_start_time": "2025-01-01T00:00:00Z"'
JSON = "application/json"


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "key"),
    [
        ("POST", "/runs", JSON, f'{{{RUN}, "value_rows": [{ROW}]}}', "value"),
        ("POST", "/runs", JSON, f'{{{RUN}, {RUN}, "value_rows": []}}', "run_start_time"),
        ("POST", "/runs", JSON, f'{{{RUN}, "run_params": {{"a": {{"b": 1, "b": 2}}}}, "value_rows": []}}', "b"),
        ("POST", "/runs", "application/x-ndjson", f"\n{ROW}", "value"),
        ("POST", "/series", JSON, '{"name": "doubled", "unit": "MW", "unit": "kW"}', "unit"),
        ("POST", "/series", JSON, '{"name": "doubled", "labels": {"a": "1", "a": "2"}}', "a"),
        ("PATCH", "/series/x", JSON, '{"retired": true, "retired": false}', "retired"),
        ("PUT", "/values", JSON, '{"updates": [], "updates": []}', "updates"),
        ("POST", "/runs/x/withdraw", JSON, '{"reason": "one", "reason": "two"}', "reason"),
        ("GET", '/values?labels={"a":"1","a":"2"}', "", "", "a"),
    ],
)
def test_rest(service: Service, method: str, path: str, kind: str, body: str, key: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = httpx.request(method, f"{service.rest_url}{path}", content=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert TWICE.format(key=key) in answer.json()["detail"]
    if "ndjson" in kind:
        assert answer.json()["detail"].startswith("body: line 2: ")


def test_flight(service: Service, client: Client) -> None:
    with flight.connect(service.flight_url) as plain:
        with fails("invalid_request", TWICE.format(key="view")):
            plain.do_get(flight.Ticket(b'{"op": "read", "view": "flat", "view": "overlapping"}'))
        with fails("invalid_request", TWICE.format(key="run_id")):
            act(plain, "get_run", b'{"run_id": "a", "run_id": "b"}')
    rows = {"series_key": ["doubled"], "labels": ['{"a":"1","a":"2"}'], "valid_time": ["2025-01-01"], "value": [1.0]}
    table = pl.DataFrame(rows).with_columns(pl.col("valid_time").str.to_datetime(time_zone="UTC", time_unit="us"))
    with pytest.raises(td.InvalidRequest, match=f"labels: row 0: .*{TWICE.format(key='a')}"):
        client.upload(table)


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("rows.ndjson", '{"valid_time": "2025-01-01T00:00:00Z", "value": 1}\n{"value": 1, "value": 2}\n', "line 2: "),
        ("rows.json", '[{"valid_time": "2025-01-01T00:00:00Z", "value": 1, "value": 2}]', ""),
    ],
)
def test_files(service: Service, tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text)
    answer = timedb("upload", str(tmp_path / name), "--series", "doubled", TIMEDB_FLIGHT_URL=service.flight_url)
    assert answer.returncode == 2
    assert f"{place}{TWICE.format(key='value')}" in answer.stderr


def test_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"labels": {}, "drop_after_days": 10, "drop_after_days": 100}]')
    answer = timedb("retention", str(rules))
    assert answer.returncode == 2
    assert TWICE.format(key="drop_after_days") in answer.stderr
    rules.write_text("[" * 100_000 + "]" * 100_000)
    assert "is nested too deeply" in timedb("retention", str(rules)).stderr


def test_what_stands_in_two_objects_is_taken(service: Service) -> None:
    body = f'{{{RUN}, "run_params": {{"a": {{"a": 1}}, "b": [{{"a": 1}}, {{"a": 2}}]}}, "value_rows": []}}'
    answer = httpx.post(f"{service.rest_url}/runs", content=body, headers={"Content-Type": JSON}, timeout=60)
    assert answer.status_code == 200, json.loads(answer.text)
