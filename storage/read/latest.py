"""The last value of each series, mostly without opening a file: settled files never change, so last rows are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence

import polars as pl

from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.rows import views
from timedb.storage.rows.scan import RowSelection, scan

__all__ = ["LastRows", "latest_over"]


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
        found = views.last(last.collect(engine="in-memory"))
        with self._lock:
            if file.path not in self._files:
                self._files[file.path] = found
                self._held += found.height
            while self._held > self._max_rows and self._files:
                self._held -= self._files.popitem(last=False)[1].height
        return found


def latest_over(
    fresh: Sequence[pl.DataFrame], settled: Sequence[pl.DataFrame], selection: RowSelection
) -> pl.DataFrame:
    """The last rows of a bucket from its fresh rows and the last rows of its settled files.

    No row is withdrawn or corrected there, so that the last row of a series is the winner of its last point.
    """
    predicates = selection.predicates()
    kept = [frame.filter(*predicates) for frame in settled] if predicates else settled
    return views.last(pl.concat([*fresh, *kept]))
