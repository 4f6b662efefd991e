"""Decoded rows of files that are read again and again; data files never change, so there is nothing to invalidate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from timedb.storage.memory.cache import CachedFiles

__all__ = ["BatchCache"]

_COLUMN_BYTES = 1500
"""Bytes about which an array takes beside its values: most of what a batch of few rows takes."""


class BatchCache:
    """Keeps record batches of whole files, those that were asked for last. Thread-safe.

    Args:
        files: Where they are kept, together with all else.
    """

    def __init__(self, files: CachedFiles) -> None:
        self._files = files

    def get(self, path: str, columns: Sequence[str]) -> list[pa.RecordBatch] | None:
        """The batches that are kept of some columns of a file."""
        return self._files.get(path, *columns)

    def keep(self, path: str, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on, and keep them once all have been taken and if they are not too large."""
        taken: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            size += batch.nbytes + _COLUMN_BYTES * batch.num_columns
            if size <= self._files.most:
                taken.append(batch)
            else:
                taken.clear()
            yield batch
        if size <= self._files.most:
            self._files.put(path, *columns, value=taken, size=size)
