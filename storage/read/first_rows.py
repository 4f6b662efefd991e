"""The first rows, in some order, of an answer that comes batch by batch: a page, without the answer in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from timedb.storage.rows.rows import flags, gathered, in_order, integers, keys_of
from timedb.storage.rows.sorting import Integers

__all__ = ["FirstRows"]

_PAGES_AT_ONCE = 8
_FEW_ROWS = 1_000_000


class FirstRows:
    """Takes rows in any order and keeps those that may be among the first; never many pages of them.

    Args:
        names: The columns that make the order, identifiers and times; the first counts most, nulls come first.
        count: How many rows are wanted.
        descending: Later times come first.
    """

    def __init__(self, names: Sequence[str], count: int, *, descending: bool = False) -> None:
        self._names = names
        self._count = count
        self._descending = descending
        self._parts: list[pa.Table] = []
        self._held = 0

    @property
    def held(self) -> int:
        """Rows that are kept now."""
        return self._held

    def add(self, rows: pa.Table) -> None:
        """Take further rows, all of the same columns."""
        if rows.num_rows:
            self._parts.append(rows)
            self._held += rows.num_rows
            if self._held > min(_PAGES_AT_ONCE * self._count, 2 * self._count + _FEW_ROWS):
                self._cut()

    def are_before(self, time: int) -> bool:
        """Whether as many as are wanted come before a time (microseconds since 1970), as the order goes."""
        if self._held < self._count:
            return False
        bound = 1 - time if self._descending else time  # descending the instant itself is not beyond it
        return sum(int((key < bound).sum()) for key in self._times()) >= self._count

    def sorted(self) -> pa.Table | None:
        """The first rows in order; None where none was taken."""
        if not self._parts:
            return None
        if self._held > 2 * self._count:
            self._cut()
        return self._in_order(gathered(self._parts)).slice(0, self._count)

    def _in_order(self, rows: pa.Table) -> pa.Table:
        return in_order(rows, self._names, descending=self._descending)

    def _times(self) -> list[Integers]:
        """The first column of the order, where it is a time."""
        times = (integers(part, self._names[0]) for part in self._parts)
        return [-each if self._descending else each for each in times]

    def _cut(self) -> None:
        """Drop rows that cannot be among the first, so that at most twice as many are left as are wanted."""
        name = self._names[0]
        if pa.types.is_dictionary(self._parts[0].schema.field(name).type):
            self._parts = [gathered(self._parts)]  # only codes of one dictionary can be compared
            keys = keys_of(self._parts[0], [name])
        else:
            keys = self._times()
        every = np.concatenate(keys)
        bound = np.partition(every, self._count - 1)[self._count - 1]
        self._parts = [part.filter(flags(key <= bound)) for part, key in zip(self._parts, keys, strict=True)]
        self._held = sum(part.num_rows for part in self._parts)
        if self._held > 2 * self._count:
            few = self._in_order(gathered(self._parts)).slice(0, self._count).combine_chunks()
            self._parts, self._held = [few], few.num_rows
