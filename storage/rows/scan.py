"""Rows of the values table as a Polars query over just the files that can hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa

from timedb.contract.identity import series_bucket
from timedb.contract.times import to_micros
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.store import Store
from timedb.storage.tables.schemas import MIXED, TIERS, VALUES_DATA

__all__ = [
    "RowSelection",
    "is_mixed",
    "live_files",
    "range_of",
    "ranges_meet",
    "scan",
    "scan_selected",
    "scan_staged",
    "shares_bucket",
]

VALUES_POLARS = pl.DataFrame(pa.Table.from_pylist([], schema=VALUES_DATA)).schema
_TIME = pl.Datetime("us", "UTC")
_IS_IN_LIMIT = 1000
_AFTER_ALL = "\U0010ffff"  # behind every text that begins as it does, but for this


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows a read is about; None is everything. Starts are inclusive, ends exclusive, ``as_of`` inclusive,
    ``changed_after`` exclusive.
    """

    series_ids: Collection[str] | None = None
    start_valid: datetime | None = None
    end_valid: datetime | None = None
    start_known: datetime | None = None
    end_known: datetime | None = None
    as_of: datetime | None = None
    changed_after: datetime | None = None
    run_ids: Collection[str] | None = None
    bucket: str | None = None
    """The bucket whose rows it is about; that alone leaves out rows of mixed files, which hold those of others, too."""

    def predicates(self) -> list[pl.Expr]:
        """The selection as filters."""
        bounds = [
            (pl.col("valid_time").ge, self.start_valid),
            (pl.col("valid_time").lt, self.end_valid),
            (pl.col("known_time").ge, self.start_known),
            (pl.col("known_time").lt, self.end_known),
            (pl.col("change_time").le, self.as_of),
            (pl.col("change_time").gt, self.changed_after),
        ]
        # A number that is cast costs Polars a fraction of what a Python datetime does.
        found = [test(pl.lit(to_micros(bound)).cast(_TIME)) for test, bound in bounds if bound is not None]
        if self.series_ids is not None and len(self.series_ids) == 1:
            found.append(pl.col("series_id") == next(iter(self.series_ids)))
        elif self.series_ids is not None:
            found.append(pl.col("series_id").is_in(pl.Series(sorted(self.series_ids), dtype=pl.String).implode()))
        if self.run_ids is not None:
            found.append(pl.col("run_id").is_in(pl.Series(sorted(self.run_ids), dtype=pl.String).implode()))
        return found

    def may_hold(self, file: DataFile) -> bool:
        """Whether the file's statistics leave room for a row of the selection."""
        low, high = file.minimum, file.maximum
        if self.series_ids is not None and not self._may_hold_series(file):
            return False
        starts = (("valid_time", self.start_valid), ("known_time", self.start_known))
        ends = (("valid_time", self.end_valid), ("known_time", self.end_known))
        for name, start in starts:
            if start is not None and isinstance(bound := high.get(name), int) and bound < to_micros(start):
                return False
        for name, end in ends:
            if end is not None and isinstance(bound := low.get(name), int) and bound >= to_micros(end):
                return False
        if not self._may_hold_changes(file):
            return False
        first = low.get("change_time")
        return self.as_of is None or not isinstance(first, int) or first <= to_micros(self.as_of)

    def selectivity(self, files: Iterable[DataFile]) -> float:
        """About which part of the files' times it asks for, from 0 to 1, as far as their statistics tell."""
        share, held = 1.0, list(files)
        for name, start, end in (
            ("valid_time", self.start_valid, self.end_valid),
            ("known_time", self.start_known, self.end_known),
        ):
            if start is None and end is None:
                continue
            low, high = range_of(held, name)
            if low is None or high is None:
                continue
            first = low if start is None else max(low, to_micros(start))
            last = high if end is None else min(high, to_micros(end))
            share *= max(0, last - first) / max(1, high - low)
        return share

    def ends_after(self, file: DataFile) -> bool:
        """Whether no row of the file lies at ``end_valid`` or beyond, as far as its statistics tell."""
        last = file.maximum.get("valid_time")
        return self.end_valid is None or (isinstance(last, int) and last < to_micros(self.end_valid))

    def _may_hold_changes(self, file: DataFile) -> bool:
        last = file.maximum.get("change_time")
        return self.changed_after is None or not isinstance(last, int) or last > to_micros(self.changed_after)

    def _may_hold_series(self, file: DataFile) -> bool:
        low, high = file.minimum.get("series_id"), file.maximum.get("series_id")
        ids = self.series_ids or ()
        if not isinstance(low, str) or not isinstance(high, str) or len(ids) > _IS_IN_LIMIT:
            return len(ids) > 0
        return any(low <= series_id <= high for series_id in ids)

    def bucket_to_pick(self, file: DataFile) -> str | None:
        """The bucket whose rows have to be picked out of a file; None where series are, or where all rows are its."""
        if self.bucket is None or self.series_ids is not None or not is_mixed(file):
            return None
        bounds = file.minimum.get("series_id"), file.maximum.get("series_id")
        return None if all(isinstance(one, str) and one.startswith(self.bucket) for one in bounds) else self.bucket


def is_mixed(file: DataFile) -> bool:
    """Whether a file holds rows of any bucket."""
    return file.partition["series_bucket"] == MIXED


def shares_bucket(file: DataFile, bucket: str) -> bool:
    """Whether a file can hold rows of a bucket: it lies there, or is a mixed one whose series reach there."""
    if not is_mixed(file):
        return file.partition["series_bucket"] == bucket
    low, high = file.minimum.get("series_id"), file.maximum.get("series_id")
    if not isinstance(low, str) or not isinstance(high, str):
        return True
    return low[: len(bucket)] <= bucket <= high[: len(bucket)]


def live_files(
    snapshot: Snapshot, selection: RowSelection, bucket_digits: int | None, tiers: Collection[str] = TIERS
) -> list[DataFile]:
    """The files that can hold rows of the selection."""
    wanted = None
    if selection.series_ids is not None:
        wanted = {series_bucket(series_id, bucket_digits) for series_id in selection.series_ids}
        wanted.add(MIXED)
    return [
        file
        for file in snapshot.files.values()
        if file.partition["tier"] in tiers
        and (wanted is None or file.partition["series_bucket"] in wanted)
        and selection.may_hold(file)
    ]


def scan(store: Store, files: Iterable[DataFile], predicates: Sequence[pl.Expr] = ()) -> pl.LazyFrame:
    """The rows of some files that pass the filters, in no particular order.

    Raises:
        Damaged: a file is missing, or a page of it has not the checksum that it says.
    """
    files = list(files)
    check_files(store, (file.path for file in files))
    return _scan([store.url(file.path) for file in files], predicates)


def scan_selected(store: Store, files: Sequence[DataFile], selection: RowSelection) -> pl.LazyFrame:
    """The rows of some files that pass a selection, in no particular order."""
    shared = [file for file in files if selection.bucket_to_pick(file) is not None]
    if not shared:
        return scan(store, files, selection.predicates())
    # A bucket's ids follow each other, so that a range finds them by the statistics of row groups.
    first = selection.bucket or ""
    inside = pl.col("series_id") >= pl.lit(first), pl.col("series_id") < pl.lit(first + _AFTER_ALL)
    picked = scan(store, shared, [*selection.predicates(), *inside])
    own = [file for file in files if selection.bucket_to_pick(file) is None]
    return pl.concat([scan(store, own, selection.predicates()), picked]) if own else picked


def scan_staged(store: Store, files: Iterable[DataFile], predicates: Sequence[pl.Expr] = ()) -> pl.LazyFrame:
    """The rows of files of this process that are not published yet."""
    return _scan([store.staged_url(file.path) for file in files], predicates)


def _scan(urls: list[str], predicates: Sequence[pl.Expr]) -> pl.LazyFrame:
    if not urls:
        return pl.LazyFrame(schema=VALUES_POLARS)
    rows = pl.scan_parquet(
        urls,
        schema=VALUES_POLARS,
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
        glob=False,
    )
    return rows.filter(*predicates) if predicates else rows


def range_of(files: Sequence[DataFile], name: str) -> tuple[int | None, int | None]:
    """The least and the greatest time of a column in some files, microseconds since 1970, as far as statistics tell."""
    lows = [low for file in files if isinstance(low := file.minimum.get(name), int)]
    highs = [high for file in files if isinstance(high := file.maximum.get(name), int)]
    return min(lows, default=None), max(highs, default=None)


def ranges_meet(left: DataFile, right: DataFile, names: Sequence[str]) -> bool:
    """Whether two files can hold rows that agree in the named columns, as far as their statistics tell."""
    return not any(
        _beyond(one.minimum.get(name), other.maximum.get(name))
        for name in names
        for one, other in ((left, right), (right, left))
    )


def _beyond(low: str | int | None, high: str | int | None) -> bool:
    if isinstance(low, str) and isinstance(high, str):
        return low > high
    return isinstance(low, int) and isinstance(high, int) and low > high
