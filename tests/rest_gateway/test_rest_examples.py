"""The examples of /openapi.json, sent as they stand to a lake without users; each works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from timedb.rest_gateway.ask.models import UploadQuery
from timedb.rest_gateway.openapi import examples

if TYPE_CHECKING:
    from timedb.run.launch import Service

JSON = "application/json"
# What a parameter cannot do without.
BESIDE: dict[str, dict[str, Any]] = {
    "days_ahead": {"time_of_day": "10:00", "time_zone": "UTC"},
    "time_of_day": {"days_ahead": 1, "time_zone": "UTC"},
    "window_length": {"issue_offset": "-PT14H", "start_window": "2025-01-01T00:00:00Z"},
    "issue_offset": {"window_length": "P1D", "start_window": "2025-01-01T00:00:00Z"},
    "start_window": {"window_length": "P1D", "issue_offset": "-PT14H"},
    "aggregate": {"period": "P1D"},
    "fill": {"period": "P1D"},
    "fill_limit": {"period": "P1D", "fill": "null"},
    "since": {"mode": "changes"},
    "cursor": {"limit": 10},
    "delimiter": {"format": "csv"},
    "decimal": {"format": "csv", "delimiter": ";"},
    "local_times": {"format": "csv", "time_zone": "Europe/Berlin"},
    "reference_labels": {"reference_key": "temperature"},
}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A lake of these tests alone, without users, to which the examples of bodies are sent."""
    from timedb.contract.settings import ServerSettings, load_settings
    from timedb.run.launch import start_service

    lake = str(tmp_path_factory.mktemp("examples") / "lake")
    service: Service = start_service(load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0))
    try:
        with httpx.Client(base_url=service.rest_url, timeout=30) as client:
            yield client
    finally:
        service.stop()


@pytest.fixture(scope="module")
def document(rest: httpx.Client) -> dict[str, Any]:
    """What the examples are taken from; those of bodies have been sent when it is there."""
    found: dict[str, Any] = rest.get("/openapi.json").json()
    calls = [("POST", "/series"), ("POST", "/runs"), ("PUT", "/values"), ("PATCH", "/series/{series_id}")]
    for method, path in calls:
        for body in bodies(found, method, path):
            answer = rest.request(method, path.format(**examples.PATH), json=body)
            assert answer.status_code == 200, (path, answer.text)
    return found


def bodies(document: dict[str, Any], method: str, path: str) -> list[Any]:
    """The examples of a call's JSON body."""
    content = document["paths"][path][method.lower()]["requestBody"]["content"][JSON]
    return list(document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]["examples"])


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every call."""
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            yield method.upper(), path, call


def test_every_parameter_and_every_body_has_an_example(document: dict[str, Any]) -> None:
    for method, path, call in operations(document):
        for parameter in call.get("parameters", ()):
            assert parameter["schema"]["examples"], (path, parameter["name"])
        for media_type, content in call.get("requestBody", {}).get("content", {}).items():
            parts = content["schema"].get("properties", {})  # of a form
            binary = content["schema"].get("format", parts.get("file", {}).get("format")) == "binary"
            assert binary or (bodies(document, method, path) if media_type == JSON else content["example"])


def test_the_series_of_the_examples_is_the_one_that_they_make(rest: httpx.Client, document: dict[str, Any]) -> None:
    assert list(rest.get("/list_timeseries").json()) == [examples.SERIES_ID]
    rows = rest.get("/values", params={"name": "temperature"}).json()["data"]
    assert [row["value"] for row in rows] == [22.5, None]


def test_every_query_parameter_takes_its_example(rest: httpx.Client, document: dict[str, Any]) -> None:
    sent = 0
    for method, path, call in operations(document):
        for parameter in call.get("parameters", ()):
            if method != "GET" or parameter["in"] != "query":
                continue
            name = parameter["name"]
            (example,) = parameter["schema"]["examples"]
            beside = {"actual_key": "temperature"} if path == "/accuracy" and name != "actual_id" else {}
            query = {**beside, **(BESIDE.get(name, {}) if path != "/changes" else {}), name: example}
            answer = rest.get(path.format(**examples.PATH), params=query)
            assert answer.status_code == 200, (path, query, answer.text)
            sent += 1
    assert sent > 40


def test_every_table_takes_its_example_and_every_field_of_its_run(rest: httpx.Client, document: dict[str, Any]) -> None:
    call = document["paths"]["/runs"]["post"]
    content = call["requestBody"]["content"]
    tables = {kind: content[kind]["example"] for kind in content if "example" in content[kind]}
    fields = {
        each["name"]: each["schema"]["examples"][0]
        for each in call["parameters"]
        if each["in"] == "query" and each["name"] in UploadQuery.model_fields
    }
    queries = [{}, *({name: value} for name, value in fields.items()), fields]
    for kind, body in tables.items():
        for query in queries:
            given = {**query, "run_id": f"{kind}-{query['run_id']}-{len(query)}"} if "run_id" in query else query
            answer = rest.post("/upload", params=given, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200, (kind, given, answer.text)


def test_the_run_of_the_examples_can_be_read_and_withdrawn(rest: httpx.Client, document: dict[str, Any]) -> None:
    assert rest.get(f"/runs/{examples.RUN}").json()["run_id"] == examples.RUN
    for body in bodies(document, "POST", "/runs/{run_id}/withdraw"):
        answer = rest.post(f"/runs/{examples.RUN}/withdraw", json=body)
        assert answer.json() == {"withdrawn": 2}
