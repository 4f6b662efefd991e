"""The order of an answer, and where in it something begins: the next page of a read under a limit, or what follows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, parse_time, to_micros
from timedb.contract.wire import ReadCommand, quoted
from timedb.storage.rows.rows import flags, integers

__all__ = ["Cursor", "Place", "sort_columns"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]

_ORDERS = {
    "series": ("series_id", "valid_time", "valid_time_end", "known_time", "run_id", "change_time"),
    "valid_time": ("valid_time", "series_id", "valid_time_end", "known_time", "run_id", "change_time"),
    "change_time": ("change_time", "series_id", "valid_time", "valid_time_end", "known_time", "run_id"),
    "known_time": ("known_time", "valid_time", "series_id", "valid_time_end", "run_id", "change_time"),
}
_TEXTS = {"series_id", "run_id"}


def sort_columns(read: ReadCommand) -> tuple[str, ...]:
    """The total order of an answer: ``order_by``, then whatever else its rows can differ in."""
    unneeded: set[str] = set()
    if not (read.all_versions or read.view == "changes"):
        unneeded = {"change_time"} if read.view == "overlapping" else {"change_time", "run_id", "known_time"}
    return tuple(name for name in _ORDERS[read.order_by] if name not in unneeded - {read.order_by})


@dataclass(frozen=True)
class Cursor:
    """The sort columns of a page's last row, the change_time that the page was read as of, and the table's version."""

    last: dict[str, Any]
    as_of: datetime
    table_version: int
    descending: bool = False

    def to_text(self) -> str:
        """Opaque text for the client."""
        body = {"as_of": format_time(self.as_of), "last": _to_json(self.last), "table_version": self.table_version}
        if self.descending:
            body["descending"] = True
        return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode()

    @classmethod
    def from_text(cls, text: str, read: ReadCommand) -> Cursor:
        """Read a cursor back.

        Raises:
            InvalidRequest: it is none, or one of a read in another order.
        """
        try:
            body = json.loads(base64.urlsafe_b64decode(text.encode()))
            if (read.pivot is not None) != body["last"]["series_id"].startswith("["):  # of one series, or of several
                raise ValueError
            if body.get("descending", False) is not read.descending:
                raise ValueError
            last = _from_json(body["last"], sort_columns(read))
            return cls(last, parse_time(body["as_of"]), int(body["table_version"]), read.descending)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(f"after: {quoted(text)} is not a cursor of this read") from None

    def beyond(self, rows: pa.Table) -> pa.Table:
        """Those of some rows that come after the last one; nulls come first.

        Args:
            rows: ``timedb.storage.rows.rows.gathered`` rows with the sort columns.
        """
        return rows.filter(flags(_are_beyond(rows, self.last, descending=self.descending)))


@dataclass(frozen=True)
class Place:
    """A place among the rows of some change_times, which are taken by series.

    That order stays whatever is compacted meanwhile, as the rows of those change_times do.

    Attributes:
        until: The last change_time of those rows, UTC.
        last: :data:`Place.ORDER` of the last row that was read.
    """

    ORDER: ClassVar[tuple[str, ...]] = _ORDERS["series"]

    until: datetime
    last: dict[str, Any]

    @classmethod
    def after(cls, rows: pa.RecordBatch, row: int, until: datetime) -> Place:
        """The place behind a row of some that have the columns of the order."""
        return cls(until, {name: rows.column(name)[row].as_py() for name in cls.ORDER})

    def to_json(self) -> dict[str, Any]:
        """It as fields of a token."""
        return {"until": format_time(self.until), "last": _to_json(self.last)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Place:
        """It from the fields of a token; ValueError, KeyError, TypeError, AttributeError: they are none."""
        return cls(parse_time(body["until"]), _from_json(body["last"], cls.ORDER))

    def beyond(self, rows: pa.Table) -> pa.Table:
        """Those of some rows that are yet to be read: the rows behind it, and all that were written later.

        Args:
            rows: Of one chunk, with the columns of the order.
        """
        later = integers(rows, "change_time") > np.int64(to_micros(self.until))
        return rows.filter(flags(later | _are_beyond(rows, self.last)))


def _are_beyond(rows: pa.Table, last: Mapping[str, Any], *, descending: bool = False) -> Mask:
    """Whether each row comes after the one that has these values, in the order of their columns; nulls come first."""
    later, same = np.zeros(rows.num_rows, dtype=np.bool_), np.ones(rows.num_rows, dtype=np.bool_)
    for name, value in last.items():
        column = rows.column(name)
        if name in _TEXTS:
            greater, equal = _of_text(column, value)
        else:
            # An absent end stands for the valid_time, as in timedb.storage.rows.rows.integers.
            own = integers(rows, "valid_time") if value is None else np.int64(to_micros(value))
            times = integers(rows, name)
            greater, equal = times < own if descending else times > own, times == own
        later |= same & greater
        same &= equal
    return later


def _to_json(last: Mapping[str, Any]) -> dict[str, Any]:
    return {name: format_time(value) if isinstance(value, datetime) else value for name, value in last.items()}


def _from_json(last: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    if tuple(last) != tuple(order):
        raise ValueError
    return {name: _key_value(name, value) for name, value in last.items()}


def _of_text(column: pa.ChunkedArray, value: str) -> tuple[Mask, Mask]:
    """Whether each entry of an identifier is greater than a text, and whether it is that text."""
    if not len(column):
        return np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_)
    coded = column.chunk(0)
    indices = coded.indices.to_numpy()
    greater, equal = (
        test(coded.dictionary, value).to_numpy(zero_copy_only=False)[indices] for test in (pc.greater, pc.equal)
    )
    return greater, equal


def _key_value(name: str, value: object) -> object:
    if name in _TEXTS:
        if not isinstance(value, str):
            raise ValueError
        return value
    if value is None and name == "valid_time_end":
        return None
    return parse_time(str(value))
