"""Relative reads: per local day, only what was known by a gate on an earlier local day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from timedb.errors import InvalidRequest
from timedb.wire import Relative, shown

__all__ = ["check_time_zone", "gate", "known_by_gate"]


def gate(day: date, relative: Relative, zone: ZoneInfo) -> datetime:
    """The cut-off (UTC) for values about a local day; the earliest time there is where it would lie before that.

    A repeated local time is its earlier instant; a skipped one is the first existing instant after the gap.
    """
    clock = time.fromisoformat(relative.time_of_day)
    try:
        local = datetime.combine(day - timedelta(days=relative.days_ahead), clock, zone)
        instant = local.astimezone(UTC)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
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


def check_time_zone(name: str) -> None:
    """Refuse a name that is not one of the IANA database.

    Raises:
        InvalidRequest: names it.
    """
    try:
        ZoneInfo(name)
        pl.Series([0]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(name)
    except (OSError, ValueError, LookupError, pl.exceptions.PolarsError):
        raise InvalidRequest(f"relative.time_zone: {shown(name)} is not a time zone of the IANA database") from None


def known_by_gate(rows: pl.LazyFrame, relative: Relative) -> pl.LazyFrame:
    """Keep the rows that were known by the gate of the local day of their valid_time (cut-off inclusive).

    Args:
        rows: Rows of the values table.
        relative: The gate; its time zone has passed :func:`check_time_zone`.
    """
    zone = ZoneInfo(relative.time_zone)
    day = pl.col("valid_time").dt.convert_time_zone(relative.time_zone).dt.date().alias("day")
    days = rows.select(day.unique()).collect(engine="in-memory")["day"].to_list()
    gates = pl.DataFrame(
        {"day": days, "gate": [gate(one, relative, zone) for one in days]},
        schema={"day": pl.Date, "gate": pl.Datetime("us", "UTC")},
    )
    with_gate = rows.with_columns(day).join(gates.lazy(), on="day", how="left")
    return with_gate.filter(pl.col("known_time") <= pl.col("gate")).drop("day", "gate")
