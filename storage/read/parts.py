"""The parts of an answer that can be fetched alone: their tickets, and what is known of their size beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from timedb.contract.wire import ReadTicket
from timedb.storage.delta.log import DataFile
from timedb.storage.read.answers import is_plain
from timedb.storage.rows.scan import Selection

__all__ = ["UNKNOWN", "ReadPart", "rows_of", "ticket_of_bucket"]

UNKNOWN = -1
"""How many rows there are is known only when they have been read."""


@dataclass(frozen=True)
class ReadPart:
    """A piece of an answer that can be fetched alone: its ticket, and how many rows it has, or :data:`UNKNOWN`."""

    ticket: ReadTicket
    rows: int


def rows_of(ticket: ReadTicket, selection: Selection, files: Sequence[DataFile]) -> int:
    """How many rows of the answer a bucket has, where its files say so; never an estimate.

    Args:
        ticket: What is read.
        selection: Its filters.
        files: Those that the bucket's answer needs.
    """
    counts = [file.rows for file in files]
    if ticket.resample is not None or selection != Selection() or min(counts, default=0) < 0:
        return UNKNOWN
    return sum(counts) if is_plain(ticket, selection, files) else UNKNOWN


def ticket_of_bucket(ticket: ReadTicket, bucket: str) -> ReadTicket:
    """The ticket of one bucket. It names no series of others, so that many tickets together stay short."""
    fields: dict[str, object] = {"bucket": bucket}
    if ticket.series_ids is not None:
        fields["series_ids"] = [series_id for series_id in ticket.series_ids if series_id.startswith(bucket)]
    return ticket.model_copy(update=fields)
