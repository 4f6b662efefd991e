"""Sorting rows by several columns as one integer.

Columns whose ranges fit are packed into one integer key, each as (value - least) / step with as many bits as it needs,
and the row's own number below them: NumPy sorts plain integers many times faster than it finds the order of any.
Where they do not fit, the columns are sorted as they are. The order is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

__all__ = ["Integers", "sort_rows", "sorted_order"]

Integers = np.ndarray[Any, np.dtype[np.int64]]

_KEY_BITS = 63
_FEW_ROWS = 10_000
_SAMPLE_ROWS = 1_000
_SMALL = 1 << 12


def sort_rows(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The rows ascending by the named columns, nulls first.

    Args:
        rows: Any frame.
        names: Columns of integers, times, or text.
    """
    if rows.height < _FEW_ROWS:
        return rows.sort(*names)
    key = _key([_codes(rows[name]) for name in names])
    if key is None:
        return rows.sort(*names)
    return rows if _ascending([key[0]]) else rows[_order(*key)]


def sorted_order(columns: Sequence[Integers]) -> Integers | None:
    """The numbers of rows in ascending order of some columns, equal rows as they stand; None where all are in order.

    Args:
        columns: One array each, of one length, the first counts most.
    """
    if _ascending(columns):
        return None
    key = _key([_steps(column) for column in columns])
    return np.lexsort(columns[::-1]) if key is None else _order(*key)


def _ascending(columns: Sequence[Integers]) -> bool:
    """Whether no row comes before the one above it: far cheaper to see than to sort, and often so."""
    tied = np.ones(max(len(columns[0]) - 1, 0), dtype=np.bool_)
    for column in columns:
        if (tied & (column[1:] < column[:-1])).any():
            return False
        tied &= column[1:] == column[:-1]
        if not tied.any():
            break
    return True


def _key(codes: Sequence[tuple[Integers, int]]) -> tuple[Integers, int] | None:
    """Columns of codes as one integer a row, and its bits; None where there are too many."""
    used = sum(bits for _, bits in codes)
    if used > _KEY_BITS:
        return None
    key = np.zeros(len(codes[0][0]), dtype=np.int64)
    for column, bits in codes:
        if bits:
            key <<= bits
            key |= column
    return key, used


def _order(key: Integers, bits: int) -> Integers:
    below = (len(key) - 1).bit_length()
    if bits + below > _KEY_BITS:
        return np.argsort(key, kind="stable")
    key <<= below
    key |= np.arange(len(key))
    key.sort()
    key &= (1 << below) - 1
    return key


def _codes(column: pl.Series) -> tuple[Integers, int]:
    """Integers from 0 in the order of the column (null is 0 where there are any) and the bits that they need."""
    nothing = np.zeros(len(column), dtype=np.int64)
    if column.null_count() == len(column):
        return nothing, 0
    if column.dtype == pl.String:
        distinct = column.unique().sort()
        if len(distinct) == 1:
            return nothing, 0
        codes = column.cast(pl.Enum(distinct.drop_nulls())).to_physical().cast(pl.Int64)
        return (codes.fill_null(-1) + 1).to_numpy(), len(distinct).bit_length()
    numbers = column.to_physical().cast(pl.Int64)
    if not column.null_count():
        return _steps(numbers.to_numpy())
    present = column.is_not_null().to_numpy()
    steps, _ = _steps(numbers.drop_nulls().to_numpy())
    nothing[present] = steps + 1
    return nothing, (int(steps.max()) + 1).bit_length()


def _steps(numbers: Integers) -> tuple[Integers, int]:
    """(number - least) / step for a step that divides all of them, and the bits that the greatest needs."""
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
        return np.zeros(len(numbers), dtype=np.int64), 0
    if high - low >> _KEY_BITS - 1:
        return numbers, _KEY_BITS + 1  # no room in a key, and none for the arithmetic below
    offsets = numbers - low
    if high - low < _SMALL:
        return offsets, (high - low).bit_length()  # not worth a division
    step = int(np.gcd.reduce(offsets[:_SAMPLE_ROWS]))
    while step != 1:
        if step == 0:
            step = int(np.gcd.reduce(offsets))
        steps = offsets // step
        remainders = offsets - steps * step
        if not remainders.any():
            return steps, ((high - low) // step).bit_length()
        step = int(np.gcd(step, np.gcd.reduce(remainders)))
    return offsets, (high - low).bit_length()
