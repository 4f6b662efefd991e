"""Cutting the rows of some files into slices that fit in memory, each with all rows of its points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.rows.scan import scan

__all__ = ["Slice", "cut_slices"]

_WITHIN = "series_id"


@dataclass(frozen=True)
class Slice:
    """A stretch of valid_time; one of a single valid_time may be a stretch of series_id.

    Bounds by column: (from, up to but not including), None where it is open; valid_time in microseconds since 1970.
    """

    valid_time: tuple[int | None, int | None] = (None, None)
    series_id: tuple[str | None, str | None] = (None, None)

    def predicates(self) -> list[pl.Expr]:
        """The slice as filters."""
        found = []
        for name, kind, (start, end) in (
            ("valid_time", pl.Datetime("us", "UTC"), self.valid_time),
            (_WITHIN, pl.String(), self.series_id),
        ):
            if start is not None:
                found.append(pl.col(name) >= pl.lit(start).cast(kind))
            if end is not None:
                found.append(pl.col(name) < pl.lit(end).cast(kind))
        return found

    def may_hold(self, file: DataFile) -> bool:
        """Whether the file's statistics leave room for a row of the slice."""
        start, end = self.valid_time
        low, high = file.minimum.get("valid_time"), file.maximum.get("valid_time")
        before = start is not None and isinstance(high, int) and high < start
        behind = end is not None and isinstance(low, int) and low >= end
        return not (before or behind)


def cut_slices(store: Store, files: Sequence[DataFile], most_rows: int) -> list[Slice]:
    """Slices that together are all rows of the files, in the order of valid_time.

    Args:
        store: The Delta table's folder.
        files: Data files of the values table.
        most_rows: Rows of a slice; only one of a single point may have more.
    """
    if sum(file.rows for file in files) <= most_rows:
        return [Slice()]
    slices: list[Slice] = []
    for start, end, rows in _stretches(_counts(store, files, "valid_time"), most_rows):
        if rows <= most_rows:
            slices.append(Slice((start, end)))
        else:
            counts = _counts(store, files, _WITHIN, Slice((start, end)))
            slices += [Slice((start, end), (first, last)) for first, last, _ in _stretches(counts, most_rows)]
    return slices


def _counts(store: Store, files: Sequence[DataFile], name: str, within: Slice | None = None) -> pl.DataFrame:
    """How many rows each value of a column has: ``(value, rows)`` in order; counted file by file."""
    within = within or Slice()
    found = pl.DataFrame()
    for file in files:
        if within.may_hold(file):
            rows = scan(store, [file], within.predicates()).group_by(pl.col(name).to_physical().alias("value"))
            found = pl.concat([found, rows.agg(rows=pl.len().cast(pl.Int64)).collect(engine="in-memory")])
            found = found.group_by("value").agg(pl.col("rows").sum())
    return found.sort("value")


def _stretches(counts: pl.DataFrame, most_rows: int) -> Iterator[tuple[Any, Any, int]]:
    """(from, up to, rows): as many neighbouring values as have ``most_rows`` rows, or one that has more by itself."""
    sums = np.cumsum(counts["rows"].to_numpy())
    values = counts["value"]
    first, done = 0, 0
    while first < len(sums):
        last = max(int(np.searchsorted(sums, done + most_rows, side="right")), first + 1)
        yield (
            values[first] if first else None,
            values[last] if last < len(sums) else None,
            int(sums[last - 1]) - done,
        )
        first, done = last, int(sums[last - 1])
