"""The rows of an upload's JSON as one Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.errors import InvalidRequest
from timedb.rest_gateway.ask.models import ValueRow

__all__ = ["rows_to_table"]

_ALWAYS = {"valid_time": "valid_time", "value": "value"}
_WHERE_GIVEN = {
    "value_key": "series_key",
    "series_id": "series_id",
    "valid_time_end": "valid_time_end",
    "known_time": "known_time",
    "annotation": "annotation",
    "tags": "tags",
}
_TYPES = COLUMN_TYPES | {"series_key": pa.string(), "series_id": pa.string()}


def rows_to_table(rows: Sequence[ValueRow]) -> pa.Table:
    """One row a value; a field that no row has is no column, except the series' name.

    Raises:
        InvalidRequest: a row names no series; says which one.
    """
    for index, row in enumerate(rows):
        if row.value_key is None and row.series_id is None:
            raise InvalidRequest(f"value_rows.{index}: needs value_key or series_id to say which series it is of")
    columns = {name: _column(rows, field, name) for field, name in _ALWAYS.items()}
    for field, name in _WHERE_GIVEN.items():
        column = _column(rows, field, name)
        if column.null_count < len(column):
            columns[name] = column
    if not rows:
        columns["series_key"] = pa.array([], pa.string())
    return pa.table(columns)


def _column(rows: Sequence[ValueRow], field: str, name: str) -> pa.Array:
    values: list[Any] = [getattr(row, field) for row in rows]
    kind = _TYPES[name]
    if pa.types.is_timestamp(kind):  # times come as integers
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)
