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
from timedb.contract.wire import ReadCommand, Relative, shown
from timedb.storage.measures.local_clock import Instants, LocalClock

__all__ = ["check_time_zone", "check_windows", "gate", "known_by_cut_off", "local_instant"]

_DAY = 86_400_000_000
_EARLIEST = from_micros(MIN_MICROS)
_EPOCH = date(1970, 1, 1)
_TIME = pl.Datetime("us", "UTC")


def local_instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """The instant (UTC) at which the clock of a zone shows a time of a day; the earliest there is where none is left.

    A repeated local time is its earlier instant; a skipped one is the first existing instant after the gap.
    """
    try:
        local = datetime.combine(day, clock, zone)
        instant = local.astimezone(UTC)
    except OverflowError:
        return _EARLIEST
    if instant.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
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


def gate(day: date, relative: Relative, zone: ZoneInfo) -> datetime:
    """The daily gate's cut-off (UTC) for values about a local day."""
    try:
        before = day - timedelta(days=relative.days_ahead)
    except OverflowError:
        return _EARLIEST
    return local_instant(before, time.fromisoformat(relative.time_of_day), zone)


def check_time_zone(name: str, field: str = "relative.time_zone") -> None:
    """Refuse a name that is not one of the IANA database.

    Raises:
        InvalidRequest: names the field and it.
    """
    try:
        ZoneInfo(name)
        pl.Series([0]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(name)
    except (OSError, ValueError, LookupError, pl.exceptions.PolarsError):
        raise InvalidRequest(f"{field}: {shown(name)} is not a time zone of the IANA database") from None


def check_windows(
    relative: Relative,
    asked: tuple[datetime | None, datetime | None],
    held: tuple[datetime, datetime],
    max_windows: int,
) -> None:
    """Refuse a time zone that there is not, and more windows than a read may have.

    Windows of a fixed length cost nothing, so that only what was asked for counts: the range that the read names. Those
    whose cut-off lies on the calendar are made one by one, and count over all valid_times that the files may hold.

    Args:
        relative: The windows.
        asked: The start and end of valid_time that the read names.
        held: The first and the last valid_time that its files may hold.
        max_windows: The most windows between them.

    Raises:
        InvalidRequest: names the field.
    """
    check_time_zone(_zone_name(relative))
    length = relative.window_length
    if length is None:
        return  # local days: never more than the rows have
    made = not length.is_calendar and _offset(relative).is_calendar
    start, end = asked[0] or (held[0] if made else None), asked[1] or (held[1] if made else None)
    if start is None or end is None:
        return
    shortest = length.months * 28 * _DAY + length.days * _DAY + length.micros
    if (to_micros(end) - to_micros(start)) // shortest > max_windows:
        raise InvalidRequest(
            f"relative.window_length: {length} makes more than {max_windows} windows between {start.isoformat()} and "
            f"{end.isoformat()}; narrow start_valid and end_valid, or take longer windows"
        )


def known_by_cut_off(rows: pl.LazyFrame, read: ReadCommand) -> pl.LazyFrame:
    """Keep the rows that were known by the read's cut-off for their valid_time (inclusive), all where it has none."""
    if read.lead_time is not None:
        lead = pl.duration(microseconds=read.lead_time.days * _DAY + read.lead_time.micros)
        rows = rows.filter(pl.col("known_time") <= pl.col("valid_time") - lead)
    if read.relative is None:
        return rows
    length = read.relative.window_length
    if length is not None and not length.is_calendar and not _offset(read.relative).is_calendar:
        return _known_by_fixed_windows(rows, read.relative, length)
    return _known_by_calendar(rows, read.relative)


def _known_by_fixed_windows(rows: pl.LazyFrame, relative: Relative, length: Duration) -> pl.LazyFrame:
    first = to_micros(_start(relative))
    since = pl.col("valid_time").to_physical() - first
    cut = since.floordiv(length.micros) * length.micros + (first + _offset(relative).micros)
    return rows.filter(pl.col("known_time").to_physical() <= cut)


def _known_by_calendar(rows: pl.LazyFrame, relative: Relative) -> pl.LazyFrame:
    """The cut-offs of the windows that the rows touch, found as the rows are read."""
    cut = pl.col("valid_time").map_batches(partial(_cut_offs, relative), return_dtype=_TIME, is_elementwise=True)
    return rows.filter(pl.col("known_time") <= cut)


def _cut_offs(relative: Relative, times: pl.Series) -> pl.Series:
    """The cut-off for each valid_time."""
    instants = times.to_physical().to_numpy()
    if not len(instants):
        return times
    zone = ZoneInfo(_zone_name(relative))
    # Not Polars' own clock, which knows no summer time from 2100 on, while the gates come from zoneinfo.
    clock = LocalClock.of(zone.key, int(instants.min()), int(instants.max()))
    numbers, place = np.unique(clock.shows(instants) // _DAY, return_inverse=True)
    days = [_EPOCH + timedelta(days=int(number)) for number in numbers]
    if relative.window_length is None:
        cuts = _micros_of(gate(day, relative, zone) for day in days)
    else:
        windows = sorted({_window_start(relative, number, zone) for number in _window_numbers(relative, days, zone)})
        cuts = _micros_of(_shift(start, _offset(relative), zone) for start in windows)
        place = np.searchsorted(_micros_of(windows), instants, side="right") - 1
    return pl.Series(times.name, cuts[place]).cast(_TIME)


def _micros_of(instants: Iterable[datetime]) -> Instants:
    return np.array([to_micros(instant) for instant in instants], dtype=np.int64)


def _window_numbers(relative: Relative, days: Iterable[date], zone: ZoneInfo) -> set[int]:
    """The numbers of all windows that some local days can touch, counted from ``start_window``."""
    start = _start(relative).astimezone(zone).date()
    length = relative.window_length or Duration(days=1)
    numbers: set[int] = set()
    for day in days:
        if length.months:
            near = ((day.year - start.year) * 12 + day.month - start.month) // length.months
            numbers.update(range(near - 1, near + 2))
        elif length.days:
            near = (day - start).days // length.days
            numbers.update(range(near - 1, near + 2))
        else:
            numbers.update(_clock_windows(relative, length, day, zone))
    return numbers


def _clock_windows(relative: Relative, length: Duration, day: date, zone: ZoneInfo) -> range:
    """Windows of hours and less (with a cut-off on the calendar) that a local day touches."""
    first = to_micros(_start(relative))
    midnight = to_micros(local_instant(day, time(), zone))
    return range((midnight - first) // length.micros - 1, (midnight + 2 * _DAY - first) // length.micros + 1)


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
        return _EARLIEST if by.sign < 0 else datetime.max.replace(tzinfo=UTC)


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
