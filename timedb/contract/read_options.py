"""What a read can be asked for: the keyword arguments of Python, the options of the command line, REST's parameters.

An option of a read is added here and in the message itself (``wire.ReadCommand``); the doors make theirs from it. Only
what has a shape of its own at each door is written there: series and labels, view, columns, pages.

The command line builds its help from this, so it imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from uuid import UUID

from timedb.contract.errors import InvalidRequest

if TYPE_CHECKING:
    from timedb.contract.wire import Relative, Resample

__all__ = [
    "ACCURACY",
    "READ",
    "ROWS",
    "Compared",
    "Filters",
    "Length",
    "ReadOption",
    "Rows",
    "ScannedRows",
    "Selection",
    "Time",
    "nested",
]

Time = datetime | date | str
"""An aware datetime (or pandas Timestamp), RFC 3339 text with an offset, or a date, which is its midnight, UTC."""


Length = timedelta | str
"""A length of time: a timedelta, ISO 8601 text such as ``PT36H``, or a short form such as ``36h``."""


class Filters(TypedDict, total=False):
    """Which rows a call is about; all may be left out. The ranges include their start and not their end."""

    series_ids: str | UUID | Iterable[str | UUID] | None
    series_keys: str | Iterable[str] | None
    """Names of series."""
    labels: Mapping[str, str | list[str] | None] | None
    """Series with these labels: a value, one of several, or None for "has it not"; ``{}``: series without labels."""
    start_valid: Time | None
    end_valid: Time | None
    start_known: Time | None
    end_known: Time | None
    run_ids: str | Iterable[str] | None
    """Only what these runs wrote: of each valid_time the value that they said last."""
    workflow_id: str | None
    """Only what the runs of this workflow wrote."""


class _Selected(Filters, total=False):
    """Which rows a call is about, and as of when; all may be left out."""

    as_of: Time | None
    """What the lake held at that change_time, its instant included."""


class Rows(_Selected, total=False):
    """Which rows a call is about, and how they travel; all may be left out."""

    token: str | None
    """The ``token`` of an earlier answer: exactly the rows that it could see."""
    compression: Literal["lz4", "zstd"] | None
    """Of the bytes on the wire; pays where the network is slower than about a gigabit a second."""
    identifiers: Literal["dictionary", "plain"]
    """``plain``: texts come as they are, not dictionary-encoded, and join with any text."""


class ScannedRows(_Selected, total=False):
    """What a read without a server selects, beside its view; all may be left out."""

    all_versions: bool
    """Also superseded corrections, with who, when and why."""
    relative: Relative | Mapping[str, Any] | None
    """``{"days_ahead", "time_of_day", "time_zone"}``: per local day only what was known by then; or ``{"window_length",
    "issue_offset", "start_window", "time_zone"}``: per window what was known so long before it began."""
    lead_time: Length | None
    """Only what was known at least so long before its valid_time; ``-P45D``: by 45 days after it."""
    corrections: Literal["all", "by_cutoff", "none"]
    """``by_cutoff``: corrections and withdrawals count only if they were written within the cut-off, too. ``none``:
    everything as first published."""
    newest_run: bool
    """Of each series only the run that was known last, as it was issued (under ``relative``: of each window)."""
    last: int | None
    """Of each series only the last so many valid_times (or periods); all revisions of them, where those are read."""
    columns: list[str] | None
    names: bool
    """Beside ``series_id`` also the name, ``series_key``, in an answer without ``columns``."""


class Compared(Rows, total=False):
    """Which forecasts are compared, with what, and how the answer travels; all may be left out."""

    actual_labels: Mapping[str, str | list[str] | None] | None
    """The actuals series of that name with these labels."""
    match_labels: str | Iterable[str] | None
    """Each forecast against the actuals series, and the reference, whose labels agree with its own in these."""
    actual_view: Length
    """``flat`` (the default), ``first``: the first release, or a lead time: ``-P45D``, as known 45 days afterwards."""
    forecast_view: Literal["overlapping", "flat", "first"]
    """``overlapping`` (the default): every revision. ``flat``: of each valid time the one known last, with ``relative``
    by the cut-off. ``first``: the first release."""
    relative: Relative | Mapping[str, Any] | None
    """As of a read, about the forecasts and the reference."""
    corrections: Literal["all", "by_cutoff", "none"]
    """As of a read, about the forecasts and the reference."""
    reference_key: str | None
    """The name of the forecast that they have to beat."""
    reference_labels: Mapping[str, str | list[str] | None] | None
    """Its labels."""


class Selection(Rows, ScannedRows, total=False):
    """What a read selects and how it comes; all may be left out."""

    view: Literal["flat", "overlapping", "latest", "changes", "first"]
    """``flat``: per valid time the value known last. ``overlapping``: every revision. ``latest``: of the flat view the
    last value of each series. ``changes``: every row written since an answer's token, in all its versions. ``first``:
    per valid time the value known first, as it stands."""
    resample: Resample | Mapping[str, Any] | None
    """``{"period", "aggregate", "time_zone"}``: the values of each period as one; with ``fill`` (``"null"``,
    ``"previous"``, ``"linear"`` or a number) and ``fill_limit`` also periods without one."""
    pivot: str | None
    """``series_key``, or a label, such as ``quantile``: a column of values for each of its values, side by side."""
    unit: str | None
    """Values converted to this unit."""
    since: str | None
    """With ``view="changes"``: the ``token`` of the answer before; left out: from the beginning."""
    ordered: bool
    order_by: Literal["series", "valid_time", "known_time", "change_time"]
    descending: bool
    """In that order, but later times first; with ``order_by="valid_time"`` and a ``limit`` the newest rows of all."""
    limit: int | None
    after: str | None
    """The ``cursor`` of the last answer under a limit (see :meth:`Client.read_arrow`)."""


@dataclass(frozen=True, slots=True)
class ReadOption:
    """An option of a read where it is text: typed in a shell, or in a URL.

    Attributes:
        name: The field of the message, or of the part of it that ``part_of`` names.
        kind: What it takes; a ``word`` is one of those that the message's field knows, ``texts`` may be repeated.
        example: In REST's document.
        option: What the command line says of it.
        parameter: What REST says of it; left out: the same, without the full stop.
        metavar: Of the command line; left out: by its kind.
        part_of: The field of the message that it is a part of.
    """

    name: str
    kind: Literal["time", "length", "text", "texts", "word", "count", "flag"]
    example: object
    option: str
    parameter: str | None = None
    metavar: str | None = None
    part_of: Literal["relative", "resample"] | None = None


_TIME, _NEXT_DAY = "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"
_TOKEN = "eyJhc19vZiI6IjIwMjUtMDEtMDFUMDA6MDA6MDAuMDAwMDAwKzAwOjAwIiwidGFibGVfdmVyc2lvbiI6MX0="
ROWS = (
    ReadOption("start_valid", "time", _TIME, "First valid_time, inclusive."),
    ReadOption("end_valid", "time", _NEXT_DAY, "Last valid_time, exclusive."),
    ReadOption("start_known", "time", _TIME, "First known_time, inclusive."),
    ReadOption("end_known", "time", "2025-01-02T00:00:00+01:00", "Last known_time, exclusive."),
    ReadOption(
        "as_of",
        "time",
        "2025-01-01T12:00:00Z",
        "As it was written by then.",
        "What the store held at this change_time, inclusive",
    ),
    ReadOption(
        "run_ids",
        "texts",
        ["morning-forecast"],
        "Only what this run wrote; may be repeated.",
        metavar="RUN",
    ),
    ReadOption("workflow_id", "text", "api-workflow", "Only what runs of this workflow wrote.", metavar="TEXT"),
    ReadOption(
        "token",
        "text",
        _TOKEN,
        "The rows that an earlier read could see.",
        "The X-Token of an earlier answer: the rows it could see",
    ),
)
"""Of every call that reads values."""
READ = (
    ReadOption(
        "all_versions",
        "flag",
        True,
        "Also what was corrected, with who, when and why.",
        "Also the corrected versions, with the audit columns",
    ),
    ReadOption(
        "lead_time",
        "length",
        "36h",
        "Only what was known so long before, say 36h; -P45D: by 45 days after.",
        "Only what was known at least so long before its valid_time, such as 36h; -P45D: by 45 days after it",
    ),
    ReadOption(
        "days_ahead",
        "count",
        1,
        "Only what was known so many local days before …",
        "Only what was known so many local days before",
        part_of="relative",
    ),
    ReadOption(
        "time_of_day",
        "text",
        "10:00",
        "… by this local time. [10:00]",
        "… by this local time, such as 10:00",
        metavar="HH:MM",
        part_of="relative",
    ),
    ReadOption(
        "window_length",
        "length",
        "P1D",
        "Windows so long, say P1D, …",
        "Windows so long, such as P1D or 6h, …",
        part_of="relative",
    ),
    ReadOption(
        "issue_offset",
        "length",
        "-PT14H",
        "… of which only what was known so long before their start, say -PT14H, …",
        "… of which only what was known so long before their start, such as -PT14H, …",
        part_of="relative",
    ),
    ReadOption("start_window", "time", _TIME, "… counted from the window that starts here.", part_of="relative"),
    ReadOption(
        "corrections",
        "word",
        "none",
        "all, by_cutoff (none written after the cut-off) or none. [all]",
        "Corrections and withdrawals: all, none, or by_cutoff: those alone that were written within the cut-off, too; "
        "default: all",
    ),
    ReadOption(
        "newest_run",
        "flag",
        True,
        "Of each series only the run that was known last, as it was issued.",
        "Of each series only the run that was known last, as it was issued; with days_ahead or window_length of each "
        "window",
    ),
    ReadOption(
        "last",
        "count",
        24,
        "Of each series only the last so many valid_times, or periods.",
        "Of each series only the last so many valid_times, with all their revisions in mode=overlapping; or periods",
        metavar="N",
    ),
    ReadOption(
        "period",
        "length",
        "P1D",
        "The values of such a period as one, say 1h, P1D, P1M.",
        "Values of such a period as one, such as 1h, P1D or P1M, …",
        part_of="resample",
    ),
    ReadOption(
        "aggregate",
        "text",
        "max",
        "mean, median, sum, min, max, first, last, count or a quantile, say quantile:0.1. [mean]",
        "… by mean, median, sum, min, max, first, last, count or a quantile, such as quantile:0.1; default: mean",
        metavar="HOW",
        part_of="resample",
    ),
    ReadOption(
        "fill",
        "text",
        "previous",
        "Periods without a value: none, null, previous, linear or a number. [none]",
        "Periods without a value: none, null, previous, linear or a number; default: none",
        metavar="HOW",
        part_of="resample",
    ),
    ReadOption(
        "fill_limit",
        "count",
        3,
        "Of each gap at most so many periods; the others are null.",
        part_of="resample",
    ),
    ReadOption(
        "pivot",
        "text",
        "series_key",
        "Side by side: a column for each name (series_key), or for each value of this label.",
        metavar="LABEL",
    ),
    ReadOption("unit", "text", "kelvin", "Values converted to this unit."),
    ReadOption(
        "since",
        "text",
        _TOKEN,
        "With --view changes: the token of the read before.",
        "With mode=changes: the X-Token of the answer before",
        metavar="TOKEN",
    ),
    ReadOption(
        "order_by",
        "word",
        "valid_time",
        "Sorted by series, valid_time, known_time or change_time. [series]",
        "Sorted by series, valid_time, known_time or change_time; default: valid_time, with mode=overlapping "
        "known_time, with mode=changes change_time",
    ),
    ReadOption(
        "descending",
        "flag",
        True,
        "Later times first; with --order-by valid_time and --limit the newest rows of all.",
        "In that order, but later times first; with limit the newest rows",
    ),
)
"""Of a read of values, beside :data:`ROWS`; ``relative`` and ``resample`` also have a ``time_zone``."""


ACCURACY = (
    *(each for each in READ if each.part_of == "relative" or each.name == "corrections"),
    ReadOption(
        "match_labels",
        "texts",
        ["site"],
        "Each forecast against the actual that agrees in this label; may be repeated.",
        "Each forecast is compared with the actual, and the reference, whose labels agree with its own in these; "
        "may be repeated",
        metavar="LABEL",
    ),
    ReadOption(
        "actual_view",
        "text",
        "first",
        "Of the actual values: flat, first, or as known by a lead time, say -P45D. [flat]",
        "Of the actual values: flat, first (the first release) or a lead time: -P45D, as known 45 days afterwards; "
        "default: flat",
        metavar="VIEW",
    ),
    ReadOption(
        "forecast_view",
        "word",
        "flat",
        "Of the forecasts: overlapping, flat (of each valid time one) or first. [overlapping]",
        "Of the forecasts: overlapping (all revisions), flat (of each valid time the one known last), or first; "
        "default: overlapping",
    ),
    ReadOption(
        "reference_key",
        "text",
        "temperature",
        "The forecast that they have to beat: its skill is told, too.",
        "Name of the forecast that they have to beat: the skill against it is told, too",
        metavar="NAME",
    ),
)
"""Of accuracy, beside :data:`ROWS`."""


def nested(said: Mapping[str, Any], time_zone: str | None, *, zone_is_gate: bool) -> dict[str, Any]:
    """The fields of the message that options, which know no parts, say; what is None is left out.

    Args:
        said: Option → value.
        time_zone: Of ``relative`` and ``resample``.
        zone_is_gate: Whether a zone alone asks for the usual daily gate.

    Raises:
        InvalidRequest: an option is there without the one that it goes with.
    """
    parts: dict[str | None, dict[str, Any]] = {None: {}, "relative": {}, "resample": {}}
    part_of = {each.name: each.part_of for each in READ}
    for name, value in said.items():
        if value is not None:
            parts[part_of.get(name)][name] = value
    fields, relative, resample = parts.values()
    if time_zone is None and relative.keys() & {"days_ahead", "time_of_day"}:
        raise InvalidRequest("time_zone: is missing; days_ahead and time_of_day need it", field="time_zone")
    if resample and "period" not in resample:
        raise InvalidRequest(f"period: is missing; {next(iter(resample))} needs it", field="period")
    if "fill" in resample:
        resample["fill"] = _number_or_word(resample["fill"])
    zone = {} if time_zone is None else {"time_zone": time_zone}
    if relative or (zone and zone_is_gate and not resample):
        fields["relative"] = relative | zone
    if resample:
        fields["resample"] = {"aggregate": "mean"} | resample | zone
    return fields


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
