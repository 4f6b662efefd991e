"""Every error has the one shape, says which field and value it is about, and gives nothing away."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.rest_gateway.calls import START, assert_error, hours, serving, upload
from timedb.contract.errors import InvalidRequest, TimeDBError
from timedb.contract.settings import ServerSettings, load_settings
from timedb.rest_gateway import create_app
from timedb.rest_gateway.http.errors import STATUS, error_body, error_for_status, status_of

if TYPE_CHECKING:
    from timedb.run.launch import Service

ROW = {"valid_time": START, "value_key": "errors", "value": 1.0}
UNVALUED = {"valid_time": START, "value_key": "errors"}
ADDRESS = {"series_id": "x", "valid_time": START}


def run_with(**row: Any) -> dict[str, Any]:
    """A run whose second row has these fields."""
    return {"run_start_time": START, "value_rows": [ROW, {**ROW, "valid_time": "2025-01-01T01:00:00Z", **row}]}


def every_class(cls: type[TimeDBError] = TimeDBError) -> Iterator[type[TimeDBError]]:
    yield cls
    for each in cls.__subclasses__():
        yield from every_class(each)


def test_the_table_has_every_class_of_the_error_tree() -> None:
    assert set(STATUS) == set(every_class())
    assert set(STATUS.values()) == {401, 403, 404, 409, 413, 422, 500, 501, 503, 504, 507}
    for cls in every_class():
        assert status_of(cls("because")) == STATUS[cls]
        assert error_body(cls("because"), "id") == {"detail": "because", "code": cls.code, "request_id": "id"}


def test_an_unknown_class_counts_as_the_root() -> None:
    class Novel(InvalidRequest):
        pass

    assert status_of(Novel("x")) == 500
    del Novel
    gc.collect()  # else the tree keeps it


def test_a_status_of_the_framework_finds_its_class() -> None:
    found = {status: error_for_status(status, "x").code for status in (400, 404, 405, 413, 418, 422, 500, 599)}
    assert found == {
        400: "invalid_request",
        404: "not_found",
        405: "invalid_request",
        413: "too_large",
        418: "invalid_request",
        422: "invalid_request",
        500: "internal",
        599: "internal",
    }


BAD_BODIES: list[tuple[str, str, Any, tuple[str, ...]]] = [
    ("POST", "/series", {}, ("name", "missing")),
    ("POST", "/series", {"name": ""}, ("name", "''")),
    ("POST", "/series", {"name": 5}, ("name", "5")),
    ("POST", "/series", {"name": "a\nb"}, ("name", "a\\nb")),
    ("POST", "/series", {"name": "x", "unti": "MW"}, ("unti", "unknown")),
    ("POST", "/series", {"name": "x", "labels": {"site": 1}}, ("labels.site", "1")),
    ("POST", "/series", ["x"], ("x",)),
    ("POST", "/runs", {}, ("run_start_time", "missing")),
    ("POST", "/runs", {"run_start_time": START}, ("value_rows", "missing")),
    ("POST", "/runs", {"run_start_time": 5, "value_rows": []}, ("run_start_time", "5")),
    ("POST", "/runs", {"run_start_time": "yesterday", "value_rows": []}, ("run_start_time", "yesterday")),
    ("POST", "/runs", {"run_start_time": START, "value_rows": {}}, ("value_rows", "{}")),
    ("POST", "/runs", {"run_start_time": START, "value_rows": [5]}, ("value_rows.0", "5")),
    ("POST", "/runs", {**run_with(), "value_row": []}, ("value_row", "unknown")),
    ("POST", "/runs", {**run_with(), "run_params": []}, ("run_params", "[]")),
    ("POST", "/runs", {**run_with(), "run_finish_time": "2024-01-01"}, ("run_finish_time", "2024-01-01")),
    ("POST", "/runs", run_with(value="abc"), ("value_rows.1.value", "'abc'")),
    ("POST", "/runs", run_with(value=True), ("value_rows.1.value", "True")),
    ("POST", "/runs", run_with(value=[1]), ("value_rows.1.value", "number")),
    ("POST", "/runs", run_with(value=10**400), ("value_rows.1.value",)),
    ("POST", "/runs", run_with(valid_time=1735689600), ("value_rows.1.valid_time", "1735689600")),
    ("POST", "/runs", run_with(valid_time=None), ("value_rows.1.valid_time", "None")),
    ("POST", "/runs", run_with(valid_time="2025-02-30"), ("value_rows.1.valid_time", "2025-02-30")),
    ("POST", "/runs", run_with(valid_time="2025-01-01T00:00:00.0000001"), ("value_rows.1.valid_time", "microsecond")),
    ("POST", "/runs", run_with(known_time=7), ("value_rows.1.known_time", "7")),
    ("POST", "/runs", run_with(valid_time_end="x"), ("value_rows.1.valid_time_end", "'x'")),
    ("POST", "/runs", run_with(value_key=None), ("value_rows.1", "value_key", "series_id")),
    ("POST", "/runs", run_with(value_key=""), ("value_rows.1.value_key", "''")),
    ("POST", "/runs", run_with(tags="a"), ("value_rows.1.tags", "'a'")),
    ("POST", "/runs", run_with(colour="red"), ("value_rows.1.colour", "unknown")),
    ("POST", "/upload", {"run_start_time": START, "value_rows": [UNVALUED]}, ("value_rows.0.value", "missing")),
    ("POST", "/runs/some-run/withdraw", {"why": "x"}, ("why", "unknown")),
    ("POST", "/runs/some-run/withdraw", {"reason": 5}, ("reason", "5")),
    ("POST", "/runs/some-run/restore", {"why": "x"}, ("why", "unknown")),
    ("PATCH", "/series/some-id", {"retired": "yes"}, ("retired", "'yes'")),
    ("PATCH", "/series/some-id", {"labels": {}}, ("labels", "unknown")),
    ("PATCH", "/series/some-id", {"unit": "MW"}, ("unit_change", "'declare' leaves the stored numbers as they are")),
    (
        "PATCH",
        "/series/some-id",
        {"unit": "MW", "unit_change": "x"},
        ("unit_change", "neither 'declare' nor 'convert'"),
    ),
    ("PATCH", "/series/some-id", {"unit_change": "declare"}, ("unit_change", "no unit beside it")),
    ("PATCH", "/series/some-id", {"unit": "Mw/h", "unit_change": "declare"}, ("unit", "did you mean 'MW/h'?")),
    ("PATCH", "/series/some-id", {"name": None}, ("name", "only a description can be cleared")),
    ("POST", "/series", {"name": "x", "unit": "happiness"}, ("unit", "'happiness' is not a unit")),
    ("PUT", "/values", {}, ("updates", "missing")),
    ("PUT", "/values", {"updates": [{}]}, ("updates.0", "series_id")),
    ("PUT", "/values", {"updates": [{"series_id": "x", "valid_time": 5}]}, ("updates.0.valid_time", "5")),
    (
        "PUT",
        "/values",
        {"updates": [{**ADDRESS, "value": "x"}]},
        ("updates.0.value", "'x'"),
    ),
    (
        "PUT",
        "/values",
        {"updates": [{**ADDRESS, "vlaue": 1}]},
        ("updates.0.vlaue", "unknown"),
    ),
    ("PUT", "/values", {"updates": [{"value_id": "x", "run_id": "y"}]}, ("updates.0", "run_id")),
    ("PUT", "/values", {"updates": [{"value_id": "!!"}]}, ("value_id", "!!")),
]


@pytest.mark.parametrize(("method", "path", "body", "parts"), BAD_BODIES)
def test_a_bad_body_is_told_by_field_and_value(
    rest: httpx.Client, method: str, path: str, body: Any, parts: tuple[str, ...]
) -> None:
    assert_error(rest.request(method, path, json=body), 422, "invalid_request", *parts)


BAD_QUERIES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("/values", {"start_vald": START}, ("start_vald", "unknown")),
    ("/values", {"start_valid": "x"}, ("start_valid", "'x'")),
    ("/values", {"end_valid": ""}, ("end_valid", "''")),
    ("/values", {"start_valid": START, "end_valid": "2024-01-01"}, ("end_valid", "2024-01-01")),
    ("/values", {"start_known": START, "end_known": "2024-01-01"}, ("end_known", "2024-01-01")),
    ("/values", {"as_of": "1735689600"}, ("as_of", "1735689600")),
    ("/values", {"mode": "flatt"}, ("mode", "'flatt'")),
    ("/values", {"mode": ["flat", "flat"]}, ("mode", "2 times")),
    ("/values", {"all_versions": "yes"}, ("all_versions", "'yes'")),
    ("/values", {"limit": "0"}, ("limit", "0")),
    ("/values", {"limit": "-1"}, ("limit", "-1")),
    ("/values", {"limit": "1.5"}, ("limit", "'1.5'")),
    ("/values", {"limit": "9" * 500}, ("limit", "999")),
    ("/values", {"cursor": "nonsense", "limit": 1}, ("cursor: 'nonsense'",)),
    ("/values", {"labels": "site:north"}, ("labels", "site:north")),
    ("/values", {"labels": '{"site": 5}'}, ("labels.site", "5")),
    ("/values", {"labels": "[" * 10_000}, ("labels", "[[[")),
    ("/values", {"days_ahead": 1}, ("time_zone", "missing")),
    ("/values", {"time_zone": "Europe/Atlantis"}, ("Europe/Atlantis",)),
    ("/values", {"time_zone": "UTC", "time_of_day": "25:00"}, ("time_of_day", "25:00")),
    ("/values", {"window_length": "6h"}, ("issue_offset is missing",)),
    ("/values", {"window_length": "6"}, ("window_length: '6'",)),
    ("/values", {"lead_time": "-1mo"}, ("lead_time", "-P1M", "months")),
    ("/values", {"corrections": "by_cutoff"}, ("corrections", "cut-off")),
    ("/values", {"corrections": "none", "mode": "changes"}, ("corrections", "changes")),
    ("/values", {"lead_time": "soon"}, ("lead_time", "'soon'")),
    ("/values", {"period": "1h", "time_zone": "Europe/Atlantis"}, ("time_zone: 'Europe/Atlantis'",)),
    ("/values", {"period": "an hour"}, ("period", "'an hour'")),
    ("/values", {"aggregate": "mean"}, ("period", "missing")),
    ("/values", {"period": "1h", "aggregate": "most"}, ("aggregate", "'most'")),
    ("/values", {"period": "1h", "all_versions": "true"}, ("period", "versions")),
    ("/values", {"mode": "latest", "period": "1h"}, ("period", "latest")),
    ("/values", {"since": "x"}, ("since", "changes")),
    ("/values", {"mode": "changes", "since": "x"}, ("since", "'x'")),
    ("/values", {"token": "x"}, ("token", "'x'")),
    ("/values", {"unit": "furlong"}, ("unit", "furlong")),
    ("/accuracy", {}, ("actual_id", "actual_key")),
    ("/accuracy", {"actual_id": "a", "actual_key": "b"}, ("actual_id", "actual_key")),
    ("/accuracy", {"actual_key": "b", "horizon": "0h"}, ("horizon", "PT0S")),
    ("/accuracy", {"actual_key": "b", "horizon": "P1M"}, ("horizon", "P1M")),
    ("/accuracy", {"mode": "flat"}, ("mode", "unknown")),
    ("/values", {"non_finite": "zero"}, ("non_finite", "'zero'")),
    ("/list_timeseries", {"nmae": "x"}, ("nmae", "unknown")),
    ("/list_timeseries", {"labels": "5"}, ("labels", "'5'")),
    ("/series/labels", {"x": "1"}, ("x", "unknown")),
    ("/runs", {"limit": "many"}, ("limit", "'many'")),
    ("/runs", {"start": START, "end": "2024-01-01"}, ("end", "2024-01-01")),
    ("/runs/some-run", {"limit": "1"}, ("limit", "unknown")),
    ("/", {"x": "1"}, ("x", "unknown")),
    ("/health", {"x": "1"}, ("x", "unknown")),
    ("/metrics", {"x": "1"}, ("x", "unknown")),
]


@pytest.mark.parametrize(("path", "query", "parts"), BAD_QUERIES, ids=lambda value: str(value)[:40])
def test_a_bad_query_is_told_by_parameter_and_value(
    rest: httpx.Client, path: str, query: dict[str, Any], parts: tuple[str, ...]
) -> None:
    upload(rest, [ROW], run_id="bad-queries", known_time=START)  # with something to read; the same run each time
    assert_error(rest.get(path, params=query), 422, "invalid_request", *parts)


@pytest.mark.parametrize("parameter", ["name", "series_id"])
def test_a_series_that_is_not_there_is_told_by_parameter_and_value(rest: httpx.Client, parameter: str) -> None:
    answer = rest.get("/values", params={parameter: "nobody"})
    assert_error(answer, 404, "not_found")
    assert answer.json()["detail"] == f"{parameter}: there is no series 'nobody'"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/series"), ("POST", "/runs"), ("PUT", "/values"), ("PATCH", "/series/x")]
)
def test_writes_refuse_query_parameters(rest: httpx.Client, method: str, path: str) -> None:
    assert_error(rest.request(method, path, params={"x": 1}, json={}), 422, "invalid_request", "x")


@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b"\xff\xfe", b'{"name": "\\ud800"}', b"[" * 100_000, b'{"name": "x"} trailing', b"\x00"],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_json_is_told(rest: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert_error(rest.post("/series", content=body, headers=headers), 422, "invalid_request", "body", "JSON")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_page_elsewhere_cannot_write_with_a_simple_request(rest: httpx.Client, content_type: str) -> None:
    response = rest.post("/series", content=b'{"name": "forged"}', headers={"Content-Type": content_type})
    assert_error(response, 422, "invalid_request", "Content-Type")
    assert rest.get("/list_timeseries", params={"name": "forged"}).json() == {}


def test_what_does_not_exist_is_not_found(rest: httpx.Client) -> None:
    missing = "00000000-0000-5000-8000-000000000000"
    assert_error(rest.get("/runs/no-such-run"), 404, "not_found", "no-such-run")
    assert_error(rest.post("/runs/no-such-run/withdraw", json={}), 404, "not_found", "no-such-run")
    assert_error(rest.post("/runs/no-such-run/restore"), 404, "not_found", "no-such-run")
    assert_error(rest.patch(f"/series/{missing}", json={"retired": True}), 404, "not_found", missing)
    assert_error(rest.get("/values", params={"series_id": missing}), 404, "not_found", missing)
    assert_error(rest.get("/values", params={"name": "no-such-name"}), 404, "not_found", "no-such-name")
    update = {"series_id": missing, "valid_time": START, "value": 1.0}
    assert_error(rest.put("/values", json={"updates": [update]}), 404, "not_found")
    run = {"run_start_time": START, "value_rows": [{"series_id": missing, "valid_time": START, "value": 1.0}]}
    assert_error(rest.post("/runs", json=run), 404, "not_found", missing)


def test_another_tenant_is_forbidden(rest: httpx.Client, name: str) -> None:
    series_id = upload(rest, hours(name, [1.0]))["series_ids"][name]
    other = "11111111-1111-1111-1111-111111111111"
    update = {"series_id": series_id, "valid_time": START, "value": 1.0, "tenant_id": other}
    assert_error(rest.put("/values", json={"updates": [update]}), 403, "forbidden", other)


def test_the_same_name_with_another_unit_is_a_conflict(rest: httpx.Client, name: str) -> None:
    assert rest.post("/series", json={"name": name, "unit": "MW"}).status_code == 200
    assert_error(rest.post("/series", json={"name": name, "unit": "kW"}), 409, "conflict", "kW")


@pytest.mark.parametrize("path", ["/nothing", "/values/", "/runs/", "/series", "/docs/x", "/%00", "/ünïcode"])
def test_an_unknown_path_is_not_found(rest: httpx.Client, path: str) -> None:
    method = "GET" if path != "/series" else "DELETE"
    expected = (404, "not_found") if path != "/series" else (405, "invalid_request")
    assert_error(rest.request(method, path), *expected)


def test_a_method_that_a_path_lacks_keeps_its_status(rest: httpx.Client) -> None:
    response = rest.delete("/values")
    assert_error(response, 405, "invalid_request", "DELETE")
    assert response.headers["allow"]


def test_an_accept_header_without_any_of_our_formats_is_told(rest: httpx.Client) -> None:
    response = rest.get("/values", headers={"Accept": "application/arrow"})
    assert_error(response, 422, "invalid_request", "application/arrow", "application/vnd.apache.arrow.stream")


@pytest.mark.parametrize("given", ["a" * 129, "with space", "läuft", "a/b", ""])
def test_an_insane_request_id_is_replaced(rest: httpx.Client, given: str) -> None:
    response = rest.get("/", headers=[(b"X-Request-Id", given.encode())])
    assert response.headers["x-request-id"] not in ("", given)


def test_a_sane_request_id_is_kept_in_answers_and_errors(rest: httpx.Client) -> None:
    headers = {"X-Request-Id": "Order-66_b.2"}
    assert rest.get("/", headers=headers).headers["x-request-id"] == "Order-66_b.2"
    assert rest.get("/runs/no-such-run", headers=headers).json()["request_id"] == "Order-66_b.2"
    assert rest.get("/nowhere", headers=headers).json()["request_id"] == "Order-66_b.2"


def test_a_dead_flight_server_is_503_and_its_address_stays_inside() -> None:
    with serving(create_app("grpc://127.0.0.1:9", load_settings(ServerSettings))) as rest:
        assert rest.get("/").status_code == 200
        health = rest.get("/health")
        assert_error(health, 503, "unavailable")
        assert health.headers["retry-after"] == "1"
        for call in (rest.get("/values"), rest.get("/metrics"), rest.post("/series", json={"name": "x"})):
            assert_error(call, 503, "unavailable")
            assert "127.0.0.1" not in call.text
        run = {"run_start_time": START, "value_rows": [ROW]}
        assert_error(rest.post("/runs", json=run), 503, "unavailable")


def test_a_fault_of_ours_is_500_with_a_fixed_text_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app("grpc://127.0.0.1:9", load_settings(ServerSettings))

    @app.get("/broken")
    def broken() -> None:
        raise KeyError("secret")

    with serving(app) as rest, caplog.at_level(logging.ERROR, "timedb.rest"):
        response = rest.get("/broken", headers={"X-Request-Id": "find-me"})
        assert_error(response, 500, "internal", "the service failed")
        assert "secret" not in response.text
        assert rest.get("/").status_code == 200
    assert [record for record in caplog.records if "find-me" in record.getMessage() and record.exc_info]


def test_the_framework_s_own_validation_has_the_shape_too() -> None:
    app = create_app("grpc://127.0.0.1:9", load_settings(ServerSettings))

    @app.get("/numbered/{number}")
    def numbered(number: int) -> int:
        return number

    with serving(app) as rest:
        assert_error(rest.get("/numbered/seven"), 422, "invalid_request", "number", "'seven'")


REMOTE = {"X-Forwarded-For": "203.0.113.7"}


def test_other_machines_are_refused_while_the_lake_is_open(rest: httpx.Client) -> None:
    for path in ("/", "/values", "/health", "/docs", "/metrics"):
        assert_error(rest.get(path, headers=REMOTE), 403, "forbidden", "users", "TIMEDB_INSECURE")
    assert_error(rest.post("/series", json={"name": "x"}, headers=REMOTE), 403, "forbidden")
    assert rest.get("/", headers={"X-Forwarded-For": "::1"}).status_code == 200


def test_insecure_serves_other_machines(new_service: Callable[..., Service]) -> None:
    with httpx.Client(base_url=new_service(insecure=True).rest_url) as rest:
        assert rest.get("/list_timeseries", headers=REMOTE).json() == {}


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("127.8.8.8", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("::ffff:192.0.2.1", 403),
        ("192.0.2.1", 403),
        ("2001:db8::1", 403),
        ("testclient", 403),
        ("", 403),
    ],
)
def test_who_counts_as_this_machine(peer: str, status: int) -> None:
    app = create_app("grpc://127.0.0.1:9", load_settings(ServerSettings))

    async def ask() -> int:
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/")).status_code

    assert asyncio.run(ask()) == status
