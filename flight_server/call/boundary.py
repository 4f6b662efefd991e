"""The edge of the server: every RPC and every stream passes through here, and only Flight errors leave.

pyarrow formats any other exception, with its traceback and the paths in it, into the message that the client gets.
So :func:`rpc` wraps each method and :func:`guarded_stream` each stream; both catch everything (the panics of Polars
and deltalake are no ``Exception``), log it under the request id and raise what
:mod:`timedb.flight_server.call.errors` makes of it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import Internal, TimeDBError
from timedb.contract.request_id import REQUEST_ID
from timedb.flight_server.call.ahead import ReadAhead
from timedb.flight_server.call.context import CANCELLED, CallContext, RequestId
from timedb.flight_server.call.errors import as_timedb_error, to_flight_error
from timedb.flight_server.call.pieces import batches_that_fit, check_fits
from timedb.flight_server.call.slots import Lease

__all__ = ["MIDDLEWARE_KEY", "guarded_results", "guarded_stream", "rpc"]

MIDDLEWARE_KEY = "timedb"
"""Under which the server registers :class:`~timedb.flight_server.call.context.RequestIds`."""

_BATCHES_AT_ONCE = 2

T = TypeVar("T")
ToWire = Callable[[TimeDBError, str], Exception]


class _Gated(Protocol):
    def admit(self, call: CallContext) -> None:
        """Let the call in, or raise a TimeDBError."""


def rpc(method: str, to_wire: ToWire = to_flight_error) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make an RPC of a method that takes a :class:`CallContext` first.

    The call ends when the method returns, unless it returns a stream: then when the stream does.

    Args:
        method: How the log calls it.
        to_wire: Makes the error that is raised.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def guarded(server: _Gated, context: flight.ServerCallContext, *args: object) -> Any:
            call: CallContext | None = None
            try:
                middleware: RequestId = context.get_middleware(MIDDLEWARE_KEY)
                REQUEST_ID.set(middleware.request_id)
                call = CallContext(method, middleware.request_id, context.peer(), middleware.credentials)
                call.message_bytes = middleware.message_bytes
                server.admit(call)
                result = handler(server, call, context, *args)
                if not isinstance(result, flight.FlightDataStream):
                    call.end()
            except BaseException as error:
                if call is None:
                    raise to_wire(Internal(), "-") from None
                call.end(error)
                raise to_wire(as_timedb_error(error), call.request_id) from None
            return result

        return guarded

    return decorate


def guarded_stream(
    call: CallContext,
    reader: pa.RecordBatchReader,
    lease: Lease,
    compression: str | None = None,
    *,
    read_ahead: bool = True,
) -> flight.GeneratorStream:
    """A reader as the stream of a ``do_get``; the call ends with it, also when the client just goes away.

    An error raised inside a ``RecordBatchStream`` loses its class and ``extra_info`` and shows its traceback, and a
    ``GeneratorStream`` of plain batches cannot send dictionaries. A ``GeneratorStream`` of one reader does both right,
    as long as that reader only ever *ends*: so it keeps its error, and the generator raises it afterwards.

    Batches go out in pieces that the client takes.

    Args:
        call: The call that the stream belongs to.
        reader: The batches; its schema is the stream's.
        lease: What the stream may take of time.
        compression: ``lz4`` or ``zstd``, of the buffers; None: none.
        read_ahead: Whether batches of a long answer are made on a thread of their own.

    Raises:
        TooLarge: there are more columns than fit into a message.
    """
    check_fits(len(reader.schema.serialize()), call.message_bytes, "columns")
    batches = _Batches(call, reader, lease, read_ahead=read_ahead)
    return flight.GeneratorStream(reader.schema, _parts(batches, pa.ipc.IpcWriteOptions(compression=compression)))


def guarded_results(call: CallContext, results: Iterable[T]) -> Iterator[T]:
    """What an RPC answers, with our errors, while pyarrow takes it one by one."""
    try:
        yield from results
    except BaseException as error:
        call.log.info("%s: the answer broke off: %s", call.method, ascii(error))
        raise to_flight_error(as_timedb_error(error), call.request_id) from None


def _parts(batches: _Batches, options: pa.ipc.IpcWriteOptions) -> Iterator[flight.RecordBatchStream]:
    # The options of the outer stream would count for nothing.
    yield flight.RecordBatchStream(pa.RecordBatchReader.from_batches(batches.schema, batches), options=options)
    if batches.failure is not None:
        raise batches.failure


class _Batches:
    """The batches of a reader, as an iterator that ends where the reader fails."""

    def __init__(self, call: CallContext, reader: pa.RecordBatchReader, lease: Lease, *, read_ahead: bool) -> None:
        self.failure: Exception | None = None
        self.schema = reader.schema
        self._call = call
        self._lease = lease
        self._read: Callable[[], pa.RecordBatch] | None = reader.read_next_batch
        self._reader: pa.RecordBatchReader | None = reader
        self._stop_ahead: Callable[[], object] = lambda: None
        self._may_read_ahead = read_ahead
        self._pieces: Iterator[pa.RecordBatch] = iter(())
        self._given = 0
        # A generator's `finally` would not do: it never runs if the client goes before the first batch.
        weakref.finalize(self, call.end, code=CANCELLED).atexit = False
        lease.wait()

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> pa.RecordBatch:
        if self._read is None:
            raise StopIteration
        try:
            self._lease.check()
            batch = next(self._pieces, None)
            while batch is None:
                self._pieces = batches_that_fit(self._next_batch(self._read), self._call.message_bytes)
                batch = next(self._pieces, None)
            self._call.count(batch)
            self._lease.wait()
        except StopIteration:
            self._let_go()
            self._call.end()
            raise
        except BaseException as error:
            self._let_go()
            self.failure = to_flight_error(as_timedb_error(error), self._call.request_id)
            self._call.end(error)
            raise StopIteration from None
        return batch

    def _next_batch(self, read: Callable[[], pa.RecordBatch]) -> pa.RecordBatch:
        if self._given == _BATCHES_AT_ONCE and self._may_read_ahead:
            self._read_ahead()
            read = self._read or read
        batch = read()
        if not batch.schema.equals(self.schema):
            # Arrow would only find out while it writes, out of our reach.
            raise Internal(f"a batch of schema {batch.schema} in a stream of {self.schema}")
        self._given += 1
        return batch

    def _read_ahead(self) -> None:
        """From here on, on a thread; most answers are short, and never come here."""
        ahead = ReadAhead(self._reader)
        self._read, self._reader = ahead.take, None
        # Called at the end, too: until then the interpreter itself holds what is ahead, and with it whatever the error
        # that ended the batches has passed through, this object included.
        self._stop_ahead = finalizer = weakref.finalize(self, ahead.stop)
        finalizer.atexit = False

    def _let_go(self) -> None:
        self._read = self._reader = None
        self._pieces = iter(())
        self._stop_ahead()
