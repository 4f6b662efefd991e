"""CSV and Parquet files as batches of an upload, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pyarrow import csv, parquet

from timedb.columns import UPLOAD_COLUMNS
from timedb.errors import InvalidRequest
from timedb.wire import shown

__all__ = ["FileColumns", "UploadFile", "open_file"]

TIMESTAMP = pa.timestamp("us", tz="UTC")
_TIMES = ("valid_time", "valid_time_end", "known_time")
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Which columns of a file are what.

    Attributes:
        named: Our column → the file's, as the user said; a column of ours that the file has needs no word.
        series: One series for all rows.
        time_zone: Of times without an offset; None: they are an error.
    """

    named: dict[str, str] = field(default_factory=dict)
    series: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class UploadFile:
    """A file that is ready to be sent.

    Attributes:
        rows: How many it has; None if that is known only at its end.
        ignored: Its columns that no upload has.
        reader: The rest.
    """

    rows: int | None
    ignored: list[str]
    reader: pa.RecordBatchReader


def open_file(path: Path, columns: FileColumns) -> UploadFile:
    """Open a file; Parquet by its suffix ``.parquet`` or ``.pq``, else CSV with a header, compressed or not.

    Raises:
        InvalidRequest: it cannot be read, or lacks a column; the reader raises it for what comes later.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _open_parquet(path, columns)
        return _open_csv(path, columns)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"{path.name}: {error}") from None


def _open_parquet(path: Path, columns: FileColumns) -> UploadFile:
    file = parquet.ParquetFile(path)
    chosen = _choose(file.schema_arrow.names, columns)
    batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=list(chosen.values()))
    return _upload_file(path, columns, chosen, file.schema_arrow, batches, file.metadata.num_rows)


def _open_csv(path: Path, columns: FileColumns) -> UploadFile:
    with csv.open_csv(path) as head:
        names = head.schema.names
    chosen = _choose(names, columns)
    chosen.pop("tags", None)  # a list has no form of its own in CSV
    options = csv.ConvertOptions(
        include_columns=list(chosen.values()),
        column_types={source: pa.float64() if ours == "value" else pa.string() for ours, source in chosen.items()},
        null_values=[""],  # NaN is a value
        strings_can_be_null=True,
    )
    reader = csv.open_csv(path, convert_options=options)
    return _upload_file(path, columns, chosen, pa.schema([(name, pa.null()) for name in names]), reader, None)


def _choose(names: list[str], columns: FileColumns) -> dict[str, str]:
    """Our column → the file's, of all that are to be sent."""
    for ours, source in columns.named.items():
        if source not in names:
            raise InvalidRequest(f"{ours}: the file has no column {shown(source)}; it has {', '.join(names)}")
    taken = set(columns.named.values())
    implied = {name: name for name in UPLOAD_COLUMNS if name in names and name not in taken}
    if columns.series is not None or "series_key" in columns.named:
        implied = {ours: source for ours, source in implied.items() if ours not in ("series_id", "series_key")}
    chosen = {**implied, **columns.named}
    for ours in ("valid_time", "value"):
        if ours not in chosen:
            option = ours.replace("_", "-")
            raise InvalidRequest(f"--{option}: the file has no column {ours}; say which of {', '.join(names)} it is")
    if columns.series is None and not {"series_id", "series_key"} & chosen.keys():
        raise InvalidRequest(f"--series: say which series it is, or with --series-column which of {', '.join(names)}")
    return chosen


def _upload_file(
    path: Path,
    columns: FileColumns,
    chosen: dict[str, str],
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    rows: int | None,
) -> UploadFile:
    pieces = _readable(path, batches)
    converted = (_convert(batch, columns, chosen) for batch in pieces)
    first = next(converted, None)
    if first is None:
        raise InvalidRequest(f"{path.name}: holds no rows")
    reader = pa.RecordBatchReader.from_batches(first.schema, _chained(first, converted))
    return UploadFile(rows, [name for name in schema.names if name not in chosen.values()], reader)


def _readable(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"{path.name}: {error}") from None


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _convert(batch: pa.RecordBatch, columns: FileColumns, chosen: dict[str, str]) -> pa.RecordBatch:
    arrays = {ours: batch.column(source) for ours, source in chosen.items()}
    for name in _TIMES:
        if name in arrays:
            arrays[name] = _times(arrays[name], chosen[name], columns.time_zone)
    if columns.series is not None:
        zeros = pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows)
        arrays["series_key"] = pa.DictionaryArray.from_arrays(zeros, pa.array([columns.series]))
    return pa.RecordBatch.from_pydict(arrays)


def _times(column: pa.Array, name: str, time_zone: str | None) -> pa.Array:
    try:
        if pt.is_string(column.type) or pt.is_large_string(column.type):
            column = _parsed(column)
        elif pt.is_date(column.type):
            column = column.cast(pa.timestamp("us"))
        if not (pt.is_timestamp(column.type) and column.type.tz is None):
            return column
        if time_zone is None:
            raise InvalidRequest(f"{name}: its times have no time zone; say which with --time-zone")
        return pc.assume_timezone(column, time_zone)
    except pa.ArrowException as error:
        raise InvalidRequest(f"{name}: {error}") from None


def _parsed(texts: pa.Array) -> pa.Array:
    """ISO 8601 texts as times: all with an offset, or all without."""
    try:
        return texts.cast(TIMESTAMP)
    except pa.ArrowInvalid as error:
        try:
            return texts.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            raise error from None
