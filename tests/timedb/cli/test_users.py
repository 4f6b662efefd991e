"""Users from the command line and the SDK: keys that are shown once, and servers that do not listen too widely."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

import timedb as td
from tests.timedb.cli.test_cli import serving, timedb
from tests.timedb.cli.test_consent import run, terminal
from tests.timedb.conftest import frame
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_gateway, start_service

TENANT = "11111111-1111-1111-1111-111111111111"
FIELDS = {
    "user_id",
    "tenant_id",
    "email",
    "scopes",
    "labels",
    "is_active",
    "created_time",
    "changed_time",
}


@pytest.fixture
def users(lake_dir: Path) -> Callable[..., Any]:
    """``timedb users …`` on the test's lake; the JSON that it printed."""

    def run(*arguments: str) -> Any:
        done = timedb("users", *arguments, "--json", TIMEDB_LAKE=str(lake_dir))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_user_s_life(users: Callable[..., Any], lake_dir: Path) -> None:
    made = users("create", "--tenant-id", TENANT, "--email", "ann@example.com")
    assert set(made) == {*FIELDS, "api_key"}
    assert (made["tenant_id"], made["email"], made["scopes"]) == (TENANT, "ann@example.com", ["read", "write"])
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, shutdown_seconds=2.0)
    with start_service(settings, rest=False) as service:

        def opens(key: str) -> bool:
            with td.connect(service.flight_url, api_key=key) as client:
                try:
                    return client.list_series() == []
                except td.Unauthenticated:
                    return False

        assert opens(made["api_key"])
        assert users("deactivate", "--email", "ann@example.com", "--yes")["is_active"] is False
        assert not opens(made["api_key"])
        assert users("list") == []
        assert [user["is_active"] for user in users("list", "--include-inactive")] == [False]
        assert users("activate", "--user-id", made["user_id"])["is_active"] is True
        assert opens(made["api_key"])
        renewed = users("regenerate-key", "-e", "ann@example.com", "-t", TENANT, "-y")
        assert set(renewed) == {*FIELDS, "api_key"}
        assert not opens(made["api_key"])
        assert opens(renewed["api_key"])
    assert [set(user) for user in users("list")] == [FIELDS]
    stored = b"".join(path.read_bytes() for path in lake_dir.rglob("*") if path.is_file())
    assert made["api_key"].encode() not in stored
    assert renewed["api_key"].encode() not in stored


def test_scopes_and_labels(users: Callable[..., Any]) -> None:
    limited = ("--label", "region=north", "--label", "region=south", "--label", "kind=wind")
    made = users("create", "-e", "a@example.com", "--scope", "read", *limited)
    assert (made["scopes"], made["labels"]) == (["read"], {"kind": "wind", "region": ["north", "south"]})
    admin = users("create", "-e", "b@example.com", "--scope", "admin", "--scope", "read", "--new-tenant")
    assert admin["scopes"] == ["read", "admin"]
    assert UUID(made["tenant_id"]) != UUID(admin["tenant_id"]), "as it was asked for"
    assert [user["email"] for user in users("list", "--tenant-id", admin["tenant_id"])] == ["b@example.com"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "-e", "ann"], 2, "email: 'ann' is not an e-mail address"),
        (["create", "-e", "a@example.com", "-t", "north"], 2, "--tenant-id: 'north' is not a UUID"),
        (["create", "-e", "a@example.com", "--scope", "root"], 2, "'root'"),
        (["create", "-e", "a@example.com", "--label", "north"], 2, "--label: 'north' is not KEY=VALUE"),
        (["create", "-e", "a@example.com", "--scope", "admin", "--label", "a=b"], 2, "'admin'"),
        (["create", "-e", "known@example.com", "-t", TENANT], 6, "already"),
        (["deactivate", "-e", "nobody@example.com", "-y"], 5, "there is no user 'nobody@example.com'"),
        (["deactivate", "-y"], 2, "either email or --user-id"),
        (["regenerate-key", "-e", "a@example.com", "--user-id", TENANT, "-y"], 2, "either email or --user-id"),
    ],
)
def test_mistakes_are_told(lake_dir: Path, arguments: list[str], code: int, said: str) -> None:
    td.create_user("known@example.com", tenant_id=UUID(TENANT), lake=str(lake_dir))
    done = timedb("users", *arguments, "--lake", str(lake_dir))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_commands_but_create_make_no_lake(lake_dir: Path) -> None:
    for command in (
        ["list"],
        ["deactivate", "-e", "a@example.com", "-y"],
        ["regenerate-key", "-e", "a@example.com", "-y"],
    ):
        done = timedb("users", *command, "--lake", str(lake_dir))
        assert done.returncode == 5
        assert "there is no lake" in done.stderr
    assert not lake_dir.exists()


def test_the_first_user_of_a_lake_in_use_reads_what_was_written(lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0)
    with start_service(settings, rest=False) as service, td.connect(service.flight_url) as client:
        client.upload(frame("early", [1.0]))
    done = timedb("users", "create", "-e", "ann@example.com", "--lake", str(lake_dir))
    assert f"changed the lake at {lake_dir}\n" in done.stderr
    assert f"the tenant {OPEN_TENANT_ID} (what was written while the lake was open); without a key" in done.stderr
    key = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("api_key:"))
    other = td.create_user("bob@example.com", new_tenant=True, lake=str(lake_dir))["api_key"]
    with start_service(settings, rest=False) as service:
        for sent, seen in ((key, 1), (other, 0)):
            with td.connect(service.flight_url, api_key=sent) as client:
                assert len(client.list_series()) == seen
        moved = timedb(
            "users", "update", "-e", "bob@example.com", "--to-tenant", OPEN_TENANT_ID, TIMEDB_LAKE=str(lake_dir)
        )
        assert moved.returncode == 0, moved.stderr
        with td.connect(service.flight_url, api_key=other) as client:
            assert len(client.list_series()) == 1, "a running server takes note"
            assert td.update_user("bob@example.com", scopes=["read"], lake=str(lake_dir))["scopes"] == ["read"]
            with pytest.raises(td.Forbidden):
                client.create_series("late")


def test_a_lake_is_made_only_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = timedb("users", "create", "-e", "ann@example.com")
    assert (done.returncode, done.stdout) == (5, "")
    assert (
        "there is no lake at './timedb-data', and none is made unless it is named: --lake, TIMEDB_LAKE" in done.stderr
    )
    with pytest.raises(td.NotFound, match="none is made unless it is named"):
        td.create_user("ann@example.com")
    assert not list(tmp_path.iterdir())
    made: tuple[tuple[str, dict[str, Any], str], ...] = (
        (
            "ann@example.com",
            {"TIMEDB_LAKE": str(tmp_path / "timedb-data")},
            f"made the lake at {tmp_path}/timedb-data\n",
        ),
        ("bob@example.com", {}, f"changed the lake at {tmp_path}/timedb-data\n"),
    )
    for email, settings, said in made:
        done = timedb("users", "create", "-e", email, **settings)
        assert (done.returncode, said in done.stderr) == (0, True), done.stderr
    assert "as those of ann@example.com; without a key" in done.stderr


@pytest.mark.parametrize("answer", ["1", "2", "3"])
def test_among_several_tenants_the_person_at_the_terminal_is_asked(lake_dir: Path, answer: str) -> None:
    lake = str(lake_dir)
    tenants = sorted(td.create_user(f"{who}@example.com", new_tenant=True, lake=lake)["tenant_id"] for who in "ab")
    arguments = ("users", "create", "-e", "c@example.com", "--lake", lake)
    refused = timedb(*arguments)
    assert (refused.returncode, len(td.list_users(lake=lake))) == (2, 2)
    assert all(tenant in refused.stderr for tenant in tenants)
    assert "name one (--tenant-id), or ask for a new one (--new-tenant): " in refused.stderr
    with terminal(f"7\n{answer}\n".encode()) as stdin:
        code, said = run(arguments, stdin)
    assert code in (None, 0), said
    assert "there is no 7" in said
    assert "(a@example.com)" not in said
    made = td.list_users(lake=lake)[-1]
    assert made["tenant_id"] == dict(zip("12", tenants, strict=True)).get(answer, made["tenant_id"])
    assert (made["tenant_id"] in tenants) == (answer != "3")


def test_the_list_shows_tenants_and_which_nobody_has_a_key_to(lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0)
    with start_service(settings, rest=False) as service, td.connect(service.flight_url) as client:
        client.upload(frame("early", [1.0]))
    td.create_user("ann@example.com", tenant_id=TENANT, lake=str(lake_dir))
    done = timedb("users", "list", "--lake", str(lake_dir))
    head, line = done.stdout.splitlines()
    assert head.split()[:3] == ["email", "tenant_id", "scopes"]
    assert line.split()[:2] == ["ann@example.com", TENANT]
    assert f"nobody has a key to the tenant {OPEN_TENANT_ID} (what was written while the lake was open)" in done.stderr


def test_create_with_users_closes_the_lake(lake_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timedb("create", "--with-users", "--lake", str(lake_dir)).returncode == 0
    td.create_with_users(str(lake_dir))
    assert "every call needs an API key" in capsys.readouterr().out
    assert td.list_users(lake=str(lake_dir)) == []
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0)
    with start_service(settings, rest=False) as service, td.connect(service.flight_url) as client:
        with pytest.raises(td.Unauthenticated):
            client.list_series()
        assert client.health() == {"ok": True}


def test_a_client_never_shows_its_key() -> None:
    key = "tdb_the-key-that-nobody-may-see"
    with td.connect(api_key=key) as client:
        assert key not in repr(client) + repr(client._connection) + repr(vars(client))
    with pytest.raises(td.InvalidRequest) as caught:
        td.connect(api_key=[key])  # type: ignore[arg-type]  # what somebody may do by mistake
    assert key not in str(caught.value)


@pytest.mark.parametrize("rest", [True, False])
def test_an_open_lake_is_not_served_to_other_machines(lake_dir: Path, rest: bool) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, rest_port=0, host="0.0.0.0")
    with pytest.raises(td.InvalidRequest, match=r"TIMEDB_HOST.*timedb users create.*TIMEDB_INSECURE=1"):
        start_service(settings, rest=rest)


def test_a_lake_with_users_is_served_to_other_machines(lake_dir: Path) -> None:
    key = td.create_user("ann@example.com", lake=str(lake_dir))["api_key"]
    fields = {"lake": str(lake_dir), "flight_port": 0, "rest_port": 0, "host": "0.0.0.0", "shutdown_seconds": 2.0}
    with start_service(load_settings(ServerSettings, **fields)) as service:
        assert httpx.get(f"{service.rest_url}/runs", headers={"X-API-Key": key}).json() == {"runs": []}
        alone = load_settings(ServerSettings, flight_url=service.flight_url, rest_port=0, host="0.0.0.0")
        with start_gateway(alone) as gateway:
            assert httpx.get(f"{gateway.rest_url}/runs").status_code == 401


def test_a_gateway_alone_does_not_open_an_open_lake_to_other_machines(lake_dir: Path) -> None:
    fields = {"lake": str(lake_dir), "flight_port": 0, "shutdown_seconds": 2.0}
    with start_service(load_settings(ServerSettings, **fields), rest=False) as service:
        alone = load_settings(ServerSettings, flight_url=service.flight_url, rest_port=0, host="0.0.0.0")
        with pytest.raises(td.InvalidRequest, match=r"TIMEDB_HOST.*no users.*TIMEDB_INSECURE=1"):
            start_gateway(alone)
        with start_gateway(alone.model_copy(update={"insecure": True})) as gateway:
            assert httpx.get(f"{gateway.rest_url}/runs").json() == {"runs": []}
    # While nobody knows whether the lake is open, the gateway starts and refuses call by call.
    with start_gateway(alone) as gateway:
        headers = {"X-Forwarded-For": "203.0.113.7"}
        assert httpx.get(f"{gateway.rest_url}/runs", headers=headers).status_code == 403


def test_the_audit_log_is_a_file_of_json_lines(tmp_path: Path) -> None:
    lake, audit = tmp_path / "lake", tmp_path / "audit.jsonl"
    key = td.create_user("ann@example.com", tenant_id=TENANT, lake=str(lake))["api_key"]
    command = ["serve", "--lake", str(lake), "--flight-port", "0", "--rest-port", "0"]
    with serving(*command, TIMEDB_AUDIT_LOG=str(audit)) as (process, found):
        body = {"name": "load"}
        headers = {"X-API-Key": key, "X-Request-Id": "from-rest"}
        rest = next(url for url in found.values() if url.startswith("http"))
        series_id = httpx.post(f"{rest}/series", json=body, headers=headers).json()["series_id"]
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    (line,) = [json.loads(text) for text in audit.read_text().splitlines()]
    assert line["principal"] == "ann@example.com"
    assert line["tenant_id"] == TENANT
    assert (line["method"], line["code"]) == ("do_action/create_series", "ok")
    assert (line["series_id"], line["request_id"]) == (series_id, "from-rest")
