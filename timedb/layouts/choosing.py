"""Which columns of a file are what to an upload, and what to do about those that are nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from timedb.contract.columns import COLUMN_TYPES, UPLOAD_COLUMNS
from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean, nearest
from timedb.contract.times import format_time
from timedb.contract.wire import quoted
from timedb.files.cells import instant_of
from timedb.layouts.layout import Layout, as_option

__all__ = ["Chosen", "choose", "time_said"]

_COLUMN_OPTIONS = {
    "valid_time": "valid_time",
    "valid_time_end": "valid_time_end",
    "value": "value",
    "series_key": "series_column",
    "known_time": "known_time",
}
"""Our column → the option that says which of a file's it is."""
_SIMPLE = ("quantile", "period_number", "repeated_hour")
_USUAL_NAMES: dict[str, str] = {
    "known_time": "issue_time issued issue issued_at publication_time published published_at publish_time known "
    "known_at created created_at creation_time available_at availability_time",
    "valid_time_end": "end end_time valid_end end_valid valid_to interval_end period_end",
    "series_key": "series series_name name key value_key variable",
}
_MEANT = {name: ours for ours, names in _USUAL_NAMES.items() for name in names.split()}
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is sent of a file.

    Attributes:
        columns: Our column → the file's columns, several where they are joined.
        wide: The columns of which each is a series.
        more: ``quantile``, ``period_number``, ``run_start_time`` → the file's column.
        known_at: The known_time of all rows, RFC 3339; None: a column says it, or nobody does.
        run_started: The run_start_time, RFC 3339; None: a column says it, or nobody does.
        overruled: The file's column → the option that was said instead of it.
        left_out: Columns that nothing takes, and that may be left out.
    """

    columns: dict[str, tuple[str, ...]]
    wide: tuple[str, ...] = ()
    more: Mapping[str, str] = field(default_factory=dict)
    known_at: str | None = None
    run_started: str | None = None
    overruled: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def is_split(self) -> bool:
        """Whether the cells of one column are the start and the end of intervals."""
        end = self.columns.get("valid_time_end")
        return end is not None and end == self.columns.get("valid_time")


def choose(names: Sequence[str], layout: Layout, what: str, seems: str = "") -> Chosen:
    """Choose the columns that are sent: what an option says counts, then the names of ours that the file has.

    Args:
        names: The file's columns.
        layout: What the options say.
        what: How an error calls the file.
        seems: What to say of the file where a column is missing.

    Raises:
        InvalidRequest: an option names a column that is not there, one that is needed is missing, or the file has
            one that nothing takes: names the option that would.
    """
    named, times = _named(names, layout)
    _check_named(names, named, layout, seems)
    ignored = layout.get("ignore")
    instead = _instead_of_columns(named, layout, times.get("known_time"))
    hidden = ("value",) if {"wide", "wide_columns"} & layout.said.keys() else ()
    implied = [each for each in UPLOAD_COLUMNS if each in names and each not in ignored and each not in hidden]
    overruled = {each: instead[each] for each in implied if each in instead}
    columns: dict[str, tuple[str, ...]] = {each: (each,) for each in implied if each not in instead}
    columns |= {ours: sources for ours, sources in named.items() if ours in UPLOAD_COLUMNS}
    more = {ours: sources[0] for ours, sources in named.items() if ours not in UPLOAD_COLUMNS and ours != "wide"}
    used = {name for sources in (*columns.values(), *named.values()) for name in sources}
    used |= {*layout.labels.values(), *ignored}
    wide = named.get("wide", ())
    unknown = [name for name in names if name not in used and name not in overruled]
    if layout.get("wide"):
        wide, unknown = tuple(unknown), []
    _check_needed(names, columns, wide, layout, what, seems)
    if unknown and not layout.get("ignore_others"):
        raise InvalidRequest(_of_unknown(unknown, columns, layout, wide))
    left = {name: by for name, by in overruled.items() if name not in used}
    known_at, run_started = times.get("known_time"), times.get("run_start_time")
    return Chosen(columns, wide, more, known_at, run_started, left, tuple(unknown))


def _named(names: Sequence[str], layout: Layout) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """What options say: our column → the file's; and the times of all rows that they say."""
    named, times = {}, {}
    for ours, option in (*_COLUMN_OPTIONS.items(), *((each, each) for each in _SIMPLE)):
        said = layout.said.get(option)
        if said is None or ours == "known_time":
            continue
        joined = said not in names and ours in ("valid_time", "valid_time_end")
        named[ours] = tuple(each.strip() for each in said.split(",")) if joined else (said,)
    if (wide := layout.said.get("wide_columns")) is not None:
        named["wide"] = (wide,) if wide in names else tuple(each.strip() for each in wide.split(","))
    for option in ("known_time", "run_start_time"):
        said = layout.said.get(option)
        if said is not None and said in names:
            named[option] = (said,)
        elif said is not None:
            times[option] = time_said(option, said, layout, names)
    return named, times


def time_said(option: str, text: str, layout: Layout, names: Sequence[str] = ()) -> str:
    """The time that an option says, RFC 3339.

    Raises:
        InvalidRequest: it is no time, and no column of the file either.
    """
    spoken = layout.spoken
    try:
        return format_time(instant_of(text, layout.zone))
    except ValueError as error:
        if re.match(r"\d{4}-\d\d-\d\d", text):
            zone = spoken("time_zone")
            hint = f"; end it with Z or an offset, or say {zone}" if "no time zone" in str(error) else ""
            raise InvalidRequest(f"{spoken(option)}: {quoted(text)} {error}{hint}") from None
        other = f"is neither a time such as 2025-01-01T00:00:00Z nor a column of the file{did_you_mean(text, names)}"
        raise InvalidRequest(f"{spoken(option)}: {quoted(text)} {other}") from None


def _option_of(ours: str) -> str:
    return {"wide": "wide_columns"}.get(ours, _COLUMN_OPTIONS.get(ours, ours))


def _check_named(names: Sequence[str], named: Mapping[str, tuple[str, ...]], layout: Layout, seems: str) -> None:
    ignored = layout.get("ignore")
    asked = [(_option_of(ours), source) for ours, sources in named.items() for source in sources]
    asked += [("label", source) for source in layout.labels.values()]
    for option, source in [*asked, *(("ignore", name) for name in ignored)]:
        if source not in names:
            raise InvalidRequest(
                f"{layout.spoken(option)}: the file has no column {quoted(source)}{did_you_mean(source, names)}"
                + (f"; {seems}" if seems else "")
            )
    for option, source in asked:
        if source in ignored:
            raise InvalidRequest(f"{layout.spoken('ignore')}: {quoted(source)} is what {layout.spoken(option)} takes")


def _instead_of_columns(named: Mapping[str, tuple[str, ...]], layout: Layout, known_at: str | None) -> dict[str, str]:
    """Columns of ours that an option was said in place of → that option."""
    spoken, said = layout.spoken, layout.said
    instead = {
        ours: spoken(_option_of(ours))
        for ours, sources in named.items()
        if ours in UPLOAD_COLUMNS and ours not in sources
    }
    for option in ("known_after", "known_time_from_name"):
        if option in said:
            instead["known_time"] = spoken(option)
    if known_at is not None:
        instead["known_time"] = spoken("known_time")
    if layout.period is not None:
        instead["valid_time_end"] = spoken("period")
    names_series = next((each for each in ("series", "wide", "wide_columns") if each in said), None)
    if names_series is not None:
        instead |= {"series_id": spoken(names_series), "series_key": spoken(names_series)}
    elif "series_key" in named:
        instead["series_id"] = spoken("series_column")
    if layout.labels or layout.fixed_labels or "quantile" in said:
        instead |= {"series_id": spoken("label"), "labels": spoken("label")}
    return instead


def _check_needed(
    names: Sequence[str],
    columns: Mapping[str, tuple[str, ...]],
    wide: Sequence[str],
    layout: Layout,
    what: str,
    seems: str,
) -> None:
    listed, spoken = ", ".join(names[:30]), layout.spoken
    for ours in ("valid_time", "value"):
        if ours not in columns and not (ours == "value" and (wide or layout.get("wide"))):
            option = spoken(_COLUMN_OPTIONS[ours])
            raise InvalidRequest(
                f"{option}: the file has no column {ours}; {seems or f'say which of {listed} it is'} ({what})"
            )
    if layout.get("wide") and not wide:
        raise InvalidRequest(f"{spoken('wide')}: no column is left to be a series of {listed} ({what})")
    if not wide and "series" not in layout.said and not {"series_id", "series_key"} & columns.keys():
        raise InvalidRequest(
            f"{spoken('series')}: say which series it is, or with {spoken('series_column')} which of {listed}"
        )


def _of_unknown(
    unknown: Sequence[str], columns: Mapping[str, tuple[str, ...]], layout: Layout, wide: Sequence[str]
) -> str:
    spoken = layout.spoken
    told = "; ".join(_remedy(name, columns, layout) for name in unknown[:_TOLD])
    rest = f"; and {len(unknown) - _TOLD} more: {', '.join(unknown[_TOLD:30])}" if len(unknown) > _TOLD else ""
    ignore = " ".join(spoken("ignore", name) for name in unknown[:30])
    columns_of = "column" if len(unknown) == 1 else "columns"
    names = ", ".join(quoted(name)[1:-1] for name in unknown[:_TOLD])
    all_of_them = f" (or {spoken('ignore_others')})" if len(unknown) > 1 else ""
    return f"{columns_of} {names}: nothing would take it: {told}{rest}. To leave out: {ignore}{all_of_them}"


def _remedy(name: str, columns: Mapping[str, tuple[str, ...]], layout: Layout) -> str:
    plain, spoken = name.strip().lower().replace(" ", "_").replace("-", "_"), layout.spoken
    free = dict(_free_options(columns, layout))
    meant = _MEANT.get(plain) or nearest(name, free)
    if meant in free:
        return f"{spoken(free[meant], name)} takes {name} for the {meant}"
    if plain == "run_id":
        return f"a file is one run, which {spoken('run_id')} names"
    if plain.replace("_", "") in ("dstflag", "repeatedhourflag") and "repeated_hour" not in layout.said:
        return f"{spoken('repeated_hour', name)} takes it for what tells the hour that comes twice"
    if plain in ("unit", "series_unit"):
        return f"{spoken('unit')} says the unit of all values"
    if plain == "quantile" and "quantile" not in layout.said:
        return f"{spoken('quantile', name)} makes it the label of a quantile"
    if plain in COLUMN_TYPES and plain not in UPLOAD_COLUMNS:
        return f"{name} is what the server makes"
    if spelled := nearest(name, UPLOAD_COLUMNS):
        return f"did you mean {spelled} by {name}? rename it"
    pair = f"{shlex.quote(name)}={shlex.quote(name)}" if spoken is as_option else f"{name}={name}"
    says = f"{spoken('label')} {pair}" if spoken is as_option else spoken("label", pair)
    return f"{says} makes {name} a label of the series"


def _free_options(columns: Mapping[str, tuple[str, ...]], layout: Layout) -> Iterator[tuple[str, str]]:
    for ours, option in _COLUMN_OPTIONS.items():
        if ours not in columns and not (ours == "series_key" and "series" in layout.said):
            yield ours, option
