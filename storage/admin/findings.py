"""What the doctor finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "BEHIND",
    "CLOSED",
    "FOREIGN",
    "FOREIGN_COMMIT",
    "LOST_LOG",
    "NESTED",
    "OUTDATED",
    "UNREADABLE",
    "WRONG_ROWS",
    "Finding",
]

UNREADABLE = "unreadable"
FOREIGN = "changed by another writer"
FOREIGN_COMMIT = "commit of another writer"
WRONG_ROWS = "run with other rows than recorded"
NESTED = "lake inside another"
OUTDATED = "filters of delta-rs find nothing"
LOST_LOG = "missing log"
BEHIND = "log cut short"
CLOSED = (UNREADABLE, FOREIGN, LOST_LOG, BEHIND)
"""Faults of a table that nothing more can be said about."""


@dataclass(frozen=True)
class Finding:
    """One fault: of which table, what, which file, what helps and what is lost by it, and whether that was done.

    A ``notice`` is no fault: something that whoever keeps the lake should know.
    """

    table: str
    fault: str
    path: str
    cure: str
    repaired: bool = False
    loss: str | None = None
    notice: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)
