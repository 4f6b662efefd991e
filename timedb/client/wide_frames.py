"""Wide data frames, which have a column for each series, as the rows of an upload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from timedb.contract.columns import IDENTIFIER, UPLOAD_COLUMNS, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.number_columns import NumberError, floats_of
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted

__all__ = ["Wide", "in_rows"]

Wide = bool | str | Sequence[str]
"""Which columns are a series each: those named, or (True) all that are none of an upload's own."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
_BESIDE = tuple(name for name in (*UPLOAD_COLUMNS, *PROBABILITY_COLUMNS) if name != "value")
"""Columns that mean in a wide frame what they do in any other."""


def in_rows(reader: pa.RecordBatchReader, wide: Wide) -> pa.RecordBatchReader:
    """A wide table as one with a row for each value: its columns are ``series_key``, ``value`` and the shared ones.

    Args:
        reader: The table.
        wide: Which of its columns are series.

    Raises:
        InvalidRequest: names a column that is not there, that nothing takes, or whose cells are no numbers.
    """
    series = _series_in(reader.schema, wide)
    shared = [field for field in reader.schema if field.name in _BESIDE]
    named = [field.with_type(IDENTIFIER) if _is_text_of_labels(field) else field for field in shared]
    schema = pa.schema([("series_key", IDENTIFIER), *named, ("value", pa.float64())])
    return pa.RecordBatchReader.from_batches(schema, _batches(reader, series, [field.name for field in shared]))


def _is_text_of_labels(field: pa.Field) -> bool:
    return field.name == "labels" and not pa.types.is_nested(field.type) and not pa.types.is_null(field.type)


def _batches(reader: pa.RecordBatchReader, series: Sequence[str], shared: Sequence[str]) -> Iterator[pa.RecordBatch]:
    from timedb.layouts.wide import side_by_side

    first = 0
    for batch in reader:
        values = ((name, _numbers(name, batch.column(name), first)) for name in series)
        yield from side_by_side(batch.num_rows, {name: batch.column(name) for name in shared}, values)
        first += batch.num_rows


def _series_in(schema: pa.Schema, wide: Wide) -> list[str]:
    names: list[str] = schema.names
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise InvalidRequest(f"{repeated[0]}: the column is there twice")
    for name in ("series_key", "series_id"):
        if name in names:
            raise InvalidRequest(f"{name}: under wide the columns name their series; drop it, or leave out wide")
    if "valid_time" not in names:
        raise InvalidRequest(f"valid_time: the column is missing; rename the one of the times among {_listed(names)}")
    others = [name for name in names if name not in _BESIDE]
    series = others if wide is True else _said(wide, names)
    if not series:
        raise InvalidRequest(f"wide: no column is left to be a series of {_listed(names)}")
    taken = set(series)
    if left := [name for name in others if name not in taken]:
        raise InvalidRequest(f"{quoted(left[0])[1:-1]}: nothing takes the column; name it in wide, too, or drop it")
    for name in series:
        kind = schema.field(name).type
        if not any(is_one(kind) for is_one in _NUMBERS):
            shown = "text" if is_text(kind) else kind
            raise InvalidRequest(f"{quoted(name)[1:-1]}: {shown} is not a number; cast the column, or drop it")
    return series


def _said(wide: Wide, names: Sequence[str]) -> list[str]:
    said: list[Any] = [wide] if isinstance(wide, str) else list(wide) if isinstance(wide, Sequence) else [wide]
    there, times = set(names), Counter(name for name in said if isinstance(name, str))
    for name in said:
        if not isinstance(name, str):
            raise InvalidRequest(f"wide: {quoted(name)} is neither True nor the name of a column")
        if name not in there:
            raise InvalidRequest(f"wide: there is no column {quoted(name)}{did_you_mean(name, names)}")
        if name in _BESIDE:
            raise InvalidRequest(f"wide: {name} is no series, but says of each row what it always does")
        if times[name] > 1:
            raise InvalidRequest(f"wide: {quoted(name)} comes twice")
    return said


def _numbers(name: str, column: pa.Array, first_row: int) -> pa.Array:
    try:
        return floats_of(column)
    except NumberError as error:
        raise InvalidRequest(f"{name}: row {first_row + error.index}: {error}") from None


def _listed(names: Sequence[str]) -> str:
    return quoted(", ".join(names[:20]))
