"""Points in time: RFC 3339 text, aware ``datetime`` and integer microseconds since 1970, all UTC.

RFC 3339 section 5.6 is the grammar of text on the wire. A time finer than a microsecond is an error, never a
silent cut, and a time of day without an offset is an error unless the caller says what it means. A bare date is its
midnight, UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time

__all__ = [
    "MAX_MICROS",
    "MIN_MICROS",
    "format_time",
    "from_micros",
    "midnight",
    "now",
    "parse_time",
    "to_micros",
    "to_utc",
]

MIN_MICROS = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the earliest time that is taken, as microseconds since 1970."""

MAX_MICROS = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the latest time that is taken, as microseconds since 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|\+00:00)", re.ASCII)
"""The form that the service and its clients write, of which nothing need be put right."""


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)


def to_micros(time: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware datetime."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC datetime that lies so many microseconds after 1970-01-01T00:00:00Z."""
    return _EPOCH + timedelta(microseconds=micros)


def midnight(day: date) -> datetime:
    """What a bare date means as a time: its first instant, UTC."""
    return datetime.combine(day, clock_time(tzinfo=UTC))


def to_utc(time: datetime) -> datetime:
    """The same instant in UTC.

    Raises:
        ValueError: the datetime has no time zone, or the instant lies outside years 1 to 9999.
    """
    if time.tzinfo is UTC:
        return time  # most are
    if time.tzinfo is None:
        raise ValueError("has no time zone; give it one, such as time.replace(tzinfo=datetime.UTC)")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999") from None


def parse_time(text: str, *, naive_is_utc: bool = False) -> datetime:
    """Read RFC 3339 text (a space for the T and minutes without seconds are taken, too; a bare date is midnight, UTC).

    Args:
        text: For example ``2025-01-01T00:00:00Z``.
        naive_is_utc: Take a time of day without an offset as UTC (the REST gateway's habit) instead of refusing it.

    Returns:
        An aware datetime in UTC.

    Raises:
        ValueError: not a time, no offset, or finer than a microsecond.
    """
    if _USUAL.fullmatch(text):
        return _existing(text)
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not an RFC 3339 time such as 2025-01-01T00:00:00Z")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if fraction and fraction[6:].strip("0"):
        raise ValueError("is finer than a microsecond")
    if offset is None and hour is not None and not naive_is_utc:
        raise ValueError("has no time zone; add one, such as a trailing Z")
    zone = offset.upper().replace("Z", "+00:00") if offset else "+00:00"
    clock = f"{hour or '00'}:{minute or '00'}:{second or '00'}.{(fraction or '0')[:6].ljust(6, '0')}"
    return _existing(f"{year}-{month}-{day}T{clock}{zone}")


def _existing(text: str) -> datetime:
    try:
        return to_utc(datetime.fromisoformat(text))
    except ValueError as error:
        if "outside" in str(error):
            raise
        raise ValueError("is not an existing date and time") from None


def format_time(time: datetime) -> str:
    """``YYYY-MM-DDTHH:MM:SS.ffffff+00:00``: always the same length, so that pandas parses a column of them."""
    return (time if time.tzinfo is UTC else time.astimezone(UTC)).isoformat(timespec="microseconds")
