"""The page stays current: what is written shows by itself, one call waits for it, and none while nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.ui.pages import Page
from timedb.client import connect

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from timedb.run.launch import Service

DAY = datetime(2025, 1, 1, tzinfo=UTC)
# What the page asks of the feed, and what becomes of each call: counted where the page itself makes the calls.
COUNTING = """
const asked = (window.asked = { begun: 0, waiting: 0, most: 0 });
const plain = window.fetch;
window.fetch = async (address, options) => {
  const waits = String(address).includes("/changes?") && String(address).includes("wait=");
  if (!waits) return plain(address, options);
  asked.begun += 1;
  asked.waiting += 1;
  asked.most = Math.max(asked.most, asked.waiting);
  try {
    return await plain(address, options);
  } finally {
    asked.waiting -= 1;
  }
};
"""


def write(service: Service, name: str, hour: int, value: float) -> str:
    """One value of a series; its id."""
    with connect(service.flight_url) as client:
        rows = pl.DataFrame({"series_key": [name], "valid_time": [DAY + timedelta(hours=hour)], "value": [value]})
        return client.upload(rows, known_time=DAY).series_ids[name]


def hide(page: Page, *, hidden: bool) -> None:
    """As when the user looks at another tab, and comes back."""
    script = """
        const [hidden] = arguments;
        Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
        document.dispatchEvent(new Event("visibilitychange"));
    """
    page.driver.execute_script(script, hidden)


def shows(page: Page, points: int) -> bool:
    """Whether the chart has so many points."""
    return len(page.line("latest")) == points


def asked(page: Page) -> dict[str, int]:
    found: dict[str, int] = page.driver.execute_script("return {...window.asked}")
    return found


@pytest.fixture
def counted(browser: Chrome) -> Iterator[None]:
    """Pages count their calls of the feed."""
    added: Any = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNTING})
    yield
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


@pytest.mark.usefixtures("counted")
def test_what_is_written_shows_by_itself(blank: Page, ui_service: Service) -> None:
    page = blank
    page.show(series=write(ui_service, "followed", 0, 1.0), range="all")
    page.until(lambda: page.at("#live").text == "live")
    for hour in (1, 2):
        write(ui_service, "followed", hour, float(hour))
        page.until(partial(shows, page, hour + 1))
    write(ui_service, "another", 0, 1.0)
    page.until(lambda: asked(page)["waiting"] == 1)

    hide(page, hidden=True)
    page.until(lambda: asked(page)["waiting"] == 0)
    begun = asked(page)["begun"]
    write(ui_service, "followed", 3, 3.0)
    assert asked(page)["begun"] == begun, "nobody looks"
    hide(page, hidden=False)
    page.until(lambda: shows(page, 4))
    assert asked(page)["most"] == 1


def offline(page: Page, *, cut: bool) -> None:
    """Cut the browser's network, or join it again."""
    conditions = {"offline": cut, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)


def test_a_page_whose_service_is_out_of_reach_says_stale_until_it_is_back(blank: Page, ui_service: Service) -> None:
    page = blank
    page.show(series=write(ui_service, "out of reach", 0, 1.0), range="all")
    page.until(lambda: page.at("#live").text == "live")
    hide(page, hidden=True)  # a call that waits already would wait to its end
    offline(page, cut=True)
    hide(page, hidden=False)
    page.until(lambda: page.at("#live").text == "stale")
    write(ui_service, "out of reach", 1, 2.0)
    offline(page, cut=False)
    page.until(lambda: shows(page, 2))
    page.until(lambda: page.at("#live").text == "live")
    errors = page.recorded().errors
    assert errors
    assert all("/changes?" in error and "ERR_INTERNET_DISCONNECTED" in error for error in errors)
