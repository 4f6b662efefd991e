"""Decoded rows of files that are read again and again; data files never change, so there is nothing to invalidate."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import pyarrow as pa

__all__ = ["BatchCache"]

Key = tuple[str, ...]

_COLUMN_BYTES = 1500
"""Bytes about which an array takes beside its values: most of what a batch of few rows takes."""


class BatchCache:
    """Keeps record batches of whole files, those that were asked for last, up to a number of bytes. Thread-safe.

    Args:
        max_bytes: The most that is kept; a file that would take more than a quarter of it is not.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._kept: OrderedDict[Key, tuple[list[pa.RecordBatch], int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> list[pa.RecordBatch] | None:
        """The batches that are kept under a key."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: Key, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on, and keep them once all have been taken and if they are not too large."""
        taken: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            size += batch.nbytes + _COLUMN_BYTES * batch.num_columns
            if size <= self._max_bytes // 4:
                taken.append(batch)
            yield batch
        if size <= self._max_bytes // 4:
            self._put(key, taken, size)

    def _put(self, key: Key, batches: list[pa.RecordBatch], size: int) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = batches, size
            self._held += size
            while self._held > self._max_bytes:
                self._held -= self._kept.popitem(last=False)[1][1]
