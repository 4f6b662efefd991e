"""The cursor of a read under a limit: where the next page begins, on the same cut-off."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from timedb.errors import InvalidRequest
from timedb.times import format_time, parse_time
from timedb.wire import shown

__all__ = ["Cursor", "sort_columns"]

_ORDERS = {
    "series": ("series_id", "valid_time", "valid_time_end", "known_time", "run_id", "change_time"),
    "valid_time": ("valid_time", "series_id", "valid_time_end", "known_time", "run_id", "change_time"),
    "known_time": ("known_time", "valid_time", "series_id", "valid_time_end", "run_id", "change_time"),
}
_TIMES = {"valid_time", "valid_time_end", "known_time", "change_time"}


def sort_columns(order_by: str) -> tuple[str, ...]:
    """The total order that ``order_by`` stands for: every row of an answer differs in one of these columns."""
    return _ORDERS[order_by]


@dataclass(frozen=True)
class Cursor:
    """The last row of a page (its sort columns) and the change_time that the page was read as of."""

    order_by: str
    as_of: datetime
    last: dict[str, Any]

    def to_text(self) -> str:
        """Opaque text for the client."""
        last = {name: format_time(value) if isinstance(value, datetime) else value for name, value in self.last.items()}
        body = {"order_by": self.order_by, "as_of": format_time(self.as_of), "last": last}
        return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode()

    @classmethod
    def from_text(cls, text: str, order_by: str) -> Cursor:
        """Read a cursor back.

        Raises:
            InvalidRequest: it is none, or one of another order.
        """
        try:
            body = json.loads(base64.urlsafe_b64decode(text.encode()))
            last = {
                name: parse_time(body["last"][name])
                if name in _TIMES and body["last"][name] is not None
                else body["last"][name]
                for name in sort_columns(order_by)
            }
            if (
                body["order_by"] != order_by
                or not isinstance(last["series_id"], str)
                or not isinstance(last["run_id"], str)
            ):
                raise ValueError
            return cls(order_by, parse_time(body["as_of"]), last)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidRequest(f"after: {shown(text)} is not a cursor of an answer ordered by {order_by}") from None

    def beyond(self) -> pl.Expr:
        """The rows that come after the last one; nulls come first."""
        later, same = pl.lit(False), pl.lit(True)
        for name in sort_columns(self.order_by):
            column, value = pl.col(name), self.last[name]
            greater = column.is_not_null() if value is None else (column > value).fill_null(False)
            later = later | (same & greater)
            same = same & column.eq_missing(value)
        return later


def page_order(names: Sequence[str]) -> list[pl.Expr]:
    """Sort keys for a page."""
    return [pl.col(name) for name in names]
