"""``PUT /values`` with tables: the same corrections in every form, counted, once however often they are sent."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.rest_gateway.calls import assert_error, hours, read, upload
from timedb.contract.times import parse_time

HOURS = ["2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z", "2025-01-01T02:00:00Z"]
KINDS = {
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/x-ndjson": "ndjson",
}


def body_of(kind: str, columns: dict[str, list[Any]]) -> bytes:
    """A table as the body of a kind."""
    if kind == "ndjson":
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        return "\n".join(map(json.dumps, rows)).encode()
    sink = io.BytesIO()
    if kind == "csv":
        csv.write_csv(pa.table(columns), sink)
        return sink.getvalue()
    times = pa.array([parse_time(text) for text in columns["valid_time"]], pa.timestamp("us", "UTC"))
    table = pa.table({**columns, "valid_time": times})
    if kind == "parquet":
        parquet.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("media_type", KINDS)
def test_a_table_corrects_each_row_once(rest: httpx.Client, name: str, media_type: str) -> None:
    upload(rest, hours(name, [1.0, 2.0, 3.0]), run_id=name)
    columns: dict[str, list[Any]] = {
        "series_key": [name] * 3,
        "valid_time": HOURS,
        "value": [1.5, 2.0, 3.0],
        "annotation": ["checked", None, None],
        "retracted": [False, False, True],
    }
    for _ in range(2):
        answer = rest.put(
            "/values",
            content=body_of(KINDS[media_type], columns),
            headers={"Content-Type": media_type},
            params={"update_id": name},
        )
        assert answer.status_code == 200, answer.text
        done = answer.json()
        counts = [done[each] for each in ("update_id", "rows", "updated", "created", "skipped_no_ops")]
        assert counts == [name, 3, 2, 0, 1]
    assert [row["value"] for row in read(rest, name)["data"]] == [1.5, 2.0]
    versions = read(rest, name, mode="changes")["data"]
    assert sum(row["annotation"] == "checked" for row in versions) == 1
    assert len(versions) == 5


def test_what_is_not_there_is_made_where_that_is_said(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0]), run_id=name)
    body = f"series_key,valid_time,run_id,value\n{name},2025-01-01T05:00:00Z,{name},9\n".encode()
    headers = {"Content-Type": "text/csv"}
    assert_error(rest.put("/values", content=body, headers=headers), 404, "not_found")
    done = rest.put("/values", content=body, headers=headers, params={"create": "true"})
    assert done.json()["created"] == 1
    assert [row["value"] for row in read(rest, name)["data"]] == [1.0, 9.0]


@pytest.mark.parametrize(
    ("media_type", "body", "parts"),
    [
        ("text/csv", "series_key,valid_time,valu\na,2025-01-01T00:00:00Z,1\n", ("valu: unknown column", "value")),
        ("text/csv", "series_key,valid_time,retracted\na,2025-01-01T00:00:00Z,perhaps\n", ("retracted", "perhaps")),
        ("text/csv", "series_key,valid_time\na,2025-01-01T00:00:00Z\n", ("value: no column says",)),
        ("text/csv", "series_key,valid_time,value\n", ("holds no rows",)),
        (
            "application/x-ndjson",
            '{"series_key": "a", "valid_time": "2025-01-01T00:00:00Z", "value": 1, "annotation": "x"}\n'
            '{"series_key": "a", "valid_time": "2025-01-01T01:00:00Z", "value": 1}\n',
            ("line 2", "annotation", "is missing"),
        ),
        ("text/plain", "x", ("Content-Type",)),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(
    rest: httpx.Client, media_type: str, body: str, parts: tuple[str, ...]
) -> None:
    answer = rest.put("/values", content=body.encode(), headers={"Content-Type": media_type})
    assert_error(answer, 422, "invalid_request", *parts)


def test_what_is_about_tables_is_not_said_beside_json(rest: httpx.Client) -> None:
    answer = rest.put("/values", json={"updates": []}, params={"create": "true"})
    assert_error(answer, 422, "invalid_request", "create: is about tables")
