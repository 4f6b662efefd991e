"""``do_exchange``: a stream of questions becomes a stream of answers, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import LookupCommand
from timedb.flight_server.call.context import CANCELLED, CallContext
from timedb.flight_server.call.incoming import Incoming
from timedb.flight_server.call.pieces import batches_that_fit
from timedb.flight_server.call.slots import Lease

if TYPE_CHECKING:
    from timedb.storage import Tenant

__all__ = ["answer_lookups"]


class _ClientLeft(Exception):
    """Nobody is there any more to tell anything."""


def answer_lookups(
    tenant: Tenant,
    command: LookupCommand,
    call: CallContext,
    context: flight.ServerCallContext,
    reader: flight.MetadataRecordBatchReader,
    writer: flight.MetadataRecordBatchWriter,
    *,
    lease: Lease,
) -> None:
    """Answer each batch that the client sends, until it sends no more.

    A batch is answered before the next is read, so that memory does not grow with the stream; by several batches where
    one would be longer than the client takes. A client therefore reads
    while it writes: one that only writes stalls once the buffers between the two are full.

    Args:
        tenant: Whose values are looked up.
        command: What the client asks for.
        call: The call.
        context: Says whether the client has given up.
        reader: Batches from the client.
        writer: Batches to the client.
        lease: What the lookup may take of time.

    Raises:
        InvalidRequest: what comes is not an Arrow stream, or its rows are refused.
        TimeDBError: the lookup failed otherwise; the batches answered so far have gone out.
    """
    questions = Incoming(call, context, reader, what="lookup", gave_up=_ClientLeft(), lease=lease)
    try:
        lookup = tenant.begin_lookup(command, questions.schema())
        _send(lease, writer.begin, lookup.schema)
        for chunk in questions.chunks():
            if chunk.app_metadata:
                raise InvalidRequest("metadata: a lookup takes batches alone")
            if chunk.data is not None:
                for piece in batches_that_fit(lookup.answer(chunk.data), call.message_bytes):
                    _send(lease, writer.write_batch, piece)
                call.count(chunk.data)
    except _ClientLeft:
        call.end(code=CANCELLED)
        # pyarrow would close it while it cleans up, and write to standard error that this failed.
        with suppress(pa.ArrowException, OSError):
            writer.close()


def _send(lease: Lease, write: Callable[[Any], None], what: pa.Schema | pa.RecordBatch) -> None:
    lease.wait()
    try:
        write(what)
    except (pa.ArrowException, OSError):
        raise _ClientLeft from None
    lease.check()
