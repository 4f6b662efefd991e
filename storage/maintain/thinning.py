"""Which rows retention rules remove: pure functions over all rows of some points.

A revision goes with all its versions or stays with all of them, so a retraction never goes without what it retracts,
and the tier of every row that stays is what it was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import to_micros
from timedb.contract.wire import DailyTime, RetentionRule, quoted
from timedb.storage.measures.relative import local_instant
from timedb.storage.rows import views
from timedb.storage.rows.orders import REVISION, VERSION, WINNER
from timedb.storage.rows.sorting import sort_rows

__all__ = ["KEY_COLUMNS", "BoundRule", "mark"]

KEY_COLUMNS = (*VERSION.columns, "retracted")
"""The columns that decide what goes; with :data:`timedb.storage.rows.orders.CONTENT` where a rule collapses repeats."""

_POINT = list(WINNER.key)
_UTC_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class BoundRule:
    """A rule with the series that it is about and the moment that its age reaches back to."""

    rule: RetentionRule
    series_ids: Collection[str]
    cut: datetime

    @classmethod
    def bind(cls, index: int, rule: RetentionRule, series_ids: Collection[str], moment: datetime) -> BoundRule:
        """The rule as of a moment.

        Raises:
            InvalidRequest: the time zone does not exist.
        """
        if rule.keep_known_at is not None:
            _zone(index, rule.keep_known_at)
        return cls(rule, series_ids, moment - timedelta(days=rule.after_days))

    @property
    def drops(self) -> bool:
        """Whether it drops whole points, not only superseded revisions."""
        return self.rule.drop_after_days is not None

    @property
    def collapses(self) -> bool:
        """Whether it compares what revisions say: so it needs the content of rows, and every revision of a point."""
        return self.rule.collapse_repeats_after_days is not None

    def doomed(self, rows: pl.DataFrame) -> pl.Series:
        """Whether each row goes.

        Args:
            rows: :data:`KEY_COLUMNS`, and what the rule :attr:`compares <collapses>`; of each point that has a row
                here, all rows.
        """
        own = pl.col("series_id").is_in(pl.Series(sorted(self.series_ids), dtype=pl.String).implode())
        if self.drops:
            return rows.select(own & (pl.col("valid_time") < self.cut)).to_series()
        numbered = rows.with_columns(own=own).with_row_index("position").filter("own")
        ranked = self._ranked(numbered)
        going = ranked.filter((pl.col("beaten_by") > 0) & (pl.col("known_time") < self.cut))
        going = going.filter("repeats") if self.collapses else self._not_kept(going)
        gone = numbered.join(going.select(VERSION.key), on=list(VERSION.key), how="semi", nulls_equal=True)
        mask = np.zeros(rows.height, dtype=np.bool_)
        mask[gone["position"].to_numpy()] = True
        return pl.Series(mask)

    def _ranked(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The revisions of each point from the oldest to its winner, so what follows beats what is before it.

        A withdrawn revision beats no other; whether it stays is decided as for any other.
        """
        standing = pl.col("retracted").ne_missing(True)
        if self.collapses:
            # A revision with a history of its own, or after one with such, says more than a repeat: reads without
            # later corrections find in its versions what they miss in the other.
            untouched = standing & (pl.len().over(REVISION) == 1)
            ranked = sort_rows(views.latest_versions(rows.with_columns(untouched=untouched)), WINNER.columns)
            both = pl.col("untouched") & pl.col("untouched").shift(1)
            ranked = ranked.with_columns(repeats=views.repeats_last() & both)
        else:
            ranked = sort_rows(views.latest_versions(rows), WINNER.columns)
        return ranked.with_columns(
            beaten_by=(standing.cast(pl.Int64).cum_sum(reverse=True) - standing.cast(pl.Int64)).over(_POINT),
            successor_known=pl.when(standing).then("known_time").backward_fill().shift(-1).over(_POINT),
        )

    def _not_kept(self, going: pl.DataFrame) -> pl.DataFrame:
        """Of the revisions that are old and beaten by one that stands those that are not kept for another reason."""
        if self.rule.keep_last is not None:
            going = going.filter(pl.col("beaten_by") >= self.rule.keep_last)
        if self.rule.keep_known_at is not None and going.height:
            gates = _next_gates(going["known_time"], self.rule.keep_known_at)
            going = going.filter((gates >= going["successor_known"]).fill_null(False))
        return going


def mark(rows: pl.DataFrame, rules: Sequence[BoundRule]) -> pl.Series:
    """The index of the rule that removes each row; -1 where it stays.

    The rules work one after the other, each on what those before it have left.

    Args:
        rows: :data:`KEY_COLUMNS`, and what the rules compare; of each point that has a row here, all rows.
        rules: The rules.
    """
    marks = np.full(rows.height, -1, dtype=np.int32)
    left = rows.with_row_index("number")
    for index, rule in enumerate(rules):
        doomed = rule.doomed(left)
        marks[left.filter(doomed)["number"].to_numpy()] = index
        left = left.filter(~doomed)
    return pl.Series("mark", marks)


def _next_gates(times: pl.Series, daily: DailyTime) -> pl.Series:
    """For each time the first instant from it on at which the local clock shows the daily time."""
    zone = ZoneInfo(daily.time_zone)
    clock = time.fromisoformat(daily.time_of_day)
    near = {around for day in times.dt.date().unique().to_list() for around in _days_around(day)}
    instants = sorted(to_micros(local_instant(day, clock, zone)) for day in near)
    gates = pl.Series(instants, dtype=pl.Int64).cast(_UTC_TIME)
    found = gates.search_sorted(times, side="left")
    return gates.append(pl.Series([None], dtype=_UTC_TIME)).gather(found)


def _days_around(day: date) -> list[date]:
    """The local days whose gate may be the first after some instant of a UTC day."""
    # A local day is the UTC day or one beside it, and the gate of a day that skips it is the first instant after it.
    # Years 1 and 9999 have no room for a zone's offset at their outer days.
    ordinals = range(max(day.toordinal() - 2, 3), min(day.toordinal() + 2, date.max.toordinal() - 2) + 1)
    return [date.fromordinal(ordinal) for ordinal in ordinals]


def _zone(index: int, daily: DailyTime) -> ZoneInfo:
    try:
        return ZoneInfo(daily.time_zone)
    except (OSError, ValueError, LookupError):
        raise InvalidRequest(
            f"rules.{index}.keep_known_at.time_zone: {quoted(daily.time_zone)} is not a time zone of the IANA database"
        ) from None
