"""Rows as CSV, JSON, NDJSON, Arrow or Parquet, piece by piece from record batches."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
from pyarrow import parquet

from timedb.files.row_text import RowWriter, Syntax, csv_header

__all__ = [
    "FORMATS",
    "READ_SUFFIXES",
    "SUFFIXES",
    "BodyFormat",
    "FormatName",
    "JsonBody",
    "ParquetBody",
    "Piece",
    "Sink",
    "Style",
    "write_body",
]

FormatName = Literal["json", "arrow", "parquet", "ndjson", "csv"]
Piece = bytes | memoryview
SUFFIXES: dict[str, FormatName] = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".parquet": "parquet",
}
"""The end of a file's name → the format that it is written in."""
READ_SUFFIXES: dict[str, str] = SUFFIXES | {".pq": "parquet", ".feather": "arrow", ".ipc": "arrow", ".xlsx": "xlsx"}
"""The end of a file's name → the format that it is read as."""
_ROWS_A_GROUP = 1 << 18
_BYTES_A_GROUP = 32 << 20


@dataclass(frozen=True, slots=True)
class Style:
    """How texts are written, where that is for who writes them to say.

    Attributes:
        json: A row of a JSON array, with the comma before it.
        ndjson: A line of NDJSON.
        csv: A line of CSV.
        json_start: What stands before the rows of JSON.
        json_end: What stands after so many of them.
    """

    json: Syntax
    ndjson: Syntax
    csv: Syntax
    json_start: bytes
    json_end: Callable[[int], bytes]


class BodyFormat(ABC):
    """Writes one answer.

    Args:
        schema: Of the batches to come.
        style: How texts are written.
    """

    name: ClassVar[FormatName]
    """What ``format=`` calls it."""
    media_types: ClassVar[tuple[str, ...]]
    """What asks for it over HTTP; the first is what the answer says."""

    @abstractmethod
    def __init__(self, schema: pa.Schema, style: Style) -> None: ...

    def head(self) -> Piece:
        """What stands before the rows."""
        return b""

    @abstractmethod
    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The rows of a batch."""

    def tail(self, count: int) -> Piece:
        """What stands after ``count`` rows."""
        return b""


class JsonBody(BodyFormat):
    """One JSON value; what is known only after the rows stands behind them."""

    name = "json"
    media_types = ("application/json",)

    def __init__(self, schema: pa.Schema, style: Style) -> None:
        self._style = style
        self._writer = RowWriter(schema, style.json)
        self._first = True

    def head(self) -> Piece:
        """The start of the value and of its list."""
        return self._style.json_start

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """Rows with a comma between them."""
        for text in self._writer.write(batch):
            yield text[1:] if self._first else text  # every row starts with a comma
            self._first = False

    def tail(self, count: int) -> Piece:
        """The end of the list, and what is known only now."""
        return self._style.json_end(count)


class NdjsonBody(BodyFormat):
    """One JSON object a line."""

    name = "ndjson"
    media_types = ("application/x-ndjson", "application/ndjson", "application/jsonl")

    def __init__(self, schema: pa.Schema, style: Style) -> None:
        self._writer = RowWriter(schema, style.ndjson)

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        return self._writer.write(batch)


class CsvBody(BodyFormat):
    """RFC 4180: a null is an empty field, an empty text is ``""``, tags are a JSON array."""

    name = "csv"
    media_types = ("text/csv",)

    def __init__(self, schema: pa.Schema, style: Style) -> None:
        self._names = schema.names
        self._writer = RowWriter(schema, style.csv)

    def head(self) -> Piece:
        """The line of names."""
        return csv_header(self._names)

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        return self._writer.write(batch)


class ArrowBody(BodyFormat):
    """The Arrow IPC streaming format, as the Flight server sent it."""

    name = "arrow"
    media_types = ("application/vnd.apache.arrow.stream",)

    def __init__(self, schema: pa.Schema, style: Style) -> None:
        self._sink = Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def head(self) -> Piece:
        """The message with the schema, of which each batch is."""
        return self._sink.take()

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The dictionaries that changed, and the batch."""
        self._writer.write_batch(batch)
        yield self._sink.take()

    def tail(self, count: int) -> Piece:
        """The marker that ends a stream of Arrow."""
        self._writer.close()
        return self._sink.take()


class ParquetBody(BodyFormat):
    """A Parquet file: batches are gathered to row groups of some megabytes, each sent once it is full."""

    name = "parquet"
    media_types = ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet")

    def __init__(self, schema: pa.Schema, style: Style) -> None:
        self._sink = Sink()
        self._writer = parquet.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []

    def head(self) -> Piece:
        """The magic number, by which a Parquet file begins."""
        return self._sink.take()

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """A row group, if there is enough for one."""
        self._waiting.append(batch)
        rows = sum(each.num_rows for each in self._waiting)
        if rows >= _ROWS_A_GROUP or sum(each.nbytes for each in self._waiting) >= _BYTES_A_GROUP:
            yield self._group()

    def tail(self, count: int) -> Piece:
        """The rows that wait, and the footer."""
        last = self._group() if self._waiting else b""
        self._writer.close()
        return last + self._sink.take()

    def _group(self) -> bytes:
        table = pa.Table.from_batches(self._waiting).unify_dictionaries()
        self._waiting.clear()
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        return self._sink.take()


class Sink(io.RawIOBase):
    """A file to be written into, which holds what was written since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type] # io's own stub says Buffer only from Python 3.12 on
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        """What is held, and hold nothing any more."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


FORMATS: tuple[type[BodyFormat], ...] = (JsonBody, ArrowBody, ParquetBody, NdjsonBody, CsvBody)
"""Every format; the default one of REST first."""


def write_body(body: BodyFormat, batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    """The whole body, a piece at a time; ``batches`` is read as the pieces are taken."""
    yield body.head()
    count = 0
    for batch in batches:
        count += batch.num_rows
        yield from body.rows(batch)
    yield body.tail(count)
