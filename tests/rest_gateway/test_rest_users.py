"""A lake with users through REST: the notebook with keys, two tenants at once, one error shape for who has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import timedb as td
from tests.rest_gateway.calls import assert_error
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for

if TYPE_CHECKING:
    from timedb.run.launch import Service

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"
START = datetime(2025, 1, 1, tzinfo=UTC)
REMOTE = {"X-Forwarded-For": "203.0.113.7"}
OPEN = ("/", "/health", "/docs", "/openapi.json")
CLOSED: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/values", None),
    ("PUT", "/values", {"updates": []}),
    ("GET", "/list_timeseries", None),
    ("GET", "/series/labels", None),
    ("POST", "/series", {"name": "x"}),
    ("PATCH", f"/series/{ONE}", {"retired": True}),
    ("GET", "/runs", None),
    ("POST", "/runs", {"run_start_time": "2025-01-01T00:00:00Z", "value_rows": []}),
    ("POST", "/upload", {"run_start_time": "2025-01-01T00:00:00Z", "value_rows": []}),
    ("GET", "/runs/x", None),
    ("POST", "/runs/x/withdraw", {}),
    ("POST", "/runs/x/restore", {}),
    ("GET", "/metrics", None),
)


@dataclass(frozen=True)
class Closed:
    """A service over a lake with users."""

    lake: str
    url: str

    def user(self, email: str, tenant_id: str = ONE, **fields: Any) -> str:
        """Make a user; its key."""
        key: str = td.create_user(email, tenant_id=tenant_id, lake=self.lake, **fields)["api_key"]
        return key

    def client(self, key: str | None, **headers: str) -> httpx.Client:
        """HTTP with a key."""
        sent = {**headers, **({} if key is None else {"X-API-Key": key})}
        return httpx.Client(base_url=self.url, headers=sent, timeout=60)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    from timedb.contract.settings import ServerSettings, load_settings
    from timedb.run.launch import start_service

    lake = str(tmp_path_factory.mktemp("closed") / "lake")
    td.create_with_users(lake)
    settings = load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0, shutdown_seconds=2.0)
    with start_service(settings) as service:
        yield Closed(lake, service.rest_url)


def notebook(client: httpx.Client, tenant_id: str, offset: float) -> list[dict[str, Any]]:
    """The notebook from its first series to the verified update; gives the versions that it shows at the end."""

    def ask(method: str, path: str, **request: Any) -> Any:
        response = client.request(method, path, **request)
        response.raise_for_status()
        return response.json()

    made = ask("POST", "/series", json={"name": "temperature", "unit": "celsius"})["series_id"]
    assert made == series_id_for(tenant_id, "temperature", {})
    values = [offset + hour for hour in range(24)]
    rows = [
        {"valid_time": (START + timedelta(hours=hour)).isoformat(), "value_key": "temperature", "value": value}
        for hour, value in enumerate(values)
    ]
    run = ask("POST", "/upload", json={"run_start_time": START.isoformat(), "value_rows": rows})
    assert run["series_ids"] == {"temperature": made}
    assert list(ask("GET", "/list_timeseries")) == [made]
    flat = ask("GET", "/values", params={"mode": "flat"})
    assert (flat["count"], [row["value"] for row in flat["data"]]) == (24, values)
    ask("POST", "/runs", json={"run_start_time": START.isoformat(), "value_rows": rows[:2], "known_time": "2024-01-01"})
    assert ask("GET", "/values", params={"mode": "overlapping"})["count"] == 26
    update = {"run_id": run["run_id"], "tenant_id": tenant_id, "valid_time": START.isoformat(), "series_id": made}
    fixed = {**update, "value": 22.5, "annotation": "Updated via API", "changed_by": "somebody@else.example"}
    (updated,) = ask("PUT", "/values", json={"updates": [fixed]})["updated"]
    assert (updated["tenant_id"], updated["series_id"]) == (tenant_id, made)
    end = (START + timedelta(hours=1)).isoformat()
    versions: list[dict[str, Any]] = ask("GET", "/values", params={"end_valid": end, "all_versions": True})["data"]
    assert [row["value"] for row in versions] == [offset, 22.5]
    return versions


def test_two_tenants_run_the_notebook_at_once_each_blind_to_the_other(closed: Closed) -> None:
    keys = {
        ONE: closed.user("ann@one.example"),
        TWO: closed.user("bob@two.example", TWO),
    }

    def run(tenant_id: str) -> list[dict[str, Any]]:
        with closed.client(keys[tenant_id]) as client:
            return notebook(client, tenant_id, 100.0 if tenant_id == ONE else 200.0)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, (ONE, TWO))
    assert {row["changed_by"] for row in one} == {"ann@one.example"}
    assert {row["changed_by"] for row in two} == {"bob@two.example"}
    with closed.client(keys[TWO]) as client:
        theirs = {"series_id": one[0]["series_id"], "valid_time": START.isoformat(), "value": 1.0}
        assert_error(client.put("/values", json={"updates": [{**theirs, "tenant_id": ONE}]}), 403, "forbidden", ONE)
        assert_error(client.put("/values", json={"updates": [theirs]}), 404, "not_found")
        by_value = {"value_id": one[0]["value_id"], "value": 1.0}
        assert_error(client.put("/values", json={"updates": [by_value]}), 404, "not_found")
        assert_error(client.get(f"/runs/{one[0]['run_id']}"), 404, "not_found")
        assert_error(client.post(f"/runs/{one[0]['run_id']}/withdraw"), 404, "not_found")
        assert_error(client.get("/values", params={"series_id": one[0]["series_id"]}), 404, "not_found")
        assert_error(client.patch(f"/series/{one[0]['series_id']}", json={"retired": True}), 404, "not_found")


def test_the_notebook_runs_without_keys_as_well(new_service: Callable[..., Service]) -> None:
    with httpx.Client(base_url=new_service().rest_url, headers={"X-API-Key": "ignored"}) as client:
        versions = notebook(client, OPEN_TENANT_ID, 0.0)
        assert [row["changed_by"] for row in versions] == [None, "somebody@else.example"]


@pytest.mark.parametrize("key", [None, "nonsense", "schlüssel"])
def test_who_has_no_valid_key_gets_one_answer_everywhere(closed: Closed, key: str | None) -> None:
    headers: dict[str, Any] = {} if key is None else {"X-API-Key": key.encode()}
    with httpx.Client(base_url=closed.url, timeout=60) as client:
        for method, path, body in CLOSED:
            answer = client.request(method, path, json=body, headers=headers)
            assert_error(answer, 401, "unauthenticated", "a valid API key is required", "X-API-Key")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in OPEN:
            assert client.get(path, headers=headers).status_code == 200, path
            assert client.get(path, headers={**headers, **REMOTE}).status_code == 200, path
        assert client.get("/health", headers=headers).json() == {"status": "ok"}


def test_the_key_may_be_a_bearer_token_but_two_keys_are_none(closed: Closed) -> None:
    key = closed.user("ann@bearer.example")
    with httpx.Client(base_url=closed.url, timeout=60) as client:
        for headers in (
            [("Authorization", f"Bearer {key}")],
            [("X-API-Key", key), ("Authorization", f"Bearer {key}")],
            [("X-API-Key", key), ("Authorization", "Basic abc")],
        ):
            assert client.get("/list_timeseries", headers=headers).status_code == 200, headers
        for headers in (
            [("X-API-Key", key), ("Authorization", "Bearer other")],
            [("X-API-Key", "other"), ("Authorization", f"Bearer {key}")],
            [("X-API-Key", key), ("X-API-Key", "other")],
        ):
            assert_error(client.get("/list_timeseries", headers=headers), 401, "unauthenticated")


def test_a_key_without_the_scope_is_forbidden(closed: Closed) -> None:
    with closed.client(closed.user("reader@scopes.example", scopes=["read"])) as reader:
        assert reader.get("/list_timeseries").status_code == 200
        assert_error(reader.post("/series", json={"name": "x"}), 403, "forbidden", "'write'")
        rows = [{"valid_time": START.isoformat(), "value_key": "x", "value": 1.0}]
        upload = {"run_start_time": START.isoformat(), "value_rows": rows}
        assert_error(reader.post("/runs", json=upload), 403, "forbidden", "'write'")
    with closed.client(closed.user("writer@scopes.example", scopes=["write"])) as writer:
        assert writer.post("/runs", json=upload).status_code == 200
        assert_error(writer.get("/values"), 403, "forbidden", "'read'")
        assert_error(writer.get("/metrics"), 403, "forbidden", "'read'")


def test_a_limited_key_sees_its_own_series_in_every_format(closed: Closed) -> None:
    tenant = "33333333-3333-3333-3333-333333333333"
    with closed.client(closed.user("all@limits.example", tenant)) as client:
        for region in ("north", "south"):
            client.post("/series", json={"name": f"wind-{region}", "labels": {"region": region}}).raise_for_status()
            rows = [{"valid_time": START.isoformat(), "value_key": f"wind-{region}", "value": 1.0}]
            client.post("/runs", json={"run_start_time": START.isoformat(), "value_rows": rows}).raise_for_status()
    with closed.client(closed.user("north@limits.example", tenant, labels={"region": "north"})) as client:
        assert [each["series_key"] for each in client.get("/list_timeseries").json().values()] == ["wind-north"]
        assert client.get("/values").json()["count"] == 1
        for accept in ("text/csv", "application/x-ndjson"):
            text = client.get("/values", headers={"Accept": accept}).text
            assert "wind-north" in text
            assert "south" not in text
        assert_error(client.get("/values", params={"name": "wind-south"}), 404, "not_found")
        assert_error(client.post("/series", json={"name": "wind-south"}), 403, "forbidden", "limited to series of")
        assert client.get("/runs").json() == {"runs": []}


def test_a_revoked_key_is_out(closed: Closed) -> None:
    key = closed.user("gone@revoked.example")
    with closed.client(key) as client:
        assert client.get("/runs").status_code == 200
        td.deactivate_user("gone@revoked.example", lake=closed.lake)
        assert_error(client.get("/runs"), 401, "unauthenticated")
        td.activate_user("gone@revoked.example", lake=closed.lake)
        assert client.get("/runs").status_code == 200
        renewed = td.regenerate_api_key("gone@revoked.example", lake=closed.lake)["api_key"]
        assert_error(client.get("/runs"), 401, "unauthenticated")
        assert client.get("/runs", headers={"X-API-Key": renewed}).status_code == 200


def test_the_document_says_which_calls_need_a_key_and_how_it_is_sent(closed: Closed) -> None:
    document = httpx.get(f"{closed.url}/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    described = {(scheme["type"], scheme.get("name") or scheme.get("scheme")) for scheme in schemes.values()}
    assert described == {("apiKey", "X-API-Key"), ("http", "bearer")}
    secured = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
        if call.get("security")
    }
    for method, path, _ in CLOSED:
        path = path.replace(f"/series/{ONE}", "/series/{series_id}").replace("/runs/x", "/runs/{run_id}")
        assert (method, path) in secured
        assert "401" in document["paths"][path][method.lower()]["responses"]
    assert not {("GET", path) for path in OPEN} & secured
