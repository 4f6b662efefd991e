"""What a read selects, as a Python caller says it, and the message that it becomes."""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

from timedb.client.arguments import plain, texts
from timedb.contract.read_options import Compared, Filters, Length, Rows, ScannedRows, Selection, Time
from timedb.contract.wire import ReadCommand, WireModel, parse_object
from timedb.contract.wire_fields import UnitChange

__all__ = [
    "Compared",
    "Length",
    "Rows",
    "Selection",
    "SeriesChanges",
    "Time",
    "fields_of",
    "message_of",
    "read_command",
]

M = TypeVar("M", bound=WireModel)


class SeriesChanges(TypedDict, total=False):
    """What :meth:`~timedb.client.Client.update_series` can change."""

    name: str
    unit: str
    unit_change: UnitChange
    description: str | None
    retired: bool


def message_of(model: type[M], fields: dict[str, Any]) -> M:
    """A message with the fields that are not None.

    Raises:
        InvalidRequest: names the field that does not fit.
    """
    return parse_object(model, {name: plain(name, value) for name, value in fields.items() if value is not None})


def read_command(selection: Selection) -> ReadCommand:
    """The read that a selection asks for."""
    return message_of(ReadCommand, fields_of(selection))


def fields_of(rows: Filters | ScannedRows) -> dict[str, Any]:
    """Its fields, with one series or run, or several, as a list."""
    fields: dict[str, Any] = dict(rows)
    for name in ("series_ids", "series_keys", "run_ids", "match_labels"):
        fields[name] = texts(fields.get(name))
    return fields
