"""Reads as flights: what ``get_flight_info``, ``get_schema`` and ``list_flights`` say of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyarrow import flight

from timedb.columns import result_schema
from timedb.wire import ListSeries, ReadTicket, parse_object

if TYPE_CHECKING:
    from storage import Plan, Tenant

__all__ = ["flight_of_plan", "flights_of_series"]

UNKNOWN = -1


def flight_of_plan(plan: Plan, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
    """A read as one flight, an endpoint a part; all parts are of the same table version."""
    return flight.FlightInfo(
        plan.schema,
        descriptor,
        [flight.FlightEndpoint(part.ticket.to_bytes(), []) for part in plan.parts],
        total_records=_total([part.rows for part in plan.parts]),
        total_bytes=_total([part.bytes for part in plan.parts]),
        ordered=plan.ordered,
    )


def flights_of_series(tenant: Tenant, message: ListSeries) -> Iterator[flight.FlightInfo]:
    """One flight a series: its descriptor and its only ticket are the command that reads all of it."""
    for series in tenant.list_series(message):
        read = parse_object(ReadTicket, {"series_ids": [series["series_id"]]})
        command = read.to_bytes()
        yield flight.FlightInfo(
            result_schema(read),
            flight.FlightDescriptor.for_command(command),
            [flight.FlightEndpoint(command, [])],
            total_records=UNKNOWN,
            total_bytes=UNKNOWN,
        )


def _total(figures: list[int]) -> int:
    return UNKNOWN if any(figure < 0 for figure in figures) else sum(figures)
