"""Point-in-time lookups from the client's side: questions go out on one thread while answers come in on another."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.client.flight_errors import flight_errors
from timedb.contract.columns import LOOKED_UP, LOOKUP_COLUMNS
from timedb.contract.errors import Internal, InvalidRequest
from timedb.contract.label_columns import label_texts
from timedb.contract.wire import LookupCommand, quoted

if TYPE_CHECKING:
    import polars as pl

    from timedb.client.connection import Connection

__all__ = ["look_up"]

BATCH_ROWS = 1 << 17
_GIVE_UP_SECONDS = 5.0
_ROW = re.compile(r"\brow (\d+)\b")


def look_up(connection: Connection, command: LookupCommand, data: Any) -> pl.DataFrame:
    """The rows of ``data`` in their order, with ``value``, ``known_time`` and ``found``.

    Args:
        connection: The caller's.
        command: What is asked for.
        data: A Polars frame, or what Polars makes one of.

    Raises:
        InvalidRequest: it is not tabular, has no column of a lookup, or has one of the answer's.
        TimeDBError: what the server says, or what became of the connection.
    """
    import polars as pl

    frame = _frame(data)
    # Together what is about one series: each batch then touches few of the lake's files.
    asked = _with_label_texts(frame.select(name for name in LOOKUP_COLUMNS if name in frame.columns))
    order = asked.select(pl.arg_sort_by(*_sort_keys(asked)).alias("row"))
    questions = asked[order["row"]].to_arrow()
    try:
        answers = pl.DataFrame(pa.Table.from_batches(_exchange(connection, command, questions), schema=LOOKED_UP))
    except InvalidRequest as error:
        rows = order["row"]  # the server counts them as they were sent
        said = _ROW.sub(lambda match: f"row {rows[int(match[1])]}", error.detail)
        raise InvalidRequest(said, request_id=error.request_id) from None
    if answers.height != frame.height:
        raise Internal(f"lookup: {answers.height} answers to {frame.height} rows")
    return frame.hstack(answers.with_columns(order["row"]).sort("row").drop("row"))


def _frame(data: Any) -> pl.DataFrame:
    import polars as pl

    try:
        frame = data if isinstance(data, pl.DataFrame) else pl.DataFrame(data)
    except (TypeError, ValueError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise InvalidRequest(f"frame: {type(data).__name__} is not tabular: {error}") from None
    for name in LOOKED_UP.names:
        if name in frame.columns:
            raise InvalidRequest(f"{name}: is a column of the answer; rename the one of the frame")
    if "valid_time" not in frame.columns:
        raise InvalidRequest(f"valid_time: the column is missing; the frame has {quoted(', '.join(frame.columns))}")
    return frame


def _with_label_texts(asked: pl.DataFrame) -> pl.DataFrame:
    """The same with labels that are structs as JSON text, by which rows can be sorted."""
    import polars as pl

    if "labels" not in asked.columns or not asked["labels"].dtype.is_nested():
        return asked
    return asked.with_columns(labels=pl.Series(label_texts(asked["labels"].rechunk().to_arrow())))


def _sort_keys(asked: pl.DataFrame) -> list[str]:
    return [name for name in ("series_id", "series_key", "labels", "valid_time") if name in asked.columns]


def _exchange(connection: Connection, command: LookupCommand, questions: pa.Table) -> Iterator[pa.RecordBatch]:
    descriptor = flight.FlightDescriptor.for_command(command.to_bytes())
    with flight_errors(connection.url):
        writer, reader = connection.flight_client.do_exchange(descriptor, connection.options(long=True))
    sending = threading.Thread(target=_send, args=(writer, questions), name="timedb-lookup", daemon=True)
    sending.start()
    left = questions.num_rows
    try:
        while True:
            if left <= 0:
                # On this thread: if the call ended on it meanwhile, both would close the half that sends, and gRPC
                # would end the process.
                sending.join()
                with suppress(pa.ArrowException, OSError):
                    writer.done_writing()
            try:
                with flight_errors(connection.url):
                    batch = reader.read_chunk().data
            except StopIteration:
                break
            left -= batch.num_rows
            yield batch.select(LOOKED_UP.names).cast(LOOKED_UP)
    finally:
        reader.cancel()  # where all went well, there is nothing left to cancel
        sending.join(_GIVE_UP_SECONDS)
        if not sending.is_alive():
            # pyarrow would close it some time later, and write to standard error where that fails.
            with suppress(pa.ArrowException, OSError):
                writer.close()


def _send(writer: flight.FlightStreamWriter, questions: pa.Table) -> None:
    # Why it fails is what the reading side hears.
    try:
        writer.begin(questions.schema)
        writer.write_table(questions, max_chunksize=BATCH_ROWS)
    except (pa.ArrowException, OSError):
        return
