"""Rows written from columns read back as the same values, whatever they hold."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.times import format_time
from timedb.files import row_text
from timedb.files.row_text import (
    CSV,
    CSV_FOR_SPREADSHEETS,
    JSON,
    JSON_NON_FINITE_TEXT,
    NDJSON,
    NDJSON_NON_FINITE_TEXT,
    RowWriter,
    Syntax,
)

Row = dict[str, Any]

TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(['"', "\\", "\x00\x1f\x7f", "é😀\u2028", "a,b\r\nc", "", " "]))
TIMES = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(
        [
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
        ]
    ),
)
NUMBERS = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 20.0, 0.1 + 0.2, math.nan, math.inf]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": TIMES,
    "double": st.none() | NUMBERS,
    "bool": st.none() | st.booleans(),
    "list": st.none() | st.lists(TEXTS, max_size=3),
    "text": st.none() | TEXTS,
}


def kind_of(name: str) -> str:
    """The key of VALUES for a column."""
    kind = str(COLUMN_TYPES[name])
    return next((known for known in VALUES if kind.startswith(known)), "text")


# Every type that a read returns, a float neither first nor last, as in every answer of GET /values.
NAMES = ["valid_time", "series_id", "value", "series_key", "valid_time_end", "annotation", "tags", "retracted"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {name: VALUES[kind_of(name)] | (st.none() if name == "valid_time_end" else st.nothing()) for name in NAMES}
    ),
    min_size=1,
    max_size=12,
)


def batch_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as they come from the Flight server: identifiers as dictionaries."""
    arrays = []
    for name in NAMES:
        kind = COLUMN_TYPES[name]
        values = [row[name] for row in rows]
        if pa.types.is_dictionary(kind):
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(values, kind, from_pandas=False))
    return pa.RecordBatch.from_arrays(arrays, NAMES)


def written(batch: pa.RecordBatch, syntax: Syntax) -> bytes:
    """All rows of a batch."""
    return b"".join(RowWriter(batch.schema, syntax).write(batch))


def expected(row: Row, number: Callable[[float | None], Any]) -> Row:
    """A row as it reads back."""
    back = {name: format_time(row[name]) if isinstance(row[name], datetime) else row[name] for name in NAMES}
    return {**back, "value": number(row["value"])}


def null_for_non_finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def text_for_non_finite(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@given(rows=ROWS)
@example(rows=[{**dict.fromkeys(NAMES), "valid_time": datetime(2025, 1, 1, tzinfo=UTC)}] * 3)
@pytest.mark.parametrize(
    ("syntax", "number"), [(JSON, null_for_non_finite), (JSON_NON_FINITE_TEXT, text_for_non_finite)]
)
def test_json_reads_back_as_the_same_rows(
    syntax: Syntax, number: Callable[[float | None], Any], rows: list[Row]
) -> None:
    text = written(batch_of(rows), syntax)
    read = json.loads(b"[" + text[1:] + b"]", parse_constant=refuse)
    assert repr(read) == repr([expected(row, number) for row in rows])  # repr tells -0.0 from 0.0, and 1.0 from 1


@given(rows=ROWS)
@pytest.mark.parametrize(
    ("syntax", "number"), [(NDJSON, null_for_non_finite), (NDJSON_NON_FINITE_TEXT, text_for_non_finite)]
)
def test_ndjson_is_one_object_a_line(syntax: Syntax, number: Callable[[float | None], Any], rows: list[Row]) -> None:
    lines = written(batch_of(rows), syntax).decode().removesuffix("\n").split("\n")
    assert repr([json.loads(line) for line in lines]) == repr([expected(row, number) for row in rows])


@given(rows=ROWS)
def test_csv_reads_back_as_the_same_rows(rows: list[Row]) -> None:
    text = written(batch_of(rows), CSV).decode()
    read = [dict(zip(NAMES, fields, strict=True)) for fields in csv.reader(io.StringIO(text, newline=""))]
    back = [{**fields, "value": repr(float(fields["value"])) if fields["value"] else ""} for fields in read]
    assert back == [
        {name: csv_field(value) for name, value in expected(row, lambda number: number).items()} for row in rows
    ]


def csv_field(value: Any) -> str:
    """A value as it comes back; Python's reader does not tell a null from an empty text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        case float():
            return repr(value)
    return str(value)


def test_csv_tells_an_empty_text_from_a_null() -> None:
    rows = [
        {**dict.fromkeys(NAMES), "valid_time": datetime(2025, 1, 1, tzinfo=UTC), "series_key": key}
        for key in ("", None)
    ]
    first, second = written(batch_of(rows), CSV).decode().splitlines()
    assert (first.split(",")[3], second.split(",")[3]) == ('""', "")


@given(rows=ROWS, cut=st.integers(0, 5))
def test_slices_and_many_chunks_change_nothing(rows: list[Row], cut: int) -> None:
    batch = batch_of(rows * 3)
    whole = written(batch, NDJSON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_text, "_ROWS_A_CHUNK", 2)
        writer = RowWriter(batch.schema, NDJSON)
        parts = [batch.slice(0, cut), batch.slice(cut)]
        assert b"".join(piece for part in parts for piece in writer.write(part)) == whole


def test_a_null_inside_a_dictionary_is_a_null() -> None:
    key = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), pa.array(["a", None]))
    batch = pa.RecordBatch.from_arrays([key], ["series_key"])
    assert written(batch, NDJSON).decode().splitlines() == [
        '{"series_key":"a"}',
        '{"series_key":null}',
        '{"series_key":null}',
    ]


def test_no_rows_are_no_text() -> None:
    batch = batch_of([])
    assert written(batch, JSON) == b""


def test_float_columns_may_stand_anywhere() -> None:
    rows = [(1.5, math.nan, "a", 2.0, 7, None), (None, -0.0, None, 5e-324, -1, math.inf)]
    names, kinds = "abcdef", [pa.float64(), pa.float64(), pa.string(), pa.float64(), pa.int64(), pa.float64()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    batch = pa.record_batch(columns, names=list(names))
    lines = b"".join(
        bytes(piece) for piece in RowWriter(batch.schema, NDJSON_NON_FINITE_TEXT).write(batch)
    ).splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        (1.5, "NaN", "a", 2.0, 7, None),
        (None, -0.0, None, 5e-324, -1, "Infinity"),
    ]
    text = b"".join(bytes(piece) for piece in RowWriter(batch.schema, CSV).write(batch)).decode()
    assert text == "1.5,NaN,a,2.0,7,\n,-0.0,,5e-324,-1,Infinity\n"


@pytest.mark.parametrize("rows", [40, 41, 400])
def test_neighbours_with_few_texts_are_written_together(rows: int) -> None:
    keys, units = [f"k{row % 5}" for row in range(rows)], ["MW" if row % 3 else None for row in range(rows)]
    labels = ["long " * 200 if row % 7 == 0 else "" for row in range(rows)]
    columns = {
        "key": pa.array(keys).dictionary_encode(),
        "unit": pa.array(units).dictionary_encode(),
        "flag": pa.array([row % 2 == 0 for row in range(rows)]),
        "label": pa.array(labels).dictionary_encode(),
    }
    batch = pa.record_batch(columns)
    writer = RowWriter(batch.schema, NDJSON)
    for part in (batch, batch.slice(0, 20), batch):  # the pairs are kept only as long as their texts are the same
        read = [json.loads(line) for piece in writer.write(part) for line in bytes(piece).splitlines()]
        assert read == part.to_pylist()


def test_one_long_text_among_many_reserves_no_more_than_a_few_chunks() -> None:
    texts = pa.array(["x" * (4 << 20), "short"])
    key = pa.DictionaryArray.from_arrays(pa.array([1] * 10_000 + [0], pa.int32()), texts)
    before = pa.total_allocated_bytes()
    batch = pa.RecordBatch.from_arrays([key, pa.array(range(10_001))], ["key", "row"])
    most = 0
    read: list[Row] = []
    for piece in RowWriter(batch.schema, NDJSON).write(batch):
        most = max(most, pa.total_allocated_bytes() - before)
        read += [json.loads(line) for line in bytes(piece).splitlines()]
    assert read == batch.to_pylist()
    assert most < 100 << 20


def test_texts_that_begin_like_a_formula_are_texts_for_a_spreadsheet() -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x","y")', "a=1", "", " =1", "'=1", None]
    batch = pa.record_batch(
        {
            "text": pa.array(texts),
            "coded": pa.array(texts).dictionary_encode(),
            "number": pa.array([-1.5] * len(texts)),
            "count": pa.array([-3] * len(texts)),
            "tags": pa.array([["=1"]] * len(texts)),
        }
    )
    written = b"".join(bytes(piece) for piece in RowWriter(batch.schema, CSV_FOR_SPREADSHEETS).write(batch)).decode()
    rows = list(csv.reader(io.StringIO(written, newline="")))
    guarded = [f"'{text}" if text and text[0] in "=+-@\t\r" else text or "" for text in texts]
    assert [row[0] for row in rows] == [row[1] for row in rows] == guarded
    assert {tuple(row[2:]) for row in rows} == {("-1.5", "-3", '["=1"]')}
    plain = b"".join(bytes(piece) for piece in RowWriter(batch.schema, CSV).write(batch)).decode()
    assert [row[0] for row in csv.reader(io.StringIO(plain, newline=""))] == [text or "" for text in texts]
