"""The last value of each series, mostly without opening a file: settled files never change, so last rows are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.memory.cache import CachedFiles
from timedb.storage.rows import views
from timedb.storage.rows.scan import RowSelection, scan

__all__ = ["LastRows", "latest_over"]

_WHAT = "last rows"


class LastRows:
    """The last row of each series in files of the ``current`` tier, kept for the files that were read last.

    Thread-safe: two threads may read one file at once, and both find the same.

    Args:
        store: The folder of the values table.
        files: Where they are kept; None: nowhere.
    """

    def __init__(self, store: Store, files: CachedFiles | None = None) -> None:
        self._store = store
        self._files = files

    def read(self, files: Collection[DataFile]) -> list[pl.DataFrame]:
        """The last rows of each of some files of the ``current`` tier, all stored columns."""
        return [self._of(file) for file in files]

    def _of(self, file: DataFile) -> pl.DataFrame:
        known: pl.DataFrame | None = None if self._files is None else self._files.get(file.path, _WHAT)
        if known is not None:
            return known
        rows = scan(self._store, [file])
        # Times first, and of the other columns only the rows that are asked for then.
        last = rows.group_by("series_id").agg(pl.col("valid_time").max()).collect(engine="streaming")
        at_last = rows.filter(pl.col("valid_time").is_in(last["valid_time"].unique().implode()))
        at_last = at_last.join(last.lazy(), on=["series_id", "valid_time"], how="semi")
        found = views.last(at_last.collect(engine="in-memory"))
        if self._files is not None:
            self._files.put(file.path, _WHAT, value=found, size=int(found.estimated_size()))
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
