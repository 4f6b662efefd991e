"""Values that nobody means, in every field of every call: an error of the caller's, or an answer, never a 5xx."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.rest_gateway.calls import START, hours, upload
from timedb.contract.wire import WireModel
from timedb.rest_gateway.ask.models import (
    NewManySeries,
    NewSeries,
    Restoration,
    RunsQuery,
    SeriesChange,
    SeriesLabelsQuery,
    SeriesPageQuery,
    SeriesQuery,
    UpdateRequest,
    UploadQuery,
    UploadRequest,
    Withdrawal,
)
from timedb.rest_gateway.ask.reads import AccuracyQuery, ValuesQuery

_MARK = "@@"
_DEEP = 30_000


def _coded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


# As JSON, which Python's own json would not always write.
HOSTILE = [
    '"\\ud800"',
    '"\\u0000"',
    f'"{_coded("[" * _DEEP)}"',
    '"9999-12-31T23:59:59.999999-23:59"',
    f"{'[' * 600}{']' * 600}",
    "1e309",
    f"1{'0' * 5000}",
]
TEXTS = ["[" * (_DEEP // 2), _coded("[" * _DEEP), "\x00" + "9" * 5000, '{"\\ud800": "\\udfff"}']

ROW = {"valid_time": START, "valid_time_end": START, "known_time": START, "value_key": "hostile", "value": 1.0}
BODIES: dict[tuple[str, str, type[WireModel]], dict[str, Any]] = {
    ("POST", "/series", NewSeries): {"name": "hostile", "unit": "MW", "description": "x", "labels": {"a": "b"}},
    ("POST", "/series/many", NewManySeries): {"series": [{"name": "hostile", "labels": {"a": "b"}}]},
    ("PATCH", "/series/none", SeriesChange): {"name": "x", "unit": "MW", "unit_change": "declare", "description": "x"},
    ("POST", "/runs", UploadRequest): {
        "workflow_id": "w",
        "run_start_time": START,
        "run_finish_time": START,
        "known_time": START,
        "run_id": "hostile",
        "run_params": {"a": 1},
        "series_descriptions": {"hostile": "x"},
        "unit": "MW",
        "value_rows": [{**ROW, "series_id": "none", "annotation": "x", "tags": ["a"]}],
    },
    ("PUT", "/values", UpdateRequest): {
        "updates": [
            {
                "run_id": "hostile",
                "series_id": "none",
                "value_id": "x",
                "tenant_id": "none",
                "valid_time": START,
                "known_time": START,
                "valid_time_end": START,
                "value": 1.0,
                "annotation": "x",
                "tags": ["a"],
                "changed_by": "me",
            }
        ],
        "update_id": "x",
    },
    ("POST", "/runs/hostile/withdraw", Withdrawal): {"reason": "x", "series_ids": ["none"], "changed_by": "me"},
    ("POST", "/runs/hostile/restore", Restoration): {"reason": "x", "series_ids": ["none"], "changed_by": "me"},
}
QUERIES: dict[str, type[WireModel]] = {
    "/values?limit=1": ValuesQuery,
    "/accuracy": AccuracyQuery,
    "/series": SeriesPageQuery,
    "/list_timeseries": SeriesQuery,
    "/series/labels": SeriesLabelsQuery,
    "/runs": RunsQuery,
}


def _places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from _places(part, (*path, key))


def _with(body: dict[str, Any], path: tuple[Any, ...], text: str) -> bytes:
    """A body as JSON in which ``text`` stands in one place."""
    found = json.loads(json.dumps(body))
    *way, last = path
    place = found
    for step in way:
        place = place[step]
    place[last] = _MARK
    return json.dumps(found).replace(json.dumps(_MARK), text).encode()


def _is_answered(response: httpx.Response) -> bool:
    """Whether it is what an honest server says: no fault of its own, in one shape."""
    if response.status_code >= 500 or response.headers.get("content-type") != "application/json":
        return False
    return response.status_code == 200 or list(response.json()) == ["detail", "code", "request_id"]


@pytest.mark.parametrize("call", BODIES, ids=lambda call: f"{call[0]} {call[1]}")
def test_no_value_of_a_body_is_a_fault_of_ours(rest: httpx.Client, call: tuple[str, str, type[WireModel]]) -> None:
    method, path, model = call
    body = BODIES[call]
    assert set(body) | {"retired", "create_series", "skip_unchanged"} >= set(model.model_fields), "every field is tried"
    headers = {"Content-Type": "application/json"}
    failed = []
    for place in _places(body):
        for text in HOSTILE:
            answer = rest.request(method, path, content=_with(body, place, text), headers=headers)
            if not _is_answered(answer):
                failed.append((place, text[:20], answer.text[:100]))
    assert not failed


@pytest.mark.parametrize("path", QUERIES)
def test_no_value_of_a_query_is_a_fault_of_ours(rest: httpx.Client, path: str) -> None:
    upload(rest, hours("hostile-queries", [1.0]), run_id="hostile-queries", known_time=START)
    given = path.partition("?")[2].partition("=")[0]
    join = "&" if given else "?"
    asked = [f"{path}{join}{name}={quote(text)}" for name in QUERIES[path].model_fields for text in TEXTS]
    failed = [
        url[:60] for url in asked if not _is_answered(rest.get(url)) and not url.startswith(f"{path}{join}format")
    ]
    assert not failed


def test_no_value_beside_a_table_is_a_fault_of_ours(rest: httpx.Client) -> None:
    table = f"series_key,valid_time,value\nhostile-tables,{START},1\n".encode()
    for name in UploadQuery.model_fields:
        for text in TEXTS:
            url = f"/runs?{name}={quote(text)}"
            assert _is_answered(rest.post(url, content=table, headers={"Content-Type": "text/csv"})), url[:60]
