"""Lengths of time as text: ISO 8601 durations such as ``PT36H``, or short forms such as ``36h``.

Months and days are lengths of the calendar (a local day may have 23 or 25 hours), hours and less are lengths of time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Duration", "parse_duration"]

_WEEK = 7
_MICROS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_MAX_DAYS = 3_660_000
_MAX_MICROS = _MAX_DAYS * 86_400_000_000
_ISO = re.compile(
    r"(?P<sign>[+-])?P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)(?:[.,](?P<fraction>\d{1,6}))?S)?)?",
    re.ASCII,
)
_SHORT = re.compile(r"(?P<sign>[+-])?(?P<count>\d+)(?P<unit>us|ms|s|min|m|h|d|w|mo|y)", re.ASCII)
_SHORT_MICROS = {"us": 1, "ms": 1000, "s": _MICROS["s"], "min": _MICROS["m"], "m": _MICROS["m"], "h": _MICROS["h"]}


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time in three parts that do not convert into each other; all have the same sign.

    Attributes:
        months: Calendar months.
        days: Calendar days.
        micros: Microseconds.
    """

    months: int = 0
    days: int = 0
    micros: int = 0

    @property
    def is_calendar(self) -> bool:
        """Whether its length in hours depends on the date and the time zone."""
        return self.months != 0 or self.days != 0

    @property
    def sign(self) -> int:
        """-1, 0 or 1."""
        total = self.months or self.days or self.micros
        return (total > 0) - (total < 0)

    def __str__(self) -> str:
        """ISO 8601 text, such as ``P1D`` or ``-PT14H``; nothing is ``PT0S``."""
        if self.sign == 0:
            return "PT0S"
        minutes, micros = divmod(abs(self.micros), _MICROS["m"])
        hours, minutes = divmod(minutes, 60)
        seconds = f"{micros // 1_000_000}.{micros % 1_000_000:06}".rstrip("0").rstrip(".") if micros else ""
        date = "".join(f"{abs(count)}{unit}" for count, unit in ((self.months, "M"), (self.days, "D")) if count)
        clock = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if count)
        return f"{'-' if self.sign < 0 else ''}P{date}{'T' + clock if clock else ''}"


def parse_duration(value: str | timedelta) -> Duration:
    """Read a duration.

    Args:
        value: ISO 8601 (``P1D``, ``PT36H``, ``-PT14H``), a whole number with one of ``us ms s min h d w mo y``
            (``36h``; ``m`` is minutes), or a ``timedelta``, which counts as hours and less.

    Raises:
        ValueError: not a duration, or over ten thousand years.
    """
    if isinstance(value, timedelta):
        return _checked(Duration(micros=value // timedelta(microseconds=1)))
    text = value.strip()
    if match := _SHORT.fullmatch(text):
        return _checked(_short(-1 if match["sign"] == "-" else 1, match["count"], match["unit"]))
    match = _ISO.fullmatch(text)
    if match is None or not any(match[name] for name in ("years", "months", "weeks", "days", "h", "m", "s")):
        raise ValueError("is not a duration such as PT36H, P1D or 36h")
    part = {name: _count(digits) for name, digits in match.groupdict().items() if name not in ("sign", "fraction")}
    sign = -1 if match["sign"] == "-" else 1
    micros = sum(part[unit] * each for unit, each in _MICROS.items()) + int((match["fraction"] or "").ljust(6, "0"))
    days = part["days"] + _WEEK * part["weeks"]
    return _checked(Duration(sign * (part["months"] + 12 * part["years"]), sign * days, sign * micros))


def _short(sign: int, digits: str, unit: str) -> Duration:
    count = sign * _count(digits)
    if unit in _SHORT_MICROS:
        return Duration(micros=count * _SHORT_MICROS[unit])
    if unit in ("d", "w"):
        return Duration(days=count * (_WEEK if unit == "w" else 1))
    return Duration(months=count * (12 if unit == "y" else 1))


def _count(digits: str | None) -> int:
    if digits is not None and len(digits) > 18:
        raise ValueError("is longer than ten thousand years")
    return int(digits or 0)


def _checked(duration: Duration) -> Duration:
    months, days, micros = abs(duration.months), abs(duration.days), abs(duration.micros)
    if months > 12 * _MAX_DAYS // 366 or days > _MAX_DAYS or micros > _MAX_MICROS:
        raise ValueError("is longer than ten thousand years")
    return duration
