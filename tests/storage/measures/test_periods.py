"""Where periods begin and end: compared, minute by minute, with what the clocks of a zone show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timedb.contract.durations import Duration, parse_duration
from timedb.contract.times import MAX_MICROS, MIN_MICROS, to_micros
from timedb.storage.measures.local_clock import LocalClock
from timedb.storage.measures.periods import Periods

MINUTE = 60_000_000
ZONES = [
    "UTC",
    "Europe/Stockholm",
    "America/St_Johns",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Africa/Monrovia",
    "Asia/Gaza",
    "Pacific/Apia",
    "Pacific/Chatham",
]


def wall(instant: int, zone: ZoneInfo) -> int:
    """What the clock shows, as minutes."""
    moment = datetime.fromtimestamp(instant // 1_000_000, UTC).astimezone(zone).replace(tzinfo=UTC)
    return to_micros(moment) // MINUTE


def boundaries(shown: list[int], minutes: int) -> list[int]:
    """Which of some consecutive minutes a period begins with, by what the clock shows in each of them."""
    # Where the clock is changed by whole periods, these keep their length; else one ends when it first gets beyond it.
    whole_changes = all((later - now - 1) % minutes == 0 for now, later in pairwise(shown))
    if whole_changes:
        return [position for position, now in enumerate(shown) if position and now % minutes == 0]
    numbers = [highest // minutes for highest in accumulate(shown, max)]
    return [position for position, (before, now) in enumerate(pairwise(numbers), 1) if now > before]


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Stockholm", "2025-03-30"),
        ("Europe/Stockholm", "2025-10-26"),
        ("America/St_Johns", "2010-11-07"),  # back from 00:01
        ("America/St_Johns", "1988-04-03"),  # two hours, from 00:01
        ("Australia/Lord_Howe", "2025-04-06"),  # half an hour
        ("Australia/Lord_Howe", "2025-10-05"),
        ("America/Havana", "2024-11-03"),  # back to midnight
        ("America/Sao_Paulo", "2018-11-04"),  # no midnight
        ("America/Sao_Paulo", "2018-02-18"),  # back at midnight
        ("Pacific/Apia", "2011-12-30"),  # a day left out
        ("Asia/Kathmandu", "1986-01-01"),  # a quarter of an hour
    ],
)
def test_periods_begin_as_the_clock_says(zone: str, day: str) -> None:
    noon = to_micros(datetime.fromisoformat(day).replace(tzinfo=UTC)) + 720 * MINUTE
    times = np.arange(noon - 2160 * MINUTE, noon + 2160 * MINUTE, MINUTE)
    shown = [wall(instant, ZoneInfo(zone)) for instant in times.tolist()]
    for length in ("15min", "20min", "30min", "1h", "2h", "3h", "6h", "12h", "24h"):
        periods = Periods(parse_duration(length), zone, int(times[0]), int(times[-1]))
        starts = periods.start(periods.number(times))
        found = [int(start - times[0]) // MINUTE for start in np.unique(starts) if start > times[0]]
        assert found == boundaries(shown, parse_duration(length).micros // MINUTE), length
    days = Periods(Duration(days=1), zone, int(times[0]), int(times[-1]))
    assert (days.start(days.number(times)) == starts).all()


@given(
    zone=st.sampled_from(ZONES),
    length=st.one_of(
        st.sampled_from(["1us", "1ms", "7min", "15min", "1h", "5h", "6h", "36h", "1d", "3d", "1w", "2w", "1mo", "1y"]),
        st.sampled_from(["P100Y", "P9999Y", "PT87840000H"]),
    ).map(parse_duration),
    instants=st.lists(st.integers(MIN_MICROS, MAX_MICROS), min_size=1, max_size=20),
    near=st.integers(MIN_MICROS, MAX_MICROS),
)
def test_periods_follow_each_other_without_gap_or_overlap(
    zone: str, length: Duration, instants: list[int], near: int
) -> None:
    some = {*instants, near, *(min(near + step * 1_800_000_000, MAX_MICROS) for step in range(48))}
    times = np.array(sorted(some), dtype=np.int64)
    periods = Periods(length, zone, int(times[0]), int(times[-1]))
    number = periods.number(times)
    start, end = periods.start(number), periods.start(number + 1)
    assert (np.diff(number) >= 0).all()
    assert (start <= times).all()
    assert ((times < end) | (end == MAX_MICROS)).all()
    inside = (start > MIN_MICROS) & (end < MAX_MICROS)
    assert (periods.number(start)[inside] == number[inside]).all()
    assert (periods.number(end - 1)[inside] == number[inside]).all()


@pytest.mark.parametrize("zone", ZONES)
def test_the_clock_is_that_of_zoneinfo(zone: str) -> None:
    """In every age: before there were zones, by the records, and by the rules that hold for ever."""
    noons = [
        datetime(year, month, 15, 12, tzinfo=UTC)
        for year in (2, 1799, 1923, 1986, 2025, 2087, 2262, 2499, 2500, 2925, 9998)
        for month in (1, 7, 11)
    ]
    times = np.array([to_micros(noon) for noon in noons], dtype=np.int64)
    clock = LocalClock.of(zone, int(times[0]), int(times[-1]))
    shown = [to_micros(noon.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)) for noon in noons]
    assert clock.reading(times).tolist() == shown
    assert clock.instant(np.array(shown, dtype=np.int64)).tolist() == times.tolist()


def test_a_clock_shows_what_the_records_say_to_the_second() -> None:
    # Monrovia lived 44 minutes and 30 seconds behind Greenwich until 1972.
    change = to_micros(datetime(1972, 1, 7, 0, 44, 30, tzinfo=UTC))
    times = np.array([change - 1_000_000, change], dtype=np.int64)
    behind = timedelta(minutes=44, seconds=30) // timedelta(microseconds=1)
    shown = LocalClock.of("Africa/Monrovia", int(times[0]), int(times[1])).reading(times)
    assert shown.tolist() == [change - 1_000_000 - behind, change]
