"""Which rows stand for their keys, in Arrow columns: the kernel of ``views.picked`` for tables that stay in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa

from timedb.storage.rows.orders import NULLABLE, POINT, Order
from timedb.storage.rows.rows import codes, flags, in_order, integers, keys_of, taken
from timedb.storage.rows.sorting import Integers, sorted_order

__all__ = ["Ranking", "differs_from_next", "drop_beaten", "last_points", "numbered", "picked", "points_by_series"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Ranking:
    """Rows in the ascending order of an :class:`Order`.

    Attributes:
        places: Where each of them stands among the rows as they came; None: as they came.
        number: For each of them the number of its key.

    Args:
        rows: ``timedb.storage.rows.rows.gathered`` rows.
        order: The order.
    """

    def __init__(self, rows: pa.Table, order: Order) -> None:
        self._order = order
        self._keys = dict(zip(order.columns, keys_of(rows, order.columns), strict=True))
        self.places = sorted_order(list(self._keys.values()))
        self.number = numbered(*map(self.column, order.key))

    def column(self, name: str) -> Integers:
        """A column of the order as integers, in the order."""
        key = self._keys[name]
        return key if self.places is None else key[self.places]

    def stands(self) -> Mask:
        """Whether each of them is the one that stands for its key."""
        if self._order.least:
            return differs_from_next(self.number[::-1])[::-1]
        return differs_from_next(self.number)


def picked(rows: pa.Table, order: Order, columns: Sequence[str] | None = None) -> pa.Table:
    """Per key of an order the row that stands for it.

    Args:
        rows: ``timedb.storage.rows.rows.gathered`` rows.
        order: The order.
        columns: What is wanted of them; None: all.
    """
    ranking = Ranking(rows, order)
    stands, wanted = ranking.stands(), rows if columns is None else rows.select(list(columns))
    if ranking.places is None:
        return wanted if stands.all() else taken(wanted, np.flatnonzero(stands))
    return taken(wanted, ranking.places[stands])


def drop_beaten(batch: pa.RecordBatch, order: Order) -> pa.RecordBatch:
    """Drop rows that a neighbour beats: most of them, where files are sorted; none wrongly, where they are not.

    A neighbour is the next row, or where the least stands the one before.
    """
    same = np.ones(max(batch.num_rows - 1, 0), dtype=np.bool_)
    for name in order.key:
        if name not in NULLABLE or batch.column(name).null_count < batch.num_rows:
            key = _comparable(batch, name)
            same &= key[1:] == key[:-1]
    if not same.any():
        return batch
    # One code of a dictionary may be less than another without the text being so.
    numbers = takewhile(lambda name: not pa.types.is_dictionary(batch.schema.field(name).type), order.by)
    later: Mask | None = None
    for name in reversed(list(numbers)):
        cells = integers(batch, name)
        greater = cells[1:] > cells[:-1]
        later = greater if later is None else greater | ((cells[1:] == cells[:-1]) & later)
    if later is None:
        return batch
    kept = ~(same & later)
    return batch.filter(flags(np.append(True, kept) if order.least else np.append(kept, True)))


def _comparable(batch: pa.RecordBatch, name: str) -> Integers:
    """A column whose cells are equal where these integers are."""
    column = batch.column(name)
    coded: Integers = column.indices.to_numpy() if pa.types.is_dictionary(column.type) else integers(batch, name)
    return coded


def last_points(rows: pa.Table, count: int) -> pa.Table:
    """Of each series the rows at the last so many points, in the order of points: ``views.last_points``.

    Args:
        rows: ``timedb.storage.rows.rows.gathered`` rows.
        count: How many.
    """
    rows = in_order(rows, POINT)
    points, ends = _points(rows)
    last = np.repeat(points[ends], np.diff(ends, prepend=-1))
    return rows.filter(flags(last - points < count))


def points_by_series(rows: pa.Table) -> dict[str, int]:
    """How many points each series has, of gathered rows in the order of points."""
    points, ends = _points(rows)
    series = rows.column("series_id").take(pa.array(ends)).to_pylist()
    return dict(zip(series, np.diff(points[ends], prepend=-1).tolist(), strict=True))


def _points(rows: pa.Table) -> tuple[Integers, Integers]:
    """The number of each row's point, and where the rows of each series end."""
    return numbered(*keys_of(rows, POINT)), np.flatnonzero(differs_from_next(codes(rows, "series_id")))


def numbered(*keys: Integers) -> Integers:
    """For each row the number of its key; equal keys stand together."""
    new = np.zeros(len(keys[0]), dtype=np.bool_)
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new)


def differs_from_next(numbers: Integers) -> Mask:
    """Whether a row's number is not that of the next one; true for the last."""
    return np.append(numbers[1:] != numbers[:-1], np.ones(min(len(numbers), 1), dtype=np.bool_))
