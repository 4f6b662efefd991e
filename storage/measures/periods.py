"""The periods that values are brought to: which one an instant lies in, and from when to when it lasts.

A period begins at the first instant at which the local clock shows its boundary, or has passed it where the clock
skips it, and lasts until the next one begins. So periods follow each other without gap or overlap in every zone.
"""

from __future__ import annotations

import numpy as np

from timedb.contract.durations import Duration
from timedb.contract.times import MAX_MICROS, MIN_MICROS
from timedb.storage.measures.local_clock import Instants, LocalClock

__all__ = ["Periods"]

_DAY = 86_400_000_000
_WEEK = 7
_FIRST_MONDAY = 4  # 1970-01-05, as days since 1970-01-01
_MONTHS_BEFORE_1970 = 12 * 1970


class Periods:
    """The periods of one length in one time zone, numbered in their order.

    Years and months are counted from January of year 0, multiples of a week from Monday 1970-01-05, other numbers of
    days from 1970-01-01. Hours and less that divide a day begin at the multiples that the local clock shows; a
    change of the clock by a multiple of the period leaves the periods their length, any other makes the one that it
    falls in longer or shorter. Hours and less that do not divide a day all have the same length, counted from
    the local midnight of 1970-01-01.

    Args:
        length: Months, days or microseconds, one of them.
        zone: A time zone of the IANA database.
        low, high: The instants that will be asked for lie between them; microseconds since 1970.
    """

    def __init__(self, length: Duration, zone: str, low: int, high: int) -> None:
        self._length = length
        longest = length.months * 31 * _DAY + length.days * _DAY + length.micros + 2 * _DAY
        self._clock = LocalClock.of(zone, low - longest, high + longest)
        self._origin: int | None = None
        if length.micros and _DAY % length.micros == 0:
            self._clock = self._clock.without_changes_of_whole(length.micros)
        elif length.micros:
            self._origin = int(LocalClock.of(zone, 0, 0).instant(np.zeros(1, dtype=np.int64))[0])

    def number(self, instants: Instants) -> Instants:
        """The number of the period that each instant lies in."""
        length = self._length
        if self._origin is not None:
            return (instants - self._origin) // length.micros
        readings = self._clock.reading(instants)
        if length.micros:
            return readings // length.micros
        days = readings // _DAY
        if length.months:
            months = days.astype("M8[D]").astype("M8[M]").astype(np.int64)
            return (months + _MONTHS_BEFORE_1970) // length.months
        return (days - self._first_day) // length.days

    def start(self, numbers: Instants) -> Instants:
        """The instant at which each period begins, kept in years 1 to 9999."""
        length = self._length
        if self._origin is not None:
            found = self._origin + numbers * length.micros
        elif length.micros:
            found = self._clock.instant(numbers * length.micros)
        elif length.months:
            months = (numbers * length.months - _MONTHS_BEFORE_1970).astype("M8[M]")
            found = self._clock.instant(months.astype("M8[D]").astype(np.int64) * _DAY)
        else:
            found = self._clock.instant((numbers * length.days + self._first_day) * _DAY)
        return np.clip(found, MIN_MICROS, MAX_MICROS)

    @property
    def _first_day(self) -> int:
        return _FIRST_MONDAY if self._length.days % _WEEK == 0 else 0
