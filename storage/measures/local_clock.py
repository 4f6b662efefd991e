"""What the clock of a time zone shows, for whole columns of instants.

The time zone database is Python's (``zoneinfo``), as for the gates of relative reads. Instants and readings are integer
microseconds: an instant since 1970-01-01T00:00Z, a reading since the clock showed 1970-01-01 00:00.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from timedb.contract.times import MAX_MICROS, MIN_MICROS, from_micros, to_micros

__all__ = ["Instants", "LocalClock"]

Instants = np.ndarray[Any, np.dtype[np.int64]]

_DAY = 86_400_000_000
_BLOCK_YEARS = 50
_FIRST_BLOCK = 1800 // _BLOCK_YEARS  # before it every zone has the mean time of its place
_REPEATED_BLOCK = 2500 // _BLOCK_YEARS  # 400 years before it the zones live by rules of the Gregorian calendar already
_CYCLE_YEARS = 400
_CYCLE = 146_097 * _DAY
_PROBE = timedelta(days=3)  # no zone has ever changed its offset twice within so short a time
_FIRST = from_micros(MIN_MICROS + 2 * _DAY)
_LAST = from_micros(MAX_MICROS - 2 * _DAY)


class LocalClock:
    """The clock of a zone, made to run forwards only: while it shows times for the second time, it stands still.

    A reading that is shown twice is therefore the earlier instant, and one that is skipped the first instant after
    the gap.

    Args:
        since: The instants from which each offset holds, ascending; the first counts as the beginning of time.
        offsets: What the clock is ahead of UTC from then on.
    """

    def __init__(self, since: Instants, offsets: Instants) -> None:
        self._since = since
        self._offsets = offsets
        self._highest = np.maximum.accumulate(since[1:] + offsets[:-1] - 1)

    @classmethod
    def of(cls, zone: str, low: int, high: int) -> LocalClock:
        """The clock of a zone of the IANA database, right for all instants from ``low`` to ``high``."""
        first, last = (from_micros(min(max(micros, MIN_MICROS), MAX_MICROS)).year for micros in (low, high))
        changes = [
            change
            for block in range(first // _BLOCK_YEARS, last // _BLOCK_YEARS + 1)
            for change in _changes(zone, block)
        ]
        begin = _offset(ZoneInfo(zone), max(_block_start(first // _BLOCK_YEARS), _FIRST))
        since = np.array([MIN_MICROS - _DAY, *(instant for instant, _ in changes)], dtype=np.int64)
        return cls(since, np.array([begin, *(offset for _, offset in changes)], dtype=np.int64))

    def without_changes_of_whole(self, length: int) -> LocalClock:
        """A clock that is not changed where the zone's is by a multiple of ``length`` microseconds.

        Both show whole multiples of ``length`` at the same instants, only that this one does not show any of them
        twice for such a change.
        """
        steps = np.diff(self._offsets)
        steps[steps % length == 0] = 0
        return LocalClock(self._since, self._offsets[0] + np.concatenate([[0], np.cumsum(steps)]))

    def shows(self, instants: Instants) -> Instants:
        """The time that the zone's own clock shows at each instant, also where it shows it for the second time."""
        shown: Instants = instants + self._offsets[np.searchsorted(self._since, instants, side="right") - 1]
        return shown

    def reading(self, instants: Instants) -> Instants:
        """The latest time that the clock has shown until each instant."""
        index = np.searchsorted(self._since, instants, side="right") - 1
        shown: Instants = instants + self._offsets[index]
        if len(self._highest) == 0:
            return shown
        return np.where(index > 0, np.maximum(shown, self._highest[index - 1]), shown)

    def instant(self, readings: Instants) -> Instants:
        """The first instant at which the clock shows each reading, or has passed it."""
        index = np.searchsorted(self._highest, readings, side="left")
        found: Instants = readings - self._offsets[index]
        return np.where(index > 0, np.maximum(found, self._since[index]), found)


def _changes(zone: str, block: int) -> list[tuple[int, int]]:
    """The changes of a zone's offset in a block of years: (instant, offset from then on), microseconds."""
    if block < _FIRST_BLOCK:
        return []
    if block < _REPEATED_BLOCK:
        return list(_changes_found(zone, block))
    cycles, same = divmod(block - _REPEATED_BLOCK, _CYCLE_YEARS // _BLOCK_YEARS)
    shift = (cycles + 1) * _CYCLE
    known = _changes_found(zone, _REPEATED_BLOCK - _CYCLE_YEARS // _BLOCK_YEARS + same)
    return [(instant + shift, offset) for instant, offset in known]


@lru_cache(maxsize=4096)
def _changes_found(zone_name: str, block: int) -> tuple[tuple[int, int], ...]:
    zone = ZoneInfo(zone_name)
    moment, end = max(_block_start(block), _FIRST), min(_block_start(block + 1), _LAST)
    offset, found = _offset(zone, moment), []
    while moment < end:
        following = min(moment + _PROBE, end)
        new = _offset(zone, following)
        if new != offset:
            found.append((_change(zone, moment, following, offset), new))
        moment, offset = following, new
    return tuple(found)


def _block_start(block: int) -> datetime:
    year = max(block * _BLOCK_YEARS, 1)
    return datetime(year, 1, 1, tzinfo=UTC) if year < 9999 else _LAST


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    return (moment.astimezone(zone).utcoffset() or timedelta()) // timedelta(microseconds=1)


def _change(zone: ZoneInfo, low: datetime, high: datetime, before: int) -> int:
    """The second between two instants from which the offset is no longer ``before``."""
    first, last = to_micros(low) // 1_000_000, to_micros(high) // 1_000_000
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(zone, from_micros(middle * 1_000_000)) == before:
            first = middle
        else:
            last = middle
    return last * 1_000_000
