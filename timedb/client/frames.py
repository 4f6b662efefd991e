"""Data frames of all makes as uploads: what they are, and their columns in types that go over the wire."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from timedb.client.wide_frames import Wide, in_rows
from timedb.contract.columns import IDENTIFIER, UPLOAD_COLUMNS, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.label_columns import check_label_type, label_texts
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UploadData", "open_data", "spooled"]

MIN_BATCH_ROWS = 1 << 16
"""Smaller batches are joined: each costs a message."""
MAX_BATCH_ROWS = 1 << 17
MAX_BATCH_BYTES = 8 << 20
_UPLOADED = (*UPLOAD_COLUMNS, *PROBABILITY_COLUMNS)
_TEXT_LIST = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class UploadData:
    """Data that can be uploaded.

    Attributes:
        repeatable: Whether it can be sent a second time.
        open: Starts a reader of the whole, in types of the wire and batches of a good size; once, if not repeatable.
    """

    repeatable: bool
    open: Callable[[], pa.RecordBatchReader]


def open_data(data: object, columns: Sequence[str] = _UPLOADED, wide: Wide = False) -> UploadData:
    """Take anything tabular: Polars, pandas, pyarrow, a DuckDB relation, whatever has ``__arrow_c_stream__``.

    Args:
        data: It.
        columns: Those that it may have.
        wide: Which of its columns are a series each; False: none, a column says the series of each row.

    Raises:
        InvalidRequest: it is not tabular, or has a column that it may not have.
    """
    take = partial(_reader, columns=columns, wide=wide)
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _repeatable(_table_of_pandas(data, wide=wide is not False), take)
    if isinstance(data, UploadData):
        return data
    if isinstance(data, pa.RecordBatch):
        return _repeatable(pa.Table.from_batches([data]), take)
    if isinstance(data, pa.Table) or (polars is not None and isinstance(data, polars.DataFrame)):
        return _repeatable(data, take)
    if hasattr(data, "__arrow_c_stream__"):
        reader = take(data)
        return UploadData(False, lambda: reader)
    if hasattr(data, "__arrow_c_array__"):
        return _repeatable(pa.table(pa.record_batch(data)), take)
    hint = "; collect() it first" if hasattr(data, "collect") else ""
    if isinstance(data, str | Path):
        hint = "; client.upload_file reads files"
    raise InvalidRequest(f"data: {type(data).__name__} is neither a data frame nor Arrow data{hint}")


def spooled(open_reader: Callable[[], pa.RecordBatchReader]) -> UploadData:
    """Rows that lie ready, and are read from the first each time they are sent.

    Raises:
        InvalidRequest: they have a column that an upload cannot have.
    """
    wire_schema(open_reader().schema)
    return UploadData(True, lambda: _for_wire(open_reader()))


def _repeatable(data: Any, take: Callable[[Any], pa.RecordBatchReader]) -> UploadData:
    take(data)  # what is wrong with its columns is said at once
    return UploadData(True, lambda: take(data))


def _reader(data: object, columns: Sequence[str], wide: Wide) -> pa.RecordBatchReader:
    reader = data if isinstance(data, pa.RecordBatchReader) else _import_stream(data)
    return _for_wire(reader if wide is False else in_rows(reader, wide), columns)


def _import_stream(data: object) -> pa.RecordBatchReader:
    try:
        return pa.RecordBatchReader.from_stream(data)
    except pa.ArrowException as error:
        raise InvalidRequest(f"data: {type(data).__name__} is not tabular: {error}") from None


def _table_of_pandas(frame: pd.DataFrame, *, wide: bool) -> pa.Table:
    import pandas as pd

    if frame.columns.nlevels > 1:
        raise InvalidRequest("data: its columns have several levels; join them into one name each")
    if strange := [name for name in frame.columns if not isinstance(name, str)]:
        raise InvalidRequest(f"data: the name {quoted(strange[0])} of a column is no text; rename it")
    unnamed = frame.index.name is None or (wide and frame.index.name not in _UPLOADED)
    if isinstance(frame.index, pd.DatetimeIndex) and unnamed and "valid_time" not in frame.columns:
        frame = frame.rename_axis("valid_time")
    names = [name for name in frame.index.names if name is not None]
    if names:
        frame = frame.reset_index(level=names)
    if repeated := frame.columns[frame.columns.duplicated()].tolist():
        raise InvalidRequest(f"{repeated[0]}: the column is there twice")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError) as error:
        raise InvalidRequest(f"data: {'; '.join(map(str, error.args))}") from None


def wire_schema(schema: pa.Schema, known: Sequence[str] = _UPLOADED) -> pa.Schema:
    """The schema that data of this schema goes over the wire with.

    Raises:
        InvalidRequest: names a column that is not ``known``, that is there twice, or whose times have no zone.
    """
    for name in schema.names:
        if name not in known:
            raise InvalidRequest(f"{quoted(name)[1:-1]}: unknown column{did_you_mean(name, known)}")
        if schema.names.count(name) > 1:
            raise InvalidRequest(f"{name}: the column is there twice")
    return pa.schema([(column.name, _wire_type(column)) for column in schema])


def _wire_type(column: pa.Field) -> pa.DataType:
    kind = column.type
    if pt.is_timestamp(kind) and kind.tz is None:
        raise InvalidRequest(
            f"{column.name}: its times have no time zone; say which, with dt.replace_time_zone('UTC') in Polars"
            " or dt.tz_localize('UTC') in pandas"
        )
    if column.name == "labels" and pt.is_nested(kind):
        check_label_type(kind)
        return IDENTIFIER
    if is_text(kind):
        return IDENTIFIER if pt.is_dictionary(kind) else pa.string()
    if (pt.is_list(kind) or pt.is_large_list(kind) or pt.is_list_view(kind) or pt.is_fixed_size_list(kind)) and (
        is_text(kind.value_type) or pt.is_null(kind.value_type)
    ):
        return _TEXT_LIST
    return kind


def _for_wire(reader: pa.RecordBatchReader, columns: Sequence[str] = _UPLOADED) -> pa.RecordBatchReader:
    schema = wire_schema(reader.schema, columns)
    return pa.RecordBatchReader.from_batches(schema, _sized(_converted(reader, schema)))


def _converted(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        # Cut first: a whole frame of long text may not fit the 32-bit offsets that it goes out with.
        for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
            part = batch.slice(start, MAX_BATCH_ROWS)
            columns = [_cast(column, field) for column, field in zip(part.columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if field.name == "labels":
        column = label_texts(column)
    try:
        return column if column.type == field.type else column.cast(field.type)
    except pa.ArrowException as error:
        raise InvalidRequest(f"{field.name}: {error}") from None


def _sized(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= MIN_BATCH_ROWS:
            yield from _joined(waiting)
            waiting, rows = [], 0
    if waiting:
        yield from _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if len(batches) > 1:
        batches = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    for batch in batches:
        rows = max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES * batch.num_rows // max(_bytes_of_rows(batch), 1)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _bytes_of_rows(batch: pa.RecordBatch) -> int:
    # Dictionaries count for nothing: they are sent once, however the rows are cut.
    return sum((each.indices if pt.is_dictionary(each.type) else each).nbytes for each in batch.columns)
