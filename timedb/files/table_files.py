"""Tables in files and bodies (CSV, JSON, Parquet, Arrow) as batches of an upload, read piece by piece."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from timedb.contract.columns import constant
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.label_columns import labels_of_columns
from timedb.contract.wire import quoted
from timedb.files.cells import Cells
from timedb.files.csv_tables import CsvForm, CsvSource
from timedb.files.json_tables import JsonSource
from timedb.files.pieces import Piece, counted

__all__ = ["Reading", "Rejoined", "Source", "TableFile", "TableKind", "TableLimits", "open_table"]

TableKind = Literal["csv", "parquet", "arrow", "ndjson", "json"]
Source = Any
"""A ``pa.NativeFile`` to read from; Parquet and Arrow files need one that can seek, the others do not."""

_TIMES = ("valid_time", "valid_time_end", "known_time")
_BATCH_ROWS = 1 << 16
_BATCH_ITEMS = 1 << 22
_REASON_CHARS = 300
_ARROW_FILE = b"ARROW1"
_LABEL = "label:"


def _no_advice(ours: str, text: str) -> str:
    return "; say which with time_zone" if ours == "time_zone" else ""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the cells of a table are read.

    Attributes:
        time_zone: Of times without an offset; None: they are an error.
        series: The one series of all rows; None: a column says which.
        labels: Label → column of its texts.
        fixed_labels: Labels that all rows have.
        form: Of CSV.
        advise: The end of the error about a cell: our column, or ``time_zone``, and the cell's text → what to do.
    """

    time_zone: str | None = None
    series: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed_labels: Mapping[str, str] = field(default_factory=dict)
    form: CsvForm = field(default_factory=CsvForm)
    advise: Callable[[str, str], str] = _no_advice


@dataclass(frozen=True, slots=True)
class TableLimits:
    """The most that a table may hold; None: as much as it does.

    Attributes:
        rows: Rows that Parquet, which states their number, may state.
        columns: Columns.
        group_bytes: Bytes that a row group of Parquet may state once it is decompressed, and that reading a sheet may
            take.
        list_items: Items that a list of Parquet may have, on average of a row group.
    """

    rows: int | None = None
    columns: int | None = None
    group_bytes: int | None = None
    list_items: int | None = None


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table that is ready to be read, once.

    Attributes:
        what: How an error calls it.
        names: Its columns, in order.
        rows: How many it has; None if that is known only at its end.
        numbers_are_text: Whether numbers come as they are written.
        piece_bytes: What the largest piece that is read at once takes in memory, as far as the table states it; 0:
            it does not.
    """

    what: str
    names: list[str]
    rows: int | None
    _pieces: Callable[[Mapping[str, str]], Iterable[Piece]]
    numbers_are_text: bool = False
    piece_bytes: int = 0

    def read(self, columns: Mapping[str, str], how: Reading) -> pa.RecordBatchReader:
        """The rows as an upload has them.

        Args:
            columns: Our column → the table's, of all that are wanted; one of the table's may serve twice.
            how: How cells are read.

        Raises:
            InvalidRequest: it cannot be read, or a value does not fit; the reader raises it for what comes later.
        """
        wanted = dict(columns) | {_LABEL + label: source for label, source in how.labels.items()}
        converted = (self._convert(piece, columns, how) for piece in self.pieces(wanted))
        first = next(converted, None)
        if first is None:
            raise InvalidRequest(f"{self.what}: holds no rows")
        return pa.RecordBatchReader.from_batches(first.schema, _chained(first, converted))

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        """The rows as the table has them.

        Args:
            columns: What a column is → its name, of all that are wanted.

        Raises:
            InvalidRequest: it cannot be read.
        """
        with _reading(self.what):
            yield from self._pieces(columns)

    def _convert(self, piece: Piece, columns: Mapping[str, str], how: Reading) -> pa.RecordBatch:
        batch = piece.batch
        arrays = {}
        for ours, source in columns.items():
            cells = Cells(ours, source, batch.column(source), piece.place, how.advise)
            if ours in _TIMES:
                arrays[ours] = cells.times(how.time_zone)
            elif ours == "retracted":
                arrays[ours] = cells.flags()
            elif ours == "value" and self.numbers_are_text:
                arrays[ours] = cells.numbers(how.form.decimal, how.form.thousands)
            else:
                arrays[ours] = cells.of_row()
        if how.series is not None:
            arrays["series_key"] = constant(how.series, batch.num_rows)
        if how.labels or how.fixed_labels:
            texts = {label: batch.column(source) for label, source in how.labels.items()}
            arrays["labels"] = labels_of_columns(texts, how.fixed_labels, batch.num_rows)
        return pa.RecordBatch.from_pydict(arrays)


def open_table(
    source: Source,
    kind: TableKind,
    *,
    what: str,
    form: CsvForm | None = None,
    limits: TableLimits | None = None,
    sheet: str | None = None,
    sheet_option: str = "sheet",
    every_key: bool = False,
) -> TableFile:
    """Look at the head of a table: CSV with a line of names, JSON, Parquet, or an Arrow IPC stream or file.

    Args:
        source: The bytes.
        kind: The format.
        what: How an error calls it.
        form: Of CSV; None: cells between commas, a point before decimals.
        limits: What it may hold; None: as much as it does.
        sheet: Of JSON that is an object: the key of the table.
        sheet_option: How an error calls that.
        every_key: Whether each object of JSON must have every key, as what is left out is not the same as null.

    Raises:
        InvalidRequest: it is not of that format.
        TooLarge: it holds more.
    """
    limits = limits or TableLimits()
    with _reading(what):
        match kind:
            case "csv":
                table = _open_csv(source, what, form or CsvForm(), limits)
            case "parquet":
                table = _open_parquet(source, what, limits)
            case "arrow":
                table = _open_arrow(source, what)
            case _:
                lines = kind == "ndjson"
                json_table = JsonSource(
                    source, what, lines=lines, table=sheet, option=sheet_option, every_key=every_key
                )
                table = TableFile(what, json_table.names, None, json_table.pieces)
    if limits.rows is not None and table.rows is not None and table.rows > limits.rows:
        raise TooLarge(f"{what}: {table.rows} rows are over the limit of {limits.rows}")
    if limits.columns is not None and len(table.names) > limits.columns:
        raise TooLarge(f"{what}: {len(table.names)} columns are over the limit of {limits.columns}")
    if repeated := [name for name, times in Counter(table.names).items() if times > 1]:
        raise InvalidRequest(f"{quoted(repeated[0])[1:-1]}: the column is there twice")
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


def _open_csv(source: Source, what: str, form: CsvForm, limits: TableLimits) -> TableFile:
    table = CsvSource(source, what, form, limits.columns)
    return TableFile(
        what, table.names, None, lambda columns: table.pieces(list(columns.values())), numbers_are_text=True
    )


class Rejoined(io.RawIOBase):
    """The bytes of a source whose head has been read already."""

    def __init__(self, head: bytes, rest: Source) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; fewer than there is room for only at the end, which is what Arrow takes that for."""
        size = len(buffer)
        piece, self._head = self._head[:size], self._head[size:]
        piece += self._rest.read(size - len(piece))
        buffer[: len(piece)] = piece
        return len(piece)


def _open_parquet(source: Source, what: str, limits: TableLimits) -> TableFile:
    metadata = parquet.read_metadata(source)
    _check_groups(metadata, what, limits)
    # A long text that many rows share stays one text in memory.
    file = parquet.ParquetFile(source, read_dictionary=_text_leaves(source))

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        return counted(file.iter_batches(batch_size=_batch_rows(file.metadata), columns=_once(columns)))

    groups = map(metadata.row_group, range(metadata.num_row_groups))
    longest = max((group.total_byte_size for group in groups), default=0)
    return TableFile(what, file.schema_arrow.names, file.metadata.num_rows, pieces, piece_bytes=longest)


def _check_groups(metadata: parquet.FileMetaData, what: str, limits: TableLimits) -> None:
    """Refuse row groups by what the file states of them; a few bytes may state millions of items that are all null."""
    if limits.columns is not None and metadata.num_columns > limits.columns:
        raise TooLarge(f"{what}: {metadata.num_columns} columns are over the limit of {limits.columns}")
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if limits.group_bytes is not None and group.total_byte_size > limits.group_bytes:
            raise TooLarge(
                f"{what}: a row group is over the limit of {limits.group_bytes} bytes once it is decompressed"
            )
        for column in map(group.column, range(group.num_columns)) if limits.list_items is not None else ():
            if column.num_values > group.num_rows * limits.list_items:
                name = quoted(column.path_in_schema)[1:-1]
                raise TooLarge(
                    f"{name}: {column.num_values} items in {group.num_rows} rows are over the limit of "
                    f"{limits.list_items} a row"
                )


def _batch_rows(metadata: parquet.FileMetaData) -> int:
    """Rows of a batch: fewer where rows have long lists."""
    rows = _BATCH_ROWS
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        items = max((group.column(index).num_values for index in range(group.num_columns)), default=0)
        rows = min(rows, max(1, _BATCH_ITEMS * group.num_rows // max(items, 1)))
    return rows


def _text_leaves(source: Source) -> list[str]:
    schema = parquet.read_metadata(source).schema
    leaves = [schema.column(index) for index in range(len(schema.names))]
    # Not those of lists: Arrow gives up where such a column comes in more than one piece.
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and not leaf.max_repetition_level]


def _open_arrow(source: Source, what: str) -> TableFile:
    head = source.read(len(_ARROW_FILE))
    if head == _ARROW_FILE:
        return _open_arrow_file(source, what)
    stream = pa.ipc.open_stream(pa.PythonFile(Rejoined(head, source), mode="r"))

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        return counted(batch.select(_once(columns)) for batch in stream)

    return TableFile(what, stream.schema.names, None, pieces)


def _open_arrow_file(source: Source, what: str) -> TableFile:
    file = pa.ipc.open_file(source)

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        return counted(file.get_batch(index).select(_once(columns)) for index in range(file.num_record_batches))

    return TableFile(what, file.schema.names, None, pieces)


def _once(columns: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(columns.values()))


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
