"""Rows whose local time comes twice: set aside until the file has been seen, then told apart by their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import decoded
from timedb.contract.errors import TooLarge
from timedb.contract.label_columns import label_texts
from timedb.files.pieces import Numbers, Piece, Unit
from timedb.layouts.choosing import Chosen
from timedb.layouts.conversion import Conversion, Told
from timedb.layouts.intervals import shifted_walls
from timedb.layouts.layout import Layout
from timedb.layouts.local_times import Unknown, both_instants, numbers_of, order_of, second_time
from timedb.layouts.time_columns import TimeColumns, plain_texts
from timedb.layouts.time_formats import Mask, Micros, Stamps

__all__ = ["RowsAside"]

_MAX_ROWS = 5_000_000
_YES = ["y", "yes", "true", "1"]
_NO = ["n", "no", "false", "0", ""]
_DAY = 86_400_000_000


@dataclass
class RowsAside:
    """Collects such rows.

    Args:
        layout: What the options say.
        chosen: Which column is what.
        conversion: Reads their times.
    """

    layout: Layout
    chosen: Chosen
    conversion: Conversion
    _batches: list[pa.RecordBatch] = field(default_factory=list)
    _numbers: list[Numbers] = field(default_factory=list)
    _unit: Unit = "row"
    _rows: int = 0
    _ways: set[int] = field(default_factory=set)

    def without(self, piece: Piece) -> Piece:
        """The piece without the rows that were set aside."""
        mask = self.conversion.undecided(piece)
        self._check_flags(piece, mask)
        if mask is None:
            if not self._batches and not self._ways:  # which way the file goes, by its first piece
                self._learn_way(piece, np.zeros(piece.batch.num_rows, dtype=bool))
            return piece
        self._learn_way(piece, mask)
        rows = np.flatnonzero(mask)
        self._batches.append(_plain(piece.batch.take(pa.array(rows))))
        numbers = piece.numbers()
        self._numbers.append(numbers[rows])
        self._unit = piece.unit
        self._rows += len(rows)
        if self._rows > _MAX_ROWS:
            option = self.layout.spoken("ambiguous")
            raise TooLarge(f"over {_MAX_ROWS} rows have local times that come twice; {option} says what they mean")
        others = np.flatnonzero(~mask)
        return Piece(piece.batch.take(pa.array(others)), piece.unit, partial(np.asarray, numbers[others]))

    def _learn_way(self, piece: Piece, aside: Mask) -> None:
        start, _ = self.conversion.stamps(piece)
        kept = ~aside & ~start.null & (start.local | ~start.local.any())
        groups = self._groups(piece.batch)
        if (way := order_of(start.micros[kept], groups[kept])) != 0:
            self._ways.add(way)

    def _flags(self, piece: Piece) -> Mask | None:
        """Which rows a column marks as the second time; None: no column does.

        Raises:
            InvalidRequest: a cell is neither yes nor no.
        """
        column = self.chosen.more.get("repeated_hour")
        if column is None:
            return None
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(plain_texts(piece.batch.column(column)), "")))
        yes = pc.is_in(texts, pa.array(_YES))
        known = pc.or_(yes, pc.is_in(texts, pa.array(_NO)))
        if (row := pc.index(known, False).as_py()) >= 0:
            TimeColumns(self.layout).refuse(column, piece, row, "is neither Y nor N", "")
        found: Mask = yes.to_numpy(zero_copy_only=False)
        return found

    def _check_flags(self, piece: Piece, mask: Mask | None) -> None:
        """Refuse a row that is marked and whose time comes once."""
        flags = self._flags(piece)
        if flags is None:
            return
        wrong = flags if mask is None else flags & ~mask
        if wrong.any():
            name = ",".join(self.chosen.columns["valid_time"])
            marked = f"is marked as the second time, and comes once in {self.layout.zone}"
            TimeColumns(self.layout).refuse(name, piece, int(np.flatnonzero(wrong)[0]), marked, "")

    def _groups(self, batch: pa.RecordBatch) -> Micros:
        """A number for each row: rows of one series, known at one time, are one sequence."""
        columns = self.chosen.columns
        names = [columns[each][0] for each in ("series_key", "series_id", "labels") if each in columns]
        names += [
            *self.layout.labels.values(),
            *(self.chosen.more[each] for each in ("quantile",) if each in self.chosen.more),
        ]
        known = columns.get("known_time", ())
        names += [name for name in known if name not in columns["valid_time"]]
        read = {name: batch.column(name) for name in names}
        for name in columns.get("labels", ()):
            read[name] = label_texts(read[name])
        return numbers_of([plain_texts(column) for column in read.values()], batch.num_rows)

    def told(self) -> Iterator[tuple[Piece, Told]]:
        """The rows that were set aside, and which of two instants each means.

        Raises:
            InvalidRequest: the order of rows does not say it; names the first such row.
        """
        if not self._batches:
            return
        batch = pa.Table.from_batches(self._batches).combine_chunks().to_batches()[0]
        piece = Piece(batch, self._unit, partial(np.concatenate, self._numbers))
        start, end = self.conversion.stamps(piece)
        groups = self._groups(batch)
        name = ",".join(self.chosen.columns["valid_time"])
        by_end = np.zeros(len(groups), dtype=bool)
        walls, flags = start.micros, self._flags(piece)
        if self.layout.get("hour_ending"):
            by_end, walls = self._by_end(piece, name, start, groups, flags)
        second = flags if flags is not None else self._second(piece, name, walls, start.local, groups)
        ends = second if end is None else self._ends(piece, start, second, end, groups)
        yield piece, Told(second, ends, by_end)

    def _ends(self, piece: Piece, start: Stamps, second: Mask, end: Stamps, groups: Micros) -> Mask:
        """Of ends that come twice, whether it is the second time: it is where the first would not follow the start."""
        name, zone = ",".join(self.chosen.columns["valid_time_end"]), self.layout.zone
        assert zone is not None  # else nothing is set aside
        first, last, _ = both_instants(np.where(start.local, start.micros, 0), zone)
        starts = np.where(start.local, np.where(second, last, first), start.micros)
        forced: Mask = self._twice(end.micros, end.local) & (
            both_instants(np.where(end.local, end.micros, 0), zone)[0] <= starts
        )
        if "repeated_hour" in self.chosen.more:  # what begins the second time ends after the clock has gone back
            return forced | second
        if (self._twice(end.micros, end.local) & ~forced).any():
            return forced | self._second(piece, name, end.micros, end.local, groups)
        return forced

    def _twice(self, walls: Micros, local: Mask) -> Mask:
        assert self.layout.zone is not None  # else nothing is set aside
        first, last, skipped = both_instants(np.where(local, walls, 0), self.layout.zone)
        twice: Mask = local & (first != last) & ~skipped
        return twice

    def _second(self, piece: Piece, name: str, walls: Micros, local: Mask, groups: Micros) -> Mask:
        found = np.zeros(len(walls), dtype=bool)
        twice = np.flatnonzero(self._twice(walls, local))
        for rows in _sequences(twice, groups, walls):
            try:
                found[rows] = list(second_time(walls[rows].tolist(), self._way))
            except Unknown as fault:
                TimeColumns(self.layout).refuse_twice(name, piece, int(rows[fault.index]), str(fault))
        return found

    def _by_end(
        self, piece: Piece, name: str, start: Stamps, groups: Micros, flags: Mask | None
    ) -> tuple[Mask, Micros]:
        """Which stamps are the instants at which intervals end, where others name an hour of the clock by its end.

        The two differ in which stamp comes twice as the clock goes back, or is marked as the second time; a file that
        has neither says nothing, and one with a column of marks names hours.
        """
        assert self.layout.period is not None  # an hour where nobody says it
        begins = shifted_walls(start.micros, self.layout.period, -1)
        begin_twice, end_twice = self._twice(begins, start.local), self._twice(start.micros, start.local)
        by_end = np.zeros(len(groups), dtype=bool)
        for rows in _sequences(np.arange(len(groups)), groups, start.micros):
            walls, counts = np.unique(start.micros[rows], return_counts=True)
            doubled = np.isin(start.micros[rows], walls[counts > 1]) if flags is None else flags[rows]
            named = bool((doubled & begin_twice[rows] & ~end_twice[rows]).any())
            ended = bool((doubled & end_twice[rows] & ~begin_twice[rows]).any())
            if named == ended and (named or flags is None):
                why = "nothing tells whether it is the hour that ends then or the time at which it ends"
                TimeColumns(self.layout).refuse_twice(name, piece, int(rows[0]), f"is unclear: {why}")
            by_end[rows] = ended
        return by_end, np.where(by_end, start.micros, begins)

    @property
    def _way(self) -> int:
        return next(iter(self._ways)) if len(self._ways) == 1 else (2 if self._ways else 0)


def _sequences(rows: Micros, groups: Micros, walls: Micros) -> Iterator[Micros]:
    """Rows of one group and of one change of the clock, in their order."""
    found: dict[tuple[int, int], list[int]] = {}
    for row in rows.tolist():
        found.setdefault((int(groups[row]), int((walls[row] + _DAY // 4) // _DAY)), []).append(row)
    for each in found.values():
        yield np.array(each)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without dictionaries, which differ from piece to piece."""
    return pa.RecordBatch.from_arrays([decoded(column) for column in batch.columns], batch.schema.names)
