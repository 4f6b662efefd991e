"""What the contract's messages are built of: field types, the strict base model, and how a message is read.

Messages are JSON (UTF-8) objects; unknown fields are errors; times are RFC 3339.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
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

from timedb.durations import Duration, parse_duration
from timedb.errors import InvalidRequest, TooLarge
from timedb.numbers import float_of
from timedb.times import format_time, parse_time, to_utc

__all__ = [
    "HOW_UNITS_CHANGE",
    "MAX_NAME_CHARS",
    "Command",
    "Days",
    "Labels",
    "Length",
    "Name",
    "Number",
    "Text",
    "Time",
    "TimeOfDay",
    "UnitChange",
    "WireModel",
    "check_range",
    "describe",
    "parse",
    "parse_object",
    "shown",
]

MAX_NAME_CHARS = 255
_SHOWN_CHARS = 80
_MAX_FAULTS_LISTED = 10_000


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        return parse_time(value)
    if isinstance(value, datetime):
        return to_utc(value)
    raise ValueError("is not an RFC 3339 time such as 2025-01-01T00:00:00Z")


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class _FromWire:
    """What is learnt while a message is read from JSON.

    Attributes:
        infinite: Whether a number came out infinite, which a literal ``Infinity`` may have asked for, or ``1e309`` not.
    """

    infinite = False


def _read_number(value: object, info: ValidationInfo) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value not in _NON_FINITE:
            raise ValueError("is not a number (as text only NaN, Infinity and -Infinity are taken)")
        return _NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("is not a number")
    number = float_of(value)
    if math.isinf(number) and isinstance(info.context, _FromWire):
        info.context.infinite = True
    return number


def _read_duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, str | timedelta):
        return parse_duration(value)
    raise ValueError("is not a duration such as PT36H, P1D or 36h")


HOW_UNITS_CHANGE = (
    "'declare' leaves the stored numbers as they are and says that they have been of this unit all along; stored "
    "values are not converted, reads and uploads are, by their own unit"
)


def _read_unit_change(value: object) -> object:
    if value not in ("declare", None):
        raise ValueError(f"is not 'declare'; {HOW_UNITS_CHANGE}")
    return value


Time = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(format_time, when_used="json")]
Length = Annotated[
    Duration, BeforeValidator(_read_duration, json_schema_input_type=str), PlainSerializer(str, when_used="json")
]
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
UnitChange = Annotated[Literal["declare"], BeforeValidator(_read_unit_change)]
Days = Annotated[int, Field(le=365_000)]


class WireModel(BaseModel):
    """Base of all messages: strict types, unknown fields are errors, NaN and the infinities travel as text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="strings")

    def to_bytes(self) -> bytes:
        """The message as JSON, with only the fields that were set."""
        return self.model_dump_json(exclude_unset=True).encode()


def check_range(start: datetime | None, end: datetime | None, names: tuple[str, str]) -> None:
    """Refuse a range that ends before it starts.

    Raises:
        ValueError: names both ends.
    """
    if start is not None and end is not None and end < start:
        raise ValueError(f"{names[1]} {format_time(end)} is before {names[0]} {format_time(start)}")


class Command(WireModel):
    """A message whose ``op`` says what it is; on the wire it may not be left out."""

    @model_validator(mode="before")
    @classmethod
    def _state_op(cls, data: Any, info: ValidationInfo) -> Any:
        # The op is always sent, also by a client that lets it default.
        if isinstance(data, dict) and "op" not in data and not isinstance(info.context, _FromWire):
            return {"op": get_args(cls.model_fields["op"].annotation)[0], **data}
        return data

    @model_validator(mode="after")
    def _op_came_along(self) -> Self:
        if "op" not in self.model_fields_set:
            raise ValueError("op is missing")
        return self


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
    context = _FromWire()
    message = _checked(lambda: model.model_validate_json(body or b"{}", context=context), what)
    if context.infinite:
        _check_range_of_numbers(body, what)
    return message


def _check_range_of_numbers(body: bytes, what: str) -> None:
    """Refuse a number that was written with digits and came out infinite."""

    def finite(text: str) -> float:
        if math.isinf(number := float(text)):
            raise InvalidRequest(f"{what}: {shown(text)[1:-1]} is too large for a 64-bit float")
        return number

    json.loads(body, parse_float=finite, parse_int=str)


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
        return f"{field}: {reason}" if field else reason
    return f"{field}: {shown(value)} {reason[:1].lower()}{reason[1:]}" if field else reason


def shown(value: object) -> str:
    """A value as an error shows it: its repr, cut short."""
    try:
        text = ascii(value[: _SHOWN_CHARS + 1]) if isinstance(value, str) else ascii(value)
    except (ValueError, RecursionError):  # an int of too many digits, say
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
