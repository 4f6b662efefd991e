"""What clients send: taken in every shape that Arrow has for it, and refused by name where it cannot be."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.lakes import MICROS
from timedb.contract.errors import InvalidRequest
from timedb.storage.rows.normalise import BATCH, SeriesCodes, check_columns, clean_tags, normalise

T0, T1 = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)
MICROS_0 = 1_735_689_600_000_000


def batch(**columns: pa.Array | list[Any]) -> pa.RecordBatch:
    """Two rows; columns that are not given are the ordinary ones, None leaves one out."""
    ordinary: dict[str, Any] = {
        "series_key": pa.array(["a", "b"]),
        "valid_time": pa.array([T0, T1], MICROS),
        "value": pa.array([1.0, 2.0]),
    }
    found = {name: column for name, column in {**ordinary, **columns}.items() if column is not None}
    return pa.RecordBatch.from_pydict(found)


def normalised(given: pa.RecordBatch, first_row: int = 0) -> tuple[pa.RecordBatch, SeriesCodes]:
    """The batch as it is taken in."""
    codes = SeriesCodes()
    check_columns(given.schema)
    found = normalise(given, codes, first_row)
    assert found.schema == BATCH
    return found, codes


def names_of(codes: SeriesCodes) -> list[str | None]:
    """The names that an upload has used."""
    return [identity.name for identity in codes.identities]


@pytest.mark.parametrize(
    "text",
    [
        pa.array(["a", "b"]),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([2, 1], pa.int8()), pa.array(["unused", "b", "a"], pa.large_string())),
        pa.DictionaryArray.from_arrays(pa.array([0, 2], pa.uint16()), pa.array(["a", "a", "b"])),
    ],
    ids=lambda array: str(array.type),
)
def test_text_in_every_shape(text: pa.Array) -> None:
    found, codes = normalised(batch(series_key=text, annotation=text))
    assert [names_of(codes)[code] for code in found.column("series").to_pylist()] == ["a", "b"]
    assert found.column("annotation").to_pylist() == ["a", "b"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "+00:00", "Europe/Stockholm"])
def test_times_in_every_unit_and_zone(unit: str, zone: str) -> None:
    given = pa.array([T0, T1], MICROS).cast(pa.timestamp(unit, zone))
    found, _ = normalised(batch(valid_time=given))
    assert found.column("valid_time").to_pylist() == [T0, T1]


@pytest.mark.parametrize(
    "nanos", [-1_000, -9_223_372_036_854_775_000, 9_223_372_036_854_775_000, 0, 1_735_689_600_000_001_000]
)
def test_whole_nanoseconds(nanos: int) -> None:
    given = pa.array([nanos, 1000], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    found, _ = normalised(batch(valid_time=given))
    assert found.column("valid_time").cast(pa.int64()).to_pylist() == [nanos // 1000, 1]


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([1, 2], pa.int8()),
        pa.array([1, 2], pa.uint64()),
        pa.array([1.0, 2.0], pa.float32()),
        pa.array([1.0, 2.0], pa.float16()),
        pa.array([Decimal("1.0"), Decimal("2.0")], pa.decimal128(5, 1)),
    ],
    ids=lambda array: str(array.type),
)
def test_numbers_of_every_type(numbers: pa.Array) -> None:
    found, _ = normalised(batch(value=numbers))
    assert found.column("value").to_pylist() == [1.0, 2.0]


def test_values_that_are_no_numbers_survive() -> None:
    bits = [0x7FF8000000000000, 0x8000000000000000, 0x7FF0000000000000, 1]
    given = pa.array(bits, pa.uint64()).view(pa.float64())
    table = pa.RecordBatch.from_pydict(
        {"series_key": pa.array(["a"] * 4), "valid_time": pa.array([T0] * 4, MICROS), "value": given}
    )
    found, _ = normalised(table)
    assert found.column("value").view(pa.uint64()).to_pylist() == bits


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_a_date_is_its_midnight(kind: pa.DataType) -> None:
    dates = pa.array([T0.date(), T1.date()], kind)
    found, _ = normalised(batch(valid_time=dates, known_time=dates))
    assert found.column("valid_time").to_pylist() == found.column("known_time").to_pylist() == [T0, T1]


def test_a_date_with_a_time_of_day_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"valid_time: a date64.* has a time of day"):
        normalised(batch(valid_time=pa.array([0, 5], pa.int64()).view(pa.date64())))


@pytest.mark.parametrize("kind", [pa.null(), pa.float64()], ids=str)
def test_a_value_may_be_null(kind: pa.DataType) -> None:
    found, _ = normalised(batch(value=pa.nulls(2, kind)))
    assert found.column("value").to_pylist() == [None, None]


@pytest.mark.parametrize(
    "tags",
    [
        pa.array([["b ", "B", "a"], None]),
        pa.array([["b ", "B", "a"], []], pa.large_list(pa.string())),
        pa.array([["b ", "B", "a", None, " "], [" "]], pa.list_view(pa.large_string())),
    ],
    ids=lambda array: str(array.type),
)
def test_tags_are_cleaned(tags: pa.Array) -> None:
    found, _ = normalised(batch(tags=tags))
    assert found.column("tags").to_pylist() == [["a", "b"], None]


@pytest.mark.parametrize("kind", [pa.list_(pa.null()), pa.null()], ids=str)
def test_no_tags(kind: pa.DataType) -> None:
    found, _ = normalised(batch(tags=pa.nulls(2, kind)))
    assert found.column("tags").to_pylist() == [None, None]


def test_clean_tags() -> None:
    assert clean_tags(["ÄB", "äb ", ""]) == ["äb"]
    assert clean_tags([]) is clean_tags(None) is clean_tags(["  "]) is None


def test_blank_annotations_are_null() -> None:
    found, _ = normalised(batch(annotation=pa.array([" \t", " x "])))
    assert found.column("annotation").to_pylist() == [None, " x "]


def test_series_by_id_by_name_and_by_labels() -> None:
    given = batch(
        series_id=pa.array([None, "an id"]),
        series_key=pa.array(["a", "b"]),
        labels=pa.array(['{"b": "2", "a": "1"}', None]),
    )
    _, codes = normalised(given)
    assert {(one.series_id, one.name, one.labels) for one in codes.identities} == {
        (None, "a", '{"a":"1","b":"2"}'),
        ("an id", "b", None),
    }


def test_batches_share_their_codes() -> None:
    codes = SeriesCodes()
    first = normalise(batch(series_key=pa.array(["a", "b"])), codes, 0)
    second = normalise(batch(series_key=pa.array(["c", "a"])), codes, 2)
    assert first.column("series").to_pylist() == [0, 1]
    assert [names_of(codes)[code] for code in second.column("series").to_pylist()] == ["c", "a"]
    assert len(codes.identities) == 3


COLUMNS: list[tuple[dict[str, pa.DataType], str]] = [
    ({"series_key": pa.string(), "value": pa.float64()}, "valid_time: the column is missing"),
    ({"series_key": pa.string(), "valid_time": MICROS}, "value: the column is missing"),
    ({"valid_time": MICROS, "value": pa.float64()}, "series_id: the column is missing"),
    ({"labels": pa.string(), "series_id": pa.string()}, "labels: the column stands beside series_key"),
    ({"price": pa.float64()}, "price: unknown column; there are series_id, series_key"),
    ({"change_time": MICROS}, "change_time: unknown column"),
    ({"valid_time": pa.timestamp("us")}, r"valid_time: timestamp\[us\] has no time zone"),
    ({"known_time": pa.timestamp("ns")}, r"known_time: timestamp\[ns\] has no time zone"),
    ({"valid_time": pa.time64("us")}, r"valid_time: time64\[us\] is not a timestamp"),
    ({"valid_time": pa.string()}, "valid_time: string is not a timestamp"),
    ({"valid_time": pa.int64()}, "valid_time: int64 is not a timestamp"),
    ({"valid_time": pa.null()}, "valid_time: null is not a timestamp"),
    ({"value": pa.string()}, "value: string is not a number"),
    ({"value": pa.bool_()}, "value: bool is not a number"),
    ({"tags": pa.string()}, "tags: string is not a list of text"),
    ({"tags": pa.list_(pa.int64())}, r"tags: list<.*int64> is not a list of text"),
    ({"annotation": pa.int64()}, "annotation: int64 is not text"),
    ({"series_key": pa.int64()}, "series_key: int64 is not text"),
    ({"series_id": pa.binary()}, "series_id: binary is not text"),
    ({"labels": pa.map_(pa.string(), pa.int64())}, "labels: map<string, int64> is not a map of texts to texts"),
]


@pytest.mark.parametrize(("columns", "message"), COLUMNS, ids=[message for _, message in COLUMNS])
def test_columns_that_do_not_fit(columns: dict[str, pa.DataType], message: str) -> None:
    whole = {"series_key": pa.string(), "valid_time": MICROS, "value": pa.float64()}
    given = columns if "missing" in message or "beside" in message else {**whole, **columns}
    if "beside" in message:
        given = {"valid_time": MICROS, "value": pa.float64(), **columns}
    with pytest.raises(InvalidRequest, match=f"^{message}"):
        check_columns(pa.schema(list(given.items())))


def test_a_column_twice() -> None:
    with pytest.raises(InvalidRequest, match=r"^value: the column is there twice"):
        check_columns(pa.schema([("series_key", pa.string()), ("value", pa.float64()), ("value", pa.float64())]))


def test_a_hostile_column_name_is_shown_harmlessly() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_columns(pa.schema([("x\n\x1b[31m" + "y" * 5000, pa.string())]))
    assert len(caught.value.detail) < 400
    assert caught.value.detail.isprintable()


NANOS = pa.timestamp("ns", "UTC")
VALUES: list[tuple[dict[str, pa.Array], str]] = [
    ({"series_key": pa.array(["a", None])}, "series_key: row 11 names no series"),
    ({"series_key": pa.array(["a", ""])}, "series_key: row 11: '' is not a name"),
    ({"series_key": pa.array(["a", " "])}, "series_key: row 11: ' ' is not a name"),
    ({"series_key": pa.array(["a", "x\ny"])}, r"series_key: row 11: 'x\\ny' is not a name"),
    ({"series_key": pa.array(["a", "x" * 256])}, "series_key: row 11: 'x+…? is not a name of 1 to 255"),
    ({"labels": pa.array([None, "{"])}, "labels: row 11: '{' is not a JSON object"),
    ({"labels": pa.array([None, "[]"])}, r"labels: row 11: '\[\]' is not a JSON object"),
    ({"labels": pa.array([None, '{"a": 1}'])}, "labels: row 11: '{\"a\": 1}' is not a JSON object of texts"),
    ({"labels": pa.array([None, "[" * 100_000])}, "labels: row 11: '.*is not a JSON object of texts"),
    ({"valid_time": pa.array([T0, None], MICROS)}, "valid_time: row 11 is null"),
    (
        {"valid_time": pa.array([1000, 1001], pa.int64()).cast(NANOS)},
        "valid_time: row 11: 1001 ns is finer than a microsecond",
    ),
    (
        {"known_time": pa.array([None, -1], pa.int64()).cast(NANOS)},
        "known_time: row 11: -1 ns is finer than a microsecond",
    ),
    (
        {"valid_time": pa.array([0, 253_402_300_800], pa.int64()).cast(pa.timestamp("s", "UTC"))},
        "valid_time: .*outside the years 1 to 9999",
    ),
    (
        {"valid_time": pa.array([0, -(1 << 63)], pa.int64()).cast(pa.timestamp("s", "UTC"))},
        "valid_time: .*outside the years 1 to 9999",
    ),
    (
        {"known_time": pa.array([0, -62_135_596_800_001], pa.int64()).cast(pa.timestamp("ms", "UTC"))},
        "known_time: .*outside the years 1 to 9999",
    ),
    ({"valid_time_end": pa.array([T1, T1], MICROS)}, "valid_time_end: row 11: 2025-01-02.* is not after valid_time"),
    ({"valid_time_end": pa.array([None, T0], MICROS)}, "valid_time_end: row 11: 2025-01-01.* is not after valid_time"),
    ({"value": pa.array([1, (1 << 53) + 1])}, "value: row 11: 9007199254740993 is a whole number"),
    ({"value": pa.array([1, 2**64 - 1], pa.uint64())}, "value: row 11: 18446744073709551615 is a whole number"),
    ({"value": pa.array([Decimal(0), Decimal(2**53 + 1)])}, "value: row 11: 9007199254740993 is a whole number"),
]


@pytest.mark.parametrize(("columns", "message"), VALUES, ids=[message[:60] for _, message in VALUES])
def test_values_that_do_not_fit(columns: dict[str, pa.Array], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}") as caught:
        normalised(batch(**columns), first_row=10)
    assert len(caught.value.detail) < 400
