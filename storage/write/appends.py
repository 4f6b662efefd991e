"""Runs of many streams on their way into the commit lane: received one by one, checked together, committed together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.errors import Busy, IncompleteUpload, TimeDBError, TooLarge
from timedb.contract.request_id import REQUEST_ID
from timedb.contract.settings import ServerSettings
from timedb.contract.times import now
from timedb.contract.wire import AppendedUpload
from timedb.storage.boundary import our_error, translating_errors
from timedb.storage.commit.lane import CommitLane
from timedb.storage.memory.budget import Memory, MemoryShare
from timedb.storage.rows.normalise import check_batch, check_columns
from timedb.storage.rows.probability import without_them
from timedb.storage.write.runs import Run, Writer
from timedb.storage.write.together import ArrivedRun, RunParts, check_runs

__all__ = ["AppendQueue", "Appends", "ArrivingRun"]

Receipt = dict[str, Any]
_SMALL_BYTES = 1 << 20  # what takes more asks for memory
_COPIES = 4  # the run as it came, its columns, those in order, and what is encoded
_IDLE_SECONDS = 5.0


class AppendQueue:
    """Checks runs that have come whole, as many as wait, and lines them up in the commit lane in their order.

    A thread does it while the lane commits those before; it ends where nothing comes for some time.

    Args:
        lane: The tenant's.
        parts: Gives what runs need beside what came, as of now.
        max_queued: Runs that wait in the lane at most; further ones wait here.
        group_rows: Rows that are checked at once.
    """

    def __init__(self, lane: CommitLane, parts: Callable[[], RunParts], *, max_queued: int, group_rows: int) -> None:
        self._lane = lane
        self._parts = parts
        self._max_queued = max_queued
        self._group_rows = group_rows
        self._waiting: deque[tuple[ArrivedRun, Future[Receipt]]] = deque()
        self._in_lane = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, run: ArrivedRun) -> Future[Receipt]:
        """Take a run; its receipt or error comes once it is durable, in the order of commits.

        Raises:
            Busy: the service is stopping.
        """
        done: Future[Receipt] = Future()
        with self._changed:
            if self._closed:
                raise Busy("the service is stopping")
            self._waiting.append((run, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="timedb-append", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return done

    @property
    def queued(self) -> int:
        """Runs that are not in the lane yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Line up what waits, take no more; before the lane is closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while taken := self._take():
            try:
                self._line_up(taken)
            except BaseException as error:  # PanicException of the engines is no Exception
                failure = our_error(error, "the write failed; nothing was written")
                for _, done in taken:
                    if not done.done():
                        done.set_exception(failure)

    def _take(self) -> list[tuple[ArrivedRun, Future[Receipt]]]:
        """The runs that are next, once the lane has room for them; none: the thread is to end."""
        with self._changed:
            while not self._waiting or self._in_lane >= self._max_queued:
                if not self._waiting and self._closed:
                    return []
                called = self._changed.wait(_IDLE_SECONDS)
                if not (called or self._waiting):
                    self._thread = None
                    return []
            taken, rows = [self._waiting.popleft()], 0
            while self._waiting and len(taken) + self._in_lane < self._max_queued:
                rows += taken[-1][0].rows
                if rows > self._group_rows:
                    break
                taken.append(self._waiting.popleft())
            return taken

    def _line_up(self, taken: Sequence[tuple[ArrivedRun, Future[Receipt]]]) -> None:
        with translating_errors():
            checked = check_runs([run for run, _ in taken], self._parts())
        ready: list[tuple[Run, str]] = []
        promised: list[Future[Receipt]] = []
        for (run, done), outcome in zip(taken, checked, strict=True):
            if isinstance(outcome, TimeDBError):
                done.set_exception(outcome)
            else:
                ready.append((outcome, run.request_id))
                promised.append(done)
        with self._changed:
            self._in_lane += len(ready)
        for done, committed in zip(promised, self._lane.enqueue(ready), strict=True):
            committed.add_done_callback(self._passing_on(done))

    def _passing_on(self, done: Future[Receipt]) -> Callable[[Future[Receipt]], None]:
        def pass_on(committed: Future[Receipt]) -> None:
            with self._changed:
                self._in_lane -= 1
                self._changed.notify_all()
            error = committed.exception()
            if error is None:
                done.set_result(committed.result())
            else:
                done.set_exception(error)

        return pass_on


class Appends:
    """A stream of runs of one schema.

    Args:
        schema: The columns.
        queue: Where whole runs go.
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
        writer: Writer,
        settings: ServerSettings,
        memory: Memory,
        max_run_bytes: int,
    ) -> None:
        check_columns(without_them(schema))
        self.queue = queue
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
        check_batch(batch, self.rows)
        batch = _lean(batch)
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
        if self.bytes > _SMALL_BYTES:
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
            Busy: the service is stopping.
        """
        announced = self._command.rows
        if announced is not None and announced != self.rows:
            raise IncompleteUpload(f"rows: {announced} were announced, {self.rows} arrived; nothing was written")
        stream = self._stream
        arrived = ArrivedRun(self._command, self._batches, stream.writer, now(), REQUEST_ID.get())
        done = stream.queue.put(arrived)
        done.add_done_callback(lambda _: self.drop())
        return done

    def drop(self) -> None:
        """Forget what has come."""
        self._batches = []
        if self._share is not None:
            self._share.release()


def _lean(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose dictionaries have no entries but its own, so that many can wait, and be put together."""
    columns = [_lean_column(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _lean_column(column: pa.Array) -> pa.Array:
    if not pa.types.is_dictionary(column.type):
        return column
    if len(column.dictionary) > len(column):
        used = pc.unique(column.indices).drop_null()
        codes = pc.index_in(column.indices, used)
        return pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), column.dictionary.take(used))
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)
