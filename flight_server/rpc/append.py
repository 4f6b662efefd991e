"""``append`` over ``do_exchange``: a stream of runs, each answered as soon as it is durable."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import Busy, IncompleteUpload, InvalidRequest, TimeDBError, Timeout
from timedb.contract.settings import ServerSettings
from timedb.contract.wire import AppendedRun, AppendedUpload, AppendEnd, parse
from timedb.flight_server.call.audit import facts_of, require_room, write_line
from timedb.flight_server.call.context import CANCELLED, CallContext
from timedb.flight_server.call.errors import as_timedb_error
from timedb.flight_server.call.incoming import Incoming
from timedb.flight_server.call.slots import Gate, Lease
from timedb.flight_server.rpc.append_answers import AppendAnswers
from timedb.flight_server.rpc.append_room import AppendRoom

if TYPE_CHECKING:
    from timedb.storage import Appends, ArrivingRun, Tenant

__all__ = ["AppendStream"]

_REMEMBERED = 1024  # runs that were refused, of which more batches may be on their way


class _ClientLeft(Exception):
    """Nobody is there any more to send anything."""


class AppendStream:
    """The client's side of one stream of runs.

    A run counts once its last batch is there, whatever becomes of the stream: its client said that it is whole.

    Args:
        call: The call.
        context: Says whether the client has given up.
        reader: Batches from the client, each with the metadata :class:`AppendedRun`.
        writer: Answers to the client.
        settings: Limits.
        whole: What all streams of the server together may have waiting.
        gate: Closed when the server stops.
    """

    def __init__(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
        *,
        settings: ServerSettings,
        whole: AppendRoom,
        gate: Gate,
    ) -> None:
        self._call = call
        self._context = context
        self._reader = reader
        self._settings = settings
        self._whole = whole
        self._gate = gate
        self._most_bytes = min(settings.max_append_bytes_per_stream, settings.max_append_bytes)
        self._room = AppendRoom(
            min(settings.max_append_in_flight_per_stream, settings.max_append_in_flight), self._most_bytes
        )
        self._answers = AppendAnswers(call, writer)
        self._open: tuple[int, AppendedUpload, ArrivingRun] | None = None
        self._last_seq = -1
        self._refused: deque[int] = deque(maxlen=_REMEMBERED)
        self.runs = 0

    def receive(self, tenant: Tenant, lease: Lease, *, created_by: str | None) -> None:
        """Read the stream to its end, and hand over what comes whole.

        Raises:
            InvalidRequest: it is no Arrow stream, its columns are none of an upload, or a message belongs to no run.
            Timeout, Busy, Unauthenticated: the stream is to be made anew.
        """
        incoming = Incoming(self._call, self._context, self._reader, what="append", gave_up=_ClientLeft(), lease=lease)
        try:
            appends = tenant.begin_appends(incoming.schema(), created_by=created_by, max_run_bytes=self._most_bytes)
            self._wait_for_room(lease)
            for chunk in incoming.chunks():
                if self._is_end(chunk):
                    break
                self._take(appends, chunk)
                self._wait_for_room(lease)
        except _ClientLeft:
            self._answers.leave()
            self._call.end(code=CANCELLED)
        finally:
            self._break_off("the stream ended before the last batch of the run; nothing of it was written")

    def finish(self) -> None:
        """Wait until all that came whole has been committed and answered."""
        self._room.wait_for_none()
        self._answers.close()

    def _wait_for_room(self, lease: Lease) -> None:
        if self._gate.closed:
            raise Busy("the server is stopping; go on with a new stream")
        check = partial(self._check_wait, lease)
        held = 0 if self._open is None else self._open[2].bytes
        self._room.wait(held, check)
        self._whole.wait(check=check)

    def _check_wait(self, lease: Lease) -> None:
        lease.check()
        if self._answers.stalled_seconds > self._settings.max_idle_seconds:
            raise Timeout(f"the client took no answer for {self._settings.max_idle_seconds:g} seconds")

    def _is_end(self, chunk: flight.FlightStreamChunk) -> bool:
        if chunk.app_metadata is None or (chunk.data is not None and chunk.data.num_rows):
            return False
        with suppress(TimeDBError):
            most = self._settings.max_message_bytes
            parse(AppendEnd, chunk.app_metadata.to_pybytes(), what="metadata", max_bytes=most)
            return True
        return False

    def _take(self, appends: Appends, chunk: flight.FlightStreamChunk) -> None:
        body = b"" if chunk.app_metadata is None else chunk.app_metadata.to_pybytes()
        try:
            message = parse(AppendedRun, body, what="metadata", max_bytes=self._settings.max_message_bytes)
        except TimeDBError as error:
            seq = _seq_of(body)
            if seq is None:
                raise
            return self._take_unreadable(seq, error)
        if self._open is not None and self._open[0] != message.seq:
            self._break_off(f"seq: {message.seq} came before the last batch of the run; nothing of it was written")
        if self._open is None and not self._begin(appends, message):
            return
        self._go_on(message, chunk.data)

    def _take_unreadable(self, seq: int, error: TimeDBError) -> None:
        if self._open is not None and self._open[0] == seq:
            return self._refuse(error)
        self._break_off(f"seq: {seq} came before the last batch of the run; nothing of it was written")
        self._last_seq = max(self._last_seq, seq)
        self._refused.append(seq)
        self._answer_error(seq, None, error)

    def _begin(self, appends: Appends, message: AppendedRun) -> bool:
        seq = message.seq
        if message.upload is None and seq in self._refused:
            return False  # the rest of a run that has its answer
        fault = None
        if seq <= self._last_seq:
            fault = f"seq: {seq} does not come after {self._last_seq}; the runs of a stream are numbered upwards"
        elif message.upload is None:
            fault = f"upload: is missing; it stands on the first batch of run {seq}"
        self._last_seq = max(self._last_seq, seq)
        if fault is not None or message.upload is None:
            self._refused.append(seq)
            self._answer_error(seq, message.upload, InvalidRequest(fault or ""))
            return False
        self._open = seq, message.upload, appends.begin(message.upload)
        return True

    def _go_on(self, message: AppendedRun, batch: pa.RecordBatch | None) -> None:
        assert self._open is not None
        seq, upload, run = self._open
        try:
            if message.upload is not None and message.upload is not upload:
                raise InvalidRequest(f"upload: stands on the first batch of run {seq} alone")
            if batch is None:
                raise InvalidRequest(f"batch: a message of run {seq} has none")
            run.add(batch)
            self._call.count(batch)
            if not message.more:
                require_room()
                done = run.finish()
                self._open = None
                self._wait_for(seq, upload, run, done)
        except TimeDBError as error:
            self._refuse(error)

    def _wait_for(self, seq: int, upload: AppendedUpload, run: ArrivingRun, done: Future[dict[str, Any]]) -> None:
        self.runs += 1
        self._room.take(run.bytes)
        self._whole.take(run.bytes)
        done.add_done_callback(partial(self._answer, seq, upload, run.bytes))

    def _answer(self, seq: int, upload: AppendedUpload, size: int, done: Future[dict[str, Any]]) -> None:
        """Called where the run has been committed or refused: must not wait."""
        self._whole.give_back(size)
        sent = partial(self._room.give_back, size)
        error = done.exception()
        if error is not None:
            return self._answer_error(seq, upload, as_timedb_error(error), sent)
        try:
            self._audit(upload, "ok", done.result())
        finally:
            self._answers.receipt(seq, done.result(), sent)

    def _break_off(self, why: str) -> None:
        if self._open is not None:
            self._refuse(IncompleteUpload(why))

    def _refuse(self, error: TimeDBError) -> None:
        assert self._open is not None
        seq, upload, run = self._open
        self._open = None
        run.drop()
        self._refused.append(seq)
        self._answer_error(seq, upload, error)

    def _answer_error(
        self, seq: int, upload: AppendedUpload | None, error: TimeDBError, sent: Any = lambda: None
    ) -> None:
        try:
            self._audit(upload, error.code, None)
        finally:
            self._answers.error(seq, error, sent)

    def _audit(self, upload: AppendedUpload | None, code: str, receipt: dict[str, Any] | None) -> None:
        call = self._call
        if call.caller is not None:
            write_line(
                principal=call.caller.principal,
                tenant_id=call.caller.tenant_id,
                method="do_exchange/append",
                code=code,
                request_id=call.request_id,
                peer=call.peer,
                facts={} if upload is None else facts_of(upload, receipt),
            )


def _seq_of(body: bytes) -> int | None:
    """Which run a message is about that cannot be read; None where it does not even say that."""
    with suppress(ValueError, RecursionError):
        message = json.loads(body)
        seq = message.get("seq") if isinstance(message, dict) else None
        if type(seq) is int and 0 <= seq < 1 << 63:
            return seq
    return None
