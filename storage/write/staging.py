"""The files of a bulk upload: encoded while its stream goes on, stamped in its turn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from timedb.storage.delta.log import DataFile
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import UPLOAD_PREFIX, StagedFile, next_stamp, restamp
from timedb.storage.delta.store import Store

__all__ = ["StagedFiles"]

_THREADS = max(2, os.cpu_count() or 1)


class StagedFiles(NewFiles):
    """The rows of a bulk run, encoded already; they carry ``stamp`` until their turn gives them another.

    Args:
        store: The folder of the values table.
        stamp: About the change_time that rows carry when they are added, microseconds since 1970.
        file_rows: Rows of a file, about.
    """

    def __init__(self, store: Store, stamp: int, *, file_rows: int) -> None:
        super().__init__(store)
        self.stamp = next_stamp(stamp)
        self._file_rows = file_rows
        self._open: dict[str, StagedFile] = {}

    @property
    def rows(self) -> int:
        """Rows in all finished files."""
        return sum(file.rows for file in self.files)

    def add(self, parts: Sequence[tuple[str, pa.Table]]) -> None:
        """Write rows, a row group or more for each bucket; buckets side by side, for encoding is most of the work.

        Args:
            parts: (bucket, its rows).

        Raises:
            OSError: they could not be written.
        """
        with ThreadPoolExecutor(min(_THREADS, len(parts)), "timedb-stage") as threads:
            writes = [threads.submit(self._add, bucket, rows) for bucket, rows in parts]
        for write in writes:  # all have ended by now, so that whoever deletes the files deletes all
            write.result()

    def _add(self, bucket: str, rows: pa.Table) -> None:
        file = self._open.get(bucket)
        if file is not None and (file.rows + rows.num_rows > self._file_rows or not file.has_place_for(rows)):
            self._finish(bucket)
            file = None
        if file is None:
            file = StagedFile(self.store, rows, {"series_bucket": bucket, "tier": "fresh"}, UPLOAD_PREFIX)
            self._open[bucket] = file
        file.add(rows)

    def finish(self) -> Sequence[DataFile]:
        """End all files; they are durable soon, but for their stamps."""
        for bucket in list(self._open):
            self._finish(bucket)
        return self.files

    def restamp(self, stamp: int) -> None:
        """Give all rows another change_time, of :func:`timedb.storage.delta.parquet.next_stamp`."""
        self.files = [restamp(self.store, file, self.stamp, stamp) for file in self.files]
        self.stamp = stamp

    def delete(self) -> None:
        """Remove the files, those that are not finished, too."""
        while self._open:
            self._open.popitem()[1].delete()
        super().delete()

    def _finish(self, bucket: str) -> None:
        file = self._open.pop(bucket).finish()
        self.files.append(file)
        self.store.persist(file.path)
