"""What a read selects, as a Python caller says it, and the message that it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar
from uuid import UUID

from timedb.client.arguments import plain, texts
from timedb.contract.wire import ReadCommand, Relative, Resample, WireModel, parse_object
from timedb.contract.wire_fields import UnitChange

__all__ = ["Length", "Rows", "Selection", "SeriesChanges", "Time", "fields_of", "message_of", "read_command"]

M = TypeVar("M", bound=WireModel)

Time = datetime | date | str
"""An aware datetime (or pandas Timestamp), RFC 3339 text with an offset, or a date, which is its midnight, UTC."""


Length = timedelta | str
"""A length of time: a timedelta, ISO 8601 text such as ``PT36H``, or a short form such as ``36h``."""


class SeriesChanges(TypedDict, total=False):
    """What :meth:`~timedb.client.Client.update_series` can change."""

    name: str
    unit: str
    unit_change: UnitChange
    description: str | None
    retired: bool


class Rows(TypedDict, total=False):
    """Which rows a call is about; all may be left out.

    The ranges include their start and not their end; ``as_of`` includes its instant.
    """

    series_ids: str | UUID | Iterable[str | UUID] | None
    series_keys: str | Iterable[str] | None
    """Names of series."""
    labels: Mapping[str, str | list[str] | None] | None
    """Series with these labels: a value, one of several, or None for "has it not"; ``{}``: series without labels."""
    start_valid: Time | None
    end_valid: Time | None
    start_known: Time | None
    end_known: Time | None
    as_of: Time | None
    """What the lake held at that change_time."""
    token: str | None
    """The ``token`` of an earlier answer: exactly the rows that it could see."""
    compression: Literal["lz4", "zstd"] | None
    """Of the bytes on the wire; pays where the network is slower than about a gigabit a second."""


class Selection(Rows, total=False):
    """What a read selects and how it comes; all may be left out."""

    view: Literal["flat", "overlapping", "latest", "changes"]
    """``flat``: per valid time the value known last. ``overlapping``: every revision. ``latest``: of the flat view the
    last value of each series. ``changes``: every row written since an answer's token, in all its versions."""
    all_versions: bool
    """Also superseded corrections, with who, when and why."""
    relative: Relative | Mapping[str, Any] | None
    """``{"days_ahead", "time_of_day", "time_zone"}``: per local day only what was known by then; or ``{"window_length",
    "issue_offset", "start_window", "time_zone"}``: per window what was known so long before it began."""
    lead_time: Length | None
    """Only what was known at least so long before its valid_time."""
    resample: Resample | Mapping[str, Any] | None
    """``{"period", "aggregate", "time_zone"}``: the values of each period as one."""
    unit: str | None
    """Values converted to this unit."""
    since: str | None
    """With ``view="changes"``: the ``token`` of the answer before; left out: from the beginning."""
    columns: list[str] | None
    ordered: bool
    order_by: Literal["series", "valid_time", "known_time", "change_time"]
    limit: int | None
    after: str | None
    """The ``cursor`` of the last answer under a limit (see :meth:`Client.read_arrow`)."""


def message_of(model: type[M], fields: dict[str, Any]) -> M:
    """A message with the fields that are not None.

    Raises:
        InvalidRequest: names the field that does not fit.
    """
    return parse_object(model, {name: plain(name, value) for name, value in fields.items() if value is not None})


def read_command(selection: Selection) -> ReadCommand:
    """The read that a selection asks for."""
    return message_of(ReadCommand, fields_of(selection))


def fields_of(rows: Rows) -> dict[str, Any]:
    """Its fields, with one series or several as a list."""
    fields: dict[str, Any] = dict(rows)
    for name in ("series_ids", "series_keys"):
        fields[name] = texts(fields.get(name))
    return fields
