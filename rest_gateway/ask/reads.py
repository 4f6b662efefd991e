"""Query parameters of the calls that read values, and the commands that they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from timedb.contract.columns import AUDIT_COLUMNS
from timedb.contract.errors import InvalidRequest, TimeDBError
from timedb.contract.read_options import ACCURACY, READ, ROWS, ReadOption, nested
from timedb.contract.wire import (
    AccuracyCommand,
    Filtering,
    FollowTicket,
    ReadCommand,
    Relative,
    Resample,
    View,
    WireModel,
    parse_object,
)
from timedb.files.formats import FormatName
from timedb.files.local_csv import LocalCsv
from timedb.layouts.layout import as_argument
from timedb.rest_gateway.ask.models import COUNT, Flag, Labels, Limit, QueryTime

__all__ = ["AccuracyQuery", "ChangesQuery", "ValuesQuery", "in_words_of_the_query"]

_PARAMETERS = {
    "series_keys": "name",
    "series_key": "name",
    "series_ids": "series_id",
    "after": "cursor",
    "view": "mode",
    "resample": "period",
}


_COLUMNS = ("valid_time", "series_id", "value", "series_key", "series_unit")


def _columns_of_changes() -> list[str]:
    first, *others = _COLUMNS
    return [first, "valid_time_end", *others, *AUDIT_COLUMNS]


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


_PARTS: dict[str, type[WireModel]] = {"relative": Relative, "resample": Resample}


def _parameter(option: ReadOption, message: type[WireModel] = ReadCommand) -> Any:
    """The field that an option of a message is in a query, with its default."""
    field = (message if option.part_of is None else _PARTS[option.part_of]).model_fields[option.name]
    described = Field(description=option.parameter or option.option.removesuffix("."))
    match option.kind:
        case "flag":
            return Annotated[Flag, described], False
        case "time":
            kind: Any = QueryTime
        case "count":
            kind = Annotated[field.annotation, *field.metadata, COUNT]
        case "texts":
            kind = list[str]
        case "word":
            kind = field.annotation
        case _:
            kind = str  # which the message reads
    return Annotated[kind | None, described], None


_Rows: Any = create_model("_Rows", __base__=WireModel, **{each.name: _parameter(each) for each in ROWS})


_FILTERS = [each for each in ROWS if each.name in Filtering.model_fields]
_Filters: Any = create_model("_Filters", __base__=WireModel, **{each.name: _parameter(each) for each in _FILTERS})


class RowsQuery(_Rows):
    """Which rows a call is about."""

    series_id: Annotated[list[str] | None, Field(description="May be repeated")] = None
    name: Annotated[list[str] | None, Field(description="Name of a series; may be repeated")] = None
    labels: Labels | None = None
    format: Annotated[
        FormatName | None, Field(description="The format of the answer; default: what Accept asks for")
    ] = None

    def selecting(self) -> dict[str, Any]:
        """The fields of the contract that say the same."""
        named = {"series_ids": self.series_id, "series_keys": self.name, "labels": self.labels}
        return named | {each.name: getattr(self, each.name) for each in ROWS}


class _ViewQuery(RowsQuery):
    mode: Annotated[
        View,
        Field(
            description="The latest word on each valid_time, all revisions, the last value of each series, all "
            "rows written since an answer's token, or the first word on each valid_time"
        ),
    ] = "flat"


_Read: Any = create_model("_Read", __base__=_ViewQuery, **{each.name: _parameter(each) for each in READ})


class ValuesQuery(_Read):
    """Query of ``GET /values``."""

    time_zone: Annotated[
        str | None,
        Field(
            description="Zone of days_ahead, of window_length, of period and of local_times, such as Europe/Stockholm"
        ),
    ] = None
    intervals: Annotated[Flag, Field(description="Also the column valid_time_end")] = False
    columns: Annotated[
        str | None,
        Field(description="These columns in this order, with commas between them, such as valid_time,value,revision"),
    ] = None
    non_finite: Annotated[
        Literal["null", "text"],
        Field(
            description='NaN and the infinities in JSON and NDJSON: null, or the texts "NaN", "Infinity", "-Infinity"'
        ),
    ] = "null"
    without_formulas: Annotated[
        Flag,
        Field(description="CSV for spreadsheets: ' before texts that begin like a formula, with =, +, -, @, tab or CR"),
    ] = False
    delimiter: Annotated[
        str | None, Field(description="Of CSV: what stands between cells, such as ;; tab is the tab. Default: ,")
    ] = None
    decimal: Annotated[str | None, Field(description="Of CSV: what stands before decimals, . or ,; default: .")] = None
    local_times: Annotated[
        Flag, Field(description="Of CSV: times as the clock of time_zone shows them, without an offset")
    ] = False
    limit: Annotated[Limit | None, Field(description="Rows of one page; default: all rows")] = None
    cursor: Annotated[str | None, Field(description="The next_cursor of the page before")] = None

    def to_command(self) -> ReadCommand:
        """The read that it asks for.

        Raises:
            InvalidRequest: a value does not fit.
        """
        asked = {each.name: getattr(self, each.name) for each in READ}
        fields = {
            **self.selecting(),
            **asked,
            "view": self.mode,
            "columns": self._columns(asked),
            "ordered": True,
            "order_by": asked["order_by"]
            or {"overlapping": "known_time", "changes": "change_time"}.get(self.mode, "valid_time"),
            "limit": self.limit,
            "after": self.cursor,
        }
        return parse_object(ReadCommand, nested(fields, self.time_zone, zone_is_gate=not self.local_times))

    def local_csv(self, format: FormatName) -> LocalCsv | None:
        """How CSV is written for a spreadsheet of some country; None: as it is everywhere.

        Args:
            format: Of the answer.

        Raises:
            InvalidRequest: a value does not fit, or the answer is no CSV.
        """
        found = LocalCsv.of(
            self.delimiter,
            self.decimal,
            local_times=self.local_times,
            time_zone=self.time_zone,
            without_formulas=self.without_formulas,
            spoken=as_argument,
        )
        if found is not None and format != "csv":
            said = next(name for name in ("delimiter", "decimal", "local_times") if getattr(self, name))
            raise InvalidRequest(
                f"{said}: is about CSV, and the answer is {format}; format=csv asks for it", field=said
            )
        return found

    def _columns(self, asked: Mapping[str, Any]) -> list[str] | None:
        if self.columns is not None:
            if self.intervals:
                raise InvalidRequest("intervals: columns says whether valid_time_end is there", field="intervals")
            return [name.strip() for name in self.columns.split(",")]
        if asked["pivot"] is not None:
            return None
        if self.mode == "changes":
            return _columns_of_changes()
        columns = list(_COLUMNS)
        if self.intervals:
            columns.insert(1, "valid_time_end")
        if self.mode == "overlapping":
            columns.insert(0, "known_time")
        if asked["all_versions"]:
            columns += [name for name in AUDIT_COLUMNS if name not in columns]
        return columns


class ChangesQuery(_Filters):
    """Query of ``GET /changes``."""

    series_id: Annotated[list[str] | None, Field(description="May be repeated")] = None
    name: Annotated[list[str] | None, Field(description="Name of a series; may be repeated")] = None
    labels: Labels | None = None
    since: Annotated[
        str | None, Field(description="The token of the answer before, or now; left out: from the beginning")
    ] = None
    wait: Annotated[
        int,
        Field(ge=0, le=300, description="Seconds to wait for something new before there is an answer without"),
        COUNT,
    ] = 0
    non_finite: Annotated[
        Literal["null", "text"],
        Field(description='NaN and the infinities: null, or the texts "NaN", "Infinity", "-Infinity"'),
    ] = "null"

    def to_ticket(self, since: str | None) -> FollowTicket:
        """What there is by now, from a token on.

        Raises:
            InvalidRequest: a value does not fit.
        """
        named = {"series_ids": self.series_id, "series_keys": self.name, "labels": self.labels}
        filters = {each.name: getattr(self, each.name) for each in _FILTERS}
        fields = {"since": since, "columns": _columns_of_changes(), "wait": False, **named, **filters}
        return parse_object(FollowTicket, fields)


_Accuracy: Any = create_model(
    "_Accuracy", __base__=RowsQuery, **{each.name: _parameter(each, AccuracyCommand) for each in ACCURACY}
)


class AccuracyQuery(_Accuracy):
    """Query of ``GET /accuracy``."""

    actual_id: Annotated[str | None, Field(description="The series of actual values, or …")] = None
    actual_key: Annotated[str | None, Field(description="… its name")] = None
    actual_labels: Labels | None = None
    reference_labels: Labels | None = None
    horizon: Annotated[str, Field(description="Length of a bucket of lead times, such as 1h or PT6H")] = "1h"
    time_zone: Annotated[
        str | None, Field(description="Zone of days_ahead and of window_length, such as Europe/Stockholm")
    ] = None

    def to_command(self) -> AccuracyCommand:
        """The figures that it asks for.

        Raises:
            InvalidRequest: a value does not fit.
        """
        names = ("actual_id", "actual_key", "actual_labels", "reference_labels", "horizon")
        asked = {name: getattr(self, name) for name in (*names, *(each.name for each in ACCURACY))}
        return parse_object(AccuracyCommand, nested(self.selecting() | asked, self.time_zone, zone_is_gate=True))
