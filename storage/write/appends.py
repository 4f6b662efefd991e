"""Runs of many streams on their way into the commit lane, where those that wait are checked and committed together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pyarrow as pa

from timedb.contract.errors import Busy, IncompleteUpload, TimeDBError, TooLarge
from timedb.contract.request_id import REQUEST_ID
from timedb.contract.settings import ServerSettings
from timedb.contract.times import now
from timedb.contract.wire import AppendedUpload
from timedb.storage.boundary import translating_errors
from timedb.storage.commit.lane import CommitLane
from timedb.storage.commit.writes import Arrival, Write
from timedb.storage.memory.budget import Memory, MemoryShare
from timedb.storage.rows.normalise import check_batch, check_columns
from timedb.storage.rows.probability import without_them
from timedb.storage.write.runs import SkipUnchanged, Writer
from timedb.storage.write.together import SMALL_BYTES, SMALL_ROWS, ArrivedRun, check_runs, lean

__all__ = ["AppendQueue", "Appends", "ArrivingRun"]

Receipt = dict[str, Any]
_COPIES = 4  # the run as it came, its columns, those in order, and what is encoded


class AppendQueue:
    """Lines runs up in the commit lane in their order: so many at once that other writers find room there, too.

    Args:
        lane: The tenant's.
        max_in_lane: Runs that wait in the lane at most; further ones wait here.
    """

    def __init__(self, lane: CommitLane, *, max_in_lane: int) -> None:
        self._lane = lane
        self._max_in_lane = max_in_lane
        self._waiting: deque[tuple[Write | Arrival, str, Future[Receipt]]] = deque()
        self._in_lane = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, run: Write | Arrival) -> Future[Receipt]:
        """Take a run; its receipt or error comes once it is durable, in the order of commits.

        Raises:
            Busy: the service is stopping.
        """
        done: Future[Receipt] = Future()
        done.add_done_callback(self._leave)
        with self._changed:
            if self._closed:
                raise Busy("the service is stopping")
            self._waiting.append((run, REQUEST_ID.get(), done))
            self._line_up()
        return done

    @property
    def queued(self) -> int:
        """Runs that are not in the lane yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Line up what waits, take no more; before the lane is closed."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._waiting)

    def _leave(self, _: Future[Receipt]) -> None:
        """A run has left the lane."""
        with self._changed:
            self._in_lane -= 1
            self._line_up()

    def _line_up(self) -> None:
        taken = []
        while self._waiting and self._in_lane < self._max_in_lane:
            taken.append(self._waiting.popleft())
            self._in_lane += 1
        if taken:
            self._lane.enqueue(taken)
        if self._closed and not self._waiting:
            self._changed.notify_all()


class Appends:
    """A stream of runs of one schema.

    Args:
        schema: The columns.
        queue: Where whole runs go.
        skip_unchanged: Leaves out of a run what is known.
        newest: The greatest change_time that the values have, microseconds since 1970.
        writer: Who sends it.
        settings: Limits.
        memory: Of which large runs take a share.
        max_run_bytes: The most that one run may have.

    Raises:
        InvalidRequest: a column is missing, unknown or of a type that does not fit.
    """

    def __init__(
        self,
        schema: pa.Schema,
        *,
        queue: AppendQueue,
        skip_unchanged: SkipUnchanged,
        newest: Callable[[], int],
        writer: Writer,
        settings: ServerSettings,
        memory: Memory,
        max_run_bytes: int,
    ) -> None:
        check_columns(without_them(schema))
        self.queue = queue
        self.skip_unchanged = skip_unchanged
        self.newest = newest
        self.writer = writer
        self.settings = settings
        self.memory = memory
        self.max_run_bytes = max_run_bytes

    def begin(self, command: AppendedUpload) -> ArrivingRun:
        """Begin to receive the next run."""
        return ArrivingRun(self, command)


class ArrivingRun:
    """A run of a stream, batch by batch.

    Attributes:
        rows: How many have come.
        bytes: Their bytes.
    """

    def __init__(self, stream: Appends, command: AppendedUpload) -> None:
        self.rows = 0
        self.bytes = 0
        self._stream = stream
        self._command = command
        self._batches: list[pa.RecordBatch] = []
        self._share: MemoryShare | None = None

    @translating_errors()
    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch.

        Raises:
            InvalidRequest: its buffers are not what they say.
            TooLarge, Busy: it is over a limit, or there is no memory for it.
        """
        batch = check_batch(batch, self.rows)
        batch = lean(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        most = self._stream.settings.max_upload_rows
        if self.rows > most:
            raise TooLarge(f"rows: the run has more than {most}, the limit of one upload")
        most = self._stream.max_run_bytes
        if self.bytes > most:
            raise TooLarge(
                f"batch: the run has over {most} bytes, the limit of what waits in one stream of runs; send it with "
                "do_put"
            )
        if self.bytes > SMALL_BYTES:
            self._share = self._share or self._stream.memory.share("batch", 0)
            if (more := _COPIES * self.bytes - self._share.size) > 0:
                self._share.grow(more)
        self._batches.append(batch)

    @translating_errors()
    def finish(self) -> Future[Receipt]:
        """It is whole: have it committed.

        Returns:
            Its receipt (docs/wire.md) or error, in the order of commits.

        Raises:
            IncompleteUpload: other rows were announced than came.
            InvalidRequest, NotFound: what is wrong with a large run; with a small one, that is its error.
            Busy: the service is stopping.
        """
        announced = self._command.rows
        if announced is not None and announced != self.rows:
            raise IncompleteUpload(f"rows: {announced} were announced, {self.rows} arrived; nothing was written")
        stream = self._stream
        skip_unchanged = stream.skip_unchanged if self._command.skip_unchanged else None
        run: Write | ArrivedRun
        run = ArrivedRun(
            self._command,
            self._command.run_id,
            self._batches,
            stream.writer,
            now(),
            skip_unchanged,
            stream.writer.catalog.known().units,
        )
        if self.rows > SMALL_ROWS or self.bytes > SMALL_BYTES:
            run = self._checked(run)
        done = stream.queue.put(run)
        done.add_done_callback(lambda _: self.drop())
        return done

    def _checked(self, run: ArrivedRun) -> Write:
        """A large run, checked here, where it holds nobody else up."""
        (outcome,) = check_runs([run], self._stream.newest())
        if isinstance(outcome, TimeDBError):
            raise outcome
        return outcome

    def drop(self) -> None:
        """Forget what has come."""
        self._batches = []
        if self._share is not None:
            self._share.release()
