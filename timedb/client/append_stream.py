"""One stream of runs as the client sees it: runs go out, answers come in on a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.client.flight_errors import as_timedb_error
from timedb.contract.errors import Internal, OutcomeUnknown, TimeDBError, error_for_code
from timedb.contract.message_sizes import joined
from timedb.contract.wire import AppendCommand, AppendedRun, AppendedUpload, AppendEnd

if TYPE_CHECKING:
    from timedb.client.connection import Connection

__all__ = ["Answer", "AppendStream", "SentRun", "together", "unanswered"]

Answer = dict[str, Any] | TimeDBError


@dataclass(frozen=True)
class SentRun:
    """A run, kept until it is answered, so that it can be sent again.

    Attributes:
        command: What is said of it.
        schema: Its columns.
        batches: Its rows; one of none where it has none.
    """

    command: AppendedUpload
    schema: pa.Schema
    batches: Sequence[pa.RecordBatch]

    @cached_property
    def bytes(self) -> int:
        """How many its rows take."""
        return sum(batch.nbytes for batch in self.batches)


class AppendStream:
    """A stream of runs of one schema.

    Args:
        connection: The caller's.
        schema: Of all batches.

    Raises:
        pa.ArrowException, OSError: it cannot be opened.
    """

    def __init__(self, connection: Connection, schema: pa.Schema) -> None:
        self.schema = schema
        self._url = connection.url
        descriptor = flight.FlightDescriptor.for_command(AppendCommand().to_bytes())
        self._writer, self._reader = connection.flight_client.do_exchange(descriptor, connection.options(long=True))
        self._thread: threading.Thread | None = None
        self._begun = False

    def start(
        self,
        answered: Callable[[int, Answer], object],
        ended: Callable[[AppendStream, TimeDBError | None], object],
    ) -> None:
        """Read answers, on a thread.

        Args:
            answered: Called there with each ``seq`` and its receipt or error.
            ended: Called there once, after all answers, with what the stream failed with; None: it has ended in order.
        """
        self._thread = threading.Thread(
            target=self._read, args=(answered, ended), name="timedb-append-answers", daemon=True
        )
        self._thread.start()

    def takes(self, schema: pa.Schema) -> bool:
        """Whether a run of these columns can go over it: those that it lacks are sent as nulls."""
        return bool(together(self.schema, schema) == self.schema)

    def write(self, seq: int, run: SentRun) -> None:
        """Send a run; waits while the server reads no further.

        Raises:
            pa.ArrowException, OSError: the stream is lost; why is what ``ended`` is told.
        """
        self._begin()
        for place, batch in enumerate(run.batches):
            message = AppendedRun(
                seq=seq, upload=run.command if place == 0 else None, more=place + 1 < len(run.batches)
            )
            self._writer.write_with_metadata(_fitted(batch, self.schema), message.to_bytes())

    def finish(self) -> None:
        """Say that no more is coming, and wait for the answers, and for what was to be called after them."""
        # Not by done_writing: a reading thread that ends the call closes this half, too, and where both do so at once
        # gRPC ends the process.
        with suppress(pa.ArrowException, OSError):
            self._begin()
            no_rows = pa.RecordBatch.from_pylist([], schema=self.schema)
            self._writer.write_with_metadata(no_rows, AppendEnd(end=True).to_bytes())
        if self._thread is not None:
            self._thread.join()
        with suppress(pa.ArrowException, OSError):
            self._writer.close()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._writer.begin(self.schema)

    def _read(
        self,
        answered: Callable[[int, Answer], object],
        ended: Callable[[AppendStream, TimeDBError | None], object],
    ) -> None:
        failure: TimeDBError | None = None
        pieces: dict[int, list[dict[str, Any]]] = {}
        try:
            while True:
                message = json.loads(self._reader.read_chunk().app_metadata.to_pybytes())
                seq, error = message["seq"], message.get("error")
                if error is not None:
                    answered(seq, _error_of(error))
                    continue
                pieces.setdefault(seq, []).append(message["receipt"])
                if not message.get("more"):
                    answered(seq, joined(pieces.pop(seq)))
        except StopIteration:
            pass
        except (pa.ArrowException, OSError) as error:
            failure = as_timedb_error(error, self._url, acted=True)
        except Exception as error:
            failure = Internal(f"the Flight server at {self._url} sent an answer that cannot be read: {error}")
        ended(self, failure)


def together(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The columns of both; where their types differ, that of the other, unless it is null."""
    fields = {column.name: column for column in one}
    for column in other:
        if column.name not in fields or not pa.types.is_null(column.type):
            fields[column.name] = column
    return pa.schema(list(fields.values()))


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema == schema:
        return batch
    columns = []
    for column in schema:
        index = batch.schema.get_field_index(column.name)
        there = index >= 0 and batch.schema.field(index).type == column.type
        columns.append(batch.column(index) if there else pa.nulls(batch.num_rows, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _error_of(said: dict[str, Any]) -> TimeDBError:
    detail = said.get("detail") or said.get("message") or ""
    return error_for_code(
        str(said["code"]), str(detail), field=str(said.get("field") or ""), request_id=said.get("request_id")
    )


def unanswered(url: str) -> TimeDBError:
    """What a run comes to whose stream has ended in order, without an answer to it."""
    return OutcomeUnknown(f"the Flight server at {url} ended the stream without an answer")
