"""A service with real forecasts in it, and a headless Chromium that looks at its page."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl
import pytest

from examples import load_forecasts
from tests.ui.pages import Demo, Page, Recorded, start_browser
from timedb.client import Client, connect
from timedb.contract.settings import ServerSettings, load_settings

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from timedb.run.launch import Service

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
CHROMEDRIVER = Path(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
MANY = 240


@pytest.fixture(scope="session")
def ui_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of these tests alone: they count what it holds."""
    from timedb.run.launch import start_service

    lake = str(tmp_path_factory.mktemp("ui") / "lake")
    service = start_service(load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0, shutdown_seconds=2.0))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def rest(ui_service: Service) -> Iterator[httpx.Client]:
    """HTTP to that service."""
    with httpx.Client(base_url=ui_service.rest_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def demo(ui_service: Service, rest: httpx.Client) -> Demo:
    """Real forecasts, made-up observations of the same hours, corrections of both, a withdrawn run, many others."""
    with connect(ui_service.flight_url) as client:
        load_forecasts.load(client)
        forecast = str(client.list_series(name="temperature", labels=load_forecasts.MEDIAN)[0]["series_id"])
        flat = client.read(series_ids=[forecast]).sort("valid_time")
        observed = observe(client, flat)
        upload_many(client)
    hours = flat["valid_time"].to_list()

    def correct(series: str, hour: int, **fields: Any) -> None:
        update = {"series_id": series, "valid_time": hours[hour].isoformat(), **fields}
        answer = rest.put("/values", json={"updates": [update]})
        assert answer.status_code == 200, answer.text

    correct(observed, 20, value=20.5, annotation="Sensor had drifted", tags=["Sensor"], changed_by="anna@example.com")
    correct(observed, 50, retracted=True, annotation="Logger was off", changed_by="ops@example.com")
    rows = [{"valid_time": hour.isoformat(), "series_id": forecast, "value": 30.0} for hour in hours[40:46]]
    known = {"run_start_time": hours[30].isoformat(), "known_time": hours[30].isoformat(), "run_id": "wrong"}
    assert rest.post("/runs", json={**known, "value_rows": rows}).status_code == 200
    reason = {"reason": "Wrong weather input", "changed_by": "anna@example.com"}
    assert rest.post("/runs/wrong/withdraw", json=reason).json() == {"withdrawn": 6}
    return Demo(forecast, observed, hours)


def observe(client: Client, flat: pl.DataFrame) -> str:
    """Upload what "came true": the forecast with noise that is the same every time."""
    noise = random.Random(7)
    known: Any = flat["valid_time"].max()
    series = client.create_series("observed", unit="degC", description="What the station saw", labels={"site": "north"})
    values = [value + noise.gauss(0, 0.5) for value in flat["value"]]
    frame = pl.DataFrame({"series_id": [series] * len(values), "valid_time": flat["valid_time"], "value": values})
    client.upload(frame, run_id="observed", known_time=known + timedelta(days=1))
    return series


def upload_many(client: Client) -> None:
    """Many series of two names in four zones, one value each."""
    labels = [f'{{"site": "{site:03d}", "zone": "SE{site % 4 + 1}"}}' for site in range(MANY // 2)]
    frame = pl.DataFrame({"labels": labels}).join(pl.DataFrame({"series_key": ["load", "wind"]}), how="cross")
    time = pl.lit("2025-01-01T00:00:00Z").str.to_datetime(time_zone="UTC")
    client.upload(frame.with_columns(valid_time=time, value=pl.lit(1.0)), run_id="many")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Chromium without a window, in Stockholm's time."""
    missing = [str(path) for path in (CHROMIUM, CHROMEDRIVER) if not path.exists()]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: 'sudo make browser' installs it on Debian")
    driver = start_browser(CHROMIUM, CHROMEDRIVER, tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture
def blank(browser: Chrome, ui_service: Service) -> Iterator[Page]:
    """The browser before a page is opened; afterwards nothing may have failed, nor been asked of anybody else."""
    page = Page(browser, ui_service.rest_url)
    page.reset()
    yield page
    browser.execute_script("sessionStorage.clear()")
    recorded = page.recorded()
    browser.get("about:blank")  # a page that is left open follows its service for as long as this process runs
    assert recorded == Recorded(errors=[], outside=[])


@pytest.fixture
def page(blank: Page, demo: Demo) -> Page:
    """The same, with series to look at."""
    return blank
