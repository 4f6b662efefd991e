"""The scan of a table that a query asks for: which columns, and which rows at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TableScan"]


@dataclass(frozen=True)
class TableScan:
    """Columns, and bounds outside of which no row counts.

    Attributes:
        columns: In the order of the table.
        low: Time column -> the least microsecond since 1970 that counts.
        high: Time column -> the greatest.
        texts: Text column -> the only texts that count.
    """

    columns: Sequence[str] = ()
    low: Mapping[str, int] = field(default_factory=dict)
    high: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the message that asks for the table has it."""
        bounds = {"low": dict(self.low), "high": dict(self.high), "texts": dict(self.texts)}
        return {"columns": list(self.columns), **bounds}
