"""Many runs over one stream, exactly once each: what :meth:`timedb.client.Client.writer` gives."""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from timedb.client.append_stream import Answer, AppendStream, SentRun, together, unanswered
from timedb.client.connection import Connection
from timedb.client.flight_errors import as_timedb_error
from timedb.client.frames import open_data
from timedb.client.receipt import Receipt
from timedb.client.retrying import RETRIED
from timedb.client.selection import Time, message_of
from timedb.contract.errors import InvalidRequest, OutcomeUnknown, TimeDBError
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.waiting import wait_in_slices
from timedb.contract.wire import AppendedUpload, quoted

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from timedb.client.wide_frames import Wide

__all__ = ["Writer"]

_ATTEMPTS = 4  # of a run that the server says it could not take now
_IDLE_SECONDS = 10.0
_MAX_QUEUED_RUNS = 256
_MAX_QUEUED_BYTES = 64 << 20
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.1, 5.0


@dataclass
class _Pending:
    run: SentRun
    done: Future[Receipt] = field(default_factory=Future)
    attempts: int = 1
    may_be_in: bool = False


class Writer:
    """Writes many runs over one stream, as ``client.writer(…)`` gives it. Thread-safe; a context manager.

    Runs are committed together with whatever else waits, in the order of the calls. A lost connection is made anew and
    what has no answer is sent again under its run_id, so that each run is in once, whatever happened in between.
    """

    def __init__(self, connection: Connection, fields: Mapping[str, Any]) -> None:
        message_of(AppendedUpload, {**fields, "run_id": "any"})  # what is wrong with them is said at once
        self._connection = connection
        self._fields = fields
        self._changed = threading.Condition()
        self._pending: dict[int, _Pending] = {}  # by seq, in its order: all that have no answer
        self._queue: deque[int] = deque()  # those of them that are yet to be sent
        self._queued_bytes = 0
        self._next_seq = 0
        self._stream: AppendStream | None = None
        self._failure: TimeDBError | None = None
        self._failing_since: float | None = None
        self._failures = 0
        self._first_error: TimeDBError | None = None
        self._withdrawn: list[str] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    def upload(
        self,
        data: Any,
        *,
        wide: Wide = False,
        run_id: str | UUID | None = None,
        run_start_time: Time | None = None,
        run_finish_time: Time | None = None,
        known_time: Time | None = None,
        run_params: Mapping[str, Any] | None = None,
    ) -> Future[Receipt]:
        """Send one run, and do not wait for it; arguments as of :meth:`timedb.client.Client.upload`.

        It waits only while the server takes no more. Data that can be read once is read at once.

        Returns:
            The receipt, or the error, once the run is durable or refused: ``.result()`` waits for it.

        Raises:
            InvalidRequest: the data is not tabular, a column is missing or unknown, a field does not fit.

        Examples:
            >>> day = datetime(2025, 1, 1, tzinfo=UTC)
            >>> with client.writer(workflow_id="meters") as writer:
            ...     for hour in range(3):
            ...         time = day + timedelta(hours=hour)
            ...         rows = pl.DataFrame({"series_key": "meter", "valid_time": [time], "value": [1.5]})
            ...         receipt = writer.upload(rows, run_id=f"meter-{hour}", known_time=time)
            >>> receipt.result().rows
            1
        """
        fields = {
            **self._fields,
            "run_id": run_id or str(uuid4()),
            "run_start_time": run_start_time,
            "run_finish_time": run_finish_time,
            "known_time": known_time,
            "run_params": run_params,
        }
        pending = _Pending(_run_of(message_of(AppendedUpload, fields), data, wide))
        wait_in_slices(self._has_room)
        with self._changed:
            if self._closed:
                raise InvalidRequest("writer: is closed")
            self._line_up(pending)
        return pending.done

    def flush(self) -> None:
        """Wait until every run so far has its receipt or its error."""
        wait_in_slices(self._is_settled)

    def close(self) -> None:
        """Wait until every run has its answer, and end the stream; a second time does nothing.

        Raises:
            TimeDBError: the first that a run was refused with, if one was.
        """
        self._end()
        texts, self._withdrawn = self._withdrawn, []
        for text in texts:
            warnings.warn(text, UserWarning, stacklevel=2)
        error, self._first_error = self._first_error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self._end()

    def _end(self) -> None:
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _is_settled(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, seconds)

    def _has_room(self, seconds: float) -> bool:
        def has_room() -> bool:
            return self._closed or (len(self._queue) < _MAX_QUEUED_RUNS and self._queued_bytes < _MAX_QUEUED_BYTES)

        with self._changed:
            return self._changed.wait_for(has_room, seconds)

    def _line_up(self, pending: _Pending) -> None:
        self._pending[self._next_seq] = pending
        self._queue.append(self._next_seq)
        self._queued_bytes += pending.run.bytes
        self._next_seq += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name="timedb-writer", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    # What the thread does that sends.

    def _send_all(self) -> None:
        while (seq := self._next()) is not None:
            self._send(seq, self._pending[seq])
        if (stream := self._stream) is not None:
            stream.finish()

    def _next(self) -> int | None:
        """The next run to be sent; None: there will be none. Streams that are lost, or idle, are let go meanwhile."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_something_to_do, _IDLE_SECONDS)
                failure, stream = self._failure, self._stream
                if failure is None and self._queue:
                    seq = self._queue.popleft()
                    self._queued_bytes -= self._pending[seq].run.bytes
                    self._changed.notify_all()
                    return seq
                if failure is None and self._closed and not self._pending:
                    return None
                is_idle = not self._pending
            if failure is not None:
                self._recover(failure)
            elif stream is not None and is_idle:
                stream.finish()

    def _has_something_to_do(self) -> bool:
        return self._failure is not None or bool(self._queue) or (self._closed and not self._pending)

    def _send(self, seq: int, pending: _Pending) -> None:
        before = self._stream
        if before is not None and not before.takes(pending.run.schema):
            before.finish()  # so that the runs of both are in their order, too
        with self._changed:
            if self._failure is not None:
                return  # it is among those that are sent again
            stream = self._stream
        if stream is None:
            schema = pending.run.schema if before is None else _common(before.schema, pending.run.schema)
            try:
                stream = self._stream = AppendStream(self._connection, schema)
            except (pa.ArrowException, OSError) as error:
                return self._fail(as_timedb_error(error, self._connection.url))
            stream.start(self._answered, self._ended)
        try:
            stream.write(seq, pending.run)
        except pa.ArrowInvalid as error:  # of the run itself, such as a batch of over 2 GiB
            stream.finish()
            self._settle(seq, InvalidRequest(f"data: {error}"))
        except (pa.ArrowException, OSError):
            stream.finish()  # why it is lost is what its other side has heard

    def _recover(self, failure: TimeDBError) -> None:
        """The stream is gone: line up again what it has left unanswered, or give it up."""
        now = time.monotonic()
        with self._changed:
            self._failure = None
            since = self._failing_since = self._failing_since or now
            lost = sorted(self._pending.keys() - set(self._queue))
            for seq in lost:
                self._pending[seq].may_be_in |= isinstance(failure, OutcomeUnknown)
            again = isinstance(failure, RETRIED) and now - since < self._connection.timeout_seconds
            if again:
                self._queue = deque(sorted(self._pending))
                self._queued_bytes = sum(pending.run.bytes for pending in self._pending.values())
            self._failures += 1
            pause = random.uniform(0, min(_MAX_PAUSE_SECONDS, _PAUSE_SECONDS * 2.0 ** min(self._failures, 10)))
        if again:
            time.sleep(pause)
            return
        self._failing_since, self._failures = None, 0
        for seq in lost:
            self._settle(seq, _given_up(failure, self._pending[seq]))

    # What the thread does that reads.

    def _answered(self, seq: int, answer: Answer) -> None:
        with self._changed:
            pending = self._pending.get(seq)
            if pending is None:
                return
            if not isinstance(answer, TimeDBError):
                self._failing_since, self._failures = None, 0
            elif isinstance(answer, RETRIED) and pending.attempts < _ATTEMPTS:
                del self._pending[seq]
                pending.attempts += 1
                pending.may_be_in |= isinstance(answer, OutcomeUnknown)
                return self._line_up(pending)
        self._settle(seq, answer)

    def _settle(self, seq: int, answer: Answer) -> None:
        pending = self._pending[seq]
        if isinstance(answer, TimeDBError):
            self._first_error = self._first_error or answer
            pending.done.set_exception(answer)
        else:
            receipt = Receipt.from_message(answer)
            if text := receipt.withdrawal_text("restore_run"):
                self._withdrawn.append(text)
            pending.done.set_result(receipt)
        with self._changed:
            del self._pending[seq]
            self._changed.notify_all()

    def _ended(self, stream: AppendStream, failure: TimeDBError | None) -> None:
        with self._changed:
            self._stream = None
            if failure is None and len(self._pending) > len(self._queue):
                failure = unanswered(self._connection.url)
            if failure is not None:
                self._fail(failure)
            self._changed.notify_all()

    def _fail(self, failure: TimeDBError) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()


def _common(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The columns of a stream for runs like the two; those of the other where no stream may have both."""
    both = together(one, other)
    return other if all(name in both.names for name in PROBABILITY_COLUMNS) else both


def _given_up(failure: TimeDBError, pending: _Pending) -> TimeDBError:
    if not (pending.may_be_in and isinstance(failure, RETRIED)):
        return failure
    return OutcomeUnknown(
        f"{failure.detail}; upload the same again with run_id={pending.run.command.run_id!r} to settle it",
        request_id=failure.request_id,
    )


def _run_of(command: AppendedUpload, data: Any, wide: Wide) -> SentRun:
    reader = open_data(data, wide=wide).open()
    names = reader.schema.names
    # Its stream may have columns that it lacks, so the server would not miss them.
    for name in ("valid_time", "value"):
        if name not in names:
            raise InvalidRequest(f"{name}: the column is missing; there are {quoted(', '.join(names))}")
    if "series_id" not in names and "series_key" not in names:
        raise InvalidRequest(f"series_key: the column is missing (or series_id); there are {quoted(', '.join(names))}")
    if "labels" in names and "series_key" not in names:
        raise InvalidRequest("labels: the column stands beside series_key, which is missing")
    nothing = pa.RecordBatch.from_arrays([pa.nulls(0, kind) for kind in reader.schema.types], schema=reader.schema)
    return SentRun(command, reader.schema, list(reader) or [nothing])
