"""The Flight contract, version 1: every command, ticket, action body and metadata message, and how they are read.

All of them are JSON (UTF-8) objects; unknown fields are errors; times are RFC 3339. ``docs/wire.md`` is the same
contract in prose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from timedb.errors import InvalidRequest, TooLarge
from timedb.times import format_time, parse_time, to_utc

__all__ = [
    "CONTRACT_VERSION",
    "MAX_NAME_CHARS",
    "ApplyRetention",
    "Command",
    "CommitMarker",
    "CreateSeries",
    "DailyTime",
    "GetRun",
    "ListRuns",
    "ListSeries",
    "Nothing",
    "ReadCommand",
    "ReadTicket",
    "Relative",
    "RetentionRule",
    "SeriesLabels",
    "UpdateSeries",
    "UpdateValues",
    "UploadCommand",
    "ValueUpdate",
    "WireModel",
    "WithdrawRun",
    "parse",
    "parse_object",
]

CONTRACT_VERSION = 1
MAX_NAME_CHARS = 255
MAX_LIMIT = 1_000_000_000
_SHOWN_CHARS = 80
_FROM_WIRE = {"from": "wire"}
_MAX_FAULTS_LISTED = 10_000


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        return parse_time(value)
    if isinstance(value, datetime):
        return to_utc(value)
    raise ValueError("is not an RFC 3339 time such as 2025-01-01T00:00:00Z")


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _read_number(value: object) -> object:
    if isinstance(value, str):
        if value not in _NON_FINITE:
            raise ValueError("is not a number (as text only NaN, Infinity and -Infinity are taken)")
        return _NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("is not a number")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise ValueError("is too large for a 64-bit float") from None


Time = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(format_time, when_used="json")]
Number = Annotated[float | None, BeforeValidator(_read_number)]
Name = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
    ),
]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Labels = dict[Name, Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)]]
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$")]
Days = Annotated[int, Field(le=365_000)]
View = Literal["flat", "overlapping"]
OrderBy = Literal["series", "valid_time", "known_time"]


class WireModel(BaseModel):
    """Base of all messages: strict types, unknown fields are errors, NaN and the infinities travel as text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="strings")

    def to_bytes(self) -> bytes:
        """The message as JSON, with only the fields that were set."""
        return self.model_dump_json(exclude_unset=True).encode()


def _check_range(start: datetime | None, end: datetime | None, names: tuple[str, str]) -> None:
    if start is not None and end is not None and end < start:
        raise ValueError(f"{names[1]} {format_time(end)} is before {names[0]} {format_time(start)}")


class Command(WireModel):
    """A message whose ``op`` says what it is; on the wire it may not be left out."""

    @model_validator(mode="before")
    @classmethod
    def _state_op(cls, data: Any, info: ValidationInfo) -> Any:
        # The op is always sent, also by a client that lets it default.
        if isinstance(data, dict) and "op" not in data and info.context is not _FROM_WIRE:
            return {"op": get_args(cls.model_fields["op"].annotation)[0], **data}
        return data

    @model_validator(mode="after")
    def _op_came_along(self) -> Self:
        if "op" not in self.model_fields_set:
            raise ValueError("op is missing")
        return self


class UploadCommand(Command):
    """``do_put`` descriptor: one run of values. ``rows`` or a final :class:`CommitMarker` must confirm the count."""

    op: Literal["upload"] = "upload"
    run_id: Name | None = None
    workflow_id: Name = "flight-upload"
    run_start_time: Time | None = None
    run_finish_time: Time | None = None
    known_time: Time | None = None
    run_params: dict[str, Any] | None = None
    rows: Annotated[int, Field(ge=0)] | None = None
    create_series: bool = True
    skip_unchanged: bool = False
    series_descriptions: dict[Name, Text] | None = None

    @model_validator(mode="after")
    def _finish_after_start(self) -> Self:
        _check_range(self.run_start_time, self.run_finish_time, ("run_start_time", "run_finish_time"))
        return self


class CommitMarker(WireModel):
    """The last metadata message of an upload: the client's word that it sent all ``rows`` rows."""

    commit: Literal[True]
    rows: Annotated[int, Field(ge=0)]


class Relative(WireModel):
    """Per local day, only what was known by ``time_of_day`` on the day ``days_ahead`` before it."""

    days_ahead: Annotated[int, Field(ge=0, le=3650)] = 1
    time_of_day: TimeOfDay = "10:00"
    time_zone: Name


class ReadCommand(WireModel):
    """What a read selects; :class:`ReadTicket` adds the ``op``."""

    view: View = "flat"
    series_ids: list[str] | None = None
    series_keys: list[str] | None = None
    labels: dict[str, str | list[str] | None] | None = None
    start_valid: Time | None = None
    end_valid: Time | None = None
    start_known: Time | None = None
    end_known: Time | None = None
    as_of: Time | None = None
    all_versions: bool = False
    relative: Relative | None = None
    columns: list[str] | None = None
    ordered: bool = False
    order_by: OrderBy = "series"
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    after: str | None = None

    @model_validator(mode="after")
    def _ranges_run_forward(self) -> Self:
        _check_range(self.start_valid, self.end_valid, ("start_valid", "end_valid"))
        _check_range(self.start_known, self.end_known, ("start_known", "end_known"))
        return self


class ReadTicket(Command, ReadCommand):
    """``do_get`` ticket and ``get_flight_info`` command.

    A ticket that ``get_flight_info`` made also carries ``bucket`` and ``table_version``: the part of the answer and
    the version of the values table that the plan was made on. They are opaque to clients.
    """

    op: Literal["read"] = "read"
    bucket: str | None = None
    table_version: Annotated[int, Field(ge=0)] | None = None


class CreateSeries(WireModel):
    """Action ``create_series``."""

    name: Name
    unit: Name | None = None
    description: Text | None = None
    labels: Labels = Field(default_factory=dict)


class UpdateSeries(WireModel):
    """Action ``update_series``: a field left out stays, ``description: null`` clears it."""

    series_id: str
    description: Text | None = None
    retired: bool | None = None


class ListSeries(WireModel):
    """Action ``list_series`` and the criteria of ``list_flights``."""

    name: str | None = None
    labels: dict[str, str | list[str] | None] | None = None
    series_ids: list[str] | None = None


class SeriesLabels(WireModel):
    """Action ``series_labels``."""

    name: str | None = None


class ValueUpdate(WireModel):
    """One correction; a field left out of value, annotation, tags and retracted stays, null clears it."""

    run_id: str | None = None
    series_id: str | None = None
    valid_time: Time | None = None
    known_time: Time | None = None
    valid_time_end: Time | None = None
    value_id: str | None = None
    tenant_id: str | None = None
    value: Number = None
    annotation: Text | None = None
    tags: list[Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)]] | None = None
    retracted: bool | None = None
    changed_by: Name | None = None

    @model_validator(mode="after")
    def _addresses_a_row(self) -> Self:
        if self.value_id is not None:
            address = {"run_id", "series_id", "valid_time", "known_time", "valid_time_end"}
            if others := sorted(address & self.model_fields_set):
                raise ValueError(f"value_id already says which row; leave out {', '.join(others)}")
        elif self.series_id is None or self.valid_time is None:
            raise ValueError("needs series_id and valid_time, or value_id, to say which row")
        return self


class UpdateValues(WireModel):
    """Action ``update_values``: corrections, all or none of them."""

    updates: list[ValueUpdate]
    update_id: Name | None = None


class GetRun(WireModel):
    """Action ``get_run``."""

    run_id: str


class ListRuns(WireModel):
    """Action ``list_runs``: newest first; ``start`` and ``end`` bound ``run_start_time`` (end exclusive)."""

    workflow_id: str | None = None
    start: Time | None = None
    end: Time | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _range_runs_forward(self) -> Self:
        _check_range(self.start, self.end, ("start", "end"))
        return self


class WithdrawRun(WireModel):
    """Action ``withdraw_run``: all rows of a run, or those of some of its series."""

    run_id: str
    reason: Text | None = None
    series_ids: list[str] | None = None
    changed_by: Name | None = None


class DailyTime(WireModel):
    """A clock time of every local day."""

    time_of_day: TimeOfDay
    time_zone: Name


class RetentionRule(WireModel):
    """What is not kept of the series of a name, of some labels, or both; ``labels: {}`` are all series.

    Either ``drop_after_days``: values whose valid_time is older go, with all their revisions. Or
    ``thin_after_days``: of the revisions whose known_time is older, those go that neither are among the ``keep_last``
    newest of their value nor were the newest known at ``keep_known_at`` of some day. The flat winner always stays.
    """

    name: Name | None = None
    labels: dict[str, str | list[str] | None] | None = None
    drop_after_days: Annotated[Days, Field(ge=1)] | None = None
    thin_after_days: Annotated[Days, Field(ge=0)] | None = None
    keep_last: Annotated[int, Field(ge=1)] | None = None
    keep_known_at: DailyTime | None = None

    @model_validator(mode="after")
    def _says_what_goes(self) -> Self:
        keeps = self.keep_last is not None or self.keep_known_at is not None
        if self.name is None and self.labels is None:
            raise ValueError("needs name or labels, to say which series; labels {} are all of them")
        if (self.drop_after_days is None) == (self.thin_after_days is None):
            raise ValueError("needs either drop_after_days or thin_after_days")
        if self.thin_after_days is not None and not keeps:
            raise ValueError("thin_after_days needs keep_last, keep_known_at or both, to say what stays")
        if self.drop_after_days is not None and keeps:
            raise ValueError("keep_last and keep_known_at go with thin_after_days; drop_after_days drops whole values")
        return self


class ApplyRetention(WireModel):
    """Action ``apply_retention``: the rules, one after the other; ``dry_run`` only tells what they would do."""

    rules: Annotated[list[RetentionRule], Field(min_length=1, max_length=1000)]
    dry_run: bool


class Nothing(WireModel):
    """The body of an action that takes none."""


M = TypeVar("M", bound=WireModel)


def parse(model: type[M], body: bytes, *, what: str, max_bytes: int) -> M:
    """Read a message from the wire.

    Args:
        model: What is expected.
        body: JSON; empty bytes count as ``{}``.
        what: How an error calls the message, say "ticket".
        max_bytes: The most that is looked at.

    Raises:
        TooLarge: more than ``max_bytes``.
        InvalidRequest: not JSON, or not the model; names the first field at fault and its value.
    """
    if len(body) > max_bytes:
        raise TooLarge(f"{what}: {len(body)} bytes are over the limit of {max_bytes}")
    return _checked(lambda: model.model_validate_json(body or b"{}", context=_FROM_WIRE), what)


def parse_object(model: type[M], fields: dict[str, Any], *, what: str = "") -> M:
    """Build a message from Python values, with the errors of :func:`parse`."""
    return _checked(lambda: model.model_validate(fields), what)


def _checked(build: Callable[[], M], what: str) -> M:
    try:
        return build()
    except ValidationError as error:
        raise InvalidRequest(describe(error, what)) from None


def describe(error: ValidationError, what: str = "") -> str:
    """One sentence for the first fault of a pydantic error: the field, its value, what is wrong with it."""
    if error.error_count() > _MAX_FAULTS_LISTED:  # listing millions of them would take gigabytes and half a minute
        return f"{what or 'message'}: has {error.error_count()} faults, such as unknown fields"
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or what
    reason = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{field}: unknown field" + (f" of the {what}" if what and field != what else "")
        case "missing":
            return f"{field}: is missing"
        case "json_invalid":
            return f"{what or 'body'}: is not JSON ({reason.removeprefix('Invalid JSON: ')})"
    value = fault["input"]
    if isinstance(value, dict | list | BaseModel) and fault["type"] == "value_error":
        return f"{field}: {reason}"
    return f"{field}: {shown(value)} {reason[:1].lower()}{reason[1:]}" if field else reason


def shown(value: object) -> str:
    """A value as an error shows it: its repr, cut short."""
    try:
        text = ascii(value[: _SHOWN_CHARS + 1]) if isinstance(value, str) else ascii(value)
    except (ValueError, RecursionError):  # an int of too many digits, say
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
