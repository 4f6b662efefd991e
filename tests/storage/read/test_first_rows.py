"""The first rows of many are those of the whole in order, however they come and however many tie."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from timedb.storage.read.first_rows import FirstRows

MICROS = pa.timestamp("us", "UTC")
ORDERS = [("valid_time", "series_id"), ("series_id", "valid_time")]


def batches(rows: int, parts: int, spread: int, seed: int) -> list[pa.Table]:
    """Rows in any order, in parts of their own dictionaries."""
    source = np.random.default_rng(seed)
    found = []
    for size in np.bincount(source.integers(0, parts, rows), minlength=parts):
        names = pa.array([f"s{number}" for number in source.permutation(7)])
        codes = pa.array(source.integers(0, 7, size), pa.int32())
        found.append(
            pa.table(
                {
                    "series_id": pa.DictionaryArray.from_arrays(codes, names),
                    "valid_time": pa.array(source.integers(0, spread, size), pa.int64()).cast(MICROS),
                }
            )
        )
    return found


@pytest.mark.parametrize("names", ORDERS, ids=lambda names: names[0])
@pytest.mark.parametrize("count", [1, 10, 3_000, 150_000])
@pytest.mark.parametrize(("rows", "spread"), [(0, 1), (500, 50), (120_000, 3), (120_000, 1 << 40)])
def test_they_are_those_of_the_whole(names: tuple[str, ...], count: int, rows: int, spread: int) -> None:
    parts = batches(rows, 20, spread, seed=rows + count)
    first = FirstRows(names, count)
    for part in parts:
        first.add(part)
        assert first.held <= 8 * count
    found = first.sorted()
    whole = pl.concat([pl.DataFrame(part).cast({"series_id": pl.String}) for part in parts]).sort(names)
    if found is None:
        assert rows == 0
    else:
        assert pl.DataFrame(found).cast({"series_id": pl.String}).equals(whole.head(count))
