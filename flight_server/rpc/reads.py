"""Reads as flights: what ``get_flight_info``, ``get_schema`` and ``list_flights`` say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.columns import result_schema
from timedb.contract.wire import ReadTicket
from timedb.flight_server.call.pieces import fits, info_that_fits
from timedb.flight_server.call.plain import plain_reader, plain_schema

if TYPE_CHECKING:
    from timedb.storage import AccuracyPart, Memory, Plan, ReadPart

__all__ = ["flight_of_plan", "flights_of_series", "rows_of_plan", "schema_of_plan"]

UNKNOWN = -1
_FLIGHT_BYTES = 1536  # of one in a list, twice


def schema_of_plan(plan: Plan) -> pa.Schema:
    """The columns of a read, as the client wants its texts."""
    return plain_schema(plan.schema) if plan.ticket.identifiers == "plain" else plan.schema


def rows_of_plan(plan: Plan) -> pa.RecordBatchReader:
    """The rows of a read under :func:`schema_of_plan`."""
    reader = plan.reader()
    return plain_reader(reader) if plan.ticket.identifiers == "plain" else reader


def flight_of_plan(plan: Plan, descriptor: flight.FlightDescriptor, most: int) -> flight.FlightInfo:
    """A read as one flight, an endpoint a part; all parts are of the same table version.

    How many rows there are is said where it is known without reading them; how many bytes nobody knows, for what the
    files take is not what the rows take on the wire.

    Args:
        plan: The read.
        descriptor: The command that it was planned for.
        most: The most bytes that the answer may have; where the endpoints do not fit, there is one for all of it.

    Raises:
        TooLarge: that is too long, too.
    """
    info = _flight(plan, descriptor, plan.parts)
    if len(info.endpoints) > 1 and not fits(len(info.serialize()), most):
        info = _flight(plan, descriptor, [plan.in_one_part])
    return info_that_fits(info, most)


def _flight(
    plan: Plan, descriptor: flight.FlightDescriptor, parts: Sequence[ReadPart | AccuracyPart]
) -> flight.FlightInfo:
    rows = [part.rows for part in parts]
    return flight.FlightInfo(
        schema_of_plan(plan),
        descriptor,
        [flight.FlightEndpoint(part.ticket.to_bytes(), []) for part in parts],
        total_records=UNKNOWN if UNKNOWN in rows else sum(rows),
        total_bytes=UNKNOWN,
        ordered=plan.ordered,
    )


def flights_of_series(page: Mapping[str, Any], memory: Memory) -> Iterator[flight.FlightInfo]:
    """One flight a series of a page: its descriptor and its only ticket are the command that reads all of it.

    Where a limit has left others, the last flight's ``app_metadata`` is the cursor of the next page.

    Args:
        page: The series.
        memory: Gives room for all of them: pyarrow sends the first one when it has the last.

    Raises:
        TooLarge: there is not so much memory; with a ``limit`` they come page by page.
        Busy: it was not there in time.
    """
    schema, last, cursor = result_schema(ReadTicket()), len(page["series"]) - 1, page.get("cursor", "")
    with memory.share("limit", len(page["series"]) * _FLIGHT_BYTES):
        for place, series in enumerate(page["series"]):
            command = json.dumps({"series_ids": [series["series_id"]], "op": "read"}, separators=(",", ":")).encode()
            yield flight.FlightInfo(
                schema,
                flight.FlightDescriptor.for_command(command),
                [flight.FlightEndpoint(command, [])],
                total_records=UNKNOWN,
                total_bytes=UNKNOWN,
                app_metadata=cursor.encode() if place == last else b"",
            )
