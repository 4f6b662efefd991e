"""The files of the series table: a row a series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from timedb.storage.delta.damage import check_files
from timedb.storage.delta.store import Store
from timedb.storage.tables.schemas import SERIES

__all__ = ["read_series", "series_table"]


def read_series(store: Store, paths: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of some files, each in the order of the table's columns, by path.

    Raises:
        Damaged: a file is missing, or is not what was written.
    """
    check_files(store, paths)
    frames = {path: pl.read_parquet(store.url(path), glob=False, hive_partitioning=False) for path in paths}
    return {path: frame.select(SERIES.names).rows() for path, frame in frames.items()}


def series_table(series: Sequence[Any]) -> pa.Table:
    """What a file of some series holds; they have an attribute for each column."""
    ordered = sorted(series, key=lambda one: one.series_id)
    columns = [pa.array([getattr(one, column.name) for one in ordered], column.type) for column in SERIES]
    return pa.Table.from_arrays(columns, schema=SERIES)
