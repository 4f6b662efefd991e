"""Uploads that are no JSON: tables in each format, compressed bodies, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.rest_gateway.calls import START, assert_error, hours, read

if TYPE_CHECKING:
    from timedb.run.launch import Service

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
FIRST = datetime(2025, 1, 1, tzinfo=UTC)


def table_of(name: str) -> pa.Table:
    """Three values with everything that a row may have."""
    times = [FIRST + timedelta(hours=hour) for hour in range(3)]
    return pa.table(
        {
            "series_key": pa.array([name] * 3).dictionary_encode(),
            "valid_time": pa.array(times, pa.timestamp("us", "UTC")),
            "known_time": pa.array([FIRST] * 3, pa.timestamp("ms", "UTC")),
            "value": [1.5, None, float("nan")],
            "annotation": ["good, or so", None, ""],
            "tags": [["b", "a"], None, []],
        }
    )


def body_of(table: pa.Table, media_type: str) -> bytes:
    sink = BytesIO()
    if media_type == PARQUET:
        parquet.write_table(table, sink)
    elif media_type == ARROW:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif media_type == CSV:
        tags = [None if each is None else json.dumps(each) for each in table["tags"].to_pylist()]
        csv.write_csv(table.set_column(table.column_names.index("tags"), "tags", pa.array(tags, pa.string())), sink)
        return sink.getvalue().replace(b",nan,", b",NaN,")
    else:
        lines = table.rename_columns(["value_key", *table.column_names[1:]]).to_pylist()
        return b"".join(
            json.dumps(line, default=datetime.isoformat).replace("NaN", '"NaN"').encode() + b"\n" for line in lines
        )
    return sink.getvalue()


def post(rest: httpx.Client, body: bytes, media_type: str, encoding: str = "", **query: Any) -> httpx.Response:
    headers = {"Content-Type": media_type} | ({"Content-Encoding": encoding} if encoding else {})
    return rest.post("/runs", content=body, headers=headers, params=query)


@pytest.mark.parametrize("media_type", [CSV, PARQUET, ARROW, NDJSON])
def test_a_table_is_a_run(rest: httpx.Client, name: str, media_type: str) -> None:
    run = {"run_id": f"{name}-run", "workflow_id": "files", "run_params": '{"model": 2}', "run_start_time": START}
    body = body_of(table_of(name), media_type)
    for _ in range(2):  # the second time it is a retry
        answer = post(rest, body, media_type, **run)
        assert answer.status_code == 200, answer.text
        assert answer.json()["run_id"] == f"{name}-run"
        assert list(answer.json()["series_ids"]) == [name]
    rows = read(rest, name, all_versions=True, non_finite="text")["data"]
    assert [row["value"] for row in rows] == [1.5, None, "NaN"]
    assert [row["annotation"] for row in rows] == ["good, or so", None, None]
    assert [row["tags"] for row in rows] == [["a", "b"], None, None]
    assert {row["known_time"][:19] for row in rows} == {"2025-01-01T00:00:00"}
    record = rest.get(f"/runs/{name}-run").json()
    assert (record["workflow_id"], record["run_params"], record["rows"]) == ("files", {"model": 2}, 3)


def test_times_without_an_offset_are_utc_and_value_key_is_series_key(rest: httpx.Client, name: str) -> None:
    times = ("2025-01-01", "2025-01-01T02:00+01:00", "2025-01-01 02:00:00")
    lines = [f"{name},{time},{number}\n" for number, time in enumerate(times, 1)]
    text = "".join(["value_key,valid_time,value\n", *lines])
    assert post(rest, text.encode(), CSV, known_time=START, skip_unchanged=True, unit="MW").status_code == 200
    rows = read(rest, name)["data"]
    assert [(row["valid_time"][11:16], row["value"]) for row in rows] == [
        ("00:00", 1.0),
        ("01:00", 2.0),
        ("02:00", 3.0),
    ]
    assert rows[0]["series_unit"] == "MW"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("zstd", lambda body: pa.compress(body, "zstd", asbytes=True))],
)
def test_bodies_may_be_compressed(rest: httpx.Client, name: str, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = json.dumps({"run_start_time": START, "value_rows": hours(name, [1.0])}).encode()
    assert post(rest, pack(body), "application/json", encoding).status_code == 200
    rows = f"series_key,valid_time,value\n{name},2025-01-02,2\n".encode()
    assert post(rest, pack(rows), CSV, encoding).status_code == 200
    assert [row["value"] for row in read(rest, name)["data"]] == [1.0, 2.0]
    for broken in (pack(body)[:-4], body, pack(body) + b"x"):
        assert_error(post(rest, broken, "application/json", encoding), 422, "invalid_request", "Content-Encoding")


def test_the_limit_holds_before_and_after_decompression(new_service: Callable[..., Service]) -> None:
    service = new_service(max_body_bytes=100_000, max_upload_rows=5_000)
    with httpx.Client(base_url=service.rest_url) as rest:
        packed = gzip.compress(b" " * 50_000_000)
        assert len(packed) < 100_000
        for media_type in ("application/json", CSV):
            assert_error(post(rest, packed, media_type, "gzip"), 413, "too_large", "100000", "decompressed")
        fits = gzip.compress(b"series_key,valid_time,value\na,2025-01-01,1\n" + b"\n" * 90_000)
        assert post(rest, fits, CSV, "gzip").status_code == 200
        many = pa.table({"series_key": ["a"] * 6_000, "valid_time": [FIRST] * 6_000, "value": [1.0] * 6_000})
        assert_error(post(rest, body_of(many, PARQUET), PARQUET), 413, "too_large", "6000", "5000")
        assert rest.get("/runs").json()["runs"][0]["rows"] == 1


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
def test_what_a_small_table_unpacks_to_is_limited_before_it_is_done(
    new_service: Callable[..., Service], media_type: str
) -> None:
    rows = 200_000
    table = pa.table(
        {
            "series_id": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * 36])),
            "valid_time": pa.array([FIRST] * rows, pa.timestamp("us", "UTC")),
            "value": pa.array([0.0] * rows),
        }
    )
    sink = BytesIO()
    if media_type == ARROW:
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
    else:
        parquet.write_table(table, sink, compression="zstd", use_dictionary=False)
    assert len(sink.getvalue()) < 50_000
    with httpx.Client(base_url=new_service(max_body_bytes=50_000).rest_url) as rest:
        assert_error(post(rest, sink.getvalue(), media_type), 413, "too_large", "body", "400000", "decompressed")


def test_compressed_arrow_is_taken(rest: httpx.Client, name: str) -> None:
    sink, table = BytesIO(), table_of(name)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    assert post(rest, sink.getvalue(), ARROW).status_code == 200
    assert len(read(rest, name)["data"]) == 3


@pytest.mark.parametrize(
    ("media_type", "body", "parts"),
    [
        (CSV, b"", ("body", "empty")),
        (CSV, b"\n", ("body", "names")),
        (CSV, b"series_key,valid_time,value\n", ("body", "no rows")),
        (CSV, b"series_key,valid_time,value\nx,2025-01-01,1\nx,2025-01-02\n", ("body", "line 3", "2 cells", "has 3")),
        (CSV, b"series_key,valid_time,value\nx,2025-01-01,one\n", ("value", "line 2", "'one' is not a number")),
        (CSV, b"series_key,valid_time,value\nx,2025-01-01,1e309\n", ("value", "1e309 is too large")),
        (CSV, b"series_key,valid_time,value\nx,2025-01-01,9007199254740993\n", ("value", "9007199254740992")),
        (CSV, b"series_key,valid_time,value\nx,yesterday,1\n", ("valid_time", "yesterday")),
        (CSV, b"series_key,valid_time,value\nx,2025-01-01T00:00:00.1234567Z,1\n", ("valid_time", "microsecond")),
        (CSV, b"series_key,valid_time,value,tags\nx,2025-01-01,1,a b\n", ("tags", "a b")),
        (CSV, b"series_key,valid_time,value,colour\nx,2025-01-01,1,red\n", ("colour",)),
        (CSV, b"series_key,series_key,valid_time,value\nx,x,2025-01-01,1\n", ("series_key", "twice")),
        (CSV, b"series_key,value_key,valid_time,value\nx,x,2025-01-01,1\n", ("series_key", "value_key")),
        (CSV, b"series_key,value\nx,1\n", ("valid_time", "missing")),
        (CSV, b"valid_time,value\n2025-01-01,1\n", ("series_id", "missing")),
        (CSV, b"\xff\xfe\x00x,1\n", ("body",)),
        (PARQUET, b"PAR1 nonsense PAR1", ("body",)),
        (ARROW, b"nonsense", ("body",)),
        (ARROW, b"\xff\xff\xff\xff\xff\xff\xff\x7f", ("body",)),
        (NDJSON, b'{"valid_time": "2025-01-01"}\nnonsense\n', ("line 2",)),
        (NDJSON, b'{"valid_time": "2025-01-01", "value_key": "x", "value": "one"}\n', ("value_rows.0.value", "one")),
        ("application/xml", b"<rows/>", ("Content-Type", "xml", "text/csv")),
        ("application/x-www-form-urlencoded", b"a=b", ("Content-Type",)),
    ],
)
def test_what_is_wrong_with_a_table_is_told(
    rest: httpx.Client, media_type: str, body: bytes, parts: tuple[str, ...]
) -> None:
    assert_error(post(rest, body, media_type), 422, "invalid_request", *parts)


def test_a_parquet_file_that_is_cut_writes_nothing(rest: httpx.Client, name: str) -> None:
    whole = body_of(table_of(name), ARROW)
    assert_error(post(rest, whole[: len(whole) // 2], ARROW), 422, "invalid_request", "body")
    assert rest.get("/list_timeseries", params={"name": name}).json() == {}


def test_a_query_that_says_nothing_of_a_run_is_refused(rest: httpx.Client, name: str) -> None:
    body = body_of(table_of(name), CSV)
    for query in ({"colour": "red"}, {"known_time": "soon"}, {"run_params": "[1]"}, {"skip_unchanged": "maybe"}):
        assert_error(post(rest, body, CSV, **query), 422, "invalid_request", *query)
    assert_error(post(rest, b"{}", "application/json", colour="red"), 422, "invalid_request", "colour")
    assert_error(post(rest, body, CSV, "br"), 422, "invalid_request", "Content-Encoding", "br")


def test_errors_of_the_server_name_what_the_body_calls_it(rest: httpx.Client, name: str) -> None:
    row = {"value_key": name, "valid_time": START, "value": 1}
    run = {"run_start_time": START, "value_rows": [row]}
    unknown = rest.post("/runs", json={**run, "create_series": False})
    assert_error(unknown, 404, "not_found", f"value_key: there is no series '{name}'")
    backwards = rest.post("/runs", json={**run, "value_rows": [row, {**row, "valid_time_end": "2024-01-01"}]})
    assert_error(backwards, 422, "invalid_request", "value_rows.1.valid_time_end: 2024-01-01")
    for site in "ab":
        assert rest.post("/series", json={"name": name, "labels": {"site": site}}).status_code == 200
    ambiguous = rest.post("/runs", json=run)
    assert_error(ambiguous, 422, "invalid_request", "value_key: ", "say which by series_id, their labels are {")
    for column in ("series_key", "value_key"):
        table = post(rest, f"{column},valid_time,value\n,{START},1\n".encode(), CSV)
        assert_error(table, 422, "invalid_request", f"{column}: row 0 names no series")
