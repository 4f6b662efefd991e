"""The page as a test sees it: what it says, what its chart draws, what a user does to it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

ZONE = "Europe/Stockholm"
_SECONDS = 60.0
_POLL_SECONDS = 0.02
# Besides no window: none of the connections that Chromium makes on its own behalf.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1360,1000 --lang=en-GB"
)
_DRAWN = """
const [main, chart] = [document.getElementById("main"), document.getElementById("chart")];
return main && !main.hasAttribute("aria-busy") && chart.dataset.drawn === location.pathname + location.search;
"""
_TRACES = """
return (document.getElementById(arguments[0]).data ?? [])
  .map(({name, x, y, mode}) => ({name, mode, x: Array.from(x), y: Array.from(y)}));
"""


@dataclass(frozen=True)
class Demo:
    """What the service holds."""

    forecast: str
    """series_id of the forecasts' median."""
    observed: str
    """series_id of the observations."""
    hours: list[datetime]
    """The valid times of both."""


@dataclass
class Recorded:
    """What must not happen while a page is used."""

    errors: list[str]
    """Of the console, violations of the page's policy among them."""
    outside: list[str]
    """Addresses asked for that are not the service's."""


def start_browser(chromium: Path, chromedriver: Path, folder: Path) -> Chrome:
    """A headless Chromium with a profile of its own; what it downloads goes to ``folder/downloads``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for flag in (*_FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("perfLoggingPrefs", {"enablePage": False})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(str(chromedriver), env={**os.environ, "TZ": ZONE})
    driver = webdriver.Chrome(options=options, service=service)
    downloads = folder / "downloads"
    downloads.mkdir()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return driver


class Page:
    """The page of one service.

    Args:
        driver: The browser.
        url: Of the REST gateway.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.downloads = Path(driver.capabilities["chrome"]["userDataDir"]).with_name("downloads")

    def reset(self) -> None:
        """Leave the page before, and forget what was recorded of it."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.driver.get("about:blank")
        self.recorded()

    def recorded(self) -> Recorded:
        """What went wrong since the last call."""
        driver: Any = self.driver  # `get_log` has no types
        errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] != "INFO"]
        asked = []
        for entry in driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return Recorded(errors, [url for url in asked if not url.startswith((f"{self.url}/", "data:", "blob:"))])

    def show(self, **state: str) -> None:
        """Open the page at a state, as from a link, and wait until it is drawn."""
        self.driver.get(f"{self.url}/ui?{urlencode(state)}")
        self.drawn()

    def drawn(self) -> None:
        """Wait until the chart shows what the address says."""
        self.until(lambda: self.driver.execute_script(_DRAWN))

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds; its value."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.driver, _SECONDS, _POLL_SECONDS, (StaleElementReferenceException,))
        return wait.until(lambda _: condition())

    def at(self, selector: str) -> WebElement:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[WebElement]:
        """Every element of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of a CSS selector, also of those that are scrolled out of sight."""
        script = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def focused(self) -> str:
        """The id of the element that has the focus."""
        return str(self.driver.execute_script("return document.activeElement.id"))

    def press(self, *keys: str) -> None:
        """Type keys into whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select by its value."""
        from selenium.webdriver.support.select import Select

        Select(self.at(selector)).select_by_value(value)

    def address(self) -> dict[str, str]:
        """The state that the address says."""
        script = "return Object.fromEntries(new URLSearchParams(location.search))"
        found: dict[str, str] = self.driver.execute_script(script)
        return found

    def traces(self, chart: str = "chart") -> list[dict[str, Any]]:
        """What a chart draws: name, mode, x (ms since 1970) and y of each trace."""
        found: list[dict[str, Any]] = self.driver.execute_script(_TRACES, chart)
        return found

    def line(self, name: str) -> list[tuple[datetime, Any]]:
        """The points of the chart's traces of a name."""
        return [point for trace in self.traces() if trace["name"] == name for point in points(trace)]

    def table(self) -> list[dict[str, str]]:
        """The rows of the table that are shown, by column."""
        script = """return [...document.querySelectorAll("#rows tr")]
            .map(line => [...line.children].map(cell => cell.textContent))"""
        lines: list[list[str]] = self.driver.execute_script(script)
        return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def points(trace: dict[str, Any]) -> list[tuple[datetime, Any]]:
    """The points of a trace; gaps between its lines are left out."""
    pairs = zip(trace["x"], trace["y"], strict=True)
    return [(instant(ms), value) for ms, value in pairs if ms is not None]


def instant(ms: float) -> datetime:
    """Milliseconds since 1970 as a time."""
    from datetime import UTC

    return datetime.fromtimestamp(ms / 1000, UTC)


def parsed(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)
