"""The parts of an answer that can be fetched alone: their tickets, and what is known of their size beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from timedb.contract.wire import ReadTicket

__all__ = ["UNKNOWN", "ReadPart", "ticket_of_bucket"]

UNKNOWN = -1
"""How many rows there are is known only when they have been read."""


@dataclass(frozen=True)
class ReadPart:
    """A piece of an answer that can be fetched alone: its ticket, and how many rows it has, or :data:`UNKNOWN`."""

    ticket: ReadTicket
    rows: int


def ticket_of_bucket(ticket: ReadTicket, bucket: str) -> ReadTicket:
    """The ticket of one bucket. It names no series of others, so that many tickets together stay short."""
    fields: dict[str, object] = {"bucket": bucket}
    if ticket.series_ids is not None:
        fields["series_ids"] = [series_id for series_id in ticket.series_ids if series_id.startswith(bucket)]
    return ticket.model_copy(update=fields)
