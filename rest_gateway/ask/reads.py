"""Query parameters of the calls that read values, and the commands that they become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from timedb.contract.columns import AUDIT_COLUMNS
from timedb.contract.errors import TimeDBError
from timedb.contract.wire import (
    AccuracyCommand,
    Aggregate,
    ReadCommand,
    Relative,
    Selecting,
    View,
    WireModel,
    parse_object,
)
from timedb.files.formats import FormatName
from timedb.rest_gateway.ask.models import COUNT, Flag, Labels, Limit, QueryTime

__all__ = ["AccuracyQuery", "ValuesQuery", "in_words_of_the_query"]

_DAILY_OR_WINDOWS = set(Relative.model_fields) - {"time_zone"}
_PARAMETERS = {
    "series_keys": "name",
    "series_key": "name",
    "series_ids": "series_id",
    "after": "cursor",
    "resample": "period",
}


@contextmanager
def in_words_of_the_query() -> Iterator[None]:
    """Errors about a field of the contract name the parameter that it came from."""
    try:
        yield
    except TimeDBError as error:
        if error.field is None:
            raise
        if error.field == "relative" and error.detail.startswith("relative: "):  # whose fields are parameters
            error = type(error)(error.detail.removeprefix("relative: "), request_id=error.request_id)
        path = (error.field or "").removeprefix("relative.").removeprefix("resample.")
        head, dot, rest = path.partition(".")
        raise error.of_field(_PARAMETERS.get(head, head) + dot + rest) from None


class RowsQuery(WireModel):
    """Which rows a call is about."""

    start_valid: Annotated[QueryTime | None, Field(description="First valid_time, inclusive")] = None
    end_valid: Annotated[QueryTime | None, Field(description="Last valid_time, exclusive")] = None
    start_known: Annotated[QueryTime | None, Field(description="First known_time, inclusive")] = None
    end_known: Annotated[QueryTime | None, Field(description="Last known_time, exclusive")] = None
    as_of: Annotated[QueryTime | None, Field(description="What the store held at this change_time, inclusive")] = None
    token: Annotated[str | None, Field(description="The X-Token of an earlier answer: the rows it could see")] = None
    series_id: Annotated[list[str] | None, Field(description="May be repeated")] = None
    name: Annotated[list[str] | None, Field(description="Name of a series; may be repeated")] = None
    labels: Labels | None = None
    format: Annotated[
        FormatName | None, Field(description="The format of the answer; default: what Accept asks for")
    ] = None

    def selecting(self) -> dict[str, Any]:
        """The fields of the contract that say the same."""
        return self._same_in(Selecting) | {"series_ids": self.series_id, "series_keys": self.name}

    def _same_in(self, command: type[WireModel]) -> dict[str, Any]:
        """The parameters that a command has under the same name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in command.model_fields}


class ValuesQuery(RowsQuery):
    """Query of ``GET /values``."""

    mode: Annotated[
        View,
        Field(
            description="The latest word on each valid_time, all revisions, the last value of each series, or all "
            "rows written since an answer's token"
        ),
    ] = "flat"
    all_versions: Annotated[Flag, Field(description="Also the corrected versions, with the audit columns")] = False
    days_ahead: Annotated[
        Annotated[int, Field(ge=0, le=3650), COUNT] | None,
        Field(description="Only what was known so many local days before"),
    ] = None
    time_of_day: Annotated[str | None, Field(description="… by this local time, such as 10:00")] = None
    time_zone: Annotated[
        str | None,
        Field(description="… in this zone, such as Europe/Stockholm; also the zone of window_length and of period"),
    ] = None
    window_length: Annotated[str | None, Field(description="Windows so long, such as P1D or 6h, …")] = None
    issue_offset: Annotated[
        str | None, Field(description="… of which only what was known so long before their start, such as -PT14H, …")
    ] = None
    start_window: Annotated[QueryTime | None, Field(description="… counted from the window that starts here")] = None
    lead_time: Annotated[
        str | None, Field(description="Only what was known at least so long before its valid_time, such as 36h")
    ] = None
    period: Annotated[str | None, Field(description="Values of such a period as one, such as 1h, P1D or P1M, …")] = None
    aggregate: Annotated[Aggregate | None, Field(description="… by this function; default: mean")] = None
    unit: Annotated[str | None, Field(description="Values converted to this unit")] = None
    since: Annotated[str | None, Field(description="With mode=changes: the X-Token of the answer before")] = None
    intervals: Annotated[Flag, Field(description="Also the column valid_time_end")] = False
    non_finite: Annotated[
        Literal["null", "text"],
        Field(
            description='NaN and the infinities in JSON and NDJSON: null, or the texts "NaN", "Infinity", "-Infinity"'
        ),
    ] = "null"
    limit: Annotated[Limit | None, Field(description="Rows of one page; default: all rows")] = None
    cursor: Annotated[str | None, Field(description="The next_cursor of the page before")] = None

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.time_zone is None and (self.days_ahead is not None or self.time_of_day is not None):
            raise ValueError("time_zone is missing; days_ahead and time_of_day need it")
        if self.aggregate is not None and self.period is None:
            raise ValueError("period is missing; aggregate needs it")
        return self

    def to_command(self) -> ReadCommand:
        """The read that it asks for.

        Raises:
            InvalidRequest: a value does not fit.
        """
        fields = {
            **self.selecting(),
            **self._same_in(ReadCommand),
            "view": self.mode,
            "relative": self._relative(),
            "resample": self._resample(),
            "columns": self._columns(),
            "ordered": True,
            "order_by": {"overlapping": "known_time", "changes": "change_time"}.get(self.mode, "valid_time"),
            "after": self.cursor,
        }
        return parse_object(ReadCommand, {name: value for name, value in fields.items() if value is not None})

    def _columns(self) -> list[str]:
        columns = ["valid_time", "series_id", "value", "series_key", "series_unit"]
        if self.intervals or self.mode == "changes":
            columns.insert(1, "valid_time_end")
        if self.mode == "overlapping":
            columns.insert(0, "known_time")
        if self.all_versions or self.mode == "changes":
            columns += [name for name in AUDIT_COLUMNS if name not in columns]
        return columns

    def _relative(self) -> dict[str, Any] | None:
        given = {name: getattr(self, name) for name in Relative.model_fields if getattr(self, name) is not None}
        # A zone alone asks for the usual daily gate, unless it is that of the periods.
        return given if given.keys() & _DAILY_OR_WINDOWS or (given and self.period is None) else None

    def _resample(self) -> dict[str, Any] | None:
        if self.period is None:
            return None
        return {
            "period": self.period,
            "aggregate": self.aggregate or "mean",
            "time_zone": self.time_zone or "UTC",
        }


class AccuracyQuery(RowsQuery):
    """Query of ``GET /accuracy``."""

    actual_id: Annotated[str | None, Field(description="The series of actual values, or …")] = None
    actual_key: Annotated[str | None, Field(description="… its name")] = None
    horizon: Annotated[str, Field(description="Length of a bucket of lead times, such as 1h or PT6H")] = "1h"

    def to_command(self) -> AccuracyCommand:
        """The figures that it asks for.

        Raises:
            InvalidRequest: a value does not fit.
        """
        fields = {**self.selecting(), **self._same_in(AccuracyCommand)}
        return parse_object(AccuracyCommand, {name: value for name, value in fields.items() if value is not None})
