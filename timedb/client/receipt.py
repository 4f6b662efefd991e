"""What the service says about an upload that it has taken in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any

from timedb.contract.times import parse_time

__all__ = ["Receipt"]

_SHOWN = 3


@dataclass(frozen=True, slots=True, repr=False)
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
        withdrawn: Where the run was in already and none of its rows stands: ``{"time", "changed_by", "reason"}`` of
            what took the last ones. Else None.
        withdrawn_rows: How many rows of a run that was in already are withdrawn.
    """

    run_id: str
    rows: int
    skipped: int
    series_ids: dict[str, str]
    series: list[dict[str, Any]]
    change_time: datetime
    table_version: int
    withdrawn: dict[str, Any] | None = None
    withdrawn_rows: int = 0

    def __repr__(self) -> str:
        """Everything but the series, which may be very many: of those the first ones, and how many there are."""
        texts = {each.name: repr(getattr(self, each.name)) for each in fields(self)}
        texts["series_ids"] = _cut(repr(dict(islice(self.series_ids.items(), _SHOWN))), len(self.series_ids))
        texts["series"] = _cut(repr(self.series[:_SHOWN]), len(self.series))
        return f"Receipt({', '.join(f'{name}={text}' for name, text in texts.items())})"

    def withdrawal_text(self, remedy: str) -> str | None:
        """For people: that the run is withdrawn, since when, by whom and why; None where it stands.

        Args:
            remedy: What restores it, as it is called at the door where this is said.
        """
        if not self.withdrawn_rows:
            return None
        if self.withdrawn is None:
            return f"run {self.run_id} was in already, and {self.withdrawn_rows} of its rows are withdrawn ({remedy})"
        by = f" by {self.withdrawn['changed_by']}" if self.withdrawn["changed_by"] else ""
        why = f" ({self.withdrawn['reason']})" if self.withdrawn["reason"] else ""
        return (
            f"run {self.run_id} was in already and is withdrawn since {self.withdrawn['time']}{by}{why}: its values "
            f"stay invisible until it is restored ({remedy})"
        )

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
            withdrawn=message.get("withdrawn"),
            withdrawn_rows=message.get("withdrawn_rows", 0),
        )


def _cut(text: str, items: int) -> str:
    """The text of the first of so many items, with how many there are."""
    return text if items <= _SHOWN else f"{text[:-1]}, … {items} in all{text[-1]}"
