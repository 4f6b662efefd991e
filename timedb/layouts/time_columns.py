"""The columns of times of a piece of a file, as instants; each fault with its place, text and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from timedb.contract.columns import decoded, is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.pieces import Piece
from timedb.layouts.clock_names import clocks_of, told_by_clocks
from timedb.layouts.layout import Layout
from timedb.layouts.local_times import both_instants
from timedb.layouts.time_formats import ISO, Mask, Micros, Stamps, TimeFault, format_hint, parse_stamps

__all__ = ["Choice", "TimeColumns", "plain_texts"]

_UTC = pa.timestamp("us", tz="UTC")
_NAIVE = pa.timestamp("us")
SEPARATOR = " - "
"""Between the start and the end of an interval in one cell."""

Choice = Mask | None
"""Of each row, whether a local time that comes twice is the second one; None: as the option says."""


class TimeColumns:
    """Reads columns of times.

    Args:
        layout: What the options say.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._format = layout.said.get("time_format", ISO)

    def stamps(self, ours: str, piece: Piece, sources: Sequence[str], part: int | None = None) -> Stamps:
        """The stamps of a column, or of several that are joined by a space.

        Args:
            ours: What the column is to an upload, such as ``valid_time``.
            piece: The rows.
            sources: The file's columns.
            part: 0 or 1: the cells are START - END, and this half is wanted.

        Raises:
            InvalidRequest: names column, place, text and remedy.
        """
        column = decoded(piece.batch.column(sources[0]))
        if len(sources) == 1 and not is_text(column.type) and not self._layout.is_serial:
            return self._typed(ours, sources[0], column)
        texts = plain_texts(column)
        for source in sources[1:]:
            texts = pc.binary_join_element_wise(texts, plain_texts(decoded(piece.batch.column(source))), " ")
        name = ",".join(sources)
        if part is not None:
            texts = self._half(name, texts, part, piece)
        try:
            clocks = clocks_of(texts, self._format)
            if clocks is None:
                return self._parsed(texts)
            return told_by_clocks(self._parsed(clocks.texts), clocks.names, self._layout.zone)
        except TimeFault as fault:
            text = texts[fault.index].as_py()
            self.refuse(name, piece, fault.index, str(fault), self._advice(_about(ours, fault), text), text)

    def _parsed(self, texts: pa.Array) -> Stamps:
        if self._format == ISO and (whole := _all_with_offsets(texts)) is not None:
            return whole
        try:
            return parse_stamps(texts, self._format)
        except TimeFault as fault:
            if self._format == ISO:
                raise
            with suppress(TimeFault):  # what is ISO 8601 is nothing else, such as the issue times of a file
                return parse_stamps(texts, ISO)
            raise fault

    def _typed(self, ours: str, name: str, column: pa.Array) -> Stamps:
        kind = column.type
        if pt.is_date(kind):
            column = column.cast(_NAIVE)
        elif not pt.is_timestamp(kind):
            hint = f"; {self._layout.spoken('time_format', 'unix-s')}, say, tells what its numbers count"
            raise InvalidRequest(f"{name}: its type {kind} is no time{hint if pt.is_integer(kind) else ''}")
        local = pt.is_timestamp(column.type) and column.type.tz is None
        try:
            column = column.cast(_NAIVE if local else _UTC)
        except pa.ArrowException:
            raise InvalidRequest(f"{name}: has times that are finer than a microsecond, or out of range") from None
        null = column.is_null().to_numpy(zero_copy_only=False)
        micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        if local and self._layout.zone is None and not pt.is_date(kind):
            raise InvalidRequest(f"{name}: its times have no time zone{self._advice('time_zone', '')}")
        return Stamps(micros, np.full(len(null), local) & ~null, null, np.full(len(null), pt.is_date(kind)))

    def _half(self, name: str, texts: pa.Array, part: int, piece: Piece) -> pa.Array:
        halves = pc.split_pattern(texts, SEPARATOR)
        counts = pc.fill_null(pc.list_value_length(halves), 2)
        if (wrong := pc.index(pc.not_equal(counts, 2), True).as_py()) >= 0:
            self.refuse(name, piece, wrong, f"is not START{SEPARATOR}END", "", texts[wrong].as_py())
        flat = halves.flatten().to_numpy(zero_copy_only=False)
        found = np.full(len(texts), None, dtype=object)
        found[~texts.is_null().to_numpy(zero_copy_only=False)] = flat[part::2]
        return pa.array(found, pa.string())

    def instants(self, name: str, piece: Piece, stamps: Stamps, second: Choice = None) -> Micros:
        """Stamps as instants, those of a local clock by the zone and by what is said of times that come twice.

        Raises:
            InvalidRequest: there is no zone, or a local time is no instant or cannot be told from another.
        """
        local, zone = self.local_of(name, piece, stamps), self._layout.zone
        if zone is None or not local.any():
            return stamps.micros
        walls = np.where(local, stamps.micros, 0)
        first, last, skipped = both_instants(walls, zone)
        if (skipped & local).any():
            row = int(np.flatnonzero(skipped & local)[0])
            self.refuse(name, piece, row, f"does not exist in {zone}, as the clocks go forward", "")
        return np.where(local, self._chosen(name, piece, first, last, local, second), stamps.micros)

    def _chosen(self, name: str, piece: Piece, first: Micros, last: Micros, local: Mask, second: Choice) -> Micros:
        twice = local & (first != last)
        if second is not None:
            return np.where(second, last, first)
        mode = self._layout.get("ambiguous")
        if twice.any() and mode in ("infer", "error"):
            self.refuse_twice(name, piece, int(np.flatnonzero(twice)[0]))
        return last if mode == "later" else first

    def local_of(self, name: str, piece: Piece, stamps: Stamps) -> Mask:
        """Which stamps are readings of the zone's clock; without a zone a day is its midnight, UTC.

        Raises:
            InvalidRequest: there is no zone, and a time of day without an offset.
        """
        if self._layout.zone is not None:
            return stamps.local
        bare = stamps.local & ~stamps.dates
        if bare.any():
            row = int(np.flatnonzero(bare)[0])
            advice = self._advice("time_zone", "")
            if (bare | stamps.null | (stamps.local & stamps.dates)).all():
                where = f"{piece.place(row)}: {quoted(self._shown(name, piece, row))}"
                raise InvalidRequest(f"{name}: its times have no time zone{advice} ({where})")
            self.refuse(name, piece, row, "has no time zone", advice)
        return stamps.local

    def refuse_twice(self, name: str, piece: Piece, row: int, why: str = "") -> NoReturn:
        """Refuse a local time that comes twice."""
        spoken = self._layout.spoken
        takes = f"{spoken('ambiguous', 'earlier')} or {spoken('ambiguous', 'later')} takes one of them for all"
        because = f", and it {why}" if why else ""
        text = f"comes twice in {self._layout.zone}, as the clocks go back{because}"
        self.refuse(name, piece, row, f"{text}; write it with its offset, such as +02:00", f"; {takes}")

    def refuse(self, name: str, piece: Piece, row: int, reason: str, advice: str, text: str | None = None) -> NoReturn:
        """Refuse a cell: column, place, text, reason and remedy."""
        text = self._shown(name, piece, row) if text is None else text
        raise InvalidRequest(f"{name}: {piece.place(row)}: {quoted(text)} {reason}{advice}")

    @staticmethod
    def _shown(name: str, piece: Piece, row: int) -> str:
        there = piece.batch.schema.names
        sources = [name] if name in there else [each for each in name.split(",") if each in there]
        return " ".join(str(piece.batch.column(each)[row].as_py()) for each in sources)

    def _advice(self, ours: str, text: str) -> str:
        spoken = self._layout.spoken
        if ours == "time_zone":
            return f"; say which with {spoken('time_zone')}"
        if SEPARATOR in text and "valid_time_end" not in self._layout.said:
            return f"; the same column for {spoken('valid_time')} and {spoken('valid_time_end')} reads START - END"
        hints = [spoken("time_format", each) for each in format_hint(text) if each != self._format]
        if not hints:
            return ""
        day_or_month = ", day or month first as it is" if len(hints) > 1 and all("%m" in each for each in hints) else ""
        return f"; {' or '.join(hints)} reads it{day_or_month}"


def _about(ours: str, fault: TimeFault) -> str:
    return "time_zone" if "no time zone" in str(fault) else ours


def plain_texts(column: pa.Array) -> pa.Array:
    """A column of texts or numbers as texts, numbers without an exponent."""
    column = decoded(column)
    if pt.is_floating(column.type):
        texts = [None if each is None else _plain(each) for each in column.to_pylist()]
        return pa.array(texts, pa.string())
    return column.cast(pa.string())


def _plain(number: float) -> str:
    return str(int(number)) if number == number and abs(number) < 1e15 and number == int(number) else repr(number)


def _all_with_offsets(texts: pa.Array) -> Stamps | None:
    """ISO 8601 texts that all have an offset, the quick way; None: some have none, or are something else."""
    try:
        times = texts.cast(_UTC)
    except pa.ArrowInvalid:
        return None
    null = times.is_null().to_numpy(zero_copy_only=False)
    micros = pc.fill_null(times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    nothing = np.zeros(len(null), dtype=bool)
    return Stamps(micros, nothing, null, nothing)
