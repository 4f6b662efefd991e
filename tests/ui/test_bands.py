"""The bands that the page draws between the quantiles of a forecast."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from tests.ui.pages import Page, instant
from timedb.client import connect

if TYPE_CHECKING:
    from timedb.run.launch import Service

DAY = datetime(2025, 1, 1, tzinfo=UTC)
HOURS = [DAY + timedelta(hours=hour) for hour in range(4)]
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
WIDE, NARROW = "10\N{EN DASH}90 %", "25\N{EN DASH}75 %"
Stretch = list[tuple[datetime, float]]


def rows(labels: dict[str, str], values: list[float | None]) -> pl.DataFrame:
    """A value an hour of a series; no row where it is None."""
    frame = pl.DataFrame({"series_key": ["banded"] * 4, "labels": [json.dumps(labels)] * 4, "valid_time": HOURS})
    return frame.with_columns(value=pl.Series(values, dtype=pl.Float64)).drop_nulls()


def write_forecast(service: Service) -> dict[str, str]:
    """Five quantiles, one of them with a gap until an hour later, and series of the same name that are no siblings."""
    first, later, others = [], [], [rows({}, [5.0] * 4)]
    for quantile in QUANTILES:
        labels = {"quantile": str(quantile)}
        at_three = None if quantile == 0.9 else 10 * quantile
        first.append(rows(labels, [10 * quantile, 10 * quantile, at_three, 10 * quantile]))
        later.append(rows(labels, [100 * quantile] * 4))
        others.append(rows({**labels, "site": "north"}, [-1.0] * 4))
    with connect(service.flight_url) as client:
        client.upload(pl.concat([*first, *others]), known_time=DAY)
        client.upload(pl.concat(later), known_time=DAY + timedelta(hours=1))
        found = client.list_series(name="banded")
    return {str(one["labels"].get("quantile")): str(one["series_id"]) for one in found if "site" not in one["labels"]}


def bands(page: Page) -> dict[str, list[Stretch]]:
    """By the name of each band that is drawn its stretches without gaps, each the points around it."""
    found: dict[str, list[Stretch]] = {}
    for trace in page.traces():
        if not trace["name"].endswith("%"):
            continue
        stretches: list[Stretch] = [[]]
        for ms, value in zip(trace["x"], trace["y"], strict=True):
            if ms is None:
                stretches.append([])
            else:
                stretches[-1].append((instant(ms), value))
        found[trace["name"]] = [stretch for stretch in stretches if stretch]
    return found


def around(hours: list[datetime], low: float, high: float) -> Stretch:
    """On along the upper edge, back along the lower, and closed."""
    upper = [(hour, high) for hour in hours]
    return [*upper, *((hour, low) for hour in reversed(hours)), upper[0]]


def test_bands_of_quantiles_lie_behind_the_line_and_a_pair_that_is_not_whole_is_a_gap(
    blank: Page, ui_service: Service
) -> None:
    page, series = blank, write_forecast(ui_service)
    page.show(series=series["0.25"], range="all")
    assert bands(page) == {WIDE: [around(HOURS, 10.0, 90.0)], NARROW: [around(HOURS, 25.0, 75.0)]}
    assert [trace["name"] for trace in page.traces()][:2] == [WIDE, NARROW], "the widest first, all else before them"
    assert page.line("latest") == [(hour, 25.0) for hour in HOURS]
    fills = page.all("#chart .scatterlayer .js-fill")
    assert len({fill.value_of_css_property("fill") for fill in fills if fill.get_attribute("d")}) == 2
    assert page.at("#show-bands").accessible_name == f"Bands {WIDE}, {NARROW}"
    asked = page.driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert len({url for url in asked if "pivot=quantile" in url}) == 1

    page.show(series=series["0.25"], range="all", known="2025-01-01T00:00:00Z")
    wide = [around(HOURS[:2], 1.0, 9.0), around(HOURS[3:], 1.0, 9.0)]
    assert bands(page) == {WIDE: wide, NARROW: [around(HOURS, 2.5, 7.5)]}
    page.at("#known-now").click()
    page.until(lambda: bands(page).get(WIDE) == [around(HOURS, 10.0, 90.0)])
    page.at("#show-bands").click()
    page.until(lambda: bands(page) == {})
    assert page.address()["bands"] == "0"

    page.show(series=series["None"], range="all")
    assert page.line("latest") == [(hour, 5.0) for hour in HOURS]
    assert bands(page) == {}
    assert not page.at("#bands-key").is_displayed()
    assert page.at("#bands-names").get_property("textContent") == ""
