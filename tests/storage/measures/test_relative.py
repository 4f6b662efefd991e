"""Gates of relative reads on the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.storage.lakes import Sent, read, read_table, upload
from timedb.contract.errors import InvalidRequest
from timedb.contract.times import to_micros
from timedb.storage import Tenant
from timedb.storage.measures.relative import local_instant

STOCKHOLM = "Europe/Stockholm"


def utc(text: str) -> datetime:
    """A UTC time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def micros(text: str) -> int:
    """Microseconds of a UTC time."""
    return to_micros(utc(text))


@pytest.mark.parametrize(
    ("day", "days_ahead", "time_of_day", "expected"),
    [
        # Clocks go from 02:00 to 03:00 on 2025-03-30, at 01:00 UTC.
        ("2025-03-29", 0, "10:00", "2025-03-29 09:00"),
        ("2025-03-30", 0, "10:00", "2025-03-30 08:00"),
        ("2025-03-30", 1, "10:00", "2025-03-29 09:00"),
        ("2025-03-31", 1, "10:00", "2025-03-30 08:00"),
        ("2025-03-30", 0, "01:59:59", "2025-03-30 00:59:59"),
        ("2025-03-30", 0, "02:00", "2025-03-30 01:00"),
        ("2025-03-30", 0, "02:30", "2025-03-30 01:00"),
        ("2025-03-30", 0, "02:59:59", "2025-03-30 01:00"),
        ("2025-03-30", 0, "03:00", "2025-03-30 01:00"),
        ("2025-04-01", 2, "02:30", "2025-03-30 01:00"),
        # Clocks go from 03:00 to 02:00 on 2025-10-26, at 01:00 UTC: 02:00 to 03:00 is there twice.
        ("2025-10-26", 0, "01:59:59", "2025-10-25 23:59:59"),
        ("2025-10-26", 0, "02:00", "2025-10-26 00:00"),
        ("2025-10-26", 0, "02:30", "2025-10-26 00:30"),
        ("2025-10-26", 0, "03:00", "2025-10-26 02:00"),
        ("2025-10-27", 1, "02:30", "2025-10-26 00:30"),
        ("2025-10-27", 1, "10:00", "2025-10-26 09:00"),
        ("2025-10-26", 1, "10:00", "2025-10-25 08:00"),
        ("2025-10-26", 0, "00:00", "2025-10-25 22:00"),
    ],
)
def test_gates_in_stockholm(day: str, days_ahead: int, time_of_day: str, expected: str) -> None:
    gate_day = date.fromisoformat(day) - timedelta(days=days_ahead)
    assert local_instant(gate_day, time.fromisoformat(time_of_day), ZoneInfo(STOCKHOLM)) == utc(expected)


@pytest.mark.parametrize(
    ("zone", "day", "time_of_day", "expected"),
    [
        ("Australia/Lord_Howe", "2025-10-05", "02:15", "2025-10-04 15:30"),  # half an hour is skipped
        ("Australia/Lord_Howe", "2025-04-06", "01:45", "2025-04-05 14:45"),  # half an hour is repeated
        ("America/Sao_Paulo", "2018-11-04", "00:00", "2018-11-04 03:00"),  # midnight itself is skipped
        ("Pacific/Apia", "2011-12-30", "12:00", "2011-12-30 10:00"),  # the whole day is skipped
        ("Asia/Kolkata", "2025-06-01", "10:00", "2025-06-01 04:30"),
        ("UTC", "2025-06-01", "10:00", "2025-06-01 10:00"),
    ],
)
def test_gates_elsewhere(zone: str, day: str, time_of_day: str, expected: str) -> None:
    clock = time.fromisoformat(time_of_day)
    assert local_instant(date.fromisoformat(day), clock, ZoneInfo(zone)) == utc(expected)


def relative_values(tenant: Tenant, **relative: Any) -> dict[int, float]:
    """valid_time -> value of a flat relative read."""
    found = read(tenant, "flat", all_versions=False, relative={"time_zone": STOCKHOLM, **relative})
    return {row.valid_time: float(int(row.run_id)) for row in found}


@pytest.mark.parametrize(
    ("first_hour", "last_hour", "gate_time"),
    [
        ("2025-03-29 23:00", "2025-03-30 21:00", "2025-03-29 09:00"),  # a day of 23 hours
        ("2025-10-25 22:00", "2025-10-26 22:00", "2025-10-25 08:00"),  # a day of 25 hours
        ("2150-06-30 22:00", "2150-07-01 21:00", "2150-06-30 08:00"),  # summer time, as far as anybody knows
        ("1850-06-30 22:47:48", "1850-07-01 22:47:47", "1850-06-30 08:47:48"),  # the mean time of Stockholm
    ],
)
def test_the_day_ahead_gate(tenant: Tenant, first_hour: str, last_hour: str, gate_time: str) -> None:
    first, last, cut_off = micros(first_hour), micros(last_hour), micros(gate_time)
    hours = [first - 3_600_000_000, first, last, last + 3_600_000_000]
    for run, known in enumerate((cut_off - 1, cut_off, cut_off + 1)):  # the cut-off is inclusive
        upload(tenant, [Sent("south", valid, None, known, 0.0) for valid in hours], str(run))
    for _ in range(2):
        found = relative_values(tenant, days_ahead=1, time_of_day="10:00")
        assert found == {first: 1.0, last: 1.0, last + 3_600_000_000: 2.0}
        tenant.compact()


def test_overlapping_and_all_versions_have_the_gate_too(tenant: Tenant) -> None:
    valid, cut_off = micros("2025-03-30 12:00"), micros("2025-03-29 09:00")
    for run, known in enumerate((cut_off, cut_off + 1)):
        upload(tenant, [Sent("south", valid, None, known, 0.0)], str(run))
    gate_fields = {"relative": {"days_ahead": 1, "time_of_day": "10:00", "time_zone": STOCKHOLM}}
    for view in ("flat", "overlapping"):
        for all_versions in (False, True):
            (row,) = read(tenant, view, all_versions=all_versions, **gate_fields)
            assert row.run_id == "0"


ENDS = (to_micros(datetime.min.replace(tzinfo=UTC)), micros("9999-12-31 23:30"))
FORMS: list[dict[str, Any]] = [
    {"days_ahead": 1, "time_of_day": "10:00"},
    {"days_ahead": 0, "time_of_day": "00:00"},
    {"window_length": "P1M", "issue_offset": "-P1D", "start_window": "2025-01-31T00:00:00Z"},
    {"window_length": "P3D", "issue_offset": "-PT1H", "start_window": "2025-01-01T00:00:00Z"},
    {"window_length": "1us", "issue_offset": "-P1M", "start_window": "2025-01-01T00:00:00Z"},
    {"window_length": "90m", "issue_offset": "-P1D", "start_window": "2025-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("zone", [STOCKHOLM, "America/New_York", "Pacific/Kiritimati", "UTC"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_at_the_ends_of_time_have_cut_offs_too(tenant: Tenant, form: dict[str, Any], zone: str) -> None:
    long_ago, now = ENDS[0], micros("2025-06-01 12:00")
    times = [*ENDS, now]
    upload(tenant, [Sent("south", valid, None, long_ago, 1.0) for valid in times], "early")
    upload(tenant, [Sent("south", valid, None, valid, 2.0) for valid in times], "late")
    for _ in range(2):
        rows = read(tenant, "flat", all_versions=False, relative={"time_zone": zone, **form})
        found = {row.valid_time: row.run_id for row in rows}
        assert found[now] == found[ENDS[1]] == "early"
        assert found.get(ENDS[0]) in (None, "early", "late")  # no cut-off lies before the beginning
        resampled = {"period": "P1D", "aggregate": "count", "time_zone": zone}
        assert [row["value"] for row in daily(tenant, resampled)] == [1.0, 1.0, 1.0]
        tenant.compact()


def daily(tenant: Tenant, resample: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of a flat read by periods."""
    return list(read_table(tenant, view="flat", resample=resample).to_pylist())


@pytest.mark.parametrize(
    ("relative", "named"),
    [
        ({"time_zone": "Europe/Nowhere"}, "Europe/Nowhere"),
        ({"time_zone": "../etc/passwd"}, "passwd"),
        ({"time_zone": "/etc/passwd"}, "passwd"),
        ({"time_zone": STOCKHOLM, "time_of_day": "24:00"}, "24:00"),
        ({"time_zone": STOCKHOLM, "time_of_day": "10"}, "10"),
        ({"time_zone": STOCKHOLM, "days_ahead": -1}, "-1"),
        ({}, "time_zone"),
        ({"time_zone": STOCKHOLM, "zone": "x"}, "zone"),
    ],
)
def test_a_gate_that_cannot_be(tenant: Tenant, relative: dict[str, Any], named: str) -> None:
    upload(tenant, [Sent("south", 0, None, 0, 0.0)], "0")
    with pytest.raises(InvalidRequest, match=named):
        read(tenant, relative=relative)
