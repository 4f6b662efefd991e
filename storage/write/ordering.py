"""The rows of an upload in the order in which they are written, none of them twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, from_micros
from timedb.storage.rows.sorting import Integers, sorted_order

__all__ = ["Extent", "extent", "refuse_duplicates", "sorted_by_series"]

_RADIX_BITS = 16
_TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Extent:
    """Where the rows of a chunk lie: for each of its series the least and greatest times, microseconds since 1970.

    ``series`` are numbers that all chunks of an upload share, ascending.
    """

    series: Integers
    valid: tuple[Integers, Integers]
    known: tuple[Integers, Integers]

    def meeting(self, other: Extent) -> tuple[Integers, int, int] | None:
        """The series that may have a row in both, and the known_times between which it would lie; None: there is none.

        Args:
            other: Another chunk of the same upload.
        """
        if self.known[0].min() > other.known[1].max() or other.known[0].min() > self.known[1].max():
            return None
        shared, mine, theirs = np.intersect1d(self.series, other.series, assume_unique=True, return_indices=True)
        meets = np.ones(len(shared), dtype=np.bool_)
        low, high = np.zeros(0), np.zeros(0)
        for one, two in ((self.valid, other.valid), (self.known, other.known)):
            low, high = np.maximum(one[0][mine], two[0][theirs]), np.minimum(one[1][mine], two[1][theirs])
            meets &= low <= high
        if not meets.any():
            return None
        return shared[meets], int(low[meets].min()), int(high[meets].max())


@dataclass(frozen=True)
class _Keys:
    """The keys of some rows as plain arrays; an absent valid_time_end is the valid_time, which no present one is."""

    series: Integers
    known: Integers
    valid: Integers
    end: Integers | None

    def at(self, order: Integers) -> _Keys:
        end = None if self.end is None else self.end[order]
        return _Keys(self.series[order], self.known[order], self.valid[order], end)

    @property
    def by_time(self) -> list[Integers]:
        return [self.series, self.valid, *([] if self.end is None else [self.end]), self.known]

    def ascend(self) -> bool:
        """Whether the rows of each series come in the order of (known_time, valid_time), no two at the same."""
        same = self.series[1:] == self.series[:-1]
        tied = self.known[1:] == self.known[:-1]
        later = self.known[1:] > self.known[:-1]
        later |= tied & (self.valid[1:] > self.valid[:-1])
        return bool((later | ~same).all())

    def first_repeated(self) -> int | None:
        """The first row that has the key of the row before it."""
        same = np.ones(max(len(self.series) - 1, 0), dtype=np.bool_)
        for column in self.by_time:
            same &= column[1:] == column[:-1]
        return int(same.argmax()) + 1 if same.any() else None


def sorted_by_series(rows: pa.Table, series_ids: Sequence[str]) -> tuple[pa.Table, Integers]:
    """Rows by series, and in each by (known_time, valid_time) if they came so, else by (valid_time, known_time).

    Args:
        rows: Columns as in ``timedb.storage.rows.normalise.BATCH``, no known_time null.
        series_ids: What ``series`` is an index into.

    Returns:
        The rows, and where each series begins.

    Raises:
        InvalidRequest: a row is there twice.
    """
    keys = _keys_of(rows)
    order = _by_series(keys.series)
    if order is not None:
        keys = keys.at(order)
    if not keys.ascend():
        again = sorted_order(keys.by_time)
        if again is not None:
            keys = keys.at(again)
            order = again if order is None else order[again]
        _refuse_repeated(keys, series_ids)
    starts = np.flatnonzero(np.diff(keys.series, prepend=-1))
    return (rows if order is None else _reordered(rows, keys, order)), starts


def extent(rows: pa.Table, starts: Integers, numbers: Integers) -> Extent:
    """The extent of a chunk.

    Args:
        rows: From :func:`sorted_by_series`.
        starts: The same.
        numbers: For each value of ``series`` the number of that series in the whole upload.
    """
    valid, known = (_integers(rows.column(name)) for name in ("valid_time", "known_time"))
    series = numbers[rows.column("series").to_numpy()[starts]]
    order = np.argsort(series)
    bounds = [
        (np.minimum.reduceat(times, starts)[order], np.maximum.reduceat(times, starts)[order])
        for times in (valid, known)
    ]
    return Extent(series[order], bounds[0], bounds[1])


def refuse_duplicates(rows: pa.Table, series_ids: Sequence[str]) -> None:
    """Refuse rows of which two have the same key; arguments as for :func:`sorted_by_series`."""
    keys = _keys_of(rows)
    order = sorted_order(keys.by_time)
    _refuse_repeated(keys if order is None else keys.at(order), series_ids)


def _refuse_repeated(keys: _Keys, series_ids: Sequence[str]) -> None:
    if (row := keys.first_repeated()) is None:
        return
    end = ""
    if keys.end is not None and keys.end[row] != keys.valid[row]:
        end = f", valid_time_end {_text(keys.end[row])}"
    raise InvalidRequest(
        f"valid_time: {_text(keys.valid[row])}{end} of series {series_ids[keys.series[row]]} "
        f"at known_time {_text(keys.known[row])} is there twice in one upload"
    )


def _text(micros: Any) -> str:
    return format_time(from_micros(int(micros)))


def _keys_of(rows: pa.Table) -> _Keys:
    end = rows.column("valid_time_end")
    ends = None if end.null_count == len(end) else pc.coalesce(end, rows.column("valid_time"))
    return _Keys(
        rows.column("series").to_numpy(),
        _integers(rows.column("known_time")),
        _integers(rows.column("valid_time")),
        None if ends is None else _integers(ends),
    )


def _integers(times: pa.ChunkedArray) -> Integers:
    found: Integers = times.cast(pa.int64()).to_numpy()
    return found


def _by_series(series: Integers) -> Integers | None:
    """The rows by series, each series' as they stand; None where they are so already. NumPy's sort of 16 bits is a
    radix sort, which takes a fraction of any other."""
    if bool((series[1:] >= series[:-1]).all()):
        return None
    if int(series.max()) >> _RADIX_BITS:
        return np.argsort(series, kind="stable")
    return np.argsort(series.astype(np.uint16), kind="stable")


def _reordered(rows: pa.Table, keys: _Keys, order: Integers) -> pa.Table:
    """The rows in another order; ``keys`` are in that order already."""
    indices = pa.array(order)
    columns = {
        "series": pa.array(keys.series, pa.int32()),
        "valid_time": pa.array(keys.valid).view(_TIMESTAMP),
        "known_time": pa.array(keys.known).view(_TIMESTAMP),
    }
    for name in rows.column_names:
        if name not in columns:
            column = rows.column(name)
            nothing = column.null_count == len(column)
            columns[name] = column if nothing else column.combine_chunks().take(indices)
    return pa.table({name: columns[name] for name in rows.column_names}, schema=rows.schema)
