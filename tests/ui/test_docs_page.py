"""The page at /docs: Swagger UI from an installed package, drawn and used in a browser that may load nothing else."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

import httpx

from tests.ui.pages import Page
from timedb.rest_gateway.routes.ui import DOCS_SECURITY_POLICY
from timedb.rest_gateway.ui.files import SWAGGER, docs_files


def test_the_page_runs_nothing_but_its_own_scripts(rest: httpx.Client) -> None:
    answer = rest.get("/docs")
    assert answer.headers["content-security-policy"] == DOCS_SECURITY_POLICY
    assert "unsafe" not in DOCS_SECURITY_POLICY
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", answer.text)
    named = re.findall(r'(?:src|href)="(docs/[^"]+)"', answer.text)
    assert [path.rsplit("/", 1)[1] for path in named] == ["swagger-ui.css", "swagger-ui-bundle.js", "start.js"]
    for path in named:
        assert rest.get(f"/{path}").headers["cache-control"] == "public, max-age=31536000, immutable"


def test_swagger_ui_comes_from_the_installed_package(rest: httpx.Client) -> None:
    for name in SWAGGER:
        installed = Path(str(distribution("fastapi-offline").locate_file(f"fastapi_offline/static/{name}")))
        assert rest.get(f"/docs/{docs_files().version}/{name}").content == installed.read_bytes()
    assert rest.get("/docs/x/plotly.min.js").status_code == 404


def test_calls_are_listed_and_can_be_tried(blank: Page) -> None:
    driver = blank.driver
    driver.get(f"{blank.url}/docs")
    blank.until(lambda: driver.find_elements("css selector", ".opblock"))
    paths = {each.text for each in driver.find_elements("css selector", ".opblock-summary-path")}
    assert {"/values", "/runs", "/series"} <= paths
    driver.find_element("css selector", "#operations-service-read_health button").click()
    blank.until(lambda: driver.find_elements("css selector", ".try-out__btn"))[0].click()
    blank.until(lambda: driver.find_elements("css selector", ".execute"))[0].click()
    blank.until(lambda: '"ok"' in driver.find_element("css selector", ".live-responses-table").text)
