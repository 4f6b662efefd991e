"""What clients send, made uniform: each batch is checked and becomes plain columns with series as small integers.

An upload's batches share one :class:`SeriesCodes`, so that identifiers are looked at once each, not once a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter, ValidationError

from timedb.contract.columns import UPLOAD_COLUMNS, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.identity import canonical_labels
from timedb.contract.json_keys import check_keys
from timedb.contract.label_columns import check_label_type, with_label_texts
from timedb.contract.number_columns import NumberError, floats_of
from timedb.contract.times import MAX_MICROS, MIN_MICROS
from timedb.contract.wire import MAX_NAME_CHARS, quoted
from timedb.contract.wire_fields import MAX_TAGS, MAX_TEXT_CHARS, Labels, describe
from timedb.storage.delta.dictionaries import as_type
from timedb.storage.tables.schemas import VALUES_HELD

__all__ = [
    "BATCH",
    "Identity",
    "SeriesCodes",
    "check_batch",
    "check_columns",
    "normalise",
    "series_codes",
    "time_column",
]

TIMESTAMP = pa.timestamp("us", tz="UTC")
BATCH = pa.schema(
    [
        ("series", pa.int32()),
        ("valid_time", TIMESTAMP),
        ("valid_time_end", TIMESTAMP),
        ("known_time", TIMESTAMP),
        ("value", pa.float64()),
        ("annotation", VALUES_HELD.field("annotation").type),
        ("tags", VALUES_HELD.field("tags").type),
    ]
)
"""A normalised batch; ``series`` indexes :attr:`SeriesCodes.identities`."""

Codes = np.ndarray[Any, np.dtype[np.int32]]

_LABELS = TypeAdapter(Labels)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REQUIRED = ("valid_time", "value")
_IDENTIFIERS = ("series_id", "series_key", "labels")
_TIMES = ("valid_time", "valid_time_end", "known_time")
_TIME_COLUMNS = (*_TIMES, "known_by")
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True, slots=True)
class Identity:
    """How a row names its series: by id, or by name with or without labels (canonical JSON text).

    Where both are given they have to agree; ``row`` is the first that says so.
    """

    series_id: str | None
    name: str | None
    labels: str | None
    row: int = field(default=0, compare=False)


@dataclass
class SeriesCodes:
    """Numbers the identities of one upload in the order in which they appear."""

    identities: list[Identity] = field(default_factory=list)
    _codes: dict[Identity, int] = field(default_factory=dict)
    _seen: tuple[str, pa.Array, Codes] | None = None

    def code(self, identity: Identity) -> int:
        """The number of an identity."""
        code = self._codes.setdefault(identity, len(self.identities))
        if code == len(self.identities):
            self.identities.append(identity)
        return code

    def of_dictionary(self, name: str, values: pa.Array) -> Codes:
        """For each entry of a column's dictionary its number, or -1 as long as no row has needed it; to be filled in.

        Batches of one stream mostly share a dictionary, so that an entry is looked at once.
        """
        if self._seen is None or self._seen[0] != name or not self._seen[1].equals(values):
            self._seen = name, values, np.full(len(values), -1, dtype=np.int32)
        return self._seen[2]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in lists) and (is_text(kind.value_type) or pa.types.is_null(kind.value_type))


def check_columns(
    schema: pa.Schema, known: Sequence[str] = UPLOAD_COLUMNS, required: Sequence[str] = _REQUIRED
) -> None:
    """Refuse a stream by its schema alone.

    Args:
        schema: The stream's.
        known: The columns that it may have.
        required: Those that it must have, beside one that names the series.

    Raises:
        InvalidRequest: names the column that is missing, unknown, twice there, or of a type that does not fit.
    """
    for name in schema.names:
        if name not in known:
            raise InvalidRequest(f"{quoted(name)[1:-1]}: unknown column; there are {', '.join(known)}")
        if schema.names.count(name) > 1:
            raise InvalidRequest(f"{name}: the column is there twice")
    for name in required:
        if name not in schema.names:
            raise InvalidRequest(f"{name}: the column is missing")
    if "series_id" not in schema.names and "series_key" not in schema.names:
        raise InvalidRequest("series_id: the column is missing (or series_key)")
    if "labels" in schema.names and "series_key" not in schema.names:
        raise InvalidRequest("labels: the column stands beside series_key, which is missing")
    for column in schema:
        _check_type(column)


def _check_type(column: pa.Field) -> None:
    kind, optional = column.type, column.name not in ("valid_time",)
    if pa.types.is_null(kind) and optional:
        return
    if column.name in _TIME_COLUMNS:
        if pa.types.is_date(kind):
            return
        if not pa.types.is_timestamp(kind):
            raise InvalidRequest(f"{column.name}: {kind} is not a timestamp with a time zone")
        if kind.tz is None:
            raise InvalidRequest(f"{column.name}: {kind} has no time zone; send timestamp[us, UTC]")
        return
    if column.name == "labels":
        check_label_type(kind)
        return
    fits, wanted = {
        "value": (_is_number(kind), "a number"),
        "tags": (_is_list(kind), "a list of text"),
    }.get(column.name, (is_text(kind), "text"))
    if not fits:
        raise InvalidRequest(f"{column.name}: {kind} is not {wanted}")


def check_batch(batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
    """Refuse a batch whose buffers lie about themselves; before this, even asking for its size can crash the process.

    Returns:
        The batch, its labels as JSON text.

    Raises:
        InvalidRequest: names the row of the upload with which the batch begins.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowException:
        raise InvalidRequest(f"batch: the Arrow data at row {first_row} is not valid") from None
    return with_label_texts(batch, first_row)


def normalise(batch: pa.RecordBatch, codes: SeriesCodes, first_row: int) -> pa.RecordBatch:
    """Check one batch and bring it to :data:`BATCH`.

    Args:
        batch: It has passed :func:`check_batch`, its schema :func:`check_columns`.
        codes: The identities of the upload so far; grows.
        first_row: Rows of the upload before this batch, for error texts.

    Raises:
        InvalidRequest: names the column, the row and the value.
    """
    series = series_codes(batch, codes, first_row)
    times = {name: time_column(batch, name, first_row) for name in _TIMES}
    _check_intervals(times["valid_time"], times["valid_time_end"], first_row)
    value = _value(batch, first_row)
    annotation = _annotation(batch, first_row)
    tags = _tags(batch, first_row)
    return pa.RecordBatch.from_arrays([series, *times.values(), value, annotation, tags], schema=BATCH)


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    index = batch.schema.get_field_index(name)
    if index < 0 or pa.types.is_null(batch.schema.field(index).type):
        return pa.nulls(batch.num_rows, kind)
    return batch.column(index)


def _text_codes(batch: pa.RecordBatch, name: str) -> tuple[np.ndarray[Any, Any], list[str]]:
    """A text column as (index of the value or -1, values)."""
    column = _column(batch, name, pa.string())
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    values = column.dictionary.cast(pa.string()).to_pylist()
    indices = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    if None in values:  # a null may stand in the dictionary itself
        nulls = [index for index, value in enumerate(values) if value is None]
        indices = np.where(np.isin(indices, nulls), -1, indices)
    return indices, values


def series_codes(batch: pa.RecordBatch, codes: SeriesCodes, first_row: int) -> pa.Array:
    """For each row the number of the series that it names.

    Args:
        batch: As for :func:`normalise`.
        codes: The identities so far; grows.
        first_row: Rows of the stream before this batch, for error texts.

    Raises:
        InvalidRequest: names the column, the row and the value.
    """
    if (numbers := _codes_of_one_column(batch, codes, first_row)) is not None:
        return pa.array(numbers, pa.int32())
    columns = [_text_codes(batch, name) for name in _IDENTIFIERS]
    combined = np.zeros(batch.num_rows, dtype=np.int64)
    size = 1
    for indices, values in columns:
        combined = combined * (len(values) + 1) + indices + 1
        size *= len(values) + 1
    first, which = _distinct(combined, size)
    numbers = np.empty(len(first), dtype=np.int32)
    for position, row in enumerate(first):
        series_id, name, labels = (values[indices[row]] if indices[row] >= 0 else None for indices, values in columns)
        numbers[position] = codes.code(_identity(series_id, name, labels, first_row + int(row)))
    return pa.array(numbers[which], pa.int32())


def _codes_of_one_column(batch: pa.RecordBatch, codes: SeriesCodes, first_row: int) -> Codes | None:
    """The numbers where one column alone names the series, without nulls; None where it is not so simple."""
    named = [name for name in _IDENTIFIERS if name in batch.schema.names]
    if len(named) != 1 or pa.types.is_null((column := batch.column(named[0])).type) or column.null_count:
        return None
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    values, indices = column.dictionary, column.indices.to_numpy()
    known = codes.of_dictionary(named[0], values)
    numbers = known[indices]
    if len(numbers) and numbers.min() < 0:
        unknown = np.flatnonzero(numbers < 0)
        entries, places = np.unique(indices[unknown], return_index=True)
        by_id = named[0] == "series_id"
        texts = values.take(pa.array(entries)).to_pylist()
        for entry, text, row in zip(entries, texts, unknown[places], strict=True):
            series_id, name = (text, None) if by_id else (None, text)
            known[entry] = codes.code(_identity(series_id, name, None, first_row + int(row)))
        numbers = known[indices]
    return np.asarray(numbers)


def _distinct(
    codes: np.ndarray[Any, np.dtype[np.int64]], size: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where each distinct code (from 0 to below ``size``) stands first, in the order of the rows; which one each is."""
    if size > 4 * len(codes):
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        which = inverse.reshape(-1)
    else:  # a table in place of a sort
        place = np.full(size, -1, dtype=np.int64)
        place[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        present = np.flatnonzero(place >= 0)
        first = place[present]
        place[present] = np.arange(len(present))
        which = place[codes]
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[which]


def _identity(series_id: str | None, name: str | None, labels: str | None, row: int) -> Identity:
    if series_id is not None and name is None:
        return Identity(series_id, None, None, row)
    if name is None:
        raise InvalidRequest(f"series_key: row {row} names no series")
    if not name.strip() or len(name) > MAX_NAME_CHARS or _CONTROL.search(name):
        raise InvalidRequest(
            f"series_key: row {row}: {quoted(name)} is not a name of 1 to {MAX_NAME_CHARS} printable characters"
        )
    return Identity(series_id, name, None if labels is None else _labels(labels, row), row)


def _labels(text: str, row: int) -> str:
    try:
        return _canonical(text)
    except ValidationError as error:
        raise InvalidRequest(
            f"labels: row {row}: {quoted(text)} is not a JSON object of texts: {describe(error)}"
        ) from None
    except ValueError as error:
        raise InvalidRequest(f"labels: row {row}: {quoted(text)}: {error}") from None


@lru_cache(maxsize=1 << 12)  # many series share few texts
def _canonical(text: str) -> str:
    found = _LABELS.validate_json(text, strict=True)
    check_keys(text)
    return canonical_labels(found)


def time_column(batch: pa.RecordBatch, name: str, first_row: int) -> pa.Array:
    """A column of times in UTC microseconds, dates as their midnights; nulls where the batch has none of that name.

    Raises:
        InvalidRequest: a time is finer than a microsecond, outside the years 1 to 9999, or a null valid_time.
    """
    column = _column(batch, name, TIMESTAMP)
    if name == "valid_time" and column.null_count:
        row = first_row + pc.index(pc.is_null(column), True).as_py()
        raise InvalidRequest(f"valid_time: row {row} is null")
    if column.null_count == len(column):
        return pa.nulls(len(column), TIMESTAMP)
    if pa.types.is_date(column.type):
        column = _midnights(column, name)
    if column.type.unit == "ns":
        column = _whole_micros(column, name, first_row).cast(TIMESTAMP)
    factor = 1_000_000 // _PER_SECOND[column.type.unit]
    low, high = (bound.value * factor for bound in pc.min_max(column).values())
    if low < MIN_MICROS or high > MAX_MICROS:
        raise InvalidRequest(f"{name}: a time lies outside the years 1 to 9999")
    return column.cast(TIMESTAMP) if column.type != TIMESTAMP else column


def _midnights(dates: pa.Array, name: str) -> pa.Array:
    try:
        return dates.cast(pa.timestamp("s")).cast(pa.timestamp("s", "UTC"))
    except pa.ArrowInvalid:  # a date64 inside of a day
        raise InvalidRequest(f"{name}: a {dates.type} has a time of day; send timestamp[us, UTC]") from None


def _whole_micros(column: pa.Array, name: str, first_row: int) -> pa.Array:
    ticks = column.cast(pa.int64())
    whole = pc.divide(ticks, 1000)
    finer = pc.fill_null(pc.not_equal(pc.multiply(whole, 1000), ticks), False)
    if pc.any(finer).as_py():
        row = pc.index(finer, True).as_py()
        raise InvalidRequest(f"{name}: row {first_row + row}: {ticks[row].as_py()} ns is finer than a microsecond")
    return whole


def _check_intervals(start: pa.Array, end: pa.Array, first_row: int) -> None:
    if end.null_count == len(end):
        return
    backwards = pc.fill_null(pc.less_equal(end, start), False)
    if pc.any(backwards).as_py():
        row = pc.index(backwards, True).as_py()
        raise InvalidRequest(
            f"valid_time_end: row {first_row + row}: {end[row].as_py()} is not after valid_time {start[row].as_py()}"
        )


def _value(batch: pa.RecordBatch, first_row: int) -> pa.Array:
    try:
        return floats_of(_column(batch, "value", pa.float64()))
    except NumberError as error:
        raise InvalidRequest(f"value: row {first_row + error.index}: {error}") from None


def _check_lengths(texts: pa.DictionaryArray, most: int, name: str, rows: Callable[[int], int]) -> None:
    """Refuse a text of more than so many characters; ``rows`` says in which row a text stands."""
    lengths = pc.fill_null(pc.utf8_length(texts.dictionary), 0)
    if len(lengths) and pc.max(lengths).as_py() > most:  # of a text, perhaps, that no row has
        found = pc.index(pc.fill_null(pc.greater(lengths.take(texts.indices), most), False), True).as_py()
        if found >= 0:
            text = quoted(texts[found].as_py())
            raise InvalidRequest(f"{name}: row {rows(found)}: {text} has more than {most} characters")


def _annotation(batch: pa.RecordBatch, first_row: int) -> pa.Array:
    kind = BATCH.field("annotation").type
    column = as_type(_column(batch, "annotation", kind), kind)
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    _check_lengths(column, MAX_TEXT_CHARS, "annotation", lambda index: first_row + index)
    blank = pc.equal(pc.utf8_trim_whitespace(column.dictionary), "")
    if not pc.any(blank).as_py():
        return column
    codes = pc.if_else(pc.fill_null(blank.take(column.indices), True), pa.scalar(None, pa.int32()), column.indices)
    return pa.DictionaryArray.from_arrays(codes, column.dictionary)


def _tags(batch: pa.RecordBatch, first_row: int) -> pa.Array:
    """Lists of tags as they are stored; each text is looked at once, and lists are put in order as numbers."""
    kind = BATCH.field("tags").type
    column = _column(batch, "tags", kind)
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    if lengths.max() > MAX_TAGS:
        row = int(np.argmax(lengths > MAX_TAGS))
        raise InvalidRequest(f"tags: row {first_row + row}: {lengths[row]} tags are more than {MAX_TAGS}")
    sent = as_type(pc.list_flatten(column), kind.value_type)
    cleaned = [None if text is None else text.strip().lower() for text in sent.dictionary.to_pylist()]
    texts = sorted({text for text in cleaned if text})
    rank = {text: number for number, text in enumerate(texts)}
    ranks = np.array([*(rank.get(text or "", -1) for text in cleaned), -1], dtype=np.int64)
    codes = ranks[pc.fill_null(sent.indices, len(cleaned)).to_numpy()]
    rows = np.repeat(np.arange(len(column)), lengths)
    stored = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), pa.array(texts, pa.string()))
    _check_lengths(stored, MAX_NAME_CHARS, "tags", lambda index: first_row + int(rows[index]))
    keys = np.unique((rows * max(len(texts), 1) + codes)[codes >= 0])
    rows, codes = np.divmod(keys, max(len(texts), 1))
    counts = np.bincount(rows, minlength=len(column))
    items = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), stored.dictionary)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, items, type=kind, mask=pa.array(counts == 0))


def clean_tags(tags: list[str] | None) -> list[str] | None:
    """Tags as they are stored: trimmed, lower-cased, distinct, sorted; None where nothing is left."""
    return sorted({tag.strip().lower() for tag in tags or () if tag and tag.strip()}) or None
