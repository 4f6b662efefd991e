"""``do_put``: a stream of batches becomes one upload, if the client says that it is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import IncompleteUpload, Internal, OutcomeUnknown, TimeDBError, TooLarge
from timedb.contract.wire import CommitMarker, parse
from timedb.flight_server.call.context import CallContext
from timedb.flight_server.call.incoming import Incoming
from timedb.flight_server.call.messages import to_json
from timedb.flight_server.call.pieces import pieces_of
from timedb.flight_server.call.slots import Lease
from timedb.flight_server.sql.messages import DoPutUpdateResult

__all__ = ["PROGRESS_ROWS", "UploadStream"]

PROGRESS_ROWS = 1_000_000
"""Rows after which the client is told how many have arrived. So few messages fit any flow-control window, so that a
client that reads none of them cannot stall the server."""


class Received(Protocol):
    """What takes the batches of a stream: a run, or a table of corrections."""

    received: int

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch."""

    def commit(self, marked_rows: int | None) -> dict[str, Any]:
        """Write all of it; the receipt."""

    def abort(self) -> None:
        """Forget what has come so far."""


class UploadStream:
    """The client's side of one ``do_put``.

    A stream that breaks off looks like one that ends, even after ``kill -9``. So it counts only if ``rows`` in the
    command or a commit marker as the very last message confirms what arrived.

    Args:
        call: The call.
        context: Says whether the client has given up.
        reader: Batches and metadata from the client.
        writer: Metadata to the client.
        lease: What the upload may take of time.
        max_message_bytes: The most that a metadata message may have.
        is_ingestion: It is one of Flight SQL, whose drivers confirm no count: it is whole where its client has ended it
            and is still there to wait for the answer, for a call that broke off is cancelled by then.
    """

    def __init__(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
        *,
        lease: Lease,
        max_message_bytes: int,
        is_ingestion: bool = False,
    ) -> None:
        self._call = call
        self._context = context
        self._incoming = Incoming(call, context, reader, what="upload", gave_up=_gave_up(), lease=lease)
        self._writer = writer
        self._lease = lease
        self._max_message_bytes = max_message_bytes
        self._is_ingestion = is_ingestion

    def receive(self, begin: Callable[[pa.Schema], Received]) -> dict[str, Any]:
        """Read the stream to its end and commit it.

        Args:
            begin: Begins what takes the batches, by their columns.

        Returns:
            The receipt.

        Raises:
            IncompleteUpload: it broke off, or was not confirmed; nothing was written.
            InvalidRequest: it is not an Arrow stream, or its rows are refused; nothing was written.
            TimeDBError: the upload failed otherwise.
        """
        upload = begin(self._incoming.schema())
        try:
            marker = self._add_all(upload)
            self._lease.check()
            if self._context.is_cancelled():
                raise _gave_up()
        except BaseException:
            self._abort(upload)
            raise
        try:
            told = upload.received if self._is_ingestion else None
            return upload.commit(told if marker is None else marker.rows)
        except TimeDBError as error:
            # Of any other error it is not certain that the log does not refer to the files that an abort deletes.
            if not isinstance(error, OutcomeUnknown | Internal):
                self._abort(upload)
            raise

    def acknowledge(self, receipt: dict[str, Any]) -> None:
        """Send the receipt, in pieces where it names many series.

        The upload is committed, so nothing here is an error, neither a client that has left nor a name too long for it.
        """
        try:
            self._send(receipt)
        except (pa.ArrowException, OSError) as error:
            self._call.log.info("the client left before its receipt: %s", ascii(error))

    def _send(self, receipt: dict[str, Any]) -> None:
        if self._is_ingestion:
            self._writer.write(DoPutUpdateResult(receipt["rows"]).to_bytes())
            return
        try:
            for piece in pieces_of(receipt, self._call.message_bytes):
                self._writer.write(piece)
        except TooLarge:
            self._writer.write(to_json({**receipt, "series_ids": {}, "series": [], "series_omitted": True}))

    def _add_all(self, upload: Received) -> CommitMarker | None:
        marker: CommitMarker | None = None
        announced = PROGRESS_ROWS
        for chunk in self._incoming.chunks():
            if marker is not None:
                raise IncompleteUpload("the stream goes on after the commit marker; nothing was written")
            if chunk.data is not None:
                upload.add(chunk.data)
                self._call.count(chunk.data)
            if upload.received >= announced and not self._is_ingestion:
                announced = upload.received + PROGRESS_ROWS
                self._progress(upload.received)
            if chunk.app_metadata:
                body = chunk.app_metadata.to_pybytes()
                marker = parse(CommitMarker, body, what="metadata", max_bytes=self._max_message_bytes)
        return marker

    def _progress(self, received: int) -> None:
        try:
            self._writer.write(to_json({"received": received}))
        except (pa.ArrowException, OSError) as error:
            self._call.log.info("the client left: %s", ascii(error))
            raise _gave_up() from None

    def _abort(self, upload: Received) -> None:
        try:
            upload.abort()
        except TimeDBError as error:
            # What the client has to know is why the upload failed.
            self._call.log.error("the upload could not be aborted", exc_info=error)


def _gave_up() -> IncompleteUpload:
    return IncompleteUpload("the client gave up; nothing was written")
