"""Bodies and query parameters of the REST calls. Unlike on Flight, a time without an offset is UTC here."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, FailFast, Field, PlainSerializer, WithJsonSchema
from pydantic.dataclasses import dataclass

from timedb.contract.json_keys import object_of
from timedb.contract.times import format_time, parse_time, to_micros
from timedb.contract.wire import MAX_LIMIT, CreateSeries, UnitChange, ValueUpdate, WireModel
from timedb.contract.wire_fields import (
    MAX_NAME_CHARS,
    Name,
    Number,
    RunParams,
    SelectedLabels,
    Tags,
    Text,
    finite_float,
)
from timedb.rest_gateway.openapi.examples import RUN, SERIES_ID, TIME

__all__ = [
    "CorrectionQuery",
    "NewManySeries",
    "NewSeries",
    "NoQuery",
    "Restoration",
    "RowLines",
    "RunsQuery",
    "SeriesChange",
    "SeriesLabelsQuery",
    "SeriesPageQuery",
    "SeriesQuery",
    "UpdateRequest",
    "UploadQuery",
    "UploadRequest",
    "ValueRow",
    "Withdrawal",
]

_SKIP_TEXT = "Leave out rows that repeat the one known before; late runs and corrections find them as never sent"
_TIME_SCHEMA = WithJsonSchema(
    {"type": "string", "format": "date-time", "description": "RFC 3339; without an offset it is UTC"}
)
_NUMBER_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}, {"type": "null"}]}
)


def _read_time(value: object) -> datetime:
    if isinstance(value, str):
        return parse_time(value, naive_is_utc=True)
    if isinstance(value, datetime):  # a default, or a value that was read before
        return value
    raise ValueError("is not an RFC 3339 time such as 2025-01-01T00:00:00Z")


@lru_cache(maxsize=1 << 16)
def _micros_of(text: str) -> int:
    return to_micros(parse_time(text, naive_is_utc=True))


def _read_micros(value: object) -> int:
    if isinstance(value, str):
        return _micros_of(value)
    raise ValueError("is not an RFC 3339 time such as 2025-01-01T00:00:00Z")


# In a URL "+" means a space, so that a time's unescaped offset arrives with one.
_LOST_PLUS = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d\S*) (\d\d:?\d\d)")


def _read_query_time(value: object) -> datetime:
    if isinstance(value, str) and (match := _LOST_PLUS.fullmatch(value)):
        return _read_time("+".join(match.groups()))
    return _read_time(value)


def _read_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in {"true", "1", "false", "0"}:
        raise ValueError("is not true or false")
    return word in {"true", "1"}


def _read_count(value: object) -> object:
    if isinstance(value, str):
        if re.fullmatch(r"-?\d{1,18}", value, re.ASCII) is None:
            raise ValueError("is not a whole number")
        return int(value)
    return value


def _read_json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value, parse_float=finite_float, object_pairs_hook=object_of)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ValueError('is not a JSON object such as {"site": "north"}')
    return found


def _labels_pattern() -> str:
    """JSON objects whose values are texts, lists of texts, or null."""
    space = r"[ \t\n\r]*"
    text = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
    texts = rf"\[{space}(?:{text}{space}(?:,{space}{text}{space})*)?\]"
    item = rf"{text}{space}:{space}(?:{text}|{texts}|null){space}"
    return rf"^{space}\{{{space}(?:{item}(?:,{space}{item})*)?\}}{space}$"


Time = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(format_time, when_used="json"), _TIME_SCHEMA]
RowTime = Annotated[int, BeforeValidator(_read_micros), _TIME_SCHEMA]
"""A time of a value row: integer microseconds since 1970, UTC."""
RowNumber = Annotated[Number, _NUMBER_SCHEMA]
QueryTime = Annotated[datetime, BeforeValidator(_read_query_time), _TIME_SCHEMA]
Flag = Annotated[bool, BeforeValidator(_read_flag)]
COUNT = BeforeValidator(_read_count)
"""Behind the bounds of a whole number in a query, for a schema shows only those that stand before it."""
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), COUNT]
Labels = Annotated[
    SelectedLabels,
    BeforeValidator(_read_json_object),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _labels_pattern(),
            "description": 'JSON object, such as {"site": "north", "kind": ["load", "wind"], "zone": null}; '
            "{}: series without labels",
        }
    ),
]


def _never_null(schema: dict[str, Any]) -> None:
    """Say of a field that may be left out that it is not null where it is there."""
    (options,) = [each for each in schema.pop("anyOf") if each != {"type": "null"}]
    schema.pop("default", None)
    schema.update(options)


NEVER_NULL = Field(json_schema_extra=_never_null)


class NewSeries(CreateSeries):
    """Body of ``POST /series``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "temperature",
                    "description": "Temperature measurements in Celsius",
                    "unit": "celsius",
                    "labels": {"site": "north"},
                }
            ]
        }
    )


class NewManySeries(WireModel):
    """Body of ``POST /series/many``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "series": [
                        {"name": "humidity", "unit": "%", "labels": {"site": "north"}},
                        {"name": "humidity", "unit": "%", "labels": {"site": "south"}},
                    ]
                }
            ]
        }
    )

    series: list[CreateSeries]


class SeriesChange(WireModel):
    """Body of ``PATCH /series/{series_id}``: a field left out stays, ``description: null`` clears it.

    A ``unit`` goes with ``unit_change``: ``declare`` leaves the stored numbers as they are, ``convert`` converts them
    all, and is a change of its own.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"description": "Outdoor temperature", "retired": False}],
            "dependentRequired": {"unit": ["unit_change"], "unit_change": ["unit"]},
            "if": {"required": ["unit_change"], "properties": {"unit_change": {"const": "convert"}}},
            "then": {"properties": dict.fromkeys(("name", "description", "retired"), False)},
        }
    )

    name: Annotated[Name | None, NEVER_NULL] = None
    unit: Annotated[Name | None, NEVER_NULL] = None
    unit_change: Annotated[UnitChange | None, NEVER_NULL] = None
    description: Text | None = None
    retired: Annotated[bool | None, NEVER_NULL] = None


def _names_one_series(schema: dict[str, Any]) -> None:
    names = ("value_key", "series_id")
    schema["anyOf"] = [{"required": [name], "properties": {name: {"type": "string"}}} for name in names]


@dataclass(
    slots=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", strict=True, json_schema_extra=_names_one_series),
)
class ValueRow:
    """One value of a run. It names its series by ``value_key`` or by ``series_id``; both have to agree."""

    # No model: a body may hold hundreds of thousands of them, and this is a fifth of the size.
    valid_time: RowTime
    valid_time_end: RowTime | None = None
    known_time: RowTime | None = None
    value_key: Name | None = None
    series_id: str | None = None
    value: RowNumber
    annotation: Text | None = None
    tags: Tags | None = None


class UploadRequest(WireModel):
    """Body of ``POST /runs`` and ``POST /upload``: one run and its values."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run_id": RUN,
                    "run_start_time": TIME,
                    "known_time": TIME,
                    "value_rows": [
                        {"valid_time": TIME, "value_key": "temperature", "value": 20.5},
                        {"valid_time": "2025-01-01T01:00:00Z", "value_key": "temperature", "value": None},
                    ],
                }
            ]
        }
    )

    workflow_id: Name = "api-workflow"
    run_start_time: Time
    run_finish_time: Time | None = None
    known_time: Annotated[Time | None, Field(description="When the values became known; default: on receipt")] = None
    run_id: Annotated[Name | None, Field(description="Chosen by the client, it makes a retry safe")] = None
    run_params: RunParams | None = None
    series_descriptions: Annotated[
        dict[Name, Text] | None, Field(description="Descriptions by value_key, for series that this call creates")
    ] = None
    create_series: Annotated[bool, Field(description="Create the series that do not exist yet")] = True
    skip_unchanged: Annotated[bool, Field(description=_SKIP_TEXT)] = False
    unit: Annotated[Name | None, Field(description="Of all values; converted to the unit of their series")] = None
    value_rows: Annotated[list[ValueRow], FailFast()]


class UploadQuery(WireModel):
    """Query of ``POST /runs`` beside a body that is no JSON: what a JSON body says of the run beside its rows."""

    workflow_id: Name = "api-workflow"
    run_start_time: Annotated[QueryTime | None, Field(description="When the run started; default: on receipt")] = None
    run_finish_time: QueryTime | None = None
    known_time: Annotated[
        QueryTime | None, Field(description="When the values became known, unless a column says; default: on receipt")
    ] = None
    run_id: Annotated[Name | None, Field(description="Chosen by the client, it makes a retry safe")] = None
    run_params: (
        Annotated[
            RunParams,
            BeforeValidator(_read_json_object),
            WithJsonSchema({"type": "string", "description": 'JSON object, such as {"model": "v2"}'}),
        ]
        | None
    ) = None
    create_series: Annotated[Flag, Field(description="Create the series that do not exist yet")] = True
    skip_unchanged: Annotated[Flag, Field(description=_SKIP_TEXT)] = False
    unit: Annotated[Name | None, Field(description="Of all values; converted to the unit of their series")] = None


class RowLines(WireModel):
    """The rows of a body of lines, each an item of ``value_rows``."""

    value_rows: Annotated[list[ValueRow], FailFast()]


_ADDRESS = ("run_id", "series_id", "series_key", "labels", "valid_time", "known_time", "valid_time_end")
"""What says which row is corrected, where no value_id does."""


def _said(name: str) -> dict[str, Any]:
    """The schema of what has a text of that name."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


class UpdateRow(ValueUpdate):
    """One correction, with the times of REST."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["value_id"], "properties": {"value_id": {"type": "string"}}},
            "then": {"properties": dict.fromkeys(_ADDRESS, False)},
            "else": {
                "required": ["valid_time"],
                "properties": {"valid_time": {"type": "string"}},
                "anyOf": [_said("series_id"), _said("series_key")],
            },
        }
    )

    valid_time: Time | None = None
    known_time: Time | None = None
    valid_time_end: Time | None = None
    value: RowNumber = None


class UpdateRequest(WireModel):
    """Body of ``PUT /values``: corrections, all or none of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "updates": [
                        {
                            "run_id": RUN,
                            "series_id": SERIES_ID,
                            "valid_time": TIME,
                            "value": 22.5,
                            "annotation": "Updated via API",
                        }
                    ]
                }
            ]
        }
    )

    updates: Annotated[list[UpdateRow], FailFast()]
    update_id: Annotated[Name | None, Field(description="Makes a retry answer as the first time")] = None


class CorrectionQuery(WireModel):
    """Query of ``PUT /values`` beside a table."""

    update_id: Annotated[Name | None, Field(description="Makes a retry of a table answer as the first time")] = None
    create: Annotated[
        Flag, Field(description="Of a table: make rows that do not exist, where their runs are; else they are an error")
    ] = False


class Withdrawal(WireModel):
    """Body of ``POST /runs/{run_id}/withdraw``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Wrong weather input"}]})

    reason: Text | None = None
    series_ids: Annotated[list[str] | None, Field(description="Only these series of the run; default: all")] = None
    changed_by: Annotated[Name | None, Field(description="Who does it; only while the lake has no users")] = None


class Restoration(Withdrawal):
    """Body of ``POST /runs/{run_id}/restore``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The weather input was right after all"}]})

    reason: Annotated[Text | None, Field(description="Annotation of the rows that come back; else their own")] = None


class NoQuery(WireModel):
    """A call without query parameters."""


class SeriesQuery(WireModel):
    """Query of ``GET /list_timeseries``."""

    name: str | None = None
    labels: Labels | None = None
    search: Annotated[
        str | None,
        Field(max_length=MAX_NAME_CHARS, description="Words that name, unit, description, id or labels must contain"),
    ] = None
    limit: Annotated[Limit | None, Field(description="The first so many")] = None


class SeriesPageQuery(SeriesQuery):
    """Query of ``GET /series``."""

    limit: Annotated[int, Field(ge=1, le=10_000, description="Series of a page"), COUNT] = 1000
    after: Annotated[str | None, Field(description="The next_cursor of the page before")] = None


class SeriesLabelsQuery(WireModel):
    """Query of ``GET /series/labels``."""

    name: str | None = None


class RunsQuery(WireModel):
    """Query of ``GET /runs``: newest first; ``start`` and ``end`` bound ``run_start_time`` (end exclusive)."""

    workflow_id: str | None = None
    start: QueryTime | None = None
    end: QueryTime | None = None
    limit: Annotated[int, Field(ge=1, le=100_000), COUNT] = 1000
