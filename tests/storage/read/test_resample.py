"""Values brought to periods: known answers on the days on which clocks change, and all aggregates against DuckDB."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.lakes import Sent, hour, read_table, upload
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.times import MAX_MICROS, MIN_MICROS, from_micros, to_micros
from timedb.contract.wire import Resample, parse_object
from timedb.storage import Tenant
from timedb.storage.read.resample import resample

TIME = pl.Datetime("us", "UTC")
HOUR = timedelta(hours=1)
AGGREGATES = ["mean", "sum", "min", "max", "first", "last", "count", "median", "quantile:0.1", "quantile:0.999"]
NAN = float("nan")

Row = tuple[str, datetime, datetime | None, float | None]


def utc(text: str) -> datetime:
    """A UTC time such as ``2025-03-30 01:00``."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as a view gives them."""
    schema = {"series_id": pl.String(), "valid_time": TIME, "valid_time_end": TIME, "value": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def how(period: str, aggregate: str = "mean", time_zone: str = "UTC") -> Resample:
    """What is asked for."""
    return parse_object(Resample, {"period": period, "aggregate": aggregate, "time_zone": time_zone})


def hourly(first: str, count: int) -> pl.DataFrame:
    """One series of hourly intervals with the values 0, 1, 2, …"""
    start = utc(first)
    return frame([("a", start + n * HOUR, start + (n + 1) * HOUR, float(n)) for n in range(count)])


def values(rows: Sequence[Row], period: str, aggregate: str, time_zone: str = "UTC") -> list[float | None]:
    """The values of the periods in their order."""
    return resample(frame(rows), how(period, aggregate, time_zone))["value"].to_list()


def on_the_hour(first: int, count: int, step: int = 1) -> list[str]:
    """Clock times from an hour on."""
    return [f"{(first + number * step) % 24:02}:00" for number in range(count)]


def half_past(first: int, count: int) -> list[str]:
    """Clock times from half past an hour on."""
    return [f"{(first + number) % 24:02}:30" for number in range(count)]


@pytest.mark.parametrize(
    ("day", "hours", "mean", "total"),
    [
        ("2025-03-29 23:00", 23, 11.0, 253.0),
        ("2025-10-25 22:00", 25, 12.0, 300.0),
        ("2025-07-01 22:00", 24, 11.5, 276.0),
    ],
)
def test_local_days_of_23_24_and_25_hours(day: str, hours: int, mean: float, total: float) -> None:
    rows = hourly(day, hours)
    for aggregate, expected in [("mean", mean), ("sum", total), ("count", float(hours)), ("last", hours - 1.0)]:
        found = resample(rows, how("1d", aggregate, "Europe/Stockholm"))
        assert found.rows() == [("a", utc(day), utc(day) + hours * HOUR, expected)]


@pytest.mark.parametrize(
    ("period", "zone", "day", "starts"),
    [
        # A change of the clocks makes the period longer or shorter that it falls in …
        ("6h", "Europe/Stockholm", "2025-10-25 22:00", ["22:00", "05:00", "11:00", "17:00"]),
        ("6h", "Europe/Stockholm", "2025-03-29 23:00", ["23:00", "04:00", "10:00", "16:00"]),
        ("12h", "America/St_Johns", "2025-11-02 02:30", ["02:30", "15:30"]),
        ("3h", "Europe/Stockholm", "2025-10-25 22:00", ["22:00", *on_the_hour(2, 7, step=3)]),
        # … and only moves the wall-clock names of those that it is a multiple of.
        ("1h", "Europe/Stockholm", "2025-10-25 22:00", on_the_hour(22, 25)),
        ("1h", "Europe/Stockholm", "2025-03-29 23:00", on_the_hour(23, 23)),
        # An offset of a half hour still gives whole local hours.
        ("1h", "Asia/Kolkata", "2025-06-01 18:30", half_past(18, 24)),
        ("6h", "Asia/Kolkata", "2025-06-01 18:30", ["18:30", "00:30", "06:30", "12:30"]),
        ("8h", "Asia/Kathmandu", "2025-06-01 18:15", ["18:15", "02:15", "10:15"]),
        # The clocks of Lord Howe change by half an hour: one hour of that day lasts as much longer or shorter.
        ("6h", "Australia/Lord_Howe", "2025-04-05 13:00", ["13:00", "19:30", "01:30", "07:30"]),
        ("1h", "Australia/Lord_Howe", "2025-04-05 13:00", ["13:00", "14:00", *half_past(15, 22)]),
        ("1h", "Australia/Lord_Howe", "2025-10-04 13:30", ["13:30", "14:30", "15:30", *on_the_hour(16, 21)]),
    ],
)
def test_hours_that_divide_a_day_follow_the_local_clock(period: str, zone: str, day: str, starts: list[str]) -> None:
    begin = utc(day)
    rows = frame([("a", begin + n * timedelta(minutes=10), None, 1.0) for n in range(156)])
    found = resample(rows, how(period, "count", zone))
    assert found["valid_time"].dt.strftime("%H:%M").to_list()[: len(starts)] == starts
    assert found["valid_time"][0] == begin
    assert found["valid_time"][1:].to_list() == found["valid_time_end"][:-1].to_list()
    local_midnight = found["valid_time"][len(starts)].astimezone(ZoneInfo(zone))
    assert (local_midnight.hour, local_midnight.minute) == (0, 0)


def test_hours_that_do_not_divide_a_day_all_have_the_same_length() -> None:
    found = resample(hourly("2025-10-25 00:00", 60), how("5h", "count", "Europe/Stockholm"))
    assert set((found["valid_time_end"] - found["valid_time"]).to_list()) == {5 * HOUR}
    # Counted from the local midnight of 1970-01-01, which was 23:00 the day before.
    since = found["valid_time"].to_physical() - to_micros(utc("1969-12-31 23:00"))
    assert (since % 18_000_000_000 == 0).all()


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("1mo", "2025-03-31 21:59", "2025-02-28 23:00", "2025-03-31 22:00"),
        ("1mo", "2025-03-31 22:00", "2025-03-31 22:00", "2025-04-30 22:00"),
        ("3mo", "2025-06-30 21:59:59", "2025-03-31 22:00", "2025-06-30 22:00"),
        ("1y", "2024-12-31 23:00", "2024-12-31 23:00", "2025-12-31 23:00"),
        ("P10Y", "2025-05-05 00:00", "2019-12-31 23:00", "2029-12-31 23:00"),
        ("1w", "2025-10-26 22:59", "2025-10-19 22:00", "2025-10-26 23:00"),  # Monday to Monday
        ("2w", "2025-10-26 22:59", "2025-10-12 22:00", "2025-10-26 23:00"),
        ("10d", "1970-01-10 22:00", "1969-12-31 23:00", "1970-01-10 23:00"),
        ("10d", "1969-12-31 22:59", "1969-12-21 23:00", "1969-12-31 23:00"),
        ("24h", "2025-10-26 12:00", "2025-10-25 22:00", "2025-10-26 23:00"),
    ],
)
def test_periods_of_the_calendar(period: str, moment: str, start: str, end: str) -> None:
    found = resample(frame([("a", utc(moment), None, 2.5)]), how(period, "sum", "Europe/Stockholm"))
    assert found.rows() == [("a", utc(start), utc(end), 2.5)]


def test_a_midnight_that_is_shown_twice_or_skipped() -> None:
    # In St. John's the clocks went from 00:01 back to 23:01: the day begins at the first midnight and lasts 25 hours.
    rows = [("a", utc("2010-11-07 02:30") + n * timedelta(minutes=1), None, 1.0) for n in range(70)]
    found = resample(frame(rows), how("1d", "count", "America/St_Johns"))
    assert found.rows() == [("a", utc("2010-11-07 02:30"), utc("2010-11-08 03:30"), 70.0)]
    # In Beirut they go from 00:00 to 01:00: the day begins at 01:00.
    found = resample(hourly("2024-03-30 20:00", 4), how("1d", "count", "Asia/Beirut"))
    assert found["valid_time"].to_list() == [utc("2024-03-29 22:00"), utc("2024-03-30 22:00")]
    # Apia left out 2011-12-30: nothing lies in a day that lasts no time.
    found = resample(hourly("2011-12-30 08:00", 4), how("1d", "count", "Pacific/Apia"))
    assert found["valid_time_end"].to_list() == [utc("2011-12-30 10:00"), utc("2011-12-31 10:00")]
    across = frame([("a", utc("2011-12-30 08:00"), utc("2011-12-30 12:00"), 8.0)])
    assert resample(across, how("1d", "sum", "Pacific/Apia"))["value"].to_list() == [4.0, 4.0]


def test_intervals_count_by_what_lies_in_the_period() -> None:
    day = utc("2025-01-01 00:00")
    rows: list[Row] = [
        ("a", day - 6 * HOUR, day + 6 * HOUR, 10.0),
        ("a", day + 6 * HOUR, day + 24 * HOUR, 30.0),
    ]
    expected = {
        "mean": [10.0, (6 * 10 + 18 * 30) / 24],
        "sum": [5.0, 35.0],
        "min": [10.0, 10.0],
        "max": [10.0, 30.0],
        "first": [10.0, 10.0],
        "last": [10.0, 30.0],
        "count": [1.0, 2.0],
        "median": [10.0, 20.0],
        "quantile:0.75": [10.0, 25.0],
    }
    assert {aggregate: values(rows, "1d", aggregate) for aggregate in expected} == expected


def test_points_and_intervals_in_one_period() -> None:
    day = utc("2025-01-01 00:00")
    rows: list[Row] = [("a", day, None, 100.0), ("a", day, day + HOUR, 1.0), ("a", day + HOUR, day + 4 * HOUR, 5.0)]
    assert values(rows, "1d", "mean") == [4.0]  # a point has no extent
    assert values(rows, "1d", "sum") == [106.0]
    assert values(rows, "1d", "first") == [100.0]
    assert values([*rows, ("a", day + HOUR, None, 7.0)], "1d", "last") == [5.0]
    empty: list[Row] = [(series, start, end, None if end else value) for series, start, end, value in rows]
    assert values(empty, "1d", "mean") == [100.0]


def test_nulls_are_left_out_and_nan_is_not() -> None:
    day = utc("2025-01-01 00:00")
    some: list[Row] = [("a", day, None, None), ("a", day + HOUR, None, 4.0), ("a", day + 2 * HOUR, None, None)]
    assert {aggregate: values(some, "1d", aggregate) for aggregate in AGGREGATES} == {
        aggregate: [1.0 if aggregate == "count" else 4.0] for aggregate in AGGREGATES
    }
    nothing: list[Row] = [("a", day, None, None), ("a", day, day + HOUR, None)]
    assert {aggregate: values(nothing, "1d", aggregate) for aggregate in AGGREGATES} == {
        aggregate: [0.0 if aggregate == "count" else None] for aggregate in AGGREGATES
    }
    broken: list[Row] = [*some, ("a", day + 3 * HOUR, None, NAN)]
    for aggregate in ("mean", "sum", "min", "max", "last", "median", "quantile:0.01"):
        assert math.isnan(values(broken, "1d", aggregate)[0] or 0.0), aggregate
    assert values(broken, "1d", "count") == [2.0]
    assert values(broken, "1d", "first") == [4.0]


def test_quantiles_lie_between_the_values_next_to_them() -> None:
    """As numpy, pandas and DuckDB's ``quantile_cont`` say; beyond what floats hold they say no number."""
    day = utc("2025-01-01 00:00")

    def quantile(level: str, *numbers: float | None) -> float | None:
        rows: list[Row] = [("a", day + place * HOUR, None, number) for place, number in enumerate(numbers)]
        (found,) = values(rows, "1d", level)
        return found

    assert quantile("quantile:0.25", 40.0, 10.0, 30.0, 20.0) == 17.5
    assert quantile("quantile:0.9", 0.0, 10.0) == 9.0
    assert quantile("median", 3.0, None, 1.0) == quantile("quantile:0.5", 3.0, 1.0) == 2.0
    assert quantile("quantile:0.1", 7.0) == 7.0
    assert quantile("median", -1.7e308, 1.7e308) == 0.0
    assert quantile("median", math.inf, math.inf) == math.inf
    assert quantile("median", -math.inf, 5.0) == -math.inf
    assert math.isnan(quantile("median", -math.inf, math.inf) or 0.0)


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        ("p10", "aggregate: 'p10' is another spelling of quantile:0.1; use that"),
        ("P97.5", "aggregate: 'P97.5' is another spelling of quantile:0.975; use that"),
        ("q0.1", "aggregate: 'q0.1' is another spelling of quantile:0.1"),
        ("quantile:0.10", "another spelling of quantile:0.1"),
        ("quantile:1e-1", "another spelling of quantile:0.1"),
        ("quantile(.5)", "another spelling of quantile:0.5"),
        ("percentile 5", "another spelling of quantile:0.05"),
        ("quantile:10", "aggregate: 'quantile:10' is no quantile of a number in (0, 1), such as quantile:0.1"),
        ("quantile:0", "is no quantile of a number in (0, 1)"),
        ("p100", "is no quantile of a number in (0, 1)"),
        ("quantile:--", "is no quantile of a number in (0, 1)"),
        ("most", "aggregate: 'most' is no aggregate; there are mean, median, sum, min, max, first, last, count, and"),
        (0.5, "aggregate: 0.5 is no aggregate"),
    ],
)
def test_a_quantile_has_one_spelling(aggregate: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        parse_object(Resample, {"period": "1d", "aggregate": aggregate})


def test_equal_intervals_make_the_plain_mean_to_the_last_bit() -> None:
    day = utc("2025-01-01 00:00")
    rows: list[Row] = [("a", day + n * HOUR, day + (n + 1) * HOUR, 0.1) for n in range(24)]
    plain = sum(value for *_, value in rows if value is not None) / 24
    assert values(rows, "1d", "mean") == [pytest.approx(plain, rel=1e-15)] == [0.1]
    assert values([("a", day, day + HOUR, 1.7e308)] * 1, "1d", "mean") == [1.7e308]


def test_groups_and_revisions_are_kept_apart() -> None:
    day = utc("2025-01-01 00:00")
    rows = frame(
        [("b", day, None, 1.0), ("a", day, None, 2.0), ("a", day + HOUR, None, 4.0), ("b", day, day + HOUR, 9.0)]
    )
    found = resample(rows, how("1d", "sum"))
    assert found.select("series_id", "value").rows() == [("a", 6.0), ("b", 10.0)]
    revised = rows.with_columns(
        known_time=pl.Series([day, day, day + HOUR, day]), run_id=pl.Series(["r", "r", "r", "s"])
    )
    found = resample(revised, how("1d", "sum"), by=("series_id", "known_time", "run_id"))
    assert found.select("series_id", "known_time", "run_id", "value").rows() == [
        ("a", day, "r", 2.0),
        ("a", day + HOUR, "r", 4.0),
        ("b", day, "r", 1.0),
        ("b", day, "s", 9.0),
    ]
    assert found.columns == ["series_id", "known_time", "run_id", "valid_time", "valid_time_end", "value"]


def test_series_that_are_looked_at_piece_by_piece() -> None:
    """Seven hundred thousand pieces of each of three series do not fit into one look."""
    day, length = utc("2025-01-01 00:00"), timedelta(microseconds=700_000)
    rows: list[Row] = [(name, day, day + length, 700_000.0 * number) for number, name in enumerate("abc", 1)]
    found = resample(frame(rows), how("PT0.000001S", "sum"))
    sums = found.group_by("series_id", maintain_order=True).agg(pl.len(), pl.col("value").unique().first())
    assert sums.rows() == [("a", 700_000, 1.0), ("b", 700_000, 2.0), ("c", 700_000, 3.0)]
    assert found["valid_time"].head(700_000).is_sorted()


def test_the_ends_of_the_calendar() -> None:
    rows: list[Row] = [("a", from_micros(MIN_MICROS), None, 1.0), ("a", from_micros(MAX_MICROS), None, 2.0)]
    for period in ("1h", "5h", "1d", "1w", "10d", "1mo", "7mo", "1y", "P9999Y"):
        for zone in ("UTC", "Pacific/Kiritimati"):
            found = resample(frame(rows), how(period, "sum", zone))
            assert found["value"].sum() == 3.0
            assert (found["valid_time"].to_physical() >= MIN_MICROS).all()
            assert (found["valid_time_end"].to_physical() <= MAX_MICROS).all()


def test_no_rows_give_no_periods() -> None:
    found = resample(frame([]), how("1d"))
    assert found.is_empty()
    assert found.schema == frame([]).schema


def test_faults_are_named() -> None:
    rows = frame([("a", utc("2025-01-01 00:00"), utc("2026-01-01 00:00"), 1.0)])
    with pytest.raises(InvalidRequest, match=r"resample\.time_zone: 'Europe/Atlantis'"):
        resample(rows, how("1d", time_zone="Europe/Atlantis"))
    with pytest.raises(TooLarge, match=r"resample\.period: PT1S .* more than 20000000 pieces"):
        resample(rows, how("1s"))
    with pytest.raises(TooLarge, match="more than 363 pieces"):
        resample(rows, how("1d"), max_cut_rows=363)
    assert resample(rows, how("1d"), max_cut_rows=364).height == 365


ORACLE = """
WITH periods AS (
    SELECT timezone($zone, mark) AS first, timezone($zone, mark + $step::INTERVAL) AS stop
    FROM range($begin::TIMESTAMP, $until::TIMESTAMP, $step::INTERVAL) marks(mark)
), pieces AS (
    SELECT rows.*, first, stop,
        epoch_us(least(stop, valid_time_end)) - epoch_us(greatest(first, valid_time)) AS overlap,
        epoch_us(valid_time_end) - epoch_us(valid_time) AS length
    FROM rows JOIN periods ON first < stop AND CASE
        WHEN valid_time_end IS NULL THEN first <= valid_time AND valid_time < stop
        ELSE valid_time < stop AND first < valid_time_end END
), known AS (FROM pieces WHERE value IS NOT NULL)
SELECT pieces.series_id, epoch_us(pieces.first), epoch_us(pieces.stop),
    any_value(coalesce(mean, point_mean)), any_value(total), any_value(lowest), any_value(highest),
    any_value(earliest), any_value(latest), any_value(coalesce(number, 0)),
    any_value(middle), any_value(low), any_value(high)
FROM pieces LEFT JOIN (
    SELECT series_id, first,
        sum(value * overlap) FILTER (length > 0) / sum(overlap) FILTER (length > 0) AS mean,
        avg(value) FILTER (length IS NULL) AS point_mean,
        sum(value * coalesce(overlap / length, 1)) AS total,
        CASE WHEN bool_or(isnan(value)) THEN 'NaN'::DOUBLE ELSE min(value) END AS lowest,
        max(value) AS highest,
        first(value ORDER BY valid_time, valid_time_end NULLS FIRST) AS earliest,
        last(value ORDER BY valid_time, valid_time_end NULLS FIRST) AS latest,
        count(*) AS number,
        CASE WHEN NOT bool_or(isnan(value)) THEN quantile_cont(value, 0.5) ELSE 'NaN'::DOUBLE END AS middle,
        CASE WHEN NOT bool_or(isnan(value)) THEN quantile_cont(value, 0.1) ELSE 'NaN'::DOUBLE END AS low,
        CASE WHEN NOT bool_or(isnan(value)) THEN quantile_cont(value, 0.999) ELSE 'NaN'::DOUBLE END AS high
    FROM known GROUP BY ALL
) AS figures USING (series_id, first)
GROUP BY ALL ORDER BY ALL
"""
PERIODS = [
    ("PT6H", "6 hours", "2025-01-01"),
    ("1d", "1 day", "2025-01-01"),
    ("1w", "7 days", "2024-12-30"),
    ("1mo", "1 month", "2025-01-01"),
    ("3mo", "3 months", "2025-01-01"),
]


@st.composite
def some_rows(draw: st.DrawFn) -> pl.DataFrame:
    """Points and intervals about the days on which clocks change in spring or in autumn, no two at one point."""
    begin = draw(
        st.sampled_from([utc("2025-03-28"), utc("2025-04-04"), utc("2025-10-03"), utc("2025-10-25"), utc("2025-11-01")])
    )
    quarter = timedelta(minutes=15)
    start = st.integers(0, 400).map(lambda number: begin + number * quarter)
    length = st.sampled_from([None, None, 1, 4, 4, 3, 96, 131, 3000])
    value = st.sampled_from([None, NAN, 0.0, -1.5, 2.5, 2.5, 1e6, 0.1])
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from("ab"), start, length, value),
            min_size=1,
            max_size=40,
            unique_by=lambda row: row[:3],
        )
    )
    return frame(
        [(name, at, None if count is None else at + count * quarter, amount) for name, at, count, amount in drawn]
    )


def same(left: Any, right: Any) -> bool:
    """Whether two answers agree, sums up to rounding."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-9) or (math.isnan(left) and math.isnan(right))
    return bool(left == right)


@given(
    rows=some_rows(),
    zone=st.sampled_from(["Europe/Stockholm", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    seed=st.integers(0, 9),
)
def test_all_aggregates_against_duckdb(rows: pl.DataFrame, zone: str, seed: int) -> None:
    given_in_any_order = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register("rows", rows)
        bounds = [{"zone": zone, "step": step, "begin": begin, "until": "2026-02-01"} for _, step, begin in PERIODS]
        oracle = [engine.execute(ORACLE, bound).fetchall() for bound in bounds]
    for (period, *_), expected in zip(PERIODS, oracle, strict=True):
        found = [resample(given_in_any_order, how(period, name, zone)) for name in AGGREGATES]
        keys = found[0].select("series_id", pl.col("valid_time", "valid_time_end").to_physical())
        answer = keys.with_columns(one["value"].alias(name) for name, one in zip(AGGREGATES, found, strict=True)).rows()
        assert len(answer) == len(expected)
        for mine, other in zip(answer, expected, strict=True):
            assert all(same(left, right) for left, right in zip(mine, other, strict=True)), (period, mine, other)


def test_a_read_is_resampled_and_revisions_are_not_mixed(tenant: Tenant) -> None:
    upload(tenant, [Sent("load", hour(n), hour(n + 1), hour(0), 1.0) for n in range(48)], "first")
    upload(tenant, [Sent("load", hour(n), hour(n + 1), hour(24), 3.0) for n in range(12, 48)], "second")
    daily = {"period": "1d", "aggregate": "mean"}
    flat = read_table(tenant, resample=daily, columns=["valid_time", "valid_time_end", "value"], ordered=True)
    assert pl.DataFrame(flat).rows() == [
        (from_micros(hour(0)), from_micros(hour(24)), 2.0),
        (from_micros(hour(24)), from_micros(hour(48)), 3.0),
    ]
    both = read_table(tenant, view="overlapping", resample=daily, columns=["known_time", "valid_time", "value"])
    assert sorted(pl.DataFrame(both).rows()) == [
        (from_micros(hour(0)), from_micros(hour(0)), 1.0),
        (from_micros(hour(0)), from_micros(hour(24)), 1.0),
        (from_micros(hour(24)), from_micros(hour(0)), 3.0),
        (from_micros(hour(24)), from_micros(hour(24)), 3.0),
    ]
