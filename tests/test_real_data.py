"""Answers about real forecasts are those that pandas finds in the CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from examples import load_forecasts
from tests.conftest import Served
from timedb.client import Client, connect

MEDIAN: dict[str, Any] = {"series_keys": load_forecasts.NAME, "labels": {"quantile": "0.5"}}
ZONE = "Europe/Paris"


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    """A client of a lake that holds the forecasts."""
    with connect(served.flight_url) as client:
        load_forecasts.load(client)
        yield client


@pytest.fixture(scope="module")
def median() -> pd.DataFrame:
    """The forecasts of the median: valid_time, known_time, value."""
    frame = pd.read_csv(load_forecasts.CSV, dtype={"cumulative_probability": str})
    frame = frame[frame["cumulative_probability"] == "0.5"]
    return pd.DataFrame(
        {
            "valid_time": pd.to_datetime(frame["event_start"]),
            "known_time": pd.to_datetime(frame["belief_time"]),
            "value": frame["event_value"],
        }
    )


def winners(known: pd.DataFrame) -> pd.Series:
    """By valid_time the value that was known last."""
    return known.loc[known.groupby("valid_time")["known_time"].idxmax()].set_index("valid_time")["value"].sort_index()


def read(client: Client, **selection: object) -> pd.Series:
    """A read of the median, by valid_time."""
    frame = client.read(**MEDIAN, **selection).to_pandas()  # type: ignore[arg-type] # the names are Selection's
    return frame.set_index("valid_time")["value"].sort_index()


def same(found: pd.Series, expected: pd.Series) -> None:
    """The same times and the same values, but for the last digits of a sum."""
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-12)


@pytest.mark.parametrize("hours", [0, 24, 36])
def test_the_forecast_known_so_long_before(client: Client, median: pd.DataFrame, hours: int) -> None:
    lead = timedelta(hours=hours)
    expected = winners(median[median["known_time"] <= median["valid_time"] - lead])
    assert len(expected) == 72
    same(read(client, lead_time=lead), expected)
    same(read(client, lead_time=f"PT{hours}H"), expected)


def test_the_day_ahead_gate_and_the_same_as_windows(client: Client, median: pd.DataFrame) -> None:
    local_day = median["valid_time"].dt.tz_convert(ZONE).dt.normalize()
    gate = local_day - timedelta(days=1) + timedelta(hours=10)
    expected = winners(median[median["known_time"] <= gate])
    same(read(client, relative={"days_ahead": 1, "time_of_day": "10:00", "time_zone": ZONE}), expected)
    windows = {"window_length": "P1D", "issue_offset": "-PT14H", "start_window": "2015-01-31T23:00:00Z"}
    same(read(client, relative={**windows, "time_zone": ZONE}), expected)
    assert list(expected) != list(winners(median))


@pytest.mark.parametrize("aggregate", ["mean", "median", "quantile:0.1", "sum", "min", "max", "first", "last", "count"])
def test_days_of_a_time_zone(client: Client, median: pd.DataFrame, aggregate: str) -> None:
    flat = winners(median)
    days = flat.groupby(flat.index.tz_convert(ZONE).normalize())
    days = days.quantile(0.1) if aggregate == "quantile:0.1" else days.agg(aggregate)
    expected = days.set_axis(days.index.tz_convert("UTC"))
    same(read(client, resample={"period": "P1D", "aggregate": aggregate, "time_zone": ZONE}), expected)


def test_the_last_value_and_another_unit(client: Client, median: pd.DataFrame) -> None:
    flat = winners(median)
    same(read(client, view="latest"), flat.tail(1))
    same(read(client, unit="kelvin"), flat + 273.15)
    assert client.read(**MEDIAN, unit="degF", columns=["series_unit"])["series_unit"].unique().to_list() == ["degF"]


def test_accuracy_by_lead_time(client: Client, served: Served, median: pd.DataFrame) -> None:
    actual = winners(median)
    rows = pd.DataFrame({"series_key": "measured", "valid_time": actual.index, "value": actual.to_numpy() + 273.15})
    client.create_series("measured", unit="kelvin")
    client.upload(rows, run_id="measured temperatures")
    pairs = median.assign(error=median["value"] - median["valid_time"].map(actual))
    pairs["bucket"] = (pairs["valid_time"] - pairs["known_time"]) // timedelta(hours=6) * 6 * 3600.0
    by_lead = pairs.groupby("bucket")["error"]
    found = client.accuracy(actual_key="measured", horizon="6h", **MEDIAN).to_pandas().set_index("lead_seconds")
    assert list(found.index) == sorted(pairs["bucket"].unique())
    assert list(found["lead_seconds_end"] - found.index) == [21_600.0] * len(found)
    assert list(found["count"]) == list(by_lead.count())
    expected = {
        "bias": by_lead.mean(),
        "mae": by_lead.agg(lambda errors: errors.abs().mean()),
        "rmse": by_lead.agg(lambda errors: (errors**2).mean() ** 0.5),
    }
    for figure, series in expected.items():
        np.testing.assert_allclose(found[figure], series, rtol=1e-9, atol=1e-12)
    answer = requests.get(
        f"{served.rest_url}/accuracy",
        {"actual_key": "measured", "horizon": "6h", "name": load_forecasts.NAME, "labels": '{"quantile": "0.5"}'},
        timeout=60,
    )
    assert answer.ok, answer.text
    assert [(row["lead_seconds"], row["count"], row["mae"]) for row in answer.json()["data"]] == [
        (lead, row["count"], row["mae"]) for lead, row in found.iterrows()
    ]
