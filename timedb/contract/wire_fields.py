"""What the contract's messages are built of: field types, the strict base model, and how a message is read.

Messages are JSON (UTF-8) objects; unknown fields are errors; times are RFC 3339.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
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

from timedb.contract.durations import Duration, parse_duration
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.json_counts import MAX_JSON_VALUES, check_json_counts
from timedb.contract.json_keys import check_keys
from timedb.contract.numbers import float_of
from timedb.contract.quantiles import check_quantile, check_quantile_aggregate
from timedb.contract.spelling import did_you_mean
from timedb.contract.times import format_time, midnight, parse_time, to_utc

__all__ = [
    "HOW_UNITS_CHANGE",
    "MAX_NAME_CHARS",
    "MAX_TAGS",
    "MAX_TEXT_CHARS",
    "Aggregate",
    "Command",
    "Days",
    "Fill",
    "Labels",
    "Length",
    "Name",
    "Number",
    "RunParams",
    "SelectedLabels",
    "Tag",
    "Tags",
    "Text",
    "Time",
    "TimeOfDay",
    "UnitChange",
    "WireModel",
    "check_range",
    "describe",
    "finite_float",
    "parse",
    "parse_object",
    "quoted",
]

MAX_NAME_CHARS = 255
"""Of a name, a label or a tag."""
MAX_TEXT_CHARS = 10_000
"""Of an annotation, a description or a reason."""
MAX_TAGS = 1_000
"""Of one row."""
_SHOWN_CHARS = 80
_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_ALIKE = 0.75  # of 1: how much a name has to be like another to be meant
_MAX_FAULTS_LISTED = 10_000


_Labels = TypeVar("_Labels", bound=Mapping[str, object])


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        return parse_time(value)
    if isinstance(value, datetime):
        return to_utc(value)
    if isinstance(value, date):
        return midnight(value)
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
    "'declare' leaves the stored numbers as they are and says that they have been of this unit all along; 'convert' "
    "converts all stored numbers from the unit that the series has"
)


def _read_unit_change(value: object) -> object:
    if value not in ("declare", "convert", None):
        raise ValueError(f"is neither 'declare' nor 'convert'; {HOW_UNITS_CHANGE}")
    return value


Time = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(format_time, when_used="json")]
Length = Annotated[
    Duration, BeforeValidator(_read_duration, json_schema_input_type=str), PlainSerializer(str, when_used="json")
]
Number = Annotated[float | None, BeforeValidator(_read_number)]


def _read_fill(value: object, info: ValidationInfo) -> object:
    if value in ("none", "null", "previous", "linear"):
        return value
    number = None if isinstance(value, str) else _read_number(value, info)
    if number is None or not math.isfinite(number):
        raise ValueError('is not "none", "null", "previous", "linear" or a finite number')
    return number


_AGGREGATES = ("mean", "median", "sum", "min", "max", "first", "last", "count")


def _read_aggregate(value: object) -> object:
    if value in _AGGREGATES or (isinstance(value, str) and check_quantile_aggregate(value)):
        return value
    meant = did_you_mean(value, _AGGREGATES) if isinstance(value, str) else ""
    raise ValueError(f"is no aggregate{meant or '; there are ' + ', '.join(_AGGREGATES)}, and quantiles: quantile:0.1")


Aggregate = Annotated[str, BeforeValidator(_read_aggregate)]
"""What makes the values of a period one."""

Fill = Annotated[Literal["none", "null", "previous", "linear"] | float, BeforeValidator(_read_fill)]
"""What becomes of periods without a value."""


def _check_labels(labels: _Labels) -> _Labels:
    check_quantile(labels)
    return labels


_NAME = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
_CLOCK = r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$"
_MEANT_BY = {
    _NAME: f"is not a name of 1 to {MAX_NAME_CHARS} printable characters",
    _CLOCK: "is not a time of day such as 10:00",
}
"""What a pattern means, in words: an error that shows it helps nobody."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS, pattern=_NAME)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Tag = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Labels = Annotated[
    dict[Name, Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)]], AfterValidator(_check_labels)
]
TimeOfDay = Annotated[str, StringConstraints(pattern=_CLOCK)]
UnitChange = Annotated[Literal["declare", "convert"], BeforeValidator(_read_unit_change)]
Days = Annotated[int, Field(le=365_000)]


def _read_label_keys(value: object) -> object:
    if isinstance(value, dict) and (half := [key for key in value if isinstance(key, str) and _is_half(key)]):
        raise ValueError(f"{half[0]!a} {_HALF}")
    return value


def _read_run_params(value: object, info: ValidationInfo) -> object:
    if isinstance(value, dict) and _check_json(value, "", MAX_RUN_PARAMS_DEPTH) and isinstance(info.context, _FromWire):
        info.context.infinite = True
    return value


def _check_json(value: object, path: str, depth: int) -> bool:
    """Whether a number in it is infinite.

    Raises:
        ValueError: it holds what JSON cannot say, or is nested too deeply; names the place.
    """
    if isinstance(value, str) and _is_half(value):
        raise ValueError(f"{path} {_HALF}")
    if isinstance(value, dict | list | tuple):
        if not depth:
            raise ValueError(f"is nested more than {MAX_RUN_PARAMS_DEPTH} levels deep")
        for key in value if isinstance(value, dict) else ():
            if not isinstance(key, str):
                raise ValueError(f"{quoted(key)} is no text, as the keys of JSON are")
            if _is_half(key):
                raise ValueError(f"{key!a} {_HALF}")
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        infinite = [_check_json(part, f"{path}.{key}" if path else str(key), depth - 1) for key, part in parts]
        return any(infinite)
    if not isinstance(value, _SAID_IN_JSON):
        raise ValueError(f"{path} is of type {type(value).__name__}, which JSON cannot say")
    return isinstance(value, float) and math.isinf(value)


MAX_RUN_PARAMS_DEPTH = 100
_SAID_IN_JSON = (str, int, float, Decimal, date, UUID, type(None))
SelectedLabels = Annotated[
    dict[str, str | list[str] | None], BeforeValidator(_read_label_keys), AfterValidator(_check_labels)
]
"""Labels that series are chosen by: a value, one of several, or None for "has it not"."""
RunParams = Annotated[dict[str, Any], BeforeValidator(_read_run_params)]
"""Anything that JSON can say, within :data:`MAX_RUN_PARAMS_DEPTH` levels."""


class WireModel(BaseModel):
    """Base of all messages: strict types, unknown fields are errors, NaN and the infinities travel as text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_inf_nan="strings")

    def to_bytes(self) -> bytes:
        """The message as JSON, with only the fields that were set.

        Raises:
            InvalidRequest: a text holds half of a character, which no UTF-8 can carry; names its field.
        """
        try:
            return self.model_dump_json(exclude_unset=True).encode()
        except ValueError:
            if (field := _half_character(self.model_dump(exclude_unset=True))) is None:
                raise
            raise InvalidRequest(f"{field}: {_HALF}") from None


_HALF = "holds half of a character (a lone surrogate)"


def _is_half(text: str) -> bool:
    """Whether a text is not Unicode."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _half_character(value: object, field: str = "") -> str | None:
    """Which field has a text that is not Unicode; None: there is none."""
    if isinstance(value, str):
        return field if _is_half(value) else None
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        own = f"{field}.{key}" if field else str(key)
        if (found := _half_character(key, ascii(own))) or (found := _half_character(part, own)):
            return found
    return None


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


def parse(model: type[M], body: bytes, *, what: str, max_bytes: int, max_values: int = MAX_JSON_VALUES) -> M:
    """Read a message from the wire.

    Args:
        model: What is expected.
        body: JSON; empty bytes count as ``{}``.
        what: How an error calls the message, say "ticket".
        max_bytes: The most that is looked at.
        max_values: The most values that it may hold.

    Raises:
        TooLarge: more than ``max_bytes`` or ``max_values``.
        InvalidRequest: not JSON, or not the model, or a key stands twice in one object; names the first field at fault
            and its value.
    """
    if len(body) > max_bytes:
        raise TooLarge(f"{what}: {len(body)} bytes are over the limit of {max_bytes}")
    check_json_counts(body, what, max_values)
    context = _FromWire()
    body = body or b"{}"
    message = _checked(model, lambda: model.model_validate_json(body, context=context), what)
    try:
        check_keys(body)
    except ValueError as error:
        raise InvalidRequest(f"{what}: {error}") from None
    if context.infinite:
        _check_range_of_numbers(body, what)
    return message


def _check_range_of_numbers(body: bytes, what: str) -> None:
    """Refuse a number that was written with digits and came out infinite."""
    try:
        json.loads(body, parse_float=finite_float, parse_int=str)
    except ValueError as error:
        raise InvalidRequest(f"{what}: {error}") from None


def finite_float(text: str) -> float:
    """A number of a JSON text, for its parser.

    Raises:
        ValueError: it is beyond the range.
    """
    if math.isinf(number := float(text)):
        raise ValueError(f"{quoted(text)[1:-1]} is too large for a 64-bit float")
    return number


def parse_object(model: type[M], fields: dict[str, Any], *, what: str = "") -> M:
    """Build a message from Python values, with the errors of :func:`parse`."""
    return _checked(model, lambda: model.model_validate(fields), what)


def _checked(model: type[M], build: Callable[[], M], what: str) -> M:
    try:
        return build()
    except ValidationError as error:
        detail = describe(error, what, model)
        first = detail.partition(" ")[0]
        raise InvalidRequest(detail, field=first if first in model.model_fields else None) from None


def describe(error: ValidationError, what: str = "", model: type[BaseModel] | None = None) -> str:
    """One sentence for the first fault of a pydantic error: the field, its value, what is wrong with it.

    Args:
        error: What pydantic found.
        what: How the sentence calls the message.
        model: What was to be built; of an unknown field the sentence then tells which ones there are.
    """
    if error.error_count() > _MAX_FAULTS_LISTED:  # listing millions of them would take gigabytes and half a minute
        return f"{what or 'message'}: has {error.error_count()} faults, such as unknown fields"
    fault = _telling(error.errors(include_url=False))
    field = ".".join(str(part) for part in fault["loc"]) or what
    reason = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case unknown if unknown in _UNKNOWN:
            whose = f" of the {what}" if what and field != what else ""
            known = [] if model is None else _fields_at(model, fault["loc"][:-1])
            return f"{field}: unknown field{whose}{_there_are(str(fault['loc'][-1]), known)}"
        case "missing":
            return f"{field}: is missing"
        case "json_invalid":
            return f"{what or 'body'}: {_json_fault(reason.removeprefix('Invalid JSON: '))}"
        case "string_pattern_mismatch" if meant := _MEANT_BY.get(fault["ctx"]["pattern"]):
            reason = meant
    value = fault["input"]
    if isinstance(value, dict | list | BaseModel) and fault["type"] == "value_error":
        return f"{field}: {reason}" if field else reason
    return f"{field}: {quoted(value)} {reason[:1].lower()}{reason[1:]}" if field else reason


def _json_fault(reason: str) -> str:
    """What the parser found, in words that say what to do about it."""
    fault, _, place = reason.partition(" at line ")
    if fault == "recursion limit exceeded":
        return f"is JSON nested too deeply, at line {place}"
    if "hex escape" in fault:
        return f"has a JSON escape \\u… that is no character, such as half of one (a lone surrogate), at line {place}"
    return f"is not JSON ({reason})"


def _telling(faults: list[Any]) -> Any:
    """The first of the faults; where a field is missing, one beside it that is unknown tells more."""
    first = faults[0]
    if first["type"] != "missing":
        return first
    beside = (fault for fault in faults if fault["loc"][:-1] == first["loc"][:-1])
    return next((fault for fault in beside if fault["type"] in _UNKNOWN), first)


def _fields_at(model: Any, path: Sequence[int | str]) -> list[str]:
    """The names of the fields that there are at a place of a message; of lists it is all the same which item."""
    for step in path:
        fields = _fields_of(model)
        if step in fields:
            model = next(filter(_fields_of, _types_in(fields[str(step)].annotation)), None)
    return list(_fields_of(model))


def _fields_of(model: Any) -> dict[str, Any]:
    return getattr(model, "model_fields", None) or getattr(model, "__pydantic_fields__", {})


def _types_in(annotation: Any) -> Iterator[Any]:
    """A type, and all types that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


def _there_are(name: str, known: Sequence[str]) -> str:
    if alike := get_close_matches(name, known, 1, _ALIKE):
        return f"; did you mean {alike[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def quoted(value: object) -> str:
    """A value as an error shows it: its repr, cut short."""
    try:
        text = ascii(value[: _SHOWN_CHARS + 1]) if isinstance(value, str) else ascii(value)
    except (ValueError, RecursionError):  # an int of too many digits, say
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
