"""What the page does outside the ordinary: nothing there, too much there, no key, a wrong key, no mouse, no eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import axe_core_python
import httpx
import polars as pl
import pytest

import timedb as td
from tests.ui.pages import Demo, Page, Recorded, instant
from timedb.client import connect
from timedb.contract.identity import OPEN_TENANT_ID, canonical_labels, series_id_for
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import now
from timedb.storage import Lake
from timedb.storage.catalog.catalog import Series, SeriesNeeds, StoredCatalog

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from timedb.run.launch import Service

AXE = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
TAB, SPACE, RIGHT, END, ESCAPE, ENTER = "\ue004", "\ue00d", "\ue014", "\ue010", "\ue00c", "\ue007"
T0 = datetime(2025, 10, 25, 22, tzinfo=UTC)  # midnight in Stockholm; three hours later its clocks go back


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[[], Service]]:
    """Starts a service on the lake of this test."""
    from timedb.run.launch import start_service

    fields: dict[str, Any] = {"flight_port": 0, "rest_port": 0, "shutdown_seconds": 2.0}
    with ExitStack() as services:
        yield lambda: services.enter_context(
            start_service(load_settings(ServerSettings, lake=str(tmp_path / "lake"), **fields))
        )


def test_an_empty_lake_says_how_to_fill_it(browser: Chrome, new_service: Callable[[], Service]) -> None:
    page = Page(browser, new_service().rest_url)
    page.reset()
    page.driver.get(f"{page.url}/ui")
    page.until(lambda: "timedb upload FILE" in page.at("#welcome").text)
    page.until(lambda: page.at("#found-count").text == "0 series")
    assert not page.at("#sign-in").is_displayed()
    assert page.recorded() == Recorded(errors=[], outside=[])


def test_a_series_that_is_not_there_is_said(page: Page) -> None:
    page.driver.get(f"{page.url}/ui?series=49c45b07-7910-5f85-add4-1d77bf80d487")
    page.until(lambda: "There is no series 49c45b07" in page.at("[role=alert]").text)
    assert not page.at("#view").is_displayed()


def test_what_is_cut_off_is_said_and_can_be_loaded(page: Page, ui_service: Service) -> None:
    rows = 20_500
    times = [T0 + timedelta(minutes=minute) for minute in range(rows)]
    frame = pl.DataFrame({"series_key": ["long"] * rows, "valid_time": times, "value": range(rows)})
    with connect(ui_service.flight_url) as client:
        receipt = client.upload(frame, run_id="long", known_time=T0)
    page.show(series=receipt.series_ids["long"], range="all")
    assert page.at("#cut").text.startswith("Cut: these are the first 20,000 values and the 20,000 versions")
    assert len(page.line("latest")) == 20_000
    page.at("#cut button").click()
    page.until(lambda: not page.at("#cut").is_displayed())
    page.until(lambda: len(page.line("latest")) == rows)
    assert page.at("#summary").text.startswith("20,500 values")


def test_intervals_are_steps_and_nothing_hides_the_hour_that_comes_twice(page: Page, ui_service: Service) -> None:
    starts = [T0 + timedelta(hours=hour) for hour in range(6)]
    columns = {"valid_time": starts, "valid_time_end": [start + timedelta(hours=1) for start in starts]}
    frame = pl.DataFrame({"series_key": ["price"] * 6, **columns, "value": [1.0, 2.0, None, float("nan"), 5.0, 6.0]})
    with connect(ui_service.flight_url) as client:
        receipt = client.upload(frame, run_id="price", known_time=T0 - timedelta(days=1))
    page.show(series=receipt.series_ids["price"], tz="local")
    (line,) = [trace for trace in page.traces() if trace["name"] == "latest"]
    assert line["y"] == [1, 1, 2, 2, None, None, None, None, 5, 5, 6, 6]
    assert [instant(ms) for ms in line["x"][:4]] == [starts[0], starts[1], starts[1], starts[2]]
    table = page.table()
    clocks = ["00:00 +02:00", "01:00 +02:00", "02:00 +02:00", "02:00 +01:00", "03:00 +01:00", "04:00 +01:00"]
    assert [row["Valid time"] for row in table] == [f"2025-10-26 {clock}" for clock in clocks]
    assert [row["Value"] for row in table] == ["1", "2", "\N{EN DASH}", "NaN", "5", "6"]


def test_markup_in_what_users_write_is_text(page: Page, rest: httpx.Client, ui_service: Service) -> None:
    markup, labels = "<img src=x onerror=alert(1)>", {"<i>": "</i>"}
    series = series_id_for(OPEN_TENANT_ID, markup, labels)
    lake = str(ui_service.lake)
    with closing(Lake.open(lake, load_settings(ServerSettings, lake=lake))) as beside:
        # A unit that no door takes any more, as a series from before may have it.
        known = Series(series, markup, canonical_labels(labels), "<b>&amp;</b>", markup, now(), None)
        catalog = beside.tenant(OPEN_TENANT_ID).catalog
        assert isinstance(catalog, StoredCatalog)
        catalog.ensure([SeriesNeeds([known])])
    row = {"valid_time": "2025-01-01T00:00:00Z", "series_id": series, "value": 1.0, "annotation": markup}
    assert rest.post("/runs", json={"run_start_time": "2025-01-01T00:00:00Z", "value_rows": [row]}).status_code == 200
    update = {"series_id": series, "valid_time": row["valid_time"], "value": 2.0, "changed_by": markup}
    assert rest.put("/values", json={"updates": [update]}).status_code == 200
    page.show(series=series, tab="changes")
    assert page.at("#title").text == f"{markup} <b>&amp;</b>"
    assert page.at("#description").text == markup
    assert page.texts("#labels li") == ["<i>=</i>"]
    assert [(row["Who"], row["Why"]) for row in page.table()] == [(markup, markup)]
    assert page.at("#chart .ytitle").text == "<b>&amp;</b>"
    assert not page.all("img[src=x]")


def test_marks_of_the_axis_stand_at_round_local_times_on_a_day_of_25_hours(page: Page, demo: Demo) -> None:
    page.show(series=demo.forecast)
    script = """const [from, to, done] = arguments;
        const ticks = new URL("ticks.js", document.querySelector("script[type=module]").src);
        import(ticks).then(({timeTicks}) => done(timeTicks(from, to, "local", 9)));"""
    day = [T0.timestamp() * 1000, (T0 + timedelta(hours=25)).timestamp() * 1000]
    ticks = page.driver.execute_async_script(script, *day)
    hours = [(instant(ms) - T0) / timedelta(hours=1) for ms in ticks["tickvals"]]
    assert hours == [0, 4, 7, 10, 13, 16, 19, 22, 25]
    assert [text.partition("<br>")[0] for text in ticks["ticktext"]][:3] == ["00:00", "03:00", "06:00"]
    year = page.driver.execute_async_script(script, day[0], day[0] + 400 * 86_400_000)
    assert [text.partition("<br>")[0] for text in year["ticktext"]] == ["Jan", "Apr", "Jul", "Oct"]


def test_a_lake_with_users_asks_for_a_key_and_shows_its_tenants_series_only(
    browser: Chrome, new_service: Callable[[], Service], tmp_path: Path
) -> None:
    lake = str(tmp_path / "lake")
    keys = [td.create_user(f"{who}@example.com", new_tenant=True, lake=lake)["api_key"] for who in ("anna", "bo")]
    service = new_service()
    for key, name in zip(keys, ("annas", "bos"), strict=True):
        with connect(service.flight_url, api_key=key) as client:
            frame = pl.DataFrame({"series_key": [name] * 3, "valid_time": [T0 + timedelta(hours=h) for h in range(3)]})
            receipt = client.upload(frame.with_columns(value=1.0), run_id=name)
            client.update_values([{"series_id": receipt.series_ids[name], "valid_time": T0, "value": 2.0}])
    page = Page(browser, service.rest_url)
    page.reset()
    page.driver.get(f"{page.url}/ui")
    page.until(lambda: page.at("#key-dialog").is_displayed())
    assert page.focused() == "key"
    assert "annas" not in page.driver.page_source
    page.press("no-such-key", ENTER)
    page.until(lambda: page.at("#key-fault").text == "This key is not known here, or no longer.")
    page.press(keys[0], ENTER)
    page.until(lambda: page.texts("#found .name") == ["annas"])
    assert not page.at("#key-dialog").is_displayed()
    page.at("#found li").click()
    page.drawn()
    page.at("#tab-changes").click()
    page.until(lambda: page.table()[0].get("Who") == "anna@example.com")
    assert page.driver.execute_script("return [...Object.values(sessionStorage)]") == [keys[0]]
    assert page.driver.execute_script("return localStorage.length + document.cookie.length") == 0
    page.driver.refresh()
    page.drawn()
    assert page.at("#title").text == "annas"
    asked = page.driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert len(asked) > 10
    assert not [url for url in [*asked, page.driver.current_url] if keys[0] in url]
    recorded = page.recorded()
    assert not recorded.outside
    assert all("401" in error for error in recorded.errors)
    assert not [error for error in recorded.errors if keys[0] in error]
    page.at("#sign-out").click()
    page.until(lambda: page.at("#key-dialog").is_displayed())
    assert "annas" not in page.driver.page_source
    page.press(keys[1], ENTER)
    page.until(lambda: page.texts("#found .name") == ["bos"])
    page.until(lambda: "There is no series" in page.at("#problem").text)


def test_everything_is_reached_without_a_mouse(page: Page, demo: Demo) -> None:
    page.show(series=demo.observed)
    page.press(TAB)
    assert page.focused() == "skip"
    page.press(ENTER)
    assert page.focused() == "title"
    reached: list[str] = []
    while not reached or reached[-1] != "copy-call":
        page.press(TAB)
        reached.append(page.focused())
        assert len(reached) < 60, reached
    wanted = ["from", "to", "zone", "show-revisions", "show-changes", "picture", "known-back", "known", "tab-values"]
    positions = [reached.index(name) for name in [*wanted, "format", "download", "copy-call"]]
    assert positions == sorted(positions)
    assert "tab-changes" not in reached, "one stop for all tabs"
    page.driver.execute_script("document.getElementById('tab-values').focus()")
    page.press(RIGHT, RIGHT)
    page.until(lambda: page.at("#tab-changes").get_attribute("aria-selected") == "true")
    assert page.focused() == "tab-changes"
    page.press(END)
    page.until(lambda: page.address().get("tab") == "accuracy")
    page.at("#actual").click()
    page.until(lambda: page.at("#actual-found").is_displayed())
    page.press(ESCAPE)
    assert not page.at("#actual-found").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(page: Page, demo: Demo, scheme: str) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.show(series=demo.observed, tab="changes")
    assert "71 values from 2015-03-01 09:00 to 2015-03-04 08:00" in str(page.at("#status").get_property("textContent"))
    page.driver.execute_script(AXE)
    found = page.driver.execute_async_script("axe.run().then(arguments[0])")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20
