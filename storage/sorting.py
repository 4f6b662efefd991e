"""Sorting rows by several columns as one integer.

Polars sorts one integer column many times faster than several columns of shuffled rows. Columns whose ranges fit are
packed into one 63-bit key, each as (value - least) / step with as many bits as it needs; where they do not fit, the
columns are sorted as they are. The order is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

__all__ = ["sort_rows"]

_KEY_BITS = 63
_FEW_ROWS = 10_000


def sort_rows(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The rows ascending by the named columns, nulls first.

    Args:
        rows: Any frame.
        names: Columns of integers, times, or text.
    """
    if rows.height < _FEW_ROWS:
        return rows.sort(*names)
    key = pl.Series("key", np.zeros(rows.height, dtype=np.int64))
    used = 0
    for name in names:
        codes, bits = _codes(rows[name])
        used += bits
        if used > _KEY_BITS:
            return rows.sort(*names)
        if bits:
            key = key * (1 << bits) + codes
    return rows if key.is_sorted() else rows[key.arg_sort()]


def _codes(column: pl.Series) -> tuple[pl.Series, int]:
    """Integers from 0 in the order of the column (null is 0 where there are any) and the bits that they need."""
    if column.null_count() == len(column):
        return pl.Series([0]), 0
    if column.dtype == pl.String:
        distinct = column.unique().sort()
        if len(distinct) == 1:
            return pl.Series([0]), 0
        codes = column.cast(pl.Enum(distinct.drop_nulls())).to_physical().cast(pl.Int64)
        return codes.fill_null(-1) + 1, len(distinct).bit_length()
    numbers = column.to_physical().cast(pl.Int64)
    low, high = pl.DataFrame({"n": numbers}).select(low=pl.col("n").min(), high=pl.col("n").max()).row(0)
    if high - low >> _KEY_BITS - 1:
        return numbers, _KEY_BITS + 1  # no room in a key, and none for the arithmetic below
    offsets = numbers - low
    present = offsets.drop_nulls().to_numpy()
    step = int(np.gcd.reduce(present)) or 1
    steps = offsets // step + 1 if step > 1 else offsets + 1
    return steps.fill_null(0), (int(present.max()) // step + 1).bit_length()
