"""Values brought to periods of a time zone: points by where they lie, intervals by how far they reach in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from timedb.contract.errors import TooLarge
from timedb.contract.quantiles import level_of
from timedb.contract.wire import Resample
from timedb.storage.measures.local_clock import Instants
from timedb.storage.measures.periods import Periods
from timedb.storage.measures.relative import check_time_zone
from timedb.storage.read.filling import Flags, Floats, Grid, Periodic
from timedb.storage.rows.sorting import sort_rows
from timedb.storage.rows.views import same_as_next

__all__ = ["MAX_CUT_ROWS", "resample"]

MAX_CUT_ROWS = 20_000_000
"""The most rows that intervals may be cut into, over those that there are anyway."""

_ANY = 1 << 40  # rows
_TIME = pl.Datetime("us", "UTC")
_CHUNK_ROWS = 2_000_000
_NOTHING = -0.0  # adds nothing to any number, -0.0 included


def resample(
    rows: pl.DataFrame,
    how: Resample,
    by: Sequence[str] = ("series_id",),
    *,
    grid: Grid | None = None,
    max_cut_rows: int = MAX_CUT_ROWS,
) -> pl.DataFrame:
    """One row for each period that holds or touches a value, and for each of the grid where values are filled in.

    A point belongs to the period that holds its valid_time, an interval to every period that it reaches into. Nulls
    are left out: a period of nulls only is null, its count 0. NaN makes everything but ``count`` NaN where it takes
    part.

    - mean: of intervals, weighted by the time that they share with the period; points have no extent, so they make
      the mean only where no interval has a value.
    - sum: points whole, intervals in proportion to the part of them that lies in the period.
    - min, max, count: over all values that belong to the period.
    - median, quantile:0.1: of all values that belong to the period, each once however far it reaches in: in ascending
      order, x[0] to x[n - 1], with h = 0.1 (n - 1) and i = floor(h), x[i] + (h - i) (x[i + 1] - x[i]).
    - first, last: the one that begins first or last (a point before an interval, a short one before a long one).

    Args:
        rows: ``by``, valid_time, valid_time_end (both UTC microseconds) and value (float64), in any order; no two
            rows agree in all but the value.
        how: Period, aggregate and time zone.
        by: What keeps values apart that are not to be mixed.
        grid: The periods that ``how.fill`` fills; None: from the first to the last of each group, however many.
        max_cut_rows: The most rows that intervals may be cut into, over those that there are anyway.

    Returns:
        ``by``, valid_time (start of the period), valid_time_end (its end), value; sorted by ``by`` and valid_time.

    Raises:
        InvalidRequest: there is no such time zone.
        TooLarge: the intervals reach over more periods than that, or the grid has too many.
    """
    check_time_zone(how.time_zone, "resample.time_zone")
    rows = rows.select(*by, "valid_time", "valid_time_end", "value")
    if rows.height == 0:
        return rows
    rows = sort_rows(rows, (*by, "valid_time", "valid_time_end"))
    values = _Values.of(rows, by)
    grid = (grid or Grid(None, None, _ANY)) if how.fill != "none" else None
    reach = int(values.start.min()), int(values.end.max())
    periods = Periods(how.period, how.time_zone, *(reach if grid is None else grid.reach(*reach)))
    first, last = periods.number(values.start), periods.number(values.end - ~values.is_point)
    cut = last - first
    if int(np.minimum(cut, max_cut_rows + 1).sum()) > max_cut_rows:
        raise TooLarge(
            f"resample.period: {how.period} cuts the intervals into more than {max_cut_rows} pieces, the limit; "
            "take a longer period, or narrow the read"
        )
    pieces = [
        _aggregate(_cut(values, begin, end, first, cut, periods), how.aggregate)
        for begin, end in _chunks(values.group, cut)
    ]
    found = Periodic(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
    found = found if grid is None else grid.filled(found, periods, how)
    heads, number = np.searchsorted(values.group, found.group, side="left"), found.number
    return rows.select(pl.col(*by).gather(heads)).with_columns(
        pl.Series("valid_time", periods.start(number)).cast(_TIME),
        pl.Series("valid_time_end", periods.start(number + 1)).cast(_TIME),
        pl.select(pl.when(pl.Series(found.known)).then(pl.Series(found.value)).alias("value")).to_series(),
    )


@dataclass(frozen=True)
class _Values:
    """Sorted values as arrays; the end of a point is its start, and a null is a value that is not ``known``."""

    group: Instants
    start: Instants
    end: Instants
    is_point: Flags
    value: Floats
    known: Flags

    @classmethod
    def of(cls, rows: pl.DataFrame, by: Sequence[str]) -> _Values:
        closes = rows.select(~same_as_next(by)).to_series().to_numpy()
        start, end = (rows[name].to_physical() for name in ("valid_time", "valid_time_end"))
        return cls(
            group=np.concatenate([[0], np.cumsum(closes[:-1])]),
            start=start.to_numpy(),
            end=end.fill_null(start).to_numpy(),
            is_point=end.is_null().to_numpy(),
            value=rows["value"].cast(pl.Float64).fill_null(0.0).to_numpy(),
            known=rows["value"].is_not_null().to_numpy(),
        )


@dataclass(frozen=True)
class _Pieces:
    """Values cut at the periods, ordered by group, period, and the order of the values."""

    group: Instants
    number: Instants
    value: Floats
    known: Flags
    is_point: Flags
    overlap: Instants
    """Microseconds that the value shares with the period; 0 for a point."""
    length: Instants
    """Microseconds of the whole value; 0 for a point."""

    def only(self, some: Flags) -> _Pieces:
        """Some of the pieces."""
        return _Pieces(**{field.name: getattr(self, field.name)[some] for field in fields(self)})


def _chunks(group: Instants, cut: Instants) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold whole groups and make about as many pieces as are looked at together."""
    pieces = np.cumsum(cut + 1)
    heads = np.flatnonzero(np.diff(group, append=group[-1] + 1)) + 1
    begin = 0
    while begin < len(group):
        done = pieces[begin - 1] if begin else 0
        within = int(np.searchsorted(pieces[heads - 1], done + _CHUNK_ROWS, side="right"))
        end = int(heads[max(within - 1, int(np.searchsorted(heads, begin, side="right")))])
        yield begin, end
        begin = end


def _cut(values: _Values, begin: int, end: int, first: Instants, cut: Instants, periods: Periods) -> _Pieces:
    """The values of some rows, each once for every period that it belongs to."""
    counts = cut[begin:end] + 1
    rows = np.repeat(np.arange(begin, end), counts)
    number = first[rows] + (np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts))
    group = values.group[rows]
    if ((np.diff(number) < 0) & (np.diff(group) == 0)).any():  # intervals overlap
        order = np.lexsort((number, group))
        rows, number, group = rows[order], number[order], group[order]
    is_point = values.is_point[rows]
    overlap, length = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    if (lasting := np.flatnonzero(~is_point)).size:
        start, until, its = values.start[rows[lasting]], values.end[rows[lasting]], number[lasting]
        overlap[lasting] = np.minimum(until, periods.start(its + 1)) - np.maximum(start, periods.start(its))
        length[lasting] = until - start
    pieces = _Pieces(group, number, values.value[rows], values.known[rows], is_point, overlap, length)
    some = is_point | (overlap > 0)  # a period of a day that a zone has left out lasts no time at all
    return pieces if some.all() else pieces.only(some)


def _aggregate(pieces: _Pieces, aggregate: str) -> tuple[Instants, Instants, Floats, Flags]:
    """Per group and period: the group, the number of the period, the value, and whether it has one."""
    change = (np.diff(pieces.number) != 0) | (np.diff(pieces.group) != 0)
    heads = np.concatenate([[0], np.flatnonzero(change) + 1])
    known = np.logical_or.reduceat(pieces.known, heads)
    with np.errstate(all="ignore"):  # infinities that cancel out are NaN, and sums may overflow, as in any engine
        match aggregate:
            case "mean":
                value = _mean(pieces, heads)
            case "sum":
                value = np.add.reduceat(np.where(pieces.known, _shares(pieces), _NOTHING), heads)
            case "min":
                value = np.minimum.reduceat(np.where(pieces.known, pieces.value, np.inf), heads)
            case "max":
                value = np.maximum.reduceat(np.where(pieces.known, pieces.value, -np.inf), heads)
            case "first":
                position = np.where(pieces.known, np.arange(len(pieces.known)), len(pieces.known) - 1)
                value = pieces.value[np.minimum.reduceat(position, heads)]
            case "last":
                position = np.where(pieces.known, np.arange(len(pieces.known)), 0)
                value = pieces.value[np.maximum.reduceat(position, heads)]
            case "count":
                value = np.add.reduceat(pieces.known.astype(np.float64), heads)
                known = np.ones_like(known)
            case _:
                value = _quantile(pieces, heads, level_of(aggregate))
    return pieces.group[heads], pieces.number[heads], value, known


def _shares(pieces: _Pieces) -> Floats:
    """What of each value lies in the period: the value times a fraction in its lowest terms."""
    if pieces.is_point.all():
        return pieces.value
    overlap, length = (np.where(pieces.is_point, 1, part) for part in (pieces.overlap, pieces.length))
    divisor = np.gcd(overlap, length)
    part: Floats = pieces.value * (overlap // divisor) / (length // divisor)
    return part


def _mean(pieces: _Pieces, heads: Instants) -> Floats:
    """Weights are whole numbers without a common divisor: equal ones are 1 and make the plain mean, to the last bit."""
    weight = np.where(pieces.known, pieces.overlap, 0)
    if weight.any():
        lengths = np.diff(heads, append=len(weight))
        divisor = np.repeat(np.gcd.reduceat(weight, heads), lengths)
        weight = np.where(divisor > 0, weight // np.maximum(divisor, 1), pieces.known)
    else:
        weight = pieces.known.astype(np.int64)
    total = np.add.reduceat(np.where(weight > 0, pieces.value * weight, _NOTHING), heads)
    return total / np.add.reduceat(weight, heads)


def _quantile(pieces: _Pieces, heads: Instants, level: float) -> Floats:
    """Between the two values in the order that are next to the level; NaN, the last of any order, is the answer."""
    group = np.repeat(np.arange(len(heads)), np.diff(heads, append=len(pieces.known)))[pieces.known]
    value = pieces.value[pieces.known]
    value = np.append(value[np.lexsort((value, group))], 0.0)  # which stands for no value at all
    count = np.bincount(group, minlength=len(heads))
    begin = np.cumsum(count) - count
    place = level * np.maximum(count - 1, 0)
    below = np.floor(place).astype(np.int64)
    low, high = value[begin + below], value[begin + np.minimum(below + 1, np.maximum(count - 1, 0))]
    share, gap = place - below, high - low
    # A gap may be too large for a float though neither end is.
    between = np.where(np.isfinite(gap), low + share * gap, (1 - share) * low + share * high)
    greatest = value[begin + np.maximum(count - 1, 0)]
    found: Floats = np.where(np.isnan(greatest), greatest, np.where((share == 0) | (low == high), low, between))
    return found
