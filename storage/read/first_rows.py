"""The first rows, in some order, of an answer that comes batch by batch: a page, without the answer in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from timedb.storage.rows.rows import flags, gathered, in_order, integers, keys_of

__all__ = ["FirstRows"]

_PAGES_AT_ONCE = 8
_FEW_ROWS = 1_000_000


class FirstRows:
    """Takes rows in any order and keeps those that may be among the first; never many pages of them.

    Args:
        names: The columns that make the order, identifiers and times; the first counts most, nulls come first.
        count: How many rows are wanted.
    """

    def __init__(self, names: Sequence[str], count: int) -> None:
        self._names = names
        self._count = count
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

    def sorted(self) -> pa.Table | None:
        """The first rows in order; None where none was taken."""
        if not self._parts:
            return None
        if self._held > 2 * self._count:
            self._cut()
        return in_order(gathered(self._parts), self._names).slice(0, self._count)

    def _cut(self) -> None:
        """Drop rows that cannot be among the first, so that at most twice as many are left as are wanted."""
        name = self._names[0]
        if pa.types.is_dictionary(self._parts[0].schema.field(name).type):
            self._parts = [gathered(self._parts)]  # only codes of one dictionary can be compared
            keys = keys_of(self._parts[0], [name])
        else:
            keys = [integers(part, name) for part in self._parts]
        every = np.concatenate(keys)
        bound = np.partition(every, self._count - 1)[self._count - 1]
        self._parts = [part.filter(flags(key <= bound)) for part, key in zip(self._parts, keys, strict=True)]
        self._held = sum(part.num_rows for part in self._parts)
        if self._held > 2 * self._count:
            few = in_order(gathered(self._parts), self._names).slice(0, self._count).combine_chunks()
            self._parts, self._held = [few], few.num_rows
