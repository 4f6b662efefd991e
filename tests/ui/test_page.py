"""The page in a real browser: what it finds, draws and says, compared with what the API answers."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx

from tests.ui.pages import Demo, Page, parsed


def values(rest: httpx.Client, series: str, **parameters: Any) -> list[dict[str, Any]]:
    """``GET /values`` of one series."""
    answer = rest.get("/values", params={"series_id": series, **parameters})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def flat(rest: httpx.Client, series: str, **parameters: Any) -> list[tuple[Any, Any]]:
    """The flat line as points."""
    return [(parsed(row["valid_time"]), row["value"]) for row in values(rest, series, **parameters)]


def known_by(text: str) -> str:
    """``end_known`` of "as known at", which includes its own instant."""
    return (parsed(text) + timedelta(microseconds=1)).isoformat()


def test_a_series_is_found_by_words_and_opened_with_the_keyboard(page: Page, demo: Demo) -> None:
    page.driver.get(f"{page.url}/ui")
    page.until(lambda: len(page.all("#found li")) == 100)
    assert page.at("#found-count").text.startswith("The first 100")
    assert "Choose a series" in page.at("#welcome").text
    page.at("#search").send_keys("FOREST quantile=0.5")
    page.until(lambda: page.at("#found-count").text == "1 series")
    page.press("\ue015", "\ue007")  # down, enter
    page.drawn()
    assert page.at("#title").text == "temperature degC"
    assert page.texts("#labels li") == ["quantile=0.5", "source=Random forest"]
    assert page.address() == {"series": demo.forecast}
    assert page.driver.title == "temperature \N{EN DASH} TimeDB"
    assert page.at("#found li").get_attribute("aria-selected") == "true"
    assert page.focused() == "search"


def test_labels_narrow_the_list_on_the_server(page: Page) -> None:
    page.driver.get(f"{page.url}/ui")
    page.until(lambda: page.all("#found li"))
    page.at("#facets summary").click()
    zone = next(label for label in page.all("#facets label") if label.text.startswith("zone"))
    zone.find_element("css selector", "option[value=SE3]").click()
    page.until(lambda: page.at("#found-count").text == "60 series")
    assert Counter(page.texts("#found .name")) == {"load": 30, "wind": 30}
    page.at("#search").send_keys("wind")
    page.until(lambda: page.at("#found-count").text == "30 series")
    assert all("zone=SE3" in labels for labels in page.texts("#found .own-labels"))


def test_the_flat_line_and_every_revision_are_drawn(page: Page, demo: Demo, rest: httpx.Client) -> None:
    page.show(series=demo.forecast)
    assert page.line("latest") == flat(rest, demo.forecast)
    fan = [trace for trace in page.traces() if trace["name"] == "revisions"]
    assert 2 <= len(fan) <= 10
    revisions = values(rest, demo.forecast, mode="overlapping")
    drawn = Counter(page.line("revisions"))
    assert drawn == Counter((parsed(row["valid_time"]), row["value"]) for row in revisions)
    assert drawn.total() > 5000
    assert sorted(page.line("withdrawn")) == [(hour, 30.0) for hour in demo.hours[40:46]]
    assert 30.0 not in [value for _, value in drawn]
    assert page.at("#tab-changes").text == "Changes (6)"
    page.at("#tab-changes").click()
    page.drawn()
    assert {(row["What"], row["Who"], row["Why"]) for row in page.table()} == {
        ("withdrawn", "anna@example.com", "Wrong weather input")
    }
    page.at("#show-revisions").click()
    page.until(lambda: page.line("revisions") == [])
    assert page.address()["revisions"] == "0"


def test_the_slider_shows_what_was_known_then(page: Page, demo: Demo, rest: httpx.Client) -> None:
    page.show(series=demo.forecast)
    known = sorted({row["known_time"] for row in values(rest, demo.forecast, mode="overlapping", all_versions=True)})
    slider = page.at("#known")
    assert slider.get_attribute("max") == slider.get_attribute("value") == str(len(known))
    assert slider.get_attribute("aria-valuetext") == "latest"
    slider.send_keys("\ue011")  # home
    page.drawn()
    assert page.line("as known") == flat(rest, demo.forecast, end_known=known_by(known[0]))
    slider.send_keys("\ue00e\ue00e\ue00e\ue014")  # three pages up, one step
    page.drawn()
    at = int(slider.get_attribute("value") or 0)
    then = known[at]
    assert 20 < at < 80
    assert page.line("as known") == flat(rest, demo.forecast, end_known=known_by(then))
    assert page.line("known now") == flat(rest, demo.forecast) != page.line("as known")
    assert page.address()["known"] == then.replace(".000000+00:00", "Z")
    said = f"{then[:16].replace('T', ' ')} UTC"
    assert slider.get_attribute("aria-valuetext") == f"{said}, {at + 1} of {len(known)} revisions"
    assert page.at("#known-time").text == said
    fan = values(rest, demo.forecast, mode="overlapping", end_known=known_by(then))
    assert len(page.line("revisions")) == len(fan)
    page.at("#known-now").click()
    page.until(lambda: page.line("latest") == flat(rest, demo.forecast))
    assert "known" not in page.address()


def test_the_revisions_play_one_after_the_other(page: Page, demo: Demo) -> None:
    page.show(series=demo.forecast)
    page.at("#known-play").click()
    first = page.until(lambda: page.address().get("known"))
    assert page.at("#known-play").text.endswith("Pause")
    page.until(lambda: page.address().get("known", first) > first)
    page.at("#known-play").click()
    held = page.address()["known"]
    page.drawn()
    assert page.address()["known"] == held
    assert page.at("#known-play").get_attribute("aria-label") == "Play the revisions"


def test_a_link_shows_the_same_again_and_back_goes_back(page: Page, demo: Demo, rest: httpx.Client) -> None:
    state = {
        "series": demo.forecast,
        "range": "custom",
        "from": "2015-03-01T12:00:00Z",
        "to": "2015-03-02T12:00:00Z",
        "known": "2015-03-01T06:00:00Z",
        "tz": "local",
        "revisions": "0",
        "tab": "revisions",
    }
    page.show(**state)
    bounds = {
        "start_valid": state["from"],
        "end_valid": state["to"],
        "end_known": known_by("2015-03-01T06:00:00+00:00"),
    }
    assert page.line("as known") == flat(rest, demo.forecast, **bounds)
    assert len(page.line("as known")) == 24
    assert page.line("revisions") == []
    assert page.at("#from").get_attribute("value") == "2015-03-01T13:00"
    assert page.at("#known-time").text == "2015-03-01 07:00 +01:00"
    assert page.table()[0]["Valid time"] == "2015-03-01 13:00 +01:00"
    assert page.address() == state
    page.at("#tab-values").click()
    page.drawn()
    page.choose("#zone", "utc")
    page.drawn()
    assert [row["Valid time"] for row in page.table()][:1] == ["2015-03-01 12:00"]
    page.driver.back()
    page.driver.back()
    page.drawn()
    assert page.address() == state
    assert page.at("#zone").get_attribute("value") == "local"
    assert page.at("#tab-revisions").get_attribute("aria-selected") == "true"
    page.driver.forward()
    page.drawn()
    assert page.at("#tab-values").get_attribute("aria-selected") == "true"


def test_a_stretch_marked_in_the_chart_becomes_the_range(page: Page, demo: Demo, rest: httpx.Client) -> None:
    from selenium.webdriver import ActionChains

    page.show(series=demo.forecast)
    everything = page.line("latest")
    plot = page.at("#chart .nsewdrag")
    drag = ActionChains(page.driver).move_to_element_with_offset(plot, -200, 0).click_and_hold()
    drag.move_by_offset(300, 0).release().perform()
    page.until(lambda: page.address().get("range") == "custom")
    page.drawn()
    address = page.address()
    part = flat(rest, demo.forecast, start_valid=address["from"], end_valid=address["to"])
    assert page.line("latest") == part
    assert 15 < len(part) < 40
    page.driver.back()
    page.drawn()
    assert page.line("latest") == everything
    page.at("#ranges label:first-of-type").click()
    page.until(lambda: page.address().get("range") == "1d")
    page.drawn()
    assert len(page.line("latest")) == 25


def test_a_range_is_typed_and_one_that_ends_before_it_starts_is_refused(page: Page, demo: Demo) -> None:
    page.show(series=demo.forecast)
    type_time = """const box = document.getElementById(arguments[0]);
        box.value = arguments[1];
        box.dispatchEvent(new Event("change"));"""
    page.driver.execute_script(type_time, "from", "2015-03-03T00:00")
    page.drawn()
    assert page.address()["from"] == "2015-03-03T00:00:00Z"
    assert page.line("latest")[0][0].isoformat() == "2015-03-03T00:00:00+00:00"
    page.driver.execute_script(type_time, "to", "2015-03-02T00:00")
    assert page.at("#to").get_property("validationMessage") == "The range must end after it starts."
    assert page.address()["to"] == "2015-03-04T08:00:00Z"


def test_corrections_and_withdrawals_say_who_when_and_why(page: Page, demo: Demo, rest: httpx.Client) -> None:
    from selenium.webdriver import ActionChains

    page.show(series=demo.observed, tab="changes")
    assert page.line("corrected") == [(demo.hours[20], 20.5)]
    before = values(rest, demo.observed, mode="overlapping", all_versions=True)
    gone = [row for row in before if row["retracted"]]
    assert (
        [hour for hour, _ in page.line("withdrawn")] == [parsed(row["valid_time"]) for row in gone] == [demo.hours[50]]
    )
    withdrawn, corrected = page.table()
    assert {
        "What": "withdrawn",
        "After": "\N{EN DASH}",
        "Who": "ops@example.com",
        "Why": "Logger was off",
    }.items() <= withdrawn.items()
    assert withdrawn["When"][:16] == gone[0]["change_time"][:16].replace("T", " ")
    assert {
        "What": "corrected",
        "After": "20.5",
        "Who": "anna@example.com",
        "Tags": "sensor",
    }.items() <= corrected.items()
    mark = page.all("#chart .scatterlayer .trace:nth-last-child(2) .point")[0]
    ActionChains(page.driver).move_to_element(mark).perform()
    page.until(lambda: page.at("#tip").is_displayed())
    value, valid, known, what, who, why = page.at("#tip").text.split("\n")
    assert (value, valid[:4], known[:8]) == ("20.5 degC", "for ", "known at")
    assert what.startswith("corrected: ")
    assert what.endswith(" → 20.5")
    assert who.startswith("by anna@example.com, ")
    assert why == "“Sensor had drifted”"
    page.at("#tab-values").click()
    page.drawn()
    ActionChains(page.driver).move_to_element(
        page.all("#chart .scatterlayer .trace:nth-last-child(2) .point")[0]
    ).click().perform()
    page.until(lambda: page.all("tr.pointed"))
    assert "Sensor had drifted" in page.at("tr.pointed").text
    page.at("#show-changes").click()
    page.until(lambda: page.line("corrected") == [])


def test_accuracy_is_drawn_by_lead_time(page: Page, demo: Demo, rest: httpx.Client) -> None:
    page.show(series=demo.forecast, tab="accuracy")
    assert not page.at("#accuracy-chart").is_displayed()
    page.at("#actual").send_keys("observed")
    page.until(lambda: page.texts("#actual-found .name") == ["observed"])
    page.press("\ue015", "\ue007")
    page.choose("#horizon", "6h")
    latest = values(rest, demo.forecast)[-1]["valid_time"]
    bounds = {"end_valid": (parsed(latest) + timedelta(milliseconds=1)).isoformat()}
    asked = {"series_id": demo.forecast, "actual_id": demo.observed, "horizon": "6h", **bounds}
    rows = sorted(rest.get("/accuracy", params=asked).json()["data"], key=lambda row: row["lead_seconds"])
    assert len(rows) > 10
    page.until(lambda: len(page.table()) == len(rows))
    page.until(lambda: [trace["name"] for trace in page.traces("accuracy-chart")] == ["RMSE", "MAE", "Bias"])
    page.until(lambda: len(page.traces("accuracy-chart")[0]["x"]) == len(rows))
    for trace, figure in zip(page.traces("accuracy-chart"), ("rmse", "mae", "bias"), strict=True):
        assert list(zip(trace["x"], trace["y"], strict=True)) == [(row["lead_seconds"], row[figure]) for row in rows]
    assert [row["Count"] for row in page.table()] == [str(row["count"]) for row in rows]
    page.driver.refresh()
    page.until(lambda: len(page.table()) == len(rows))
    assert page.at("#actual").get_attribute("value") == "observed"


def downloaded(page: Page, tab: str, ending: str) -> str:
    """What the page saves of a tab in a format."""
    page.at(f"#tab-{tab}").click()
    page.drawn()
    page.choose("#format", ending)
    page.at("#download").click()
    file = page.downloads / f"observed-{tab}.{ending}"
    page.until(file.exists)
    page.until(lambda: page.at("#status").get_property("textContent") == "Downloaded.")
    return file.read_text()


def test_what_is_shown_is_downloaded_in_a_format_of_the_api(page: Page, demo: Demo, rest: httpx.Client) -> None:
    page.show(series=demo.observed, known="2015-03-10T00:00:00Z", range="all")
    asked: dict[str, Any] = {"series_id": demo.observed, "end_known": "2015-03-10T00:00:00.000001Z"}
    every: dict[str, Any] = {"mode": "overlapping", "all_versions": True}
    flat_rows = rest.get("/values", params=asked, headers={"Accept": "text/csv"}).text
    assert downloaded(page, "values", "csv") == flat_rows
    versions = rest.get("/values", params=asked | every, headers={"Accept": "application/x-ndjson"}).text
    assert downloaded(page, "changes", "ndjson") == versions
