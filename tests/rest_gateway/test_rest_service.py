"""What the gateway says of itself, which keys it passes on, and what it does with too much."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import flight

from tests.rest_gateway.calls import START, assert_error, hours, read, serving, upload
from timedb.contract.settings import ServerSettings, load_settings
from timedb.rest_gateway import create_app
from timedb.rest_gateway.routes.service import ENDPOINTS

if TYPE_CHECKING:
    from timedb.run.launch import Service


@pytest.fixture(scope="module")
def document(rest: httpx.Client) -> dict[str, Any]:
    """The OpenAPI document."""
    answer = rest.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_the_root_lists_every_call(rest: httpx.Client, document: dict[str, Any]) -> None:
    info = rest.get("/").json()
    assert info["name"] == "TimeDB API"
    assert info["version"] == document["info"]["version"]
    calls = {" ".join(text.split(" ")[:2]) for text in info["endpoints"].values()}
    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert calls - {"GET /docs", "GET /ui"} == documented - {"GET /"}
    assert all(re.fullmatch(r"[A-Z]+ /\S* - \S.*", text) for text in info["endpoints"].values())
    assert info["endpoints"] == ENDPOINTS
    assert re.fullmatch(r"[0-9a-f]{32}", info["instance"])


@pytest.mark.parametrize(
    ("accept", "is_browser"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html", False),
    ],
)
def test_a_browser_is_shown_the_page_and_a_program_the_calls(rest: httpx.Client, accept: str, is_browser: bool) -> None:
    answer = rest.get("/", headers={"Accept": accept}, follow_redirects=True)
    assert answer.headers["content-type"].partition(";")[0] == ("text/html" if is_browser else "application/json")
    assert str(answer.url).endswith("/ui" if is_browser else "/")
    assert "Accept" in (answer.history or [answer])[0].headers["vary"]


def test_health_docs_and_document_answer(rest: httpx.Client) -> None:
    assert rest.get("/health").json() == {"status": "ok"}
    assert "text/html" in rest.get("/docs").headers["content-type"]


def test_a_gateway_without_its_flight_server_lives_but_is_not_well() -> None:
    with serving(create_app("grpc://127.0.0.1:1", ServerSettings(insecure=True))) as rest:
        assert rest.get("/health/live").json() == {"status": "ok"}
        assert_error(rest.get("/health"), 503, "unavailable")


def test_other_origins_are_served_only_where_a_setting_names_them(rest: httpx.Client) -> None:
    asked = {"Origin": "https://pages.example", "Access-Control-Request-Method": "PUT"}
    settings = ServerSettings(cors_origins="https://pages.example, https://two.example", insecure=True)
    with serving(create_app("grpc://127.0.0.1:1", settings)) as open_rest:
        leave = open_rest.options("/values", headers=asked).headers
        assert leave["access-control-allow-origin"] == "https://pages.example"
        assert "PUT" in leave["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in leave
        error = open_rest.get("/values", headers={"Origin": "https://two.example"})
        assert error.headers["access-control-allow-origin"] == "https://two.example"
        assert "X-Token" in error.headers["access-control-expose-headers"]
        stranger = open_rest.options("/values", headers={**asked, "Origin": "https://other.example"})
        assert "access-control-allow-origin" not in stranger.headers
    assert "access-control-allow-origin" not in rest.options("/values", headers=asked).headers


def test_every_reference_in_the_document_resolves(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references == set(document["components"]["schemas"])


def test_every_call_is_described_with_its_errors_and_inputs(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            assert {"summary", "description"} <= set(call), (method, path)
            assert {"200", "401", "403", "422", "500", "501", "503", "504"} <= set(call["responses"]), (method, path)
            if method in ("post", "put", "patch"):
                schema = call["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][schema]["examples"]
                assert "413" in call["responses"]
    names = {parameter["name"] for parameter in document["paths"]["/values"]["get"]["parameters"]}
    assert {
        "start_valid",
        "end_known",
        "as_of",
        "mode",
        "all_versions",
        "labels",
        "limit",
        "cursor",
        "time_zone",
    } <= names
    assert "NaN" in document["paths"]["/values"]["get"]["description"]


def test_examples_of_the_document_work(rest: httpx.Client, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    (run,) = schemas["UploadRequest"]["examples"]
    (series,) = schemas["NewSeries"]["examples"]
    assert rest.post("/series", json={**series, "name": "documented"}).status_code == 200
    assert rest.post("/runs", json={**run, "known_time": START, "run_id": "documented"}).status_code == 200


def test_metrics_count_calls_by_route_and_status(new_service: Callable[..., Service]) -> None:
    with httpx.Client(base_url=new_service().rest_url) as rest:
        for run_id in ("a", "b"):
            rest.get(f"/runs/{run_id}")
        rest.get("/values", params={"start_valid": "x"})
        rest.get("/no/such/path")
        rest.request("BREW", "/values")
        answer = rest.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    counts = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name in ("timedb_rest_calls_total", "timedb_rest_call_seconds_count")
    }
    assert counts == {
        ("GET", "/", "200"): 1.0,  # whoever starts a service asks it who it is
        ("GET", "/runs/{run_id}", "404"): 2.0,
        ("GET", "/values", "422"): 1.0,
        ("GET", "unmatched", "404"): 1.0,
        ("other", "/values", "405"): 1.0,
    }
    assert "timedb_rest_calls_running 1.0" in answer.text


class Listening(flight.FlightServerBase):  # type: ignore[misc] # pyarrow ships no types
    """A Flight server that remembers the headers of calls and refuses them all."""

    def __init__(self) -> None:
        self.seen: list[dict[str, list[str]]] = []
        super().__init__("grpc://127.0.0.1:0", middleware={"headers": _Headers(self.seen)})

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        raise flight.FlightUnauthenticatedError("unauthenticated: a valid API key is required")


class _Headers(flight.ServerMiddlewareFactory):  # type: ignore[misc] # as above
    def __init__(self, seen: list[dict[str, list[str]]]) -> None:
        super().__init__()
        self.seen = seen

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> None:
        self.seen.append(headers)


def test_the_caller_s_key_and_no_other_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMEDB_API_KEY", "the-gateway-s-own")
    with Listening() as server, serving(create_app(f"grpc://127.0.0.1:{server.port}", settings())) as rest:
        sent: list[tuple[dict[str, Any], list[str] | None]] = [
            ({}, None),
            ({"X-API-Key": b"abc"}, ["abc"]),
            ({"Authorization": b"Bearer abc.def"}, ["abc.def"]),
            ({"authorization": b"bearer abc"}, ["abc"]),
            ({"Authorization": b"Basic abc"}, None),
            ({"X-API-Key": b"one", "Authorization": b"Bearer two"}, None),
            ({"X-API-Key": b"one", "Authorization": b"Bearer one"}, ["one"]),
            ({"X-API-Key": "schlüssel".encode()}, None),
            ({"X-API-Key": b"a b"}, None),
            ({"X-API-Key": b"a" * 5000}, None),
        ]
        for headers, key in sent:
            answer = rest.get("/list_timeseries", headers={**headers, "X-Request-Id": b"trace-me"})
            assert_error(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
            seen = server.seen.pop()
            assert seen.get("x-api-key") == key, headers
            assert "authorization" not in seen
            assert seen["x-request-id"] == ["trace-me"]
            assert server.seen == []


def test_a_lake_with_users_is_served_to_other_machines_and_asks_for_keys() -> None:
    with Listening() as server, serving(create_app(f"grpc://127.0.0.1:{server.port}", settings())) as rest:
        remote = {"X-Forwarded-For": "203.0.113.7"}
        assert rest.get("/", headers=remote).status_code == 200
        assert_error(rest.get("/metrics", headers=remote), 401, "unauthenticated")
        assert_error(rest.get("/list_timeseries", headers=remote), 401, "unauthenticated")


def settings(**fields: Any) -> ServerSettings:
    return load_settings(ServerSettings, **fields)


def test_a_body_over_the_limit_is_413_and_the_gateway_goes_on(rest: httpx.Client, name: str) -> None:
    garbage = b"\x00{garbage" * (50 * 1024 * 1024 // 9)
    json_type = {"Content-Type": "application/json"}
    assert_error(rest.post("/runs", content=garbage, headers=json_type), 413, "too_large", str(32 << 20))
    chunked = (garbage[start : start + (1 << 20)] for start in range(0, len(garbage), 1 << 20))
    assert_error(rest.post("/upload", content=chunked, headers=json_type), 413, "too_large", str(32 << 20))
    upload(rest, hours(name, [1.0]))
    assert read(rest, name)["count"] == 1


def test_the_limit_is_a_setting_and_exact(new_service: Callable[..., Service]) -> None:
    with httpx.Client(base_url=new_service(max_body_bytes=1000).rest_url) as rest:
        body = json.dumps({"name": "exact", "description": ""})
        fits = body[:-2] + "x" * (1000 - len(body)) + '"}'
        assert len(fits) == 1000
        json_type = {"Content-Type": "application/json"}
        assert rest.post("/series", content=fits, headers=json_type).status_code == 200
        assert_error(rest.post("/series", content=fits + " ", headers=json_type), 413, "too_large", "1000")
        waits = {**json_type, "Expect": "100-continue"}
        assert_error(rest.post("/series", content=fits * 3, headers=waits), 413, "too_large")


def test_many_large_bodies_at_once_are_refused_not_held(new_service: Callable[..., Service]) -> None:
    limit = 1 << 16
    url = new_service(max_body_bytes=limit).rest_url
    with httpx.Client(base_url=url, timeout=30) as rest:
        nearly = b" " * (limit - 8)
        arrived, release = threading.Semaphore(0), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield nearly
            arrived.release()
            assert release.wait(30)
            yield b"{}"

        statuses: list[int] = []

        def post() -> None:
            headers = {"Content-Type": "application/json"}
            statuses.append(httpx.post(f"{url}/runs", content=slowly(), headers=headers, timeout=30).status_code)

        threads = [threading.Thread(target=post) for _ in range(12)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert arrived.acquire(timeout=30)
        assert rest.get("/health").status_code == 200
        release.set()
        for thread in threads:
            thread.join(30)
        assert sorted(statuses) == [422] * 8 + [503] * 4
        assert_error(rest.post("/runs", json={}), 422, "invalid_request", "missing")


def test_a_read_too_large_to_sort_is_413(new_service: Callable[..., Service]) -> None:
    with httpx.Client(base_url=new_service(max_sorted_rows=2).rest_url) as rest:
        upload(rest, [row for index in range(4) for row in hours(f"sorted-{index}", [1.0, 2.0])])
        assert_error(rest.get("/values"), 413, "too_large", "2")


def test_answers_that_are_not_plain_json_numbers(rest: httpx.Client, name: str) -> None:
    body = {"run_start_time": START, "run_id": name, "value_rows": [], "run_params": {"not": float("nan")}}
    response = rest.post("/runs", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    text = rest.get(f"/runs/{name}").text
    assert "NaN" in text or "null" in text
    json.loads(text, parse_constant=refuse)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_an_arrow_answer_is_read_by_other_libraries(rest: httpx.Client, name: str) -> None:
    import polars as pl

    upload(rest, hours(name, [1.0, None]))
    accept = {"Accept": "application/vnd.apache.arrow.stream"}
    frame = pl.read_ipc_stream(rest.get("/values", params={"name": name}, headers=accept).content)
    assert frame["value"].to_list() == [1.0, None]
    assert frame.schema["valid_time"] == pl.Datetime("us", "UTC")
    assert pa.types.is_dictionary(frame.to_arrow(compat_level=pl.CompatLevel.oldest()).schema.field("series_id").type)
