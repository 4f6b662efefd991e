"""Which columns of a file are what to an upload, and what to do about those that are nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from timedb.contract.columns import COLUMN_TYPES, UPLOAD_COLUMNS
from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean, nearest
from timedb.contract.times import format_time
from timedb.contract.wire import quoted
from timedb.files.cells import instant_of

__all__ = ["COLUMN_OPTIONS", "ChosenColumns", "FileColumns", "choose", "pairs_of"]

COLUMN_OPTIONS = {
    "valid_time": "--valid-time",
    "valid_time_end": "--valid-time-end",
    "value": "--value",
    "series_key": "--series-column",
    "known_time": "--known-time",
}
"""Our column → the option that says which of a file's it is."""

_USUAL_NAMES: dict[str, str] = {
    "known_time": "issue_time issued issue issued_at publication_time published published_at publish_time known "
    "known_at created created_at creation_time available_at availability_time",
    "valid_time_end": "end end_time valid_end end_valid valid_to interval_end period_end",
    "series_key": "series series_name name key value_key variable",
}
_MEANT = {name: ours for ours, names in _USUAL_NAMES.items() for name in names.split()}
_TOLD = 4


@dataclass(frozen=True, slots=True)
class FileColumns:
    """What the options of an upload say about a file's columns.

    Attributes:
        named: Our column → the file's; a column of ours that the file has needs no word.
        series: One series for all rows.
        known_time: A column's name, or a time for all rows.
        labels: Label → the column with its texts.
        fixed_labels: Labels of all rows.
        ignored: Columns that are left out.
        time_zone: Of times without an offset; None: they are an error.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    series: str | None = None
    known_time: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed_labels: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class ChosenColumns:
    """What is sent of a file.

    Attributes:
        columns: Our column → the file's.
        known_at: The known_time of all rows, RFC 3339; None: a column says it, or nobody does.
        overruled: The file's column → the option that was said instead of it.
    """

    columns: dict[str, str]
    known_at: str | None
    overruled: dict[str, str]


def choose(names: Sequence[str], wanted: FileColumns, what: str) -> ChosenColumns:
    """Choose the columns that are sent: what an option says counts, then the names of ours that the file has.

    Args:
        names: The file's columns.
        wanted: What the options say.
        what: How an error calls the file.

    Raises:
        InvalidRequest: an option names a column that is not there, one that is needed is missing, or the file has
            one that nothing takes: names the option that would.
    """
    named, known_at = dict(wanted.named), None
    if wanted.known_time is not None:
        if wanted.known_time in names:
            named["known_time"] = wanted.known_time
        else:
            known_at = _known_at(wanted.known_time, wanted.time_zone, names)
    _check_named(names, named, wanted)
    instead = _instead_of_columns(named, wanted, known_at)
    implied = [each for each in UPLOAD_COLUMNS if each in names and each not in wanted.ignored]
    overruled = {each: instead[each] for each in implied if each in instead}
    columns = {each: each for each in implied if each not in instead} | named
    used = {*columns.values(), *wanted.labels.values(), *wanted.ignored}
    _check_needed(names, columns, wanted, what)
    if unknown := [name for name in names if name not in used and name not in overruled]:
        raise InvalidRequest(_of_unknown(unknown, columns, wanted))
    return ChosenColumns(columns, known_at, {name: by for name, by in overruled.items() if name not in used})


def _known_at(text: str, time_zone: str | None, names: Sequence[str]) -> str:
    try:
        return format_time(instant_of(text, time_zone))
    except ValueError as error:
        if re.match(r"\d{4}-\d\d-\d\d", text):
            hint = "; end it with Z or an offset, or say --time-zone" if "no time zone" in str(error) else ""
            raise InvalidRequest(f"--known-time: {quoted(text)} {error}{hint}") from None
        other = f"is neither a time such as 2025-01-01T00:00:00Z nor a column of the file{did_you_mean(text, names)}"
        raise InvalidRequest(f"--known-time: {quoted(text)} {other}") from None


def _check_named(names: Sequence[str], named: Mapping[str, str], wanted: FileColumns) -> None:
    asked = [(COLUMN_OPTIONS[ours], source) for ours, source in named.items()]
    asked += [("--label", source) for source in wanted.labels.values()]
    for option, source in [*asked, *(("--ignore", name) for name in wanted.ignored)]:
        if source not in names:
            raise InvalidRequest(f"{option}: the file has no column {quoted(source)}{did_you_mean(source, names)}")
    for option, source in asked:
        if source in wanted.ignored:
            raise InvalidRequest(f"--ignore: {quoted(source)} is what {option} takes")


def _instead_of_columns(named: Mapping[str, str], wanted: FileColumns, known_at: str | None) -> dict[str, str]:
    """Columns of ours that an option was said in place of → that option."""
    instead = {ours: COLUMN_OPTIONS[ours] for ours, source in named.items() if source != ours}
    if known_at is not None:
        instead["known_time"] = "--known-time"
    if wanted.series is not None or "series_key" in named:
        option = "--series" if wanted.series is not None else "--series-column"
        instead |= {"series_id": option}
        if wanted.series is not None or named["series_key"] != "series_key":
            instead |= {"series_key": option}
    if wanted.labels or wanted.fixed_labels:
        instead |= {"series_id": "--label", "labels": "--label"}
    return instead


def _check_needed(names: Sequence[str], columns: Mapping[str, str], wanted: FileColumns, what: str) -> None:
    listed = ", ".join(names[:30])
    hint = _of_delimiters(names)
    for ours in ("valid_time", "value"):
        if ours not in columns:
            option = COLUMN_OPTIONS[ours]
            raise InvalidRequest(
                f"{option}: the file has no column {ours}; {hint or f'say which of {listed} it is'} ({what})"
            )
    if wanted.series is None and not {"series_id", "series_key"} & columns.keys():
        raise InvalidRequest(f"--series: say which series it is, or with --series-column which of {listed}")


def _of_delimiters(names: Sequence[str]) -> str:
    """What to do where the line of names looks like one of another delimiter."""
    for delimiter in (";", "\t", "|"):
        if any(delimiter in name for name in names):
            shell = "tab" if delimiter == "\t" else f"'{delimiter}'"
            return f"its line of names is {quoted(','.join(names))}: --delimiter {shell} tells its cells apart"
    return ""


def _of_unknown(unknown: Sequence[str], columns: Mapping[str, str], wanted: FileColumns) -> str:
    told = "; ".join(_remedy(name, columns, wanted) for name in unknown[:_TOLD])
    rest = f"; and {len(unknown) - _TOLD} more: {', '.join(unknown[_TOLD:30])}" if len(unknown) > _TOLD else ""
    ignore = " ".join(f"--ignore {shlex.quote(name)}" for name in unknown[:30])
    columns_of = "column" if len(unknown) == 1 else "columns"
    names = ", ".join(quoted(name)[1:-1] for name in unknown[:_TOLD])
    return f"{columns_of} {names}: nothing would take it: {told}{rest}. To leave out: {ignore}"


def _remedy(name: str, columns: Mapping[str, str], wanted: FileColumns) -> str:
    plain, quoted = name.strip().lower().replace(" ", "_").replace("-", "_"), shlex.quote(name)
    free = dict(_free_options(columns, wanted))
    meant = _MEANT.get(plain) or nearest(name, free)
    if meant in free:
        return f"{free[meant]} {quoted} takes {name} for the {meant}"
    if plain == "run_id":
        return "a file is one run, which --run-id names"
    if plain in ("unit", "series_unit"):
        return "--unit says the unit of all values"
    if plain in COLUMN_TYPES and plain not in UPLOAD_COLUMNS:
        return f"{name} is what the server makes"
    if spelled := nearest(name, UPLOAD_COLUMNS):
        return f"did you mean {spelled} by {name}? rename it"
    return f"--label {quoted}={quoted} makes {name} a label of the series"


def _free_options(columns: Mapping[str, str], wanted: FileColumns) -> Iterator[tuple[str, str]]:
    for ours, option in COLUMN_OPTIONS.items():
        if columns.get(ours, ours) == ours and ours not in columns and not (ours == "series_key" and wanted.series):
            yield ours, option


def pairs_of(option: str, texts: Iterable[str] | None) -> dict[str, str]:
    """``KEY=TEXT`` options as a mapping.

    Raises:
        InvalidRequest: one has no ``=``, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f"{option}: {quoted(text)} is not KEY={'COLUMN' if option == '--label' else 'TEXT'}")
        if key in found:
            raise InvalidRequest(f"{option}: {quoted(key)} comes twice")
        found[key] = value
    return found
