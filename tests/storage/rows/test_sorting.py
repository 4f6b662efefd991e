"""Packed keys give the order of the columns themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from timedb.storage.rows.sorting import sort_rows

MANY = 20_000


def frame(count: int, seed: int) -> pl.DataFrame:
    """Columns of all kinds: few and many values, nulls, negatives, extremes, steps, text."""
    source = np.random.default_rng(seed)
    micros = pl.Datetime("us", "UTC")

    def times(low: int, high: int, step: int = 1) -> pl.Series:
        return pl.Series(source.integers(low, high, count) * step).cast(micros)

    holes = pl.Series(source.random(count) < 0.3)
    few = pl.Series(source.choice(["b", "a", "", "Ö", "aa"], count))
    return pl.DataFrame(
        {
            "hours": times(-50, 50, 3_600_000_000),
            "half": times(-5, 5, 1_800_000_000).set(holes, None),
            "nothing": pl.Series([None] * count, dtype=micros),
            "same": pl.Series([7] * count),
            "wide": pl.Series(source.integers(-(1 << 62), 1 << 62, count)),
            "ends": pl.Series(source.choice([-(1 << 63), (1 << 63) - 1, 0], count)),
            "code": pl.Series(source.integers(0, 30, count), dtype=pl.Int32),
            "text": few,
            "gaps": few.set(holes, None),
            "row": pl.int_range(count, eager=True),
        }
    )


@pytest.mark.parametrize("count", [0, 1, 2, 100, MANY])
@pytest.mark.parametrize(
    "names",
    [
        ("code", "hours", "half"),
        ("half", "nothing", "code"),
        ("text", "gaps", "hours", "half", "code"),
        ("gaps", "text"),
        ("nothing",),
        ("same", "nothing"),
        ("wide", "code"),
        ("code", "wide", "hours"),
        ("ends", "code"),
        ("code", "ends", "text"),
    ],
)
def test_the_order_is_that_of_the_columns(count: int, names: tuple[str, ...]) -> None:
    rows = frame(count, seed=count)
    found = sort_rows(rows, names)
    assert found.select(names).equals(rows.sort(*names).select(names))
    assert found.sort("row").equals(rows), "no row lost, none torn apart"


def test_sorted_rows_stay_as_they_are() -> None:
    rows = frame(MANY, seed=1).sort("code", "hours")
    assert sort_rows(rows, ("code", "hours")).equals(rows)
