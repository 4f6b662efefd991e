"""A layout: what the options say about a file, checked; and how an error names an option."""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from timedb.contract.durations import Duration, parse_duration
from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.files.cells import check_time_zone
from timedb.files.csv_tables import CsvForm
from timedb.layouts.options import FILE_OPTIONS, FileOption
from timedb.layouts.time_formats import SERIALS, check_format

__all__ = ["Layout", "Spoken", "as_argument", "as_option", "pairs_of"]

Spoken = Callable[..., str]
"""How an error names an option: its name and, where it is told to say so, a value → text."""

_BY_NAME = {each.name: each for each in FILE_OPTIONS}
_HOUR = Duration(micros=3_600_000_000)


def as_option(name: str, value: str | None = None) -> str:
    """An option as a shell takes it: ``--time-zone``, ``--delimiter ';'``."""
    option = f"--{name.replace('_', '-')}"
    return option if value is None else f"{option} {'tab' if value == chr(9) else _in_shell(value)}"


def _in_shell(value: str) -> str:
    return value if value == "," else shlex.quote(value)


def as_argument(name: str, value: str | None = None) -> str:
    """An option as Python and a query take it: ``time_zone``, ``delimiter=';'``."""
    return name if value is None else f"{name}={value!r}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What the options of a file say.

    Attributes:
        said: Option → value, as they were said.
        spoken: How an error names an option.
        labels: Label → the column of its texts.
        fixed_labels: Labels of all rows.
        period: The length of each interval; None: values have the ends that a column says, or none.
        known_after: How long after its end, or its valid_time, a value became known.
        zone: Of times without an offset where ``time_zone`` says none.
    """

    said: Mapping[str, Any]
    spoken: Spoken = as_option
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed_labels: Mapping[str, str] = field(default_factory=dict)
    period: Duration | None = None
    known_after: Duration | None = None
    zone: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], spoken: Spoken = as_option, zone: str | None = None) -> Layout:
        """Check what was said; None, and what is empty or false, counts as not said.

        Raises:
            InvalidRequest: an option does not exist, does not fit, or stands beside one that it excludes.
        """
        given = {name: value for name, value in said.items() if value not in (None, False, (), [], "")}
        given = {name: _checked(name, value, spoken) for name, value in given.items()}
        check_time_zone(spoken("time_zone"), given.get("time_zone"))
        _check_characters(given, spoken)
        _check_together(given, spoken)
        if (time_format := given.get("time_format")) is not None:
            check_format(time_format, spoken("time_format"))
        period = given.get("period") or (_HOUR if given.get("hour_ending") else None)
        return cls(
            given,
            spoken,
            labels=pairs_of("label", given.get("label"), spoken),
            fixed_labels=pairs_of("label_value", given.get("label_value"), spoken),
            period=period,
            known_after=given.get("known_after"),
            zone=given.get("time_zone") or zone,
        )

    def get(self, name: str) -> Any:
        """What was said of an option; else its default."""
        return self.said.get(name, _BY_NAME[name].default)

    def csv_form(self, delimiter: str = ",") -> CsvForm:
        """How CSV is written.

        Args:
            delimiter: What it seems to be, where nobody said it.
        """
        return CsvForm(
            self.said.get("delimiter", delimiter),
            self.said.get("decimal", "."),
            self.said.get("thousands"),
            tuple(self.get("null")),
            skip_lines=self.get("skip_lines"),
            no_header=self.get("no_header"),
            encoding_hint=f"; {self.spoken('encoding', 'latin-1')}, say, reads it, or save the file as UTF-8",
        )

    @property
    def is_serial(self) -> bool:
        """Whether times are numbers that count from an epoch."""
        return self.said.get("time_format") in SERIALS


def _checked(name: str, value: Any, spoken: Spoken) -> Any:
    option = _BY_NAME.get(name)
    if option is None:
        raise InvalidRequest(f"{spoken(name)}: there is no such option{did_you_mean(name, _BY_NAME)}")
    what = spoken(name)
    match option.kind:
        case "texts":
            texts = [value] if isinstance(value, str) else value
            if isinstance(texts, Mapping):  # labels, as Python says them
                texts = [f"{key}={text}" for key, text in texts.items()]
            if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
                raise InvalidRequest(f"{what}: {quoted(value)} is not a list of texts")
            return tuple(texts)
        case "flag" if value is not True:
            raise InvalidRequest(f"{what}: {quoted(value)} is not true or false")
        case "count" if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidRequest(f"{what}: {quoted(value)} is not a number of lines")
        case "length":
            return _length(value, what, positive=name == "period")
        case "text" | "word":
            return _text(option, value, what)
    return value


def _text(option: FileOption, value: Any, what: str) -> str:
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ",".join(value)  # columns, as Python says them
    if not isinstance(value, str):
        raise InvalidRequest(f"{what}: {quoted(value)} is not a text")
    if option.words and value not in option.words:
        raise InvalidRequest(f"{what}: {quoted(value)} is none of {', '.join(option.words)}")
    return value


def _length(value: Any, what: str, *, positive: bool) -> Duration:
    try:
        found = value if isinstance(value, Duration) else parse_duration(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequest(f"{what}: {quoted(value)} is not a length such as 15min, 1h or P1D") from None
    if positive and (found.sign <= 0 or (found.is_calendar and found.micros)):
        raise InvalidRequest(f"{what}: {quoted(str(found))} is not the length of an interval")
    if not positive and found.is_calendar:
        raise InvalidRequest(f"{what}: {quoted(str(found))} is counted in days; say it in hours, such as 24h")
    return found


def _check_characters(given: dict[str, Any], spoken: Spoken) -> None:
    if (delimiter := given.get("delimiter")) is not None:
        cut = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
        if len(cut) != 1 or not cut.isascii() or cut in '"\r\n\0':
            raise InvalidRequest(
                f"{spoken('delimiter')}: {quoted(delimiter)} is not one character (tab stands for the tab)"
            )
        given["delimiter"] = cut
    point, thousands = given.get("decimal", "."), given.get("thousands")
    if point not in (".", ","):
        raise InvalidRequest(f"{spoken('decimal')}: {quoted(point)} is neither . nor ,")
    if thousands is not None and (len(thousands) != 1 or thousands.isdigit() or thousands in f"+-eE{point}"):
        raise InvalidRequest(
            f"{spoken('thousands')}: {quoted(thousands)} is not one character other than {spoken('decimal')}"
        )
    if (encoding := given.get("encoding")) is not None:
        try:
            is_text = codecs.lookup(encoding)._is_text_encoding
        except (LookupError, ValueError):
            is_text = False
        if not is_text:
            raise InvalidRequest(f"{spoken('encoding')}: {quoted(encoding)} is none, such as latin-1 or cp1252")
    if (pattern := given.get("known_time_from_name")) is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidRequest(
                f"{spoken('known_time_from_name')}: {quoted(pattern)} is no regular expression: {error}"
            ) from None


_EXCLUDE = (
    ("series", "series_column"),
    ("series", "wide"),
    ("series", "wide_columns"),
    ("series_column", "wide"),
    ("series_column", "wide_columns"),
    ("wide", "wide_columns"),
    ("wide", "value"),
    ("wide_columns", "value"),
    ("wide", "ignore_others"),
    ("known_time", "known_after"),
    ("known_time", "known_time_from_name"),
    ("known_after", "known_time_from_name"),
    ("hour_ending", "period_number"),
    ("ambiguous", "repeated_hour"),
    ("period_number", "repeated_hour"),
    ("period", "valid_time_end"),
    ("hour_ending", "valid_time_end"),
    ("period_number", "valid_time_end"),
)
"""Options of which one can be said."""


def _check_together(given: Mapping[str, Any], spoken: Spoken) -> None:
    for one, other in _EXCLUDE:
        if one in given and other in given:
            raise InvalidRequest(f"{spoken(one)}, {spoken(other)}: say one of them, not both", field=one)
    if "repeated_hour" in given and "time_zone" not in given:
        zone = spoken("time_zone")
        raise InvalidRequest(f"{spoken('repeated_hour')}: of which clock? {zone} says it", field="time_zone")
    if "period_number" in given and "period" not in given:
        raise InvalidRequest(
            f"{spoken('period_number')}: how long is a period? {spoken('period', '30min')} says it", field="period"
        )


def pairs_of(name: str, texts: Iterable[str] | None, spoken: Spoken = as_option) -> dict[str, str]:
    """``KEY=TEXT`` options as a mapping.

    Raises:
        InvalidRequest: one has no ``=``, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f"{spoken(name)}: {quoted(text)} is not KEY={'COLUMN' if name == 'label' else 'TEXT'}")
        if key in found:
            raise InvalidRequest(f"{spoken(name)}: {quoted(key)} comes twice")
        found[key] = value
    return found
