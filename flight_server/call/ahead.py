"""Batches made ready while the one before is still on its way: making and sending take a core each."""

from __future__ import annotations

import threading
from collections import deque

import pyarrow as pa

__all__ = ["ReadAhead"]

AHEAD_BATCHES = 2
"""Batches that lie ready, at most. One more is being made, and one being sent."""


class ReadAhead:
    """Reads a reader on a thread of its own, at most :data:`AHEAD_BATCHES` ahead of whoever takes the batches.

    The thread ends with the reader, with its error, or after :meth:`stop`.

    Args:
        reader: The batches; nobody else reads it any more.
    """

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._ready: deque[pa.RecordBatch] = deque()
        self._end: BaseException | None = None
        self._stopped = False
        # Reentrant: the garbage collector may drop a forgotten stream, and so stop it, in the middle of `take`.
        self._changed = threading.Condition(threading.RLock())
        threading.Thread(target=self._run, args=(reader,), name="timedb-read-ahead", daemon=True).start()

    def take(self) -> pa.RecordBatch:
        """The next batch, once it is there.

        Raises:
            StopIteration: there is none.
            BaseException: whatever reading raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._end is not None)
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            assert self._end is not None
            raise self._end

    def stop(self) -> None:
        """Read no further; what lies ready is dropped."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()

    def _run(self, reader: pa.RecordBatchReader) -> None:
        try:
            while self._has_room():
                batch = reader.read_next_batch()
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
                del batch  # or an error would hold it
        except StopIteration:
            self._finish(StopIteration())  # another one: this one holds the frames that it came through
        except BaseException as error:
            self._finish(error)

    def _finish(self, end: BaseException) -> None:
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._ready) < AHEAD_BATCHES)
            return not self._stopped
