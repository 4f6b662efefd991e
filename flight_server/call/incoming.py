"""What clients stream to the server: read so that whatever is wrong with it becomes an error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.flight_server.call.context import CallContext
from timedb.flight_server.call.slots import Lease

__all__ = ["Incoming"]


class Incoming:
    """The client's side of a ``do_put`` or ``do_exchange``.

    Args:
        call: The call.
        context: Says whether the client has given up.
        reader: Batches and metadata from the client.
        what: How an error calls the stream.
        gave_up: What is raised where the client has given up.
        lease: What the stream may take of time.
    """

    def __init__(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        reader: flight.MetadataRecordBatchReader,
        *,
        what: str,
        gave_up: Exception,
        lease: Lease,
    ) -> None:
        self._call = call
        self._context = context
        self._reader = reader
        self._what = what
        self._gave_up = gave_up
        self._lease = lease

    def schema(self) -> pa.Schema:
        """The columns; waits for the first message.

        Raises:
            InvalidRequest: what comes is no Arrow stream, or has names that are not UTF-8.
        """
        schema = self._read(lambda: self._reader.schema)
        # Arrow takes any bytes for the names of columns and time zones, and complains only when they are looked at.
        try:
            _ = schema.names, [getattr(kind, "tz", None) for kind in schema.types]
        except UnicodeDecodeError:
            raise InvalidRequest(f"{self._what}: the schema holds a name that is not UTF-8") from None
        return schema

    def chunks(self) -> Iterator[flight.FlightStreamChunk]:
        """Batches and metadata until the stream ends. **One that breaks off looks the same as one that ends.**

        Raises:
            InvalidRequest: it is no Arrow stream.
            TooLarge: a message does not fit into memory.
            Timeout: the call has had its time, or its client sent nothing for too long.
        """
        while True:
            chunk = self._read(lambda: next(self._reader, None))
            if chunk is None:
                return
            yield chunk

    def _read(self, read: Callable[[], Any]) -> Any:
        self._lease.check()
        self._lease.wait()
        try:
            found = read()
        except MemoryError as error:
            self._call.log.info("unreadable: %s", ascii(error))
            raise TooLarge(f"{self._what}: one message of the stream needs more memory than there is") from None
        except Exception as error:
            # Of what class it is depends on where in the bytes Arrow stumbled.
            self._call.log.info("unreadable: %s", ascii(error))
            if self._context.is_cancelled():
                raise self._gave_up from None
            raise InvalidRequest(f"{self._what}: the stream is not valid Arrow data") from None
        self._lease.check()
        return found
