"""Tables in files and bodies (CSV, Parquet, Arrow) as batches of an upload, read piece by piece."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pyarrow import csv, parquet

from timedb.errors import InvalidRequest, TooLarge
from timedb.number_columns import NumberError, floats_of_texts
from timedb.times import parse_time, to_micros
from timedb.wire import shown

__all__ = ["Source", "TableFile", "TableKind", "open_table"]

TableKind = Literal["csv", "parquet", "arrow"]
Source = Any
"""A ``pa.NativeFile`` to read from; Parquet and Arrow files need one that can seek, CSV and Arrow streams do not."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
_TIMES = ("valid_time", "valid_time_end", "known_time")
_BATCH_ROWS = 1 << 16
_HEAD_BYTES = 1 << 16
_CSV_BLOCK_BYTES = 4 << 20
_REASON_CHARS = 300
_ARROW_FILE = b"ARROW1"


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table that is ready to be read, once.

    Attributes:
        what: How an error calls it.
        names: Its columns, in order.
        rows: How many it has; None if that is known only at its end.
        group_bytes: Of Parquet, the bytes of its largest row group once it is decompressed.
    """

    what: str
    names: list[str]
    rows: int | None
    _batches: Callable[[Mapping[str, str]], Iterable[pa.RecordBatch]]
    group_bytes: int = 0

    def read(
        self, columns: Mapping[str, str], *, time_zone: str | None, series: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows as an upload has them.

        Args:
            columns: Our column → the table's, of all that are wanted.
            time_zone: Of times without an offset; None: they are an error.
            series: The one series of all rows.

        Raises:
            InvalidRequest: it cannot be read, or a value does not fit; the reader raises it for what comes later.
        """
        pieces = self._readable(self._batches(columns))
        converted = (_convert(batch, columns, time_zone, series) for batch in pieces)
        first = next(converted, None)
        if first is None:
            raise InvalidRequest(f"{self.what}: holds no rows")
        return pa.RecordBatchReader.from_batches(first.schema, _chained(first, converted))

    def _readable(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with _reading(self.what):
            yield from batches


def open_table(
    source: Source,
    kind: TableKind,
    *,
    what: str,
    max_rows: int | None = None,
    max_group_bytes: int | None = None,
) -> TableFile:
    """Look at the head of a table: CSV with a line of names, Parquet, or an Arrow IPC stream or file.

    Args:
        source: The bytes.
        kind: The format.
        what: How an error calls it.
        max_rows: The most rows that Parquet, which states their number, may state.
        max_group_bytes: The most bytes that a row group of Parquet may state once it is decompressed.

    Raises:
        InvalidRequest: it is not of that format.
        TooLarge: it states more than that.
    """
    with _reading(what):
        table = {"csv": _open_csv, "parquet": _open_parquet, "arrow": _open_arrow}[kind](source, what)
    if max_rows is not None and table.rows is not None and table.rows > max_rows:
        raise TooLarge(f"{what}: {table.rows} rows are over the limit of {max_rows}")
    if max_group_bytes is not None and table.group_bytes > max_group_bytes:
        raise TooLarge(f"{what}: a row group is over the limit of {max_group_bytes} bytes once it is decompressed")
    if repeated := [name for name in table.names if table.names.count(name) > 1]:
        raise InvalidRequest(f"{shown(repeated[0])[1:-1]}: the column is there twice")
    return table


class _reading:
    """What Arrow finds wrong with bytes, as an error that names them."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, MemoryError):
            raise TooLarge(f"{self._what}: needs more memory than there is") from None
        if isinstance(error, pa.ArrowException | OSError | UnicodeDecodeError):
            reason = " ".join(str(error).split())[:_REASON_CHARS]
            raise InvalidRequest(f"{self._what}: {reason}") from None


def _open_csv(source: Source, what: str) -> TableFile:
    head = b""
    while b"\n" not in head and (more := source.read(_HEAD_BYTES)):
        head += more
        if len(head) > _CSV_BLOCK_BYTES:
            raise InvalidRequest(f"{what}: its line of names does not end")
    if not head.strip():
        raise InvalidRequest(f"{what}: is empty; a line of names comes first")
    names = csv.read_csv(io.BytesIO(head.partition(b"\n")[0] + b"\n")).column_names

    def batches(columns: Mapping[str, str]) -> Iterable[pa.RecordBatch]:
        convert = csv.ConvertOptions(
            include_columns=list(columns.values()),
            column_types=dict.fromkeys(columns.values(), pa.string()),
            null_values=[""],  # NaN is a value
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        whole = pa.PythonFile(_Rejoined(head, source), mode="r")
        reading = csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False)
        parsing = csv.ParseOptions(newlines_in_values=True)
        for batch in csv.open_csv(whole, convert_options=convert, read_options=reading, parse_options=parsing):
            yield _with_numbers(batch, columns.get("value"))

    return TableFile(what, names, None, batches)


def _with_numbers(batch: pa.RecordBatch, name: str | None) -> pa.RecordBatch:
    if name is None:
        return batch
    place = batch.schema.get_field_index(name)
    try:
        return batch.set_column(place, name, floats_of_texts(batch.column(place)))
    except NumberError as error:
        raise InvalidRequest(f"{shown(name)[1:-1]}: {error}") from None


class _Rejoined(io.RawIOBase):
    """The bytes of a source whose head has been read already."""

    def __init__(self, head: bytes, rest: Source) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; fewer than there is room for only at the end, which is what Arrow takes that for."""
        size = len(buffer)
        piece, self._head = self._head[:size], self._head[size:]
        piece += self._rest.read(size - len(piece))
        buffer[: len(piece)] = piece
        return len(piece)


def _open_parquet(source: Source, what: str) -> TableFile:
    # A long text that many rows share stays one text in memory.
    file = parquet.ParquetFile(source, read_dictionary=_text_leaves(source))

    def batches(columns: Mapping[str, str]) -> Iterable[pa.RecordBatch]:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns.values()))

    groups = (file.metadata.row_group(index) for index in range(file.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=0)
    return TableFile(what, file.schema_arrow.names, file.metadata.num_rows, batches, largest)


def _text_leaves(source: Source) -> list[str]:
    schema = parquet.read_metadata(source).schema
    leaves = [schema.column(index) for index in range(len(schema.names))]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def _open_arrow(source: Source, what: str) -> TableFile:
    head = source.read(len(_ARROW_FILE))
    if head == _ARROW_FILE:
        return _open_arrow_file(source, what)
    stream = pa.ipc.open_stream(pa.PythonFile(_Rejoined(head, source), mode="r"))

    def batches(columns: Mapping[str, str]) -> Iterable[pa.RecordBatch]:
        return (batch.select(list(columns.values())) for batch in stream)

    return TableFile(what, stream.schema.names, None, batches)


def _open_arrow_file(source: Source, what: str) -> TableFile:
    file = pa.ipc.open_file(source)

    def batches(columns: Mapping[str, str]) -> Iterable[pa.RecordBatch]:
        return (file.get_batch(index).select(list(columns.values())) for index in range(file.num_record_batches))

    return TableFile(what, file.schema.names, None, batches)


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _convert(
    batch: pa.RecordBatch, columns: Mapping[str, str], time_zone: str | None, series: str | None
) -> pa.RecordBatch:
    arrays = {ours: batch.column(source) for ours, source in columns.items()}
    for name in _TIMES:
        if name in arrays:
            arrays[name] = _times(arrays[name], columns[name], time_zone)
    if "tags" in arrays and _is_text(arrays["tags"].type):
        arrays["tags"] = _lists(arrays["tags"], columns["tags"])
    if series is not None:
        zeros = pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows)
        arrays["series_key"] = pa.DictionaryArray.from_arrays(zeros, pa.array([series]))
    return pa.RecordBatch.from_pydict(arrays)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _times(column: pa.Array, name: str, time_zone: str | None) -> pa.Array:
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        if _is_text(column.type):
            column = _parsed(column, name, time_zone)
        elif pt.is_date(column.type):
            column = column.cast(pa.timestamp("us"))
        if not (pt.is_timestamp(column.type) and column.type.tz is None):
            return column
        if time_zone is None:
            raise InvalidRequest(f"{name}: its times have no time zone; say which with --time-zone")
        return pc.assume_timezone(column, time_zone)
    except pa.ArrowException as error:
        raise InvalidRequest(f"{name}: {error}") from None


def _parsed(texts: pa.Array, name: str, time_zone: str | None) -> pa.Array:
    """ISO 8601 texts as times: all with an offset, or all without."""
    for kind in (TIMESTAMP, pa.timestamp("us")):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    # Some have an offset and some do not, or one is no time at all: one by one tells which.
    encoded = texts.dictionary_encode()
    instants = [_micros(text, name, time_zone) for text in encoded.dictionary.to_pylist()]
    return pa.array(instants, pa.int64()).cast(TIMESTAMP).take(encoded.indices)


def _micros(text: str, name: str, time_zone: str | None) -> int:
    try:
        return to_micros(parse_time(text, naive_is_utc=time_zone == "UTC"))
    except ValueError as error:
        raise InvalidRequest(f"{name}: {shown(text)} {error}") from None


def _lists(texts: pa.Array, name: str) -> pa.Array:
    """JSON arrays as lists: the form that lists have in CSV."""
    lists: list[list[str] | None] = []
    for text in texts.to_pylist():
        try:
            found = orjson.loads(text) if text else None
        except ValueError:
            found = text
        if not (found is None or (isinstance(found, list) and all(isinstance(each, str | None) for each in found))):
            raise InvalidRequest(f"{name}: {shown(text)} is not a JSON array of texts")
        lists.append(found)
    return pa.array(lists, pa.list_(pa.string()))
