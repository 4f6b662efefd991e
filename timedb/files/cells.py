"""Cells of files as values of an upload: texts as numbers, times and lists, each fault with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from timedb.contract.columns import decoded, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.label_columns import label_texts
from timedb.contract.number_columns import NumberError, floats_of_texts
from timedb.contract.times import from_micros, parse_time, to_micros
from timedb.contract.wire import quoted

__all__ = ["Cells", "check_time_zone", "instant_of"]

TIMESTAMP = pa.timestamp("us", tz="UTC")
_WITHOUT_ZONE = "has no time zone"
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True)
class Cells:
    """A column of some rows, and how an error speaks of it.

    Attributes:
        ours: What the column is to an upload, such as ``value``.
        name: What the file calls it.
        column: The cells.
        place: What an error calls the row of that index.
        advise: What to do about a cell: our column and the cell's text → the end of the error, or nothing.
    """

    ours: str
    name: str
    column: pa.Array
    place: Callable[[int], str]
    advise: Callable[[str, str], str]

    def numbers(self, decimal: str = ".", thousands: str | None = None) -> pa.Array:
        """Texts as float64; a column that is no text stays as it is.

        Args:
            decimal: What stands before the decimals.
            thousands: What stands between groups of three digits.

        Raises:
            InvalidRequest: a text is no number, or one that a float64 cannot hold.
        """
        column = decoded(self.column)
        if not is_text(column.type):
            return self.column
        texts = column if thousands is None and decimal == "." else pc.utf8_trim_whitespace(column)
        if thousands is not None:
            whole = rf"(\d+|\d{{1,3}}({re.escape(thousands)}\d{{3}})+)"
            grouped = rf"^[+-]?{whole}({re.escape(decimal)}\d*)?([eE][+-]?\d+)?$"
            self._all(texts, pc.or_(pc.match_substring_regex(texts, grouped), _no_digits(texts)), "is not a number")
            texts = pc.replace_substring(texts, thousands, "")
        if decimal != ".":
            self._all(texts, pc.invert(pc.match_substring(texts, ".")), "has a point, which is not the decimal mark")
            texts = pc.replace_substring(texts, decimal, ".")
        try:
            return floats_of_texts(texts)
        except NumberError as error:
            if thousands is None and decimal == ".":
                advice = self.advise(self.ours, str(column[error.index].as_py()))
                raise InvalidRequest(f"{self.name}: {self.place(error.index)}: {error}{advice}") from None
            self._refuse(error.index, f"is {str(error).partition(' is ')[2]}")

    def times(self, time_zone: str | None) -> pa.Array:
        """Texts and dates as instants; what has no offset is local time of ``time_zone``, if there is one.

        Without it a bare date is its midnight, UTC, and a time of day without an offset an error.

        Raises:
            InvalidRequest: a text is no time, has no offset where there is no zone, or its local time does not exist
                or exists twice.
        """
        column = decoded(self.column)
        if is_text(column.type):
            column = self._parsed(column, time_zone)
        elif pt.is_date(column.type):
            column, time_zone = column.cast(pa.timestamp("us")), time_zone or "UTC"
        if not (pt.is_timestamp(column.type) and column.type.tz is None):
            return column
        if time_zone is None:
            raise InvalidRequest(f"{self.name}: its times have no time zone{self.advise('time_zone', '')}")
        try:
            return pc.assume_timezone(column, time_zone)
        except pa.ArrowException as error:
            self._refuse_local(column, time_zone, error)

    def _parsed(self, texts: pa.Array, time_zone: str | None) -> pa.Array:
        """ISO 8601 texts as times: all with an offset, or all without."""
        for kind in (TIMESTAMP, pa.timestamp("us")):
            try:
                times = texts.cast(kind)
            except pa.ArrowInvalid:
                continue
            dates = kind.tz is None and time_zone is None and _all_dates(texts)
            return times.cast(TIMESTAMP) if dates else times
        # Some have an offset and some do not, or one is no time at all: one by one tells which.
        known: dict[str, int] = {}
        for row, text in enumerate(texts.to_pylist()):
            if text is not None and text not in known:
                known[text] = self._micros(row, text, time_zone)
        return pa.array([known.get(text) for text in texts.to_pylist()], pa.int64()).cast(TIMESTAMP)

    def _micros(self, row: int, text: str, time_zone: str | None) -> int:
        try:
            return to_micros(instant_of(text, time_zone))
        except ValueError as error:
            missing = self.advise("time_zone", "") if _WITHOUT_ZONE in str(error) else ""
            self._refuse(row, f"{error}{missing}")

    def _refuse_local(self, column: pa.Array, time_zone: str, error: pa.ArrowException) -> NoReturn:
        """Find the local time that is no instant; it costs a search by halves."""
        first, last = 0, len(column)
        while last - first > 1:
            middle = (first + last) // 2
            try:
                pc.assume_timezone(column.slice(first, middle - first), time_zone)
                first = middle
            except pa.ArrowException:
                last = middle
        if "annot locate" in str(error) or not len(column):
            raise InvalidRequest(f"{self.name}: {_reason(error, time_zone)}") from None
        self._refuse(first, _reason(error, time_zone))

    def of_row(self) -> pa.Array:
        """What a row says beside its time and value: tags as lists, labels as JSON text, all else as it stands.

        Raises:
            InvalidRequest: they are neither.
        """
        if self.ours == "tags":
            return self.lists()
        if self.ours == "labels":
            return label_texts(self.column)
        return self.column

    def lists(self) -> pa.Array:
        """JSON arrays of texts as lists; a column that is no text stays as it is."""
        column = decoded(self.column)
        if not is_text(column.type):
            return self.column
        lists: list[list[str] | None] = []
        for row, text in enumerate(column.to_pylist()):
            try:
                found = orjson.loads(text) if text else None
            except ValueError:
                found = text
            if not (found is None or (isinstance(found, list) and all(isinstance(each, str | None) for each in found))):
                self._refuse(row, "is not a JSON array of texts")
            lists.append(found)
        return pa.array(lists, pa.list_(pa.string()))

    def flags(self) -> pa.Array:
        """Texts as truth values; a column that is no text stays as it is.

        Raises:
            InvalidRequest: a text is neither true nor false.
        """
        column = decoded(self.column)
        if not is_text(column.type):
            return self.column
        words = pc.utf8_lower(column)
        self._all(column, pc.is_in(words, pa.array([*_TRUE, *_FALSE, None], words.type)), "is neither true nor false")
        return pc.if_else(pc.is_null(words), None, pc.is_in(words, pa.array(_TRUE, words.type)))

    def _all(self, texts: pa.Array, right: pa.Array, reason: str) -> None:
        """Refuse the first text that is not right; null is."""
        if not pc.all(right, min_count=0).as_py():
            row = pc.index(right, False).as_py()
            self._refuse(row, reason)

    def _refuse(self, row: int, reason: str) -> NoReturn:
        cell = self.column[row].as_py()
        text = cell if isinstance(cell, str) else str(cell)
        advice = "" if "time zone" in reason else self.advise(self.ours, text)
        raise InvalidRequest(f"{self.name}: {self.place(row)}: {quoted(text)} {reason}{advice}")


def instant_of(text: str, time_zone: str | None) -> datetime:
    """The instant that a text means: RFC 3339, or the local time of a zone where it has no offset.

    Args:
        text: For example ``2025-01-01T00:00:00Z``, ``2025-01-01 12:00`` or ``2025-01-01``, the day's first moment.
        time_zone: IANA name; None: a text without an offset is an error.

    Raises:
        ValueError: it is no time, it has no offset and there is no zone, or the local time is no instant or two.
    """
    if time_zone is None:
        try:
            return parse_time(text)
        except ValueError as error:
            raise ValueError(_WITHOUT_ZONE if _WITHOUT_ZONE in str(error) else str(error)) from None
    instant = parse_time(text, naive_is_utc=True)
    if re.search(r"([Zz]|[+-]\d\d:?\d\d)\s*$", text[10:]):
        return instant
    naive = pa.array([to_micros(instant)], pa.int64()).cast(pa.timestamp("us"))
    try:
        return from_micros(pc.assume_timezone(naive, time_zone).cast(pa.int64())[0].as_py())
    except pa.ArrowException as error:
        raise ValueError(_reason(error, time_zone)) from None


def check_time_zone(name: str, time_zone: str | None) -> None:
    """Refuse a time zone that does not exist; None is none.

    Raises:
        InvalidRequest: names the option or field, and the zone.
    """
    if time_zone is not None:
        try:
            instant_of("2025-01-01", time_zone)
        except ValueError:
            raise InvalidRequest(f"{name}: {quoted(time_zone)} is not a time zone of the IANA database") from None


def _reason(error: pa.ArrowException, time_zone: str) -> str:
    text = " ".join(str(error).split())
    if "annot locate" in text:
        return f"{quoted(time_zone)} is not a time zone of the IANA database"
    if "ambiguous" in text:
        return f"comes twice in {time_zone}, as the clocks go back; write it with its offset, such as +02:00"
    if "doesn't exist" in text:
        return f"does not exist in {time_zone}, as the clocks go forward"
    return text


def _no_digits(texts: pa.Array) -> pa.Array:
    """Words such as NaN and inf."""
    return pc.invert(pc.match_substring_regex(texts, r"\d"))


def _all_dates(texts: pa.Array) -> bool:
    """Whether texts that are times are dates alone."""
    return (pc.max(pc.binary_length(texts)).as_py() or 0) <= len("2025-01-01")
