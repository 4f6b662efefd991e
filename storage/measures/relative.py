"""Cut-offs that move with valid_time: the daily gate, the general form of relative reads, and the lead time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from timedb.contract.durations import Duration
from timedb.contract.errors import InvalidRequest
from timedb.contract.times import MIN_MICROS, from_micros, to_micros
from timedb.contract.wire import ReadCommand, Relative, quoted
from timedb.storage.measures.local_clock import Instants, LocalClock

__all__ = ["check_time_zone", "check_windows", "gate", "local_instant", "window_of", "within_cut_off"]

_DAY = 86_400_000_000
_EARLIEST = from_micros(MIN_MICROS)
_LATEST = datetime.max.replace(tzinfo=UTC)
_EPOCH = date(1970, 1, 1).toordinal()
_TIME = pl.Datetime("us", "UTC")


def local_instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """The instant (UTC) at which the clock of a zone shows a time of a day; the last there is where none is left.

    A repeated local time is its earlier instant; a skipped one is the first existing instant after the gap.
    """
    try:
        local = datetime.combine(day, clock, zone)
        instant = local.astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return instant
    except OverflowError:
        return _EARLIEST if day.year == 1 else _LATEST
    # In a gap: the offset before it (fold=0) lands after the gap by as much as the clock lies beyond its start.
    before, after = local.utcoffset(), local.replace(fold=1).utcoffset()
    return _gap_end(instant, zone, abs((after or timedelta()) - (before or timedelta())))


def _gap_end(instant: datetime, zone: ZoneInfo, length: timedelta) -> datetime:
    """The transition within ``length`` before an instant, to the second."""
    low, high = instant - length, instant
    offset = high.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high.replace(microsecond=0)


def gate(day: int, relative: Relative, zone: ZoneInfo) -> datetime:
    """The daily gate's cut-off (UTC) for values about a local day.

    Args:
        day: Counted from 1970-01-01. At the ends of time a local day may lie outside the years 1 to 9999.
        relative: The gate.
        zone: Its time zone.
    """
    before = _EPOCH + day - relative.days_ahead
    near = min(max(before, 1), date.max.toordinal())
    instant = local_instant(date.fromordinal(near), time.fromisoformat(relative.time_of_day), zone)
    try:
        return instant + timedelta(days=before - near)
    except OverflowError:
        return _EARLIEST if before < near else _LATEST


def check_time_zone(name: str, field: str = "relative.time_zone") -> None:
    """Refuse a name that is not one of the IANA database.

    Raises:
        InvalidRequest: names the field and it.
    """
    try:
        ZoneInfo(name)
        pl.Series([0]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(name)
    except (OSError, ValueError, LookupError, pl.exceptions.PolarsError):
        raise InvalidRequest(f"{field}: {quoted(name)} is not a time zone of the IANA database") from None


def check_windows(relative: Relative, start: datetime | None, end: datetime | None, max_windows: int) -> None:
    """Refuse a time zone that there is not, and more windows than a read may ask for.

    Only the range that the read names counts: windows are made for the rows that lie in them, never more than rows.

    Args:
        relative: The windows.
        start, end: The range of valid_time that the read names; None: open.
        max_windows: The most windows in that range.

    Raises:
        InvalidRequest: names the field.
    """
    check_time_zone(_zone_name(relative))
    length = relative.window_length
    if length is None or start is None or end is None:
        return
    shortest = length.months * 28 * _DAY + length.days * _DAY + length.micros
    if (to_micros(end) - to_micros(start)) // shortest > max_windows:
        raise InvalidRequest(
            f"relative.window_length: {length} makes more than {max_windows} windows between {start.isoformat()} and "
            f"{end.isoformat()}; narrow start_valid and end_valid, or take longer windows"
        )


def within_cut_off(read: ReadCommand, time: str = "known_time") -> list[pl.Expr]:
    """Whether a time of a row is within the read's cut-off for its valid_time (inclusive); none where it has none."""
    if read.lead_time is not None:
        lead = pl.duration(microseconds=read.lead_time.days * _DAY + read.lead_time.micros)
        return [pl.col(time) <= pl.col("valid_time") - lead]
    if read.relative is None:
        return []
    length = read.relative.window_length
    if length is not None and not length.is_calendar and not _offset(read.relative).is_calendar:
        return [pl.col(time).to_physical() <= _cut_of_fixed_windows(read.relative, length)]
    # The cut-offs of the windows that the rows touch are found as the rows are read.
    cut = pl.col("valid_time").map_batches(partial(_cut_offs, read.relative), return_dtype=_TIME, is_elementwise=True)
    return [pl.col(time) <= cut]


def window_of(read: ReadCommand) -> pl.Expr | None:
    """A number that the valid_times of one window of the read share, and no others; None where it has no windows."""
    relative = read.relative
    if relative is None:
        return None

    def keys(times: pl.Series) -> pl.Series:
        return pl.Series(times.name, _window_keys(relative, times.to_physical().to_numpy()))

    return pl.col("valid_time").map_batches(keys, return_dtype=pl.Int64, is_elementwise=True)


def _cut_of_fixed_windows(relative: Relative, length: Duration) -> pl.Expr:
    first = to_micros(_start(relative))
    since = pl.col("valid_time").to_physical() - first
    return since.floordiv(length.micros) * length.micros + (first + _offset(relative).micros)


def _cut_offs(relative: Relative, times: pl.Series) -> pl.Series:
    """The cut-off for each valid_time."""
    keys, place = np.unique(_window_keys(relative, times.to_physical().to_numpy()), return_inverse=True)
    cuts = _micros_of(_cut_off(relative, int(key)) for key in keys)
    return pl.Series(times.name, cuts[place]).cast(_TIME)


def _window_keys(relative: Relative, instants: Instants) -> Instants:
    """For each instant what names its window: its local day, its number, or where it starts, as its length is told."""
    length = relative.window_length
    if not len(instants):
        return instants
    if length is not None and not length.is_calendar:
        return (instants - to_micros(_start(relative))) // length.micros
    zone = ZoneInfo(_zone_name(relative))
    # Not Polars' own clock, which knows no summer time from 2100 on, while the gates come from zoneinfo.
    clock = LocalClock.of(zone.key, int(instants.min()), int(instants.max()))
    days = clock.shows(instants) // _DAY
    if length is None:
        return days
    numbers = _window_numbers(relative, length, map(int, np.unique(days)), zone)
    starts = _micros_of(sorted({_window_start(relative, number, zone) for number in numbers}))
    return starts[np.searchsorted(starts, instants, side="right") - 1]


def _cut_off(relative: Relative, key: int) -> datetime:
    """The cut-off of a window."""
    zone, length = ZoneInfo(_zone_name(relative)), relative.window_length
    if length is None:
        return gate(key, relative, zone)
    start = from_micros(key) if length.is_calendar else _window_start(relative, key, zone)
    return _shift(start, _offset(relative), zone)


def _micros_of(instants: Iterable[datetime]) -> Instants:
    return np.array([to_micros(instant) for instant in instants], dtype=np.int64)


def _window_numbers(relative: Relative, length: Duration, days: Iterable[int], zone: ZoneInfo) -> set[int]:
    """The numbers of all windows of calendar length that some local days can touch, counted from ``start_window``."""
    start = _start(relative).astimezone(zone).date()
    numbers: set[int] = set()
    for number in days:
        if length.months:
            # A day beyond the years 1 to 9999 lies in the window of the last one within, or in the next.
            day = date.fromordinal(min(max(_EPOCH + number, 1), date.max.toordinal()))
            near = ((day.year - start.year) * 12 + day.month - start.month) // length.months
        else:
            near = (_EPOCH + number - start.toordinal()) // length.days
        numbers.update(range(near - 1, near + 2))
    return numbers


def _window_start(relative: Relative, number: int, zone: ZoneInfo) -> datetime:
    length = relative.window_length or Duration(days=1)
    steps = Duration(number * length.months, number * length.days, number * length.micros)
    return _shift(_start(relative), steps, zone)


def _shift(instant: datetime, by: Duration, zone: ZoneInfo) -> datetime:
    """An instant moved by calendar months and days on the local clock, then by time; kept in years 1 to 9999."""
    try:
        if by.is_calendar:
            local = instant.astimezone(zone)
            month = local.year * 12 + local.month - 1 + by.months
            day = _day_of_month(month // 12, month % 12 + 1, local.day) + timedelta(days=by.days)
            instant = local_instant(day, local.time(), zone)
        return instant + timedelta(microseconds=by.micros)
    except (OverflowError, ValueError):
        return _EARLIEST if by.sign < 0 else _LATEST


def _day_of_month(year: int, month: int, day: int) -> date:
    """A day, or the last one of a month that is too short for it."""
    for last in range(day, 27, -1):
        try:
            return date(year, month, last)
        except ValueError:
            if last == 28:
                raise
    return date(year, month, day)


def _zone_name(relative: Relative) -> str:
    return relative.time_zone or "UTC"


def _start(relative: Relative) -> datetime:
    return relative.start_window or _EARLIEST


def _offset(relative: Relative) -> Duration:
    return relative.issue_offset or Duration()
