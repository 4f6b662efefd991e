"""The last value of each series, mostly without opening a file: settled files never change, so last rows are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence

import polars as pl

from timedb.contract.wire import ReadCommand
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.delta.store import Store
from timedb.storage.rows.scan import Selection, scan

__all__ = ["LastRows", "can_use_last_rows", "latest", "latest_over"]

_ORDER = ("valid_time", "valid_time_end", "known_time", "change_time", "run_id")


def latest(rows: pl.DataFrame) -> pl.DataFrame:
    """Of the rows of the flat view the last of each series: the greatest (valid_time, valid_time_end), null first."""
    return rows.sort("series_id", *_ORDER).unique("series_id", keep="last", maintain_order=True)


def can_use_last_rows(read: ReadCommand, selection: Selection, files: Sequence[DataFile]) -> bool:
    """Whether the last row of each series is among the last rows of the settled files and the fresh rows.

    It is where nothing bounds the winners, no fresh row withdraws or corrects one, and no file reaches beyond the
    valid_times that are asked for.
    """
    bounded = (read.relative, read.lead_time, selection.start_known, selection.end_known, selection.as_of)
    if any(bound is not None for bound in bounded):
        return False
    fresh = [file for file in files if file.partition["tier"] == "fresh"]
    return not any(map(may_hold_corrections, fresh)) and all(map(selection.ends_after, files))


class LastRows:
    """The last row of each series in files of the ``current`` tier, kept for the files that were read last.

    Thread-safe: two threads may read one file at once, and both find the same.

    Args:
        store: The folder of the values table.
        max_rows: The most rows that are kept, of all files together.
    """

    def __init__(self, store: Store, max_rows: int) -> None:
        self._store = store
        self._max_rows = max_rows
        self._held = 0
        self._files: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, files: Collection[DataFile]) -> list[pl.DataFrame]:
        """The last rows of each of some files of the ``current`` tier, all stored columns."""
        return [self._of(file) for file in files]

    def _of(self, file: DataFile) -> pl.DataFrame:
        with self._lock:
            known = self._files.get(file.path)
            if known is not None:
                self._files.move_to_end(file.path)
                return known
        rows = scan(self._store, [file])
        # The file is sorted by (series_id, valid_time, ...): where a series ends, its last valid_time begins.
        last = rows.filter(pl.col("valid_time") == pl.col("valid_time").max().over("series_id"))
        found = latest(last.collect(engine="in-memory"))
        with self._lock:
            if file.path not in self._files:
                self._files[file.path] = found
                self._held += found.height
            while self._held > self._max_rows and self._files:
                self._held -= self._files.popitem(last=False)[1].height
        return found


def latest_over(fresh: Sequence[pl.DataFrame], settled: Sequence[pl.DataFrame], selection: Selection) -> pl.DataFrame:
    """The last rows of a bucket from its fresh rows and the last rows of its settled files.

    No row is withdrawn or corrected there, so that the last row of a series is the winner of its last point.
    """
    predicates = selection.predicates()
    kept = [frame.filter(*predicates) for frame in settled] if predicates else settled
    return latest(pl.concat([*fresh, *kept]))
