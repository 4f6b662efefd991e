"""The Flight contract, version 1: every command, ticket, action body and metadata message, and how they are read.

All of them are JSON (UTF-8) objects; unknown fields are errors; times are RFC 3339. ``docs/wire.md`` is the same
contract in prose.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from timedb.contract.accuracy_commands import AccuracyCommand, AccuracyTicket
from timedb.contract.follow_command import FollowTicket
from timedb.contract.selecting import Corrections, Filtering, Relative, Selecting, check_by_cutoff, check_one_length
from timedb.contract.upload_commands import (
    AppendCommand,
    AppendedRun,
    AppendedUpload,
    AppendEnd,
    CommitMarker,
    CorrectCommand,
    UploadCommand,
    UploadFields,
)
from timedb.contract.wire_fields import (
    HOW_UNITS_CHANGE,
    MAX_NAME_CHARS,
    Aggregate,
    Command,
    Days,
    Fill,
    Labels,
    Length,
    Name,
    Number,
    SelectedLabels,
    Tags,
    Text,
    Time,
    TimeOfDay,
    UnitChange,
    WireModel,
    check_range,
    parse,
    parse_object,
    quoted,
)

__all__ = [
    "CONTRACT_VERSION",
    "INSTANCE_HEADER",
    "MAX_NAME_CHARS",
    "AccuracyCommand",
    "AccuracyTicket",
    "AppendCommand",
    "AppendEnd",
    "AppendedRun",
    "AppendedUpload",
    "ApplyRetention",
    "Command",
    "CommitMarker",
    "CorrectCommand",
    "CreateManySeries",
    "CreateSeries",
    "DailyTime",
    "Filtering",
    "FollowTicket",
    "GetRun",
    "ListRuns",
    "ListSeries",
    "LookupCommand",
    "Nothing",
    "ReadCommand",
    "ReadTicket",
    "Relative",
    "Resample",
    "RestoreRun",
    "RetentionRule",
    "Selecting",
    "SeriesLabels",
    "UnitChange",
    "UpdateSeries",
    "UpdateValues",
    "UploadCommand",
    "UploadFields",
    "ValueUpdate",
    "WireModel",
    "WithdrawRun",
    "parse",
    "parse_object",
    "quoted",
]

CONTRACT_VERSION = 1
INSTANCE_HEADER = "x-timedb-instance"
"""In every answer of a Flight server: a random text, another one each time that a server is started."""
MAX_LIMIT = 1_000_000_000
View = Literal["flat", "overlapping", "latest", "changes", "first"]
OrderBy = Literal["series", "valid_time", "known_time", "change_time"]


class Resample(WireModel):
    """Values brought to periods: ``aggregate`` over each ``period`` of ``time_zone``.

    ``fill`` says what becomes of periods without a value: nothing, a row with null, with the value before, with one
    between the values before and after, or with a number; of ``fill_limit`` periods of a gap at most.
    """

    period: Length
    aggregate: Aggregate
    time_zone: Name = "UTC"
    fill: Fill = "none"
    fill_limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None

    @model_validator(mode="after")
    def _is_one_length(self) -> Self:
        check_one_length("period", self.period)
        if self.fill_limit is not None and self.fill == "none":
            raise ValueError("fill_limit goes with fill: null, previous, linear or a number")
        return self


class ReadCommand(Selecting):
    """What a read selects; :class:`ReadTicket` adds the ``op``."""

    view: View = "flat"
    all_versions: bool = False
    relative: Relative | None = None
    lead_time: Length | None = None
    corrections: Corrections = "all"
    newest_run: bool = False
    resample: Resample | None = None
    pivot: Name | None = None
    unit: Name | None = None
    since: str | None = None
    columns: list[str] | None = None
    names: bool = False
    ordered: bool = False
    order_by: OrderBy = "series"
    descending: bool = False
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    last: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    after: str | None = None

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        if self.lead_time is not None:
            if self.lead_time.months:
                raise ValueError(
                    f"lead_time: {self.lead_time} has months, which have no fixed length; use days or hours"
                )
            if self.relative is not None:
                raise ValueError("lead_time and relative are two cut-offs; give one of them")
        if self.since is not None and self.view != "changes":
            raise ValueError("since goes with view changes")
        if self.view in ("latest", "changes") and (self.all_versions or self.resample is not None):
            other = "all_versions" if self.all_versions else "resample"
            raise ValueError(f"{other} goes with the views flat and overlapping, not with {self.view}")
        if self.view == "first" and self.all_versions:
            raise ValueError("all_versions goes with the views flat and overlapping, not with first")
        if self.view == "changes" and self.has_cut_off:
            raise ValueError("relative and lead_time go with every view but changes")
        if self.corrections != "all" and self.view == "changes":
            raise ValueError("corrections: goes with every view but changes")
        check_by_cutoff(self.corrections, relative=self.relative, lead_time=self.lead_time, end_known=self.end_known)
        if self.resample is not None and self.all_versions:
            raise ValueError("resample would mix versions of one value; leave out all_versions")
        if self.newest_run:
            self._check_newest_run()
        if self.last is not None and self.view in ("latest", "changes"):
            other = "is the last value of each series" if self.view == "latest" else "goes by change_time"
            raise ValueError(f"last: goes with the views flat, overlapping and first; {self.view} {other}")
        if self.pivot is not None:
            self._check_pivot()
        if self.names and (self.columns is not None or self.pivot is not None):
            other = "columns says which there are: name series_key" if self.pivot is None else "pivot makes the columns"
            raise ValueError(f"names: {other}; leave names out")
        return self

    def _check_pivot(self) -> None:
        if self.all_versions or self.view == "changes":
            other = "all_versions" if self.all_versions else "changes"
            raise ValueError(f"pivot: a cell has one value, and {other} gives each of its versions")
        if self.columns is not None:
            raise ValueError("columns: pivot makes the columns; leave them out")
        if self.order_by == "change_time" or (self.order_by == "known_time" and self.view != "overlapping"):
            raise ValueError(f"order_by: {self.order_by} is no column of a row that pivot makes")

    def _check_newest_run(self) -> None:
        if self.lead_time is not None:
            raise ValueError("newest_run: lead_time cuts each valid_time at its own moment, and runs in pieces")
        if self.all_versions or self.view == "changes":
            other = "all_versions" if self.all_versions else "changes"
            raise ValueError(f"newest_run: goes with the revisions that stand, not with {other}")

    @property
    def has_cut_off(self) -> bool:
        """Whether what may have been known depends on the valid_time: ``relative`` or ``lead_time``."""
        return self.relative is not None or self.lead_time is not None

    @property
    def is_by_point(self) -> bool:
        """Whether the rows of each (series, valid_time, valid_time_end) follow from what is known of it alone, before
        ``last`` picks some.
        """
        return self.resample is None and self.view != "latest" and not self.newest_run

    @property
    def is_ordered(self) -> bool:
        """Whether its rows come in an order."""
        return self.ordered or self.descending or self.limit is not None

    @property
    def numbers_revisions(self) -> bool:
        """Whether the revisions of each point are counted: the answer has the column ``revision``."""
        return "revision" in (self.columns or ())


class ReadTicket(Command, ReadCommand):
    """``do_get`` ticket and ``get_flight_info`` command.

    A ticket that ``get_flight_info`` made also carries ``bucket`` and ``table_version``: the part of the answer and
    the version of the values table that the plan was made on. They are opaque to clients.
    """

    op: Literal["read"] = "read"
    bucket: str | None = None
    table_version: Annotated[int, Field(ge=0)] | None = None


class LookupCommand(Command):
    """``do_exchange`` descriptor: each row that the client sends gets the value that was known by its ``known_by``.

    ``as_of``: as the lake held it at that change_time. ``max_age``: nothing that was known longer before ``known_by``.
    ``corrections``: as those of a read, ``known_by`` being the cut-off.
    """

    op: Literal["lookup"] = "lookup"
    as_of: Time | None = None
    max_age: Length | None = None
    corrections: Corrections = "all"

    @model_validator(mode="after")
    def _age_is_a_length_of_time(self) -> Self:
        if self.max_age is not None and (self.max_age.sign < 0 or self.max_age.months):
            fault = "is negative" if self.max_age.sign < 0 else "has months, which have no fixed length"
            raise ValueError(f"max_age: {self.max_age} {fault}; use days or hours")
        return self


class CreateSeries(WireModel):
    """Action ``create_series``: a series by name and labels, made where there is none."""

    name: Name
    unit: Name | None = None
    description: Text | None = None
    labels: Labels = Field(default_factory=dict)


class CreateManySeries(WireModel):
    """Action ``create_many_series``: all of them or none."""

    series: list[CreateSeries]


class UpdateSeries(WireModel):
    """Action ``update_series``: a field left out stays, ``description: null`` clears it.

    ``unit_change`` says what another ``unit`` does to the values: ``declare`` leaves the numbers as they are and says
    that they have been of this unit all along; ``convert`` converts them all, and is a change of its own.
    """

    series_id: str
    name: Name | None = None
    unit: Name | None = None
    unit_change: UnitChange | None = None
    description: Text | None = None
    retired: bool | None = None

    @model_validator(mode="after")
    def _says_what_becomes_of_it(self) -> Self:
        for field in ("name", "unit", "unit_change", "retired"):
            if field in self.model_fields_set and getattr(self, field) is None:
                raise ValueError(f"{field}: only a description can be cleared; leave out what is to stay")
        if self.unit is not None and self.unit_change is None:
            raise ValueError(f"unit_change: has to say what another unit does to the values; {HOW_UNITS_CHANGE}")
        if self.unit is None and self.unit_change is not None:
            raise ValueError("unit_change: there is no unit beside it")
        others = self.model_fields_set & {"name", "description", "retired"}
        if self.unit_change == "convert" and others:
            raise ValueError(f"unit_change: a conversion is a change of its own; leave {min(others)} to another call")
        return self


class ListSeries(WireModel):
    """Action ``list_series`` and the criteria of ``list_flights``.

    ``search`` keeps the series whose name, unit, description, id and labels (as ``label=value``) contain every word
    of it, in any case, and puts the best answers first: that very name, names that begin so, names that hold the words.
    ``limit`` keeps the first ones; ``after`` is the ``cursor`` of the page before.
    """

    name: str | None = None
    labels: SelectedLabels | None = None
    series_ids: list[str] | None = None
    search: Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    after: str | None = None


class SeriesLabels(WireModel):
    """Action ``series_labels``: the label keys and values of the series of a name, or of all."""

    name: str | None = None


class ValueUpdate(WireModel):
    """One correction; a field left out of value, annotation, tags and retracted stays, null clears it."""

    run_id: str | None = None
    series_id: str | None = None
    series_key: Name | None = None
    labels: Labels | None = None
    valid_time: Time | None = None
    known_time: Time | None = None
    valid_time_end: Time | None = None
    value_id: str | None = None
    tenant_id: str | None = None
    value: Number = None
    annotation: Text | None = None
    tags: Tags | None = None
    retracted: bool | None = None
    changed_by: Name | None = None

    @model_validator(mode="after")
    def _addresses_a_row(self) -> Self:
        if self.value_id is not None:
            address = {"run_id", "series_id", "series_key", "labels", "valid_time", "known_time", "valid_time_end"}
            if others := sorted(address & self.model_fields_set):
                raise ValueError(f"value_id already says which row; leave out {', '.join(others)}")
        elif (self.series_id is None and self.series_key is None) or self.valid_time is None:
            raise ValueError("needs series_id (or series_key) and valid_time, or value_id, to say which row")
        elif self.labels is not None and self.series_key is None:
            raise ValueError("labels: stand beside series_key, which is missing")
        return self


class UpdateValues(WireModel):
    """Action ``update_values``: corrections, all or none of them."""

    updates: list[ValueUpdate]
    update_id: Name | None = None


class GetRun(WireModel):
    """Action ``get_run``: what is known of one run, by its id."""

    run_id: str


class ListRuns(WireModel):
    """Action ``list_runs``: newest first; ``start`` and ``end`` bound ``run_start_time`` (end exclusive)."""

    workflow_id: str | None = None
    start: Time | None = None
    end: Time | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _range_runs_forward(self) -> Self:
        check_range(self.start, self.end, ("start", "end"))
        return self


class WithdrawRun(WireModel):
    """Action ``withdraw_run``: all rows of a run, or those of some of its series."""

    run_id: str
    reason: Text | None = None
    series_ids: list[str] | None = None
    changed_by: Name | None = None


class RestoreRun(WithdrawRun):
    """Action ``restore_run``: all rows that withdrawals of a run took, or those of some of its series."""


class DailyTime(WireModel):
    """A clock time of every local day."""

    time_of_day: TimeOfDay
    time_zone: Name


class RetentionRule(WireModel):
    """What is not kept of the series of a name, of some labels, or both; ``labels: {}`` are all series.

    One of ``drop_after_days``: values whose valid_time is older go, with all their revisions; ``thin_after_days``: of
    the revisions whose known_time is older, those go that neither are among the ``keep_last`` newest of their value nor
    were the newest known at ``keep_known_at`` of some day; ``collapse_repeats_after_days``: of the revisions whose
    known_time is older, those go that only repeat the one known before them, as ``skip_unchanged`` would have left them
    out. The flat winner always stays.
    """

    name: Name | None = None
    labels: SelectedLabels | None = None
    drop_after_days: Annotated[Days, Field(ge=1)] | None = None
    thin_after_days: Annotated[Days, Field(ge=0)] | None = None
    collapse_repeats_after_days: Annotated[Days, Field(ge=0)] | None = None
    keep_last: Annotated[int, Field(ge=1)] | None = None
    keep_known_at: DailyTime | None = None

    @property
    def after_days(self) -> int:
        """Days from which on it takes anything."""
        (days,) = (days for days in self._ages() if days is not None)
        return days

    def _ages(self) -> tuple[int | None, ...]:
        return self.drop_after_days, self.thin_after_days, self.collapse_repeats_after_days

    @model_validator(mode="after")
    def _says_what_goes(self) -> Self:
        keeps = self.keep_last is not None or self.keep_known_at is not None
        if self.name is None and self.labels is None:
            raise ValueError("needs name or labels, to say which series; labels {} are all of them")
        if sum(days is not None for days in self._ages()) != 1:
            raise ValueError("needs one of drop_after_days, thin_after_days and collapse_repeats_after_days")
        if self.thin_after_days is not None and not keeps:
            raise ValueError("thin_after_days needs keep_last, keep_known_at or both, to say what stays")
        if self.thin_after_days is None and keeps:
            raise ValueError(
                "keep_last and keep_known_at go with thin_after_days alone; drop_after_days drops whole values, "
                "collapse_repeats_after_days what repeats the revision before it"
            )
        return self


class ApplyRetention(WireModel):
    """Action ``apply_retention``: the rules, one after the other; ``dry_run`` only tells what they would do."""

    rules: Annotated[list[RetentionRule], Field(min_length=1, max_length=1000)]
    dry_run: bool


class Nothing(WireModel):
    """The body of an action that takes none."""
