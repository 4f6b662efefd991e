"""An upload from its first batch to its receipt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pyarrow as pa

from timedb.contract.errors import TooLarge
from timedb.contract.settings import ServerSettings
from timedb.contract.times import now
from timedb.contract.wire import UploadCommand
from timedb.storage.boundary import translating_errors
from timedb.storage.commit.writes import Write
from timedb.storage.delta.store import Store
from timedb.storage.memory.budget import Memory
from timedb.storage.rows.normalise import check_batch, check_columns
from timedb.storage.rows.probability import without_them
from timedb.storage.write.confirmation import check_confirmed
from timedb.storage.write.large_uploads import LargeUpload
from timedb.storage.write.runs import SkipUnchanged, Writer
from timedb.storage.write.together import SMALL_BYTES, SMALL_ROWS, ArrivedRun, lean

__all__ = ["Upload"]


class Upload:
    """One run on its way in. Nothing is visible before :meth:`commit` returns, nothing is left after :meth:`abort`.

    A small one is kept as it came, and checked in its turn, together with those that wait beside it. From the batch
    on with which it is large it is worked on while it arrives.

    Args:
        command: What the client said of the run.
        schema: The columns of its stream.
        writer: Who uploads.
        store: The folder of the values table.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        submit: Gives a write its turn in the commit lane.
        skip_unchanged: Drops the rows that only repeat their predecessor; used where the command asks for it.
        newest: The greatest change_time that the values have, microseconds since 1970.
        settings: Limits.
        memory: Of which a large upload takes a share.

    Raises:
        InvalidRequest: a column is missing, unknown or of a type that does not fit.
    """

    def __init__(
        self,
        command: UploadCommand,
        schema: pa.Schema,
        *,
        writer: Writer,
        store: Store,
        bucket_digits: int | None,
        submit: Callable[[Write | ArrivedRun], dict[str, Any]],
        skip_unchanged: SkipUnchanged,
        newest: Callable[[], int],
        settings: ServerSettings,
        memory: Memory,
    ) -> None:
        check_columns(without_them(schema))
        self._command = command
        self._writer = writer
        self._store = store
        self._bucket_digits = bucket_digits
        self._submit = submit
        self._skip_unchanged = skip_unchanged if command.skip_unchanged else None
        self._newest = newest
        self._settings = settings
        self._memory = memory
        self._received_time = now()
        self._run_id = command.run_id or str(uuid4())
        self._small_rows = min(SMALL_ROWS, settings.bulk_rows, settings.upload_chunk_rows)
        self._batches: list[pa.RecordBatch] = []
        self._large: LargeUpload | None = None
        self._bytes = 0
        self.received = 0

    @translating_errors()
    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch.

        Raises:
            InvalidRequest: names the column, row and value at fault; of a small upload that comes with its commit.
            TooLarge: the upload is over a limit.
            NotFound: a series does not exist and may not be made.
        """
        batch = check_batch(batch, self.received)
        self._bytes += batch.nbytes
        if self.received + batch.num_rows > self._settings.max_upload_rows:
            raise TooLarge(f"rows: the upload has more than {self._settings.max_upload_rows}, the limit of one upload")
        if self._bytes > self._settings.max_upload_bytes:
            raise TooLarge(
                f"batch: the upload has over {self._settings.max_upload_bytes} bytes, the limit of one upload"
            )
        self.received += batch.num_rows
        if self._large is None and (self.received >= self._small_rows or self._bytes > SMALL_BYTES):
            self._enlarge()
        if self._large is None:
            self._batches.append(lean(batch))
        else:
            self._large.add(batch)

    def _enlarge(self) -> None:
        """Have the upload, with what has come of it, worked on while it arrives."""
        self._large = LargeUpload(
            self._command,
            run_id=self._run_id,
            received_time=self._received_time,
            writer=self._writer,
            store=self._store,
            bucket_digits=self._bucket_digits,
            submit=self._submit,
            skip_unchanged=self._skip_unchanged,
            newest=self._newest(),
            settings=self._settings,
            memory=self._memory,
        )
        for batch in self._batches:
            self._large.add(batch)
        self._batches = []

    @translating_errors()
    def commit(self, marked_rows: int | None) -> dict[str, Any]:
        """Write the run.

        Args:
            marked_rows: How many rows the client says at the end that it sent; None if it did not. The command may
                have said it at the start, and one of them has to.

        Returns:
            The receipt (docs/wire.md, do_put): the run's id, its times, its rows and its series with their ids.

        Raises:
            IncompleteUpload: the client did not confirm what arrived.
            InvalidRequest, NotFound, Conflict: the run is refused.
        """
        check_confirmed(self.received, marked_rows, self._command.rows)
        if self._large is not None:
            return self._large.commit()
        return self._submit(
            ArrivedRun(
                self._command,
                self._run_id,
                self._batches,
                self._writer,
                self._received_time,
                self._skip_unchanged,
                self._writer.catalog.known().units,
            )
        )

    @translating_errors()
    def abort(self) -> None:
        """Forget what has arrived, files included."""
        self._batches = []
        if self._large is not None:
            self._large.abort()
