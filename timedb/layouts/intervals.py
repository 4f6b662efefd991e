"""Intervals: from stamps that begin them, stamps that end them, and numbers that count them in a local day."""

from __future__ import annotations

import numpy as np

from timedb.contract.durations import Duration
from timedb.layouts.local_times import both_instants, local_walls
from timedb.layouts.time_formats import Mask, Micros, TimeFault

__all__ = ["counted", "moved", "shifted_walls"]

_DAY = 86_400_000_000


def shifted_walls(walls: Micros, length: Duration, sign: int) -> Micros:
    """Readings of a local clock, moved by a length on the calendar that it shows."""
    if length.months:
        days = walls // _DAY
        months = days.astype("M8[D]").astype("M8[M]")
        within = days - months.astype("M8[D]").astype(np.int64)
        target = months + sign * length.months
        last = (target + 1).astype("M8[D]").astype(np.int64) - target.astype("M8[D]").astype(np.int64) - 1
        walls = (target.astype("M8[D]").astype(np.int64) + np.minimum(within, last)) * _DAY + walls % _DAY
    return walls + sign * (length.days * _DAY + length.micros)


def moved(instants: Micros, length: Duration, sign: int, zone: str | None) -> Micros:
    """Instants moved by a length: hours and less as time that goes by, days and months on the local calendar."""
    if not length.is_calendar:
        return instants + sign * length.micros
    walls = shifted_walls(local_walls(instants, zone or "UTC"), length, sign)
    return both_instants(walls, zone or "UTC")[0]


def counted(days: Micros, numbers: Micros, null: Mask, length: Duration, zone: str) -> tuple[Micros, Micros]:
    """Start and end of the intervals that have a number, from 1, in a local day.

    Args:
        days: The local midnight of each, as the clock shows it.
        numbers: Of each.
        null: Rows that have no time.
        length: Of an interval; hours or less.
        zone: Whose days they are. A day has as many intervals as fit between its first instant and the next day's.

    Raises:
        TimeFault: a day has no such interval.
    """
    first, following = both_instants(days, zone)[0], both_instants(days + _DAY, zone)[0]
    starts = first + (numbers - 1) * length.micros
    wrong = ~null & ((numbers < 1) | (starts + length.micros > following))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        there = int(following[row] - first[row]) // length.micros
        day = np.datetime_as_string(np.array(days[row]).astype("M8[us]"), "D")
        raise TimeFault(row, f"is none of the periods 1 to {there} that {day} has in {zone}")
    return starts, starts + length.micros
