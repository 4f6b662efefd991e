"""Rows of the years 1 and 9999 are rows like others to gates, windows, lead times, periods, accuracy, by any door."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
import polars as pl
import pytest

import timedb as td

if TYPE_CHECKING:
    from timedb.client import Client
    from timedb.run.launch import Service

NAME, ACTUAL = "forecast to the ends of time", "actual to the ends of time"
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, 0, 30, tzinfo=UTC),
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(2025, 1, 1, 12, tzinfo=UTC),
    datetime(9999, 12, 30, 23, 30, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 30, tzinfo=UTC),
    LAST,
]
KNOWN = [datetime(1, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC), LAST]
ZONES = ["UTC", "Europe/Stockholm", "Pacific/Kiritimati", "Pacific/Pago_Pago"]
COLUMNS = ["valid_time", "known_time", "value"]
Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def forecast(client: Client) -> str:
    """Three runs of values at both ends of time and in between, and the values that came true."""
    for run, known in enumerate(KNOWN):
        values = [float(run * 10 + place) for place in range(len(TIMES))]
        rows = pl.DataFrame({"series_key": NAME, "valid_time": TIMES, "value": values})
        client.upload(rows, known_time=known)
    client.upload(pl.DataFrame({"series_key": ACTUAL, "valid_time": TIMES, "value": 1.0}), known_time=KNOWN[1])
    return NAME


def by_rest(service: Service, **asked: Any) -> Rows:
    answer = httpx.get(f"{service.rest_url}/values", params={"name": NAME, "mode": "overlapping", **asked})
    assert answer.is_success, answer.text
    rows = answer.json()["data"]
    return sorted((datetime.fromisoformat(row["valid_time"]), row["value"]) for row in rows)


@pytest.mark.parametrize("zone", ZONES)
def test_daily_gates(forecast: str, client: Client, service: Service, service_lake: Path, zone: str) -> None:
    gate = {"days_ahead": 1, "time_of_day": "10:00", "time_zone": zone}
    rows: dict[str, Any] = {"view": "flat", "columns": COLUMNS, "relative": gate, "series_keys": forecast}
    found = sorted(client.read(**rows).rows())
    # Of each time the last run that was known by its cut-off; before the first day there is nothing but its midnight.
    assert [known for _, known, _ in found] == [KNOWN[0]] * 3 + [KNOWN[1]] * 4
    assert [time for time, *_ in found] == TIMES
    assert sorted(td.scan_lake(service_lake, **rows).collect().rows()) == found
    assert by_rest(service, **{**gate, "mode": "flat"}) == [(time, value) for time, _, value in found]
    with duckdb.connect() as connection:
        connection.execute(td.duckdb_macros(service_lake))
        query = (
            f"SELECT value FROM timedb_flat(time_zone := '{zone}', days_ahead := 1, time_of_day := '10:00') "
            "JOIN timedb_series() USING (series_id) WHERE name = ? ORDER BY value"
        )
        values = [value for (value,) in connection.execute(query, [forecast]).fetchall()]
    assert values == sorted(value for *_, value in found)


@pytest.mark.parametrize(
    "cut",
    [
        {"relative": {"window_length": "P1D", "issue_offset": "-PT1H", "start_window": "2025-01-01T00:00:00Z"}},
        {"relative": {"window_length": "P1M", "issue_offset": "-P9000Y", "start_window": "2025-01-01T00:00:00Z"}},
        {"lead_time": "PT1H"},
        {"lead_time": "P3650000D"},
        {"lead_time": "-P3650000D"},
    ],
)
def test_windows_and_lead_times(
    forecast: str, client: Client, service: Service, service_lake: Path, cut: dict[str, Any]
) -> None:
    rows: dict[str, Any] = {"view": "overlapping", "columns": COLUMNS, "series_keys": forecast, **cut}
    found = sorted(client.read(**rows).rows())
    assert sorted(td.scan_lake(service_lake, **rows).collect().rows()) == found
    asked = cut.get("relative", cut)
    assert by_rest(service, **asked) == sorted((time, value) for time, _, value in found)
    if "lead_time" in cut:
        most = {"PT1H": 1 / 24, "P3650000D": 3_650_000, "-P3650000D": -3_650_000}[cut["lead_time"]]
        assert len(found) == sum((time - known).total_seconds() >= most * 86_400 for time in TIMES for known in KNOWN)


@pytest.mark.parametrize("zone", ZONES)
def test_periods(forecast: str, client: Client, service: Service, zone: str) -> None:
    for period in ("P1D", "PT7H", "P1W", "P1M", "P1Y"):
        counted = client.read(
            series_keys=forecast, resample={"period": period, "aggregate": "count", "time_zone": zone}
        )
        assert counted["value"].sum() == len(TIMES), period
        asked = {"mode": "flat", "period": period, "aggregate": "count", "time_zone": zone}
        assert sum(value for _, value in by_rest(service, **asked)) == len(TIMES), period


def test_accuracy(forecast: str, client: Client, service: Service) -> None:
    for horizon in ("PT1H", "P1D", "P365000D"):
        found = client.accuracy(actual_key=ACTUAL, series_keys=forecast, horizon=horizon)
        assert found["count"].sum() == len(TIMES) * len(KNOWN)
        asked = {"actual_key": ACTUAL, "name": forecast, "horizon": horizon}
        answer = httpx.get(f"{service.rest_url}/accuracy", params=asked)
        assert [row["count"] for row in answer.json()["data"]] == found["count"].to_list()
