"""CSV as batches of text, piece by piece: each row knows its line, and a row that is none is named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.wire import quoted
from timedb.files.pieces import Numbers, Piece

__all__ = ["CsvForm", "CsvSource"]

_BLOCK_BYTES = 4 << 20
_MAX_ROW_BYTES = 64 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How a CSV file is written.

    Attributes:
        delimiter: One character, between two cells.
        decimal: ``.`` or ``,``, of values.
        thousands: What stands between groups of three digits of values; None: nothing does.
        nulls: Texts that stand for no value, beside none at all.
        skip_lines: How many lines stand before the line of names.
        no_header: Whether there is no line of names; the columns are called ``1``, ``2``, and so on.
        encoding_hint: What to do about a file that is not UTF-8.
    """

    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    nulls: tuple[str, ...] = ()
    skip_lines: int = 0
    no_header: bool = False
    encoding_hint: str = "; save the file as UTF-8"


class CsvSource:
    """A CSV table whose line of names has been read.

    The bytes are cut at ends of rows and parsed here, block by block: a reader of Arrow's own that pulls from a Python
    file does so on a thread, which may outlive the error that ends the read, and then ends the interpreter badly.

    Attributes:
        names: The columns.

    Raises:
        InvalidRequest: there is no line of names.
        TooLarge: it has more than ``max_columns`` names.
    """

    def __init__(self, source: Any, what: str, form: CsvForm, max_columns: int | None = None) -> None:
        self._source = source
        self._what = what
        self._parsing = csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True)
        self._nulls = ["", *form.nulls]
        self._encoding_hint = form.encoding_hint
        head: bytes = source.read(_BLOCK_BYTES)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:1024]:
            raise InvalidRequest(f"{what}: is not UTF-8 text{form.encoding_hint}")
        head = _after_lines(head.removeprefix(b"\xef\xbb\xbf"), form.skip_lines, what)
        if not head.strip():
            raise InvalidRequest(f"{what}: is empty; a line of names comes first")
        if not head.lstrip(b"\r\n"):
            raise InvalidRequest(f"{what}: its line of names is empty")
        self._rows = _Rows(form.delimiter)
        line_end = self._rows.first_end(head)
        if line_end is None and len(head) == _BLOCK_BYTES:
            raise InvalidRequest(f"{what}: its line of names does not end")
        names, self._rest = (head, b"") if line_end is None else (head[:line_end], head[line_end:])
        self._first_line = 1 + form.skip_lines + _lines(names)
        _check_text(names, 1 + form.skip_lines, what, form.encoding_hint)
        # Before they are parsed: of each column Arrow makes a reader of ten kilobytes.
        if max_columns is not None and (found := names.count(form.delimiter.encode()) + 1) > max_columns:
            raise TooLarge(f"{what}: {found} columns in the line of names are over the limit of {max_columns}")
        self.names: list[str] = csv.read_csv(
            pa.BufferReader(names.strip(b"\r\n") + b"\n"),
            csv.ReadOptions(autogenerate_column_names=form.no_header),
            self._parsing,
        ).column_names
        if form.no_header:
            self.names = [str(number) for number, _ in enumerate(self.names, 1)]
            self._first_line, self._rest = 1 + form.skip_lines, head

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """The rows, every cell as text; an empty one is null, a quoted empty one is not.

        Args:
            columns: Those that are wanted.

        Raises:
            InvalidRequest: a row has another number of cells than the line of names, or is not UTF-8.
        """
        line = self._first_line
        for block in self._blocks():
            if block.strip(b"\r\n"):
                batch = self._parsed(block, columns, line)
                yield Piece(batch, "line", cache(partial(self._rows.lines, block, line, batch.num_rows)))
            line += _lines(block)

    def _blocks(self) -> Iterator[bytes]:
        """The bytes, cut at the ends of rows."""
        waiting = self._rest
        while more := self._source.read(_BLOCK_BYTES):
            waiting += more
            end = self._rows.last_end(waiting)
            if end:
                yield waiting[:end]
                waiting = waiting[end:]
            elif len(waiting) > _MAX_ROW_BYTES:
                raise TooLarge(f"{self._what}: has a row of over {_MAX_ROW_BYTES} bytes; is a quote never closed?")
        if waiting:
            yield waiting

    def _parsed(self, block: bytes, columns: Sequence[str], line: int) -> pa.RecordBatch:
        # Before it is parsed: Arrow cannot tell of a torn row that is no text.
        _check_text(block, line, self._what, self._encoding_hint)
        torn: list[Any] = []

        def remember(row: Any) -> str:
            torn.append(row)
            return "error"

        parsing = csv.ParseOptions(
            delimiter=self._parsing.delimiter, newlines_in_values=True, invalid_row_handler=remember
        )
        reading = csv.ReadOptions(column_names=self.names, block_size=len(block) + 1, use_threads=False)
        converting = csv.ConvertOptions(
            include_columns=list(dict.fromkeys(columns)),
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=self._nulls,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        try:
            table = csv.read_csv(pa.BufferReader(block), reading, parsing, converting)
        except pa.ArrowInvalid:
            if torn:
                place = f"line {self._rows.lines(block, line)[(torn[0].number or 1) - 1]}"
                cells = f"{torn[0].actual_columns} cells where the line of names has {torn[0].expected_columns}"
                raise InvalidRequest(f"{self._what}: {place}: {quoted(torn[0].text)} has {cells}") from None
            raise
        batch = table.combine_chunks().to_batches()[0] if table.num_rows else _no_rows(table.schema)
        return _without_words(batch, self._nulls[1:]) if b'"' in block else batch


def _after_lines(head: bytes, count: int, what: str) -> bytes:
    """What follows so many lines."""
    for seen in range(count):
        if (end := _LINE_END.search(head)) is None:
            raise InvalidRequest(f"{what}: has {seen + bool(head)} lines, {count} of which are to be skipped")
        head = head[end.end() :]
    return head


def _without_words(batch: pa.RecordBatch, nulls: Sequence[str]) -> pa.RecordBatch:
    """Without the words that stand for no value where they are quoted; a quoted nothing stays a text."""
    if not nulls:
        return batch
    words = pa.array(nulls, pa.string())
    nothing = pa.scalar(None, pa.string())
    columns = [pc.if_else(pc.is_in(column, words), nothing, column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


class _Rows:
    """Where the rows of a block of CSV end: after each end of a line that stands in no quoted cell."""

    def __init__(self, delimiter: str) -> None:
        before = re.escape("\n\r" + delimiter).encode()
        # A quoted cell, also one that does not end.
        self._quoted = re.compile(rb"(?:(?<=[" + before + rb"])|\A)\"(?:[^\"]++|\"\")*+(?:\"|\Z)")

    def ends(self, block: bytes) -> Iterator[int]:
        """The positions after each row."""
        spans = [match.span() for match in self._quoted.finditer(block)] if b'"' in block else []
        position = 0
        for start, stop in [*spans, (len(block), len(block))]:
            for match in _LINE_END.finditer(block, position, start):
                yield match.end()
            position = stop

    def first_end(self, head: bytes) -> int | None:
        """The position after the first row that is not empty; None: it does not end."""
        blank = len(head) - len(head.lstrip(b"\r\n"))
        return next((end for end in self.ends(head) if end > blank), None)

    def last_end(self, block: bytes) -> int:
        """The position after the last whole row; 0: none is whole."""
        if b'"' not in block and (end := block.rfind(b"\n")) >= 0:
            return end + 1
        # A CR at the very end may be half of a CR LF.
        return max((end for end in self.ends(block) if end < len(block) or block.endswith(b"\n")), default=0)

    def lines(self, block: bytes, first_line: int, rows: int | None = None) -> Numbers:
        """In which line each row of a block begins; empty lines are no rows.

        Args:
            block: Whole rows.
            first_line: The line that it begins with.
            rows: How many there are, if that is known.
        """
        if rows == _lines(block) + (not block.endswith((b"\n", b"\r"))):
            return np.arange(first_line, first_line + rows, dtype=np.int64)
        found, start, line = [], 0, first_line
        for end in [*self.ends(block), len(block)]:
            row = block[start:end]
            if row.strip(b"\r\n"):
                found.append(line)
            line += _lines(row)
            start = end
        return np.array(found, dtype=np.int64)


def _lines(block: bytes) -> int:
    """How many lines end in a block."""
    return block.count(b"\n") + block.replace(b"\r\n", b"").count(b"\r")


def _check_text(block: bytes, line: int, what: str, hint: str) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        place = line + _lines(block[: error.start])
        cell = re.split(rb"[\r\n,;\t]", block[: error.start])[-1] + re.split(rb"[\r\n,;\t]", block[error.start :])[0]
        seen = quoted(cell.decode("latin-1"))
        raise InvalidRequest(f"{what}: line {place}: {seen} is not UTF-8 text (shown as Latin-1){hint}") from None
