"""Pieces of a file as batches of an upload: times, intervals, numbers and series, by what the options say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import constant, is_text
from timedb.contract.label_columns import labels_of_columns
from timedb.contract.times import from_micros
from timedb.files.cells import Cells
from timedb.files.pieces import Piece
from timedb.layouts.advice import Advice
from timedb.layouts.choosing import Chosen
from timedb.layouts.intervals import counted, moved, shifted_walls
from timedb.layouts.layout import Layout
from timedb.layouts.local_times import both_instants, local_walls
from timedb.layouts.quantiles import quantile_texts
from timedb.layouts.time_columns import TimeColumns, plain_texts
from timedb.layouts.time_formats import Mask, Micros, Stamps, TimeFault
from timedb.layouts.wide import named_batch, side_by_side

__all__ = ["Conversion", "Told"]

_UTC = pa.timestamp("us", tz="UTC")
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Told:
    """Which of two instants the local times of some rows mean, where the order of rows tells.

    Attributes:
        start: Whether the valid_time is the second time.
        end: Whether the valid_time_end is.
        by_end: Whether stamps that end intervals are instants; else they name the hour that begins before them.
    """

    start: Mask
    end: Mask
    by_end: Mask


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a piece: instants, and where they are missing.

    Attributes:
        valid: Where intervals begin.
        end: Where they end; None: there are none.
        null: Rows without a valid_time.
        end_null: Rows without an end.
    """

    valid: Micros
    end: Micros | None
    null: Mask
    end_null: Mask


class Conversion:
    """Makes batches of pieces.

    Args:
        layout: What the options say.
        chosen: Which column is what.
        numbers_are_text: Whether the file has numbers as they are written.
        advice: Which option would read a cell.
        known_at: The known_time of all rows, as the file's name says it; None: it says none.
    """

    def __init__(
        self, layout: Layout, chosen: Chosen, *, numbers_are_text: bool, advice: Advice, known_at: str | None = None
    ) -> None:
        self._layout = layout
        self._chosen = chosen
        self._numbers_are_text = numbers_are_text
        self._advice = advice
        self._known_at = chosen.known_at or known_at
        self._columns = TimeColumns(layout)
        self.run_started: set[int | None] = set()

    @property
    def wanted(self) -> dict[str, str]:
        """What a column is → its name, of all that are read."""
        chosen, scalar = self._chosen, self._layout.is_serial
        found: dict[str, str] = {}
        for ours, sources in chosen.columns.items():
            for source in sources:
                times = ours in ("valid_time", "valid_time_end", "known_time")
                found[f"scalar:{source}" if times and (scalar or len(sources) > 1) else f"{ours}:{source}"] = source
        found |= {f"value:{source}": source for source in chosen.wide}
        others = [*chosen.more.values(), *self._layout.labels.values()]
        return found | {f"scalar:{source}": source for source in others if source not in found.values()}

    def stamps(self, piece: Piece) -> tuple[Stamps, Stamps | None]:
        """What stands in the columns of valid times."""
        columns, halves = self._chosen.columns, self._chosen.is_split
        start = self._columns.stamps("valid_time", piece, columns["valid_time"], 0 if halves else None)
        if "valid_time_end" not in columns:
            return start, None
        return start, self._columns.stamps("valid_time_end", piece, columns["valid_time_end"], 1 if halves else None)

    def undecided(self, piece: Piece) -> Mask | None:
        """The rows whose local time comes twice, where the order of rows is to tell; None: there are none."""
        zone = self._layout.zone
        if zone is None or self._layout.get("ambiguous") != "infer" or "period_number" in self._chosen.more:
            return None
        start, end = self.stamps(piece)
        found = np.zeros(len(start.null), dtype=bool)
        walls = [(start.micros, start.local)]
        if end is not None:
            walls.append((end.micros, end.local))
        if self._layout.get("hour_ending") and self._layout.period is not None:
            walls.append((shifted_walls(start.micros, self._layout.period, -1), start.local))
        for micros, local in walls:
            if local.any():
                first, last, skipped = both_instants(np.where(local, micros, 0), zone)
                found |= local & (first != last) & ~skipped
        return found if found.any() else None

    def batches(self, piece: Piece, told: Told | None = None) -> Iterator[pa.RecordBatch]:
        """The rows as an upload has them; of a wide file a batch for each of its series.

        Raises:
            InvalidRequest: a cell does not fit.
        """
        rows = piece.batch.num_rows
        times = self._times(piece, told)
        columns: dict[str, pa.Array] = {"valid_time": _instants(times.valid, times.null)}
        if times.end is not None:
            columns["valid_time_end"] = _instants(times.end, times.end_null)
        if (known := self._known(piece, times)) is not None:
            columns["known_time"] = known
        if (run_start := self._chosen.more.get("run_start_time")) is not None:
            stamps = self._columns.stamps("run_start_time", piece, (run_start,))
            micros = self._columns.instants(run_start, piece, stamps)
            self.run_started |= set(np.unique(micros[~stamps.null]).tolist()) | ({None} if stamps.null.any() else set())
        for ours in ("series_id", "annotation", "tags", "labels"):
            if ours in self._chosen.columns:
                cells = self._cells(ours, self._chosen.columns[ours][0], piece)
                columns[ours] = cells.of_row()
        if (labels := self._labels(piece)) is not None:
            columns["labels"] = labels
        if not self._chosen.wide:
            value = self._numbers(self._chosen.columns["value"][0], piece)
            yield named_batch({**self._names(piece, rows), **columns, "value": value})
        yield from side_by_side(rows, columns, ((name, self._numbers(name, piece)) for name in self._chosen.wide))

    def _times(self, piece: Piece, told: Told | None) -> Times:
        start, end = self.stamps(piece)
        name = ",".join(self._chosen.columns["valid_time"])
        if "period_number" in self._chosen.more:
            return self._counted(name, piece, start)
        second = None if told is None else told.start
        if self._layout.get("hour_ending"):
            return self._ended(name, piece, start, told)
        valid = self._columns.instants(name, piece, start, second)
        if end is not None:
            end_name = ",".join(self._chosen.columns["valid_time_end"])
            ends = self._columns.instants(end_name, piece, end, None if told is None else told.end)
            return Times(valid, ends, start.null, end.null)
        period = self._layout.period
        return Times(
            valid, None if period is None else moved(valid, period, 1, self._layout.zone), start.null, start.null
        )

    def _ended(self, name: str, piece: Piece, stamps: Stamps, told: Told | None) -> Times:
        """Intervals of stamps that end them: an hour of the clock is named by its end, or the end is an instant."""
        period, zone = self._layout.period, self._layout.zone
        assert period is not None  # an hour where nobody says it
        local = (
            self._columns.local_of(name, piece, stamps) if zone is not None else np.zeros(len(stamps.null), dtype=bool)
        )
        begin_walls = shifted_walls(stamps.micros, period, -1)
        named = replace(stamps, micros=np.where(local, begin_walls, stamps.micros))
        if zone is None:
            ends = self._columns.instants(name, piece, stamps)
            return Times(moved(ends, period, -1, zone), ends, stamps.null, stamps.null)
        skipped = local & both_instants(np.where(local, begin_walls, 0), zone)[2]
        by_end = skipped | ~local if told is None else told.by_end | skipped | ~local
        # Rows of the one kind must not be refused for what the other kind would mean.
        begins = replace(named, local=local & ~by_end)
        ends_at = replace(stamps, local=local & by_end)
        second = None if told is None else told.start
        valid = self._columns.instants(name, piece, begins, second)
        ends = self._columns.instants(name, piece, ends_at, second)
        starts = np.where(by_end, moved(ends, period, -1, zone), valid)
        return Times(starts, np.where(by_end, ends, moved(valid, period, 1, zone)), stamps.null, stamps.null)

    def _counted(self, name: str, piece: Piece, days: Stamps) -> Times:
        period, zone, column = self._layout.period, self._layout.zone or "UTC", self._chosen.more["period_number"]
        assert period is not None  # the options say it
        walls = np.where(days.local, days.micros, local_walls(np.where(days.local, 0, days.micros), zone))
        if (within := ~days.null & (walls % _DAY != 0)).any():
            self._columns.refuse(name, piece, int(np.flatnonzero(within)[0]), f"is no day in {zone}", "")
        texts = pc.utf8_trim_whitespace(plain_texts(piece.batch.column(column)))
        right = pc.fill_null(pc.match_substring_regex(texts, r"^\d{1,4}$"), False)
        if (wrong := pc.index(right, False).as_py()) >= 0:
            self._columns.refuse(column, piece, wrong, "is not the number of a period", "")
        numbers = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
        try:
            start, end = counted(walls, numbers, days.null, period, zone)
        except TimeFault as fault:
            self._columns.refuse(column, piece, fault.index, str(fault), "")
        return Times(start, end, days.null, days.null)

    def _known(self, piece: Piece, times: Times) -> pa.Array | None:
        """The known_time of each row; None: it is that of the upload."""
        if (after := self._layout.known_after) is not None:
            base, null = (times.valid, times.null) if times.end is None else (times.end, times.end_null)
            return _instants(base + after.micros, null)
        source = self._chosen.columns.get("known_time")
        if source is None:
            return None
        if source == self._chosen.columns["valid_time"] and not self._chosen.is_split:
            # The stamps as they stand: the end, where they end their intervals.
            micros = times.end if self._layout.get("hour_ending") and times.end is not None else times.valid
            return _instants(micros, times.null)
        stamps = self._columns.stamps("known_time", piece, source)
        return _instants(self._columns.instants(source[0], piece, stamps), stamps.null)

    @property
    def known_at(self) -> str | None:
        """The known_time of all rows, RFC 3339, where one was said."""
        return self._known_at

    def run_start(self) -> str | None:
        """When the run began, by the column that says it.

        Raises:
            InvalidRequest: it says several times, or none in some row.
        """
        from timedb.contract.errors import InvalidRequest
        from timedb.contract.times import format_time

        column = self._chosen.more.get("run_start_time")
        if column is None:
            return None
        if len(self.run_started) != 1 or None in self.run_started:
            shown = ", ".join(
                str(each and format_time(from_micros(each))) for each in sorted(self.run_started, key=str)[:3]
            )
            spoken = self._layout.spoken("run_start_time")
            raise InvalidRequest(
                f"{spoken}: a run begins once, and column {column} says {shown}; upload them as runs apart"
            )
        return format_time(from_micros(next(each for each in self.run_started if each is not None)))

    def _cells(self, ours: str, source: str, piece: Piece) -> Cells:
        return Cells(ours, source, piece.batch.column(source), piece.place, self._advice)

    def _numbers(self, source: str, piece: Piece) -> pa.Array:
        cells = self._cells("value", source, piece)
        if not self._numbers_are_text:
            return cells.column
        cells = replace(cells, column=_without_blanks(cells.column))
        form = self._layout.csv_form()
        self._advice.check_in_doubt(cells)
        return cells.numbers(form.decimal, form.thousands)

    def _names(self, piece: Piece, rows: int) -> dict[str, pa.Array]:
        if (series := self._layout.said.get("series")) is not None:
            return {"series_key": constant(series, rows)}
        source = self._chosen.columns.get("series_key")
        if source is None:
            return {}
        column = piece.batch.column(source[0])
        named_by_option = "series_column" in self._layout.said
        return {"series_key": plain_texts(column) if named_by_option and not is_text(column.type) else column}

    def _labels(self, piece: Piece) -> pa.Array | None:
        texts: dict[str, Any] = {
            label: plain_texts(piece.batch.column(source)) for label, source in self._layout.labels.items()
        }
        if (column := self._chosen.more.get("quantile")) is not None:
            texts["quantile"] = quantile_texts(self._cells("quantile", column, piece))
        fixed: Mapping[str, str] = self._layout.fixed_labels
        return labels_of_columns(texts, fixed, piece.batch.num_rows) if texts or fixed else None


def _without_blanks(texts: pa.Array) -> pa.Array:
    """A cell of a number that is quoted and empty is no value, as one that is empty."""
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), texts) if pc.any(blank).as_py() else texts


def _instants(micros: Micros, null: Mask) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=null if null.any() else None).cast(_UTC)
