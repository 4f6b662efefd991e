"""What the service says about an upload that it has taken in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from timedb.times import parse_time

__all__ = ["Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of one upload.

    Attributes:
        run_id: The run that the values belong to.
        rows: Rows written.
        skipped: Rows left out by ``skip_unchanged``, as they said nothing new.
        series_ids: The id of each series by its name; of series that share a name, see ``series``.
        series: ``{"series_key", "labels", "series_id"}`` of each series of the upload.
        change_time: When the rows were written (UTC).
        table_version: Version of the values table from which on the rows are visible.
    """

    run_id: str
    rows: int
    skipped: int
    series_ids: dict[str, str]
    series: list[dict[str, Any]]
    change_time: datetime
    table_version: int

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Receipt:
        """Read the receipt that came over the wire; fields that a newer server adds are ignored."""
        return cls(
            run_id=message["run_id"],
            rows=message["rows"],
            skipped=message["skipped"],
            series_ids=message["series_ids"],
            series=message["series"],
            change_time=parse_time(message["change_time"]),
            table_version=message["table_version"],
        )
