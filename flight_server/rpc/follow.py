"""``follow``: rows as they are committed, each batch with the token of what follows it, without end."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import flight

from timedb.contract.columns import META_HEARTBEAT, decoded
from timedb.contract.errors import Busy
from timedb.contract.wire import FollowTicket
from timedb.flight_server.call.context import CANCELLED, CallContext, end_if_gone
from timedb.flight_server.call.errors import as_timedb_error, to_flight_error
from timedb.flight_server.call.messages import to_json
from timedb.flight_server.call.pieces import batches_that_fit, check_fits
from timedb.flight_server.call.plain import plain_schema
from timedb.flight_server.call.slots import Gate, Lease

if TYPE_CHECKING:
    from timedb.storage import Follower, Memory

__all__ = ["FollowStream"]

_SLICE_SECONDS = 0.25
"""How often a stream that waits asks whether its server stops or its client has gone."""

Message = tuple[pa.RecordBatch, bytes]


class FollowStream:
    """What one client is told; its call ends with the stream, also when the client goes away.

    Args:
        call: The call that it belongs to.
        context: Says whether the client has gone.
        ticket: What is followed.
        follower: Where the client stands; left when the call ends.
        lease: Says, where it is checked, whether the key is still what it was.
        memory: Of which what is read takes a share.
        gate: Closed when the server stops.
        heartbeat_seconds: After which the client hears that nothing is new.
    """

    def __init__(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        ticket: FollowTicket,
        follower: Follower,
        *,
        lease: Lease,
        memory: Memory,
        gate: Gate,
        heartbeat_seconds: float,
    ) -> None:
        call.hold(follower.leave)
        self._call = call
        self._context = context
        self._ticket = ticket
        self._follower = follower
        self._lease = lease
        self._memory = memory
        self._gate = gate
        self._heartbeat_seconds = heartbeat_seconds
        self._schema = plain_schema(follower.schema).with_metadata({META_HEARTBEAT: f"{heartbeat_seconds:g}".encode()})
        self._token = follower.token
        self._said = time.monotonic()  # when the last message was made
        self._is_told = False

    def stream(self) -> flight.GeneratorStream:
        """It as the answer of a ``do_get``.

        Raises:
            TooLarge: there are more columns than fit into a message.
        """
        check_fits(len(self._schema.serialize()), self._call.message_bytes, "columns")
        options = pa.ipc.IpcWriteOptions(compression=self._ticket.compression)
        return flight.GeneratorStream(self._schema, _Guarded(self._call, self._messages()), options=options)

    def _messages(self) -> Iterator[Message]:
        self._check()
        yield from self._news()
        if not self._is_told:
            yield self._heartbeat()
        while self._ticket.wait:
            if self._wait():
                yield from self._news()
            if self._is_due:
                yield self._heartbeat()

    @property
    def _is_due(self) -> bool:
        return self._left <= 0

    @property
    def _left(self) -> float:
        """Seconds until the client is to hear something."""
        return self._heartbeat_seconds - time.monotonic() + self._said

    def _wait(self) -> bool:
        """Wait for something new; whether it is there, else it is time to say that it is not."""
        while not self._follower.is_behind and not self._is_due:
            self._follower.wait(max(0.0, min(_SLICE_SECONDS, self._left)))
            self._check_both_are_there()
        return self._follower.is_behind

    def _news(self) -> Iterator[Message]:
        while self._follower.is_behind:
            if not self._ticket.rows:
                self._follower.skip()
                self._token = self._follower.token
                yield self._heartbeat()
                continue
            passage = self._follower.passage()
            with self._memory.share("ticket", passage.memory_bytes, self._lease.check) as share:
                passage.hold(share.grow)
                for followed in passage:
                    if followed is None:
                        if self._is_due:
                            yield self._heartbeat()
                        continue
                    rows, sent = self._plain(followed.rows), 0
                    for piece in batches_that_fit(rows, self._call.message_bytes):
                        sent += piece.num_rows
                        self._check()
                        yield self._message(piece, followed.token(sent))
            self._token = self._follower.token

    def _heartbeat(self) -> Message:
        self._check()
        return self._message(pa.RecordBatch.from_pylist([], self._schema), self._token)

    def _message(self, batch: pa.RecordBatch, token: str) -> Message:
        self._said, self._token, self._is_told = time.monotonic(), token, True
        self._call.count(batch)
        self._lease.wait()
        return batch, to_json({"token": token})

    def _plain(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        columns = [decoded(rows.column(name)) for name in self._schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _check(self) -> None:
        self._lease.check()
        self._check_both_are_there()

    def _check_both_are_there(self) -> None:
        if self._gate.closed:
            raise Busy("the server is stopping; go on from the last token")
        end_if_gone(self._call, self._context)


class _Guarded:
    """Messages as an iterator that raises Flight errors alone."""

    def __init__(self, call: CallContext, messages: Iterator[Message]) -> None:
        self._call = call
        self._messages = messages
        # A generator's `finally` would not do: it never runs if the client goes before the first message.
        weakref.finalize(self, call.end, code=CANCELLED).atexit = False

    def __iter__(self) -> _Guarded:
        return self

    def __next__(self) -> Message:
        try:
            return next(self._messages)
        except StopIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.end(error)
            raise to_flight_error(as_timedb_error(error), self._call.request_id) from None
