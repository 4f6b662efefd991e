"""The body of ``GET /values`` in each format it is offered in, piece by piece from record batches.

- ``application/json``: ``{"data": [row, …], "count": n, "next_cursor": …}``, the cursor only if there is a next page
- ``application/x-ndjson``: a row a line
- ``text/csv``: a line of names, then a row a line
- ``application/vnd.apache.arrow.stream``: an Arrow IPC stream, whose schema metadata has the ``cursor``
- ``application/vnd.apache.parquet``: a Parquet file, compressed, whose metadata has the ``cursor``, too

A failure after the head of the answer has gone out cuts the connection, so that no client takes the part for the
whole. Nothing but rows stands in NDJSON and CSV: readers take every line for a row.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import orjson
import pyarrow as pa
from pyarrow import parquet

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import shown
from timedb.rest_gateway.answer.row_text import (
    CSV,
    JSON,
    JSON_NON_FINITE_TEXT,
    NDJSON,
    NDJSON_NON_FINITE_TEXT,
    RowWriter,
)

__all__ = ["FORMATS", "BodyFormat", "FormatName", "choose_format", "write_body"]

FormatName = Literal["json", "arrow", "parquet", "ndjson", "csv"]
Piece = bytes | memoryview
_ROWS_A_GROUP = 1 << 18
_BYTES_A_GROUP = 32 << 20


class BodyFormat(ABC):
    """Writes one answer.

    Args:
        schema: Of the batches to come.
        cursor: Where the next page starts; none: there is no next page.
        non_finite_text: Whether JSON writes NaN and the infinities as texts rather than as null.
    """

    name: ClassVar[FormatName]
    """What ``format=`` calls it."""
    media_types: ClassVar[tuple[str, ...]]
    """What asks for it; the first is what the answer says."""

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        self._cursor = cursor

    @abstractmethod
    def head(self) -> Piece:
        """What stands before the rows."""

    @abstractmethod
    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The rows of a batch."""

    @abstractmethod
    def tail(self, count: int) -> Piece:
        """What stands after ``count`` rows."""

    def _summary(self, count: int) -> dict[str, object]:
        return {"count": count} | ({"next_cursor": self._cursor} if self._cursor else {})


class JsonBody(BodyFormat):
    """One JSON object; ``count`` comes after the rows, as only then it is known."""

    name = "json"
    media_types = ("application/json",)

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        super().__init__(schema, cursor, non_finite_text=non_finite_text)
        self._writer = RowWriter(schema, JSON_NON_FINITE_TEXT if non_finite_text else JSON)
        self._first = True

    def head(self) -> Piece:
        """The start of the object and of its list."""
        return b'{"data":['

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """Rows with a comma between them."""
        for text in self._writer.write(batch):
            yield text[1:] if self._first else text  # every row starts with a comma
            self._first = False

    def tail(self, count: int) -> Piece:
        """The end of the list, and what is known only now."""
        return b"]," + orjson.dumps(self._summary(count))[1:]


class NdjsonBody(BodyFormat):
    """One JSON object a line."""

    name = "ndjson"
    media_types = ("application/x-ndjson", "application/ndjson", "application/jsonl")

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        super().__init__(schema, cursor, non_finite_text=non_finite_text)
        self._writer = RowWriter(schema, NDJSON_NON_FINITE_TEXT if non_finite_text else NDJSON)

    def head(self) -> Piece:
        """Nothing."""
        return b""

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """A line each."""
        return self._writer.write(batch)

    def tail(self, count: int) -> Piece:
        """Nothing."""
        return b""


class CsvBody(BodyFormat):
    """RFC 4180: a null is an empty field, an empty text is ``""``, tags are a JSON array."""

    name = "csv"
    media_types = ("text/csv",)

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        super().__init__(schema, cursor, non_finite_text=non_finite_text)
        self._names = schema.names
        self._writer = RowWriter(schema, CSV)

    def head(self) -> Piece:
        """The line of names."""
        return ",".join(self._names).encode() + b"\n"

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """A line each."""
        return self._writer.write(batch)

    def tail(self, count: int) -> Piece:
        """Nothing."""
        return b""


class ArrowBody(BodyFormat):
    """The Arrow IPC streaming format, as the Flight server sent it."""

    name = "arrow"
    media_types = ("application/vnd.apache.arrow.stream",)

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        super().__init__(schema, cursor, non_finite_text=non_finite_text)
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def head(self) -> Piece:
        """The schema message."""
        return self._sink.take()

    def rows(self, batch: pa.RecordBatch) -> Iterator[Piece]:
        """The dictionaries that changed, and the batch."""
        self._writer.write_batch(batch)
        yield self._sink.take()

    def tail(self, count: int) -> Piece:
        """The end-of-stream marker."""
        self._writer.close()
        return self._sink.take()


class ParquetBody(BodyFormat):
    """A Parquet file: batches are gathered to row groups of some megabytes, each sent once it is full."""

    name = "parquet"
    media_types = ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet")

    def __init__(self, schema: pa.Schema, cursor: str | None, *, non_finite_text: bool) -> None:
        super().__init__(schema, cursor, non_finite_text=non_finite_text)
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []

    def head(self) -> Piece:
        """The magic number."""
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


class _Sink(io.RawIOBase):
    """Holds what was written since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object) -> int:
        """Keep a copy."""
        part = bytes(memoryview(data))  # type: ignore[arg-type] # io's own stub says Buffer only from Python 3.12 on
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        """How much has been written in all."""
        return self._written

    def take(self) -> bytes:
        """What is held, and hold nothing any more."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


FORMATS: tuple[type[BodyFormat], ...] = (JsonBody, ArrowBody, ParquetBody, NdjsonBody, CsvBody)
"""Every format, the default one first."""


def write_body(body: BodyFormat, batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    """The whole body, a piece at a time; ``batches`` is read as the pieces are taken."""
    yield body.head()
    count = 0
    for batch in batches:
        count += batch.num_rows
        yield from body.rows(batch)
    yield body.tail(count)


def choose_format(accept: str, name: FormatName | None = None) -> type[BodyFormat]:
    """The format of that name, else the one that an ``Accept`` header prefers (RFC 9110 section 12.5.1), else JSON.

    Raises:
        InvalidRequest: the header allows none of the formats.
    """
    if name is not None:
        return next(offered for offered in FORMATS if offered.name == name)
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best: tuple[float, type[BodyFormat]] | None = None
    for offered in FORMATS:
        quality = max(_quality(media_type, ranges) for media_type in offered.media_types)
        if quality > 0 and (best is None or quality > best[0]):
            best = quality, offered
    if best is None:
        offers = ", ".join(offered.media_types[0] for offered in FORMATS)
        raise InvalidRequest(f"Accept: {shown(accept)} allows none of {offers}")
    return best[1]


def _media_range(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, min(1.0, max(0.0, float(value)))
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The quality that the most exact matching range gives; 0 if none matches."""
    given = dict(ranges)
    main = media_type.partition("/")[0]
    return next((given[name] for name in (media_type, f"{main}/*", "*/*") if name in given), 0.0)
