"""Periods without a value, of a grid that a read asks for: rows for them, and values as the read says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from timedb.contract.errors import TooLarge
from timedb.contract.wire import Resample
from timedb.storage.measures.local_clock import Instants
from timedb.storage.measures.periods import Periods

__all__ = ["Grid", "Periodic"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Periodic:
    """A value for each period of each group, as arrays; ascending by group and number."""

    group: Instants
    number: Instants
    value: Floats
    known: Flags
    """False: it is null."""

    def only(self, some: Flags) -> Periodic:
        """The same without the periods that are false in ``some``."""
        return Periodic(self.group[some], self.number[some], self.value[some], self.known[some])


class Grid:
    """Every period from a start to an end, for each group; a missing bound is the group's own first or last period.

    Args:
        start: The instant that lies in the first period, microseconds since 1970; None: the group's own.
        end: The first instant that does not lie in the last; None: the group's own.
        most_rows: Rows that may be added, of all groups of a read.
        hold: Called with a number of rows before they are made.
    """

    def __init__(
        self, start: int | None, end: int | None, most_rows: int, hold: Callable[[int], object] = lambda _: None
    ) -> None:
        self._start = start
        self._end = end
        self._most_rows = most_rows
        self._added = 0
        self._hold = hold

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """The least and the greatest instant of the grid over values from ``low`` to ``high``."""
        start, end = self._start, self._end
        return low if start is None else min(low, start), high if end is None else max(high, end - 1)

    def filled(self, values: Periodic, periods: Periods, how: Resample) -> Periodic:
        """The values with those that are missing.

        Raises:
            TooLarge: they are more rows than a read may add.
        """
        complete, starts = self._complete(values, periods)
        if how.fill == "null":
            return complete
        gap = _Gaps.of(complete)
        fills = ~complete.known if how.fill_limit is None else ~complete.known & (gap.place <= how.fill_limit)
        value = complete.value.copy()
        if how.fill == "previous":
            fills &= gap.has_before
            value[fills] = complete.value[gap.before[fills]]
        elif how.fill == "linear":
            fills &= gap.has_before & gap.has_after
            value[fills] = _between(complete.value, starts, gap.before[fills], gap.after[fills], np.flatnonzero(fills))
        else:
            value[fills] = how.fill
        return Periodic(complete.group, complete.number, value, complete.known | fills)

    def _complete(self, values: Periodic, periods: Periods) -> tuple[Periodic, Instants]:
        """The values with nulls where none are, and when each period starts."""
        heads = np.flatnonzero(np.diff(values.group, prepend=values.group[0] - 1))
        tails = np.append(heads[1:], len(values.group)) - 1
        first, last = values.number[heads], values.number[tails]
        if self._start is not None:
            first = np.minimum(first, periods.number(np.array([self._start])))
        if self._end is not None:  # an interval may reach beyond
            last = np.maximum(last, periods.number(np.array([self._end - 1])))
        self._take(int(np.minimum(last - first, self._most_rows + len(values.group)).sum()) + len(heads), values)
        counts = last - first + 1
        offsets = np.cumsum(counts) - counts
        number = np.arange(counts.sum()) - np.repeat(offsets - first, counts)
        value, known, there = np.zeros(len(number)), np.zeros(len(number), np.bool_), np.zeros(len(number), np.bool_)
        places = values.number + np.repeat(offsets - first, tails - heads + 1)
        value[places], known[places], there[places] = values.value, values.known, True
        starts = periods.start(number)
        lasts = there | (periods.start(number + 1) > starts)  # a day that a zone has left out is no period
        complete = Periodic(np.repeat(values.group[heads], counts), number, value, known)
        return (complete, starts) if lasts.all() else (complete.only(lasts), starts[lasts])

    def _take(self, rows: int, values: Periodic) -> None:
        added = rows - len(values.group)
        if self._added + added > self._most_rows:
            raise TooLarge(
                f"resample.fill: the periods without a value are more than {self._most_rows}, the limit; take longer "
                "periods, or narrow start_valid and end_valid"
            )
        self._added += added
        self._hold(added)


@dataclass(frozen=True)
class _Gaps:
    """Of each period its neighbours of the group that have a value, where there are such, and its place in its gap."""

    before: Instants
    after: Instants
    has_before: Flags
    has_after: Flags
    place: Instants
    """1 for the first period after a value, or of the group."""

    @classmethod
    def of(cls, values: Periodic) -> _Gaps:
        places = np.arange(len(values.group))
        begins = np.flatnonzero(np.diff(values.group, prepend=values.group[0] - 1))
        lengths = np.diff(np.append(begins, len(places)))
        start, end = np.repeat(begins, lengths), np.repeat(begins + lengths, lengths)
        before = np.maximum.accumulate(np.where(values.known, places, -1))
        after = np.minimum.accumulate(np.where(values.known, places, len(places))[::-1])[::-1]
        return cls(before, after, before >= start, after < end, places - np.maximum(before, start - 1))


def _between(value: Floats, starts: Instants, before: Instants, after: Instants, places: Instants) -> Floats:
    """By elapsed time between the values before and after."""
    share = (starts[places] - starts[before]) / (starts[after] - starts[before])
    with np.errstate(all="ignore"):  # infinities that cancel out are NaN
        found: Floats = value[before] + (value[after] - value[before]) * share
    return found
