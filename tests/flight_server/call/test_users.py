"""A lake with users: who gets in, what each key may do, how a key is revoked, and that no key is ever told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.appends import Stream, code_of
from tests.flight_server.callers import calling, exchange, outcome
from tests.flight_server.flights import (
    act,
    command,
    eventually,
    fails,
    hours,
    read,
    read_command,
    rows_of,
    send,
    series_named,
    upload_command,
)
from timedb.contract.errors import Forbidden, Unauthenticated
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import Nothing, parse_object
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.call.authentication import METHODS, Caller, Credentials, authorise
from timedb.flight_server.call.context import CallContext
from timedb.flight_server.rpc.actions import ACTIONS, HEALTH, Action
from timedb.flight_server.rpc.server import FlightServer
from timedb.storage import Lake
from timedb.storage.users.users import NewUser, UserAddress

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


@dataclass(frozen=True)
class Closed:
    """A lake with users, and a server on it."""

    lake: Lake
    folder: Path
    service: FlightService

    def data_files(self) -> set[Path]:
        """All data files but those of the records, which are written behind."""
        return {path for path in self.folder.rglob("*.parquet") if {"runs", "updates"}.isdisjoint(path.parts)}

    def user(self, email: str, tenant_id: str = ONE, **fields: Any) -> str:
        """Make a user; its key."""
        new = parse_object(NewUser, {"email": email, "tenant_id": tenant_id, **fields})
        key: str = self.lake.create_user(new)["api_key"]
        return key

    def call(self, key: str | None = None, *headers: tuple[str, str]) -> Any:
        """A client with a key."""
        return calling(self.service.url, key, *headers)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder = tmp_path_factory.mktemp("closed") / "lake"
    settings = load_settings(ServerSettings, lake=str(folder), flight_port=0, shutdown_seconds=5.0)
    lake = Lake.open(str(folder), settings)
    lake.enable_users()
    service = start_flight_server(lake, settings)
    yield Closed(lake, folder, service)
    service.stop()
    lake.close()


# What a key needs for a call, said once more and not taken from the code: a new method or action has to be added here.
NEEDS = {
    "do_put": "write",
    "do_get": "read",
    "get_flight_info": "read",
    "get_schema": "read",
    "list_flights": "read",
    "list_actions": None,
    "do_exchange": "read",
    "create_series": "write",
    "create_many_series": "write",
    "update_series": "write",
    "list_series": "read",
    "series_labels": "read",
    "update_values": "write",
    "get_run": "read",
    "list_runs": "read",
    "withdraw_run": "write",
    "restore_run": "write",
    "compact": "admin",
    "maintain": "admin",
    "apply_retention": "admin",
    "status": "read",
    "metrics": "read",
}
RPCS = {"do_put", "do_get", "get_flight_info", "get_schema", "list_flights", "list_actions", "do_exchange"}


def attempt(client: flight.FlightClient, name: str) -> Callable[[], Any]:
    """Make the call of that name; an action without a body that fits gets no further than to the door."""
    calls: dict[str, Callable[[], Any]] = {
        "do_put": lambda: send(client, rows_of("door"), rows=3),
        "do_get": lambda: read(client),
        "get_flight_info": lambda: client.get_flight_info(read_command()),
        "get_schema": lambda: client.get_schema(read_command()),
        "list_flights": lambda: list(client.list_flights()),
        "list_actions": lambda: list(client.list_actions()),
        "do_exchange": lambda: exchange(client, {"series_key": ["door"], "valid_time": hours(1)}),
    }
    return calls.get(name, lambda: act(client, name))


def test_every_method_and_action_is_in_the_table() -> None:
    assert set(METHODS) == RPCS
    assert set(NEEDS) == RPCS | set(ACTIONS)
    inherited = [name for name in (*RPCS, "do_action") if name not in vars(FlightServer)]
    assert not inherited, "a method of pyarrow's own asks nobody for a key"


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_each_scope_opens_its_calls_and_no_others(closed: Closed, scope: str) -> None:
    with closed.call(closed.user(f"{scope}@scopes.example", scopes=[scope])) as client:
        for name, needed in NEEDS.items():
            code, detail = outcome(attempt(client, name))
            if needed in (None, scope):
                assert code in ("ok", "invalid_request", "not_found"), (name, code, detail)
            else:
                assert (code, detail) == ("forbidden", f"the key may not do this: it needs the scope {needed!r}"), name


def test_runs_of_a_stream_need_the_scope_to_write(closed: Closed) -> None:
    with closed.call(closed.user("reads@appends.example", scopes=["read", "admin"])) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command("append", {})))
        with fails("forbidden", "'write'"):  # before the first batch
            reader.read_chunk()
        with suppress(pa.ArrowException, OSError):
            writer.close()
    with closed.call(closed.user("writes@appends.example", scopes=["write"])) as client:
        stream = Stream(client, rows_of("appends").schema)
        stream.run(0, rows_of("appends"), "appends")
        assert code_of(stream.end()[0]) == "ok"


def test_without_a_valid_key_nothing_is_open_but_health(closed: Closed) -> None:
    key = closed.user("ann@door.example")
    before = closed.data_files()
    wrong: list[tuple[str | None, list[tuple[str, str]]]] = [
        (None, []),
        ("", []),
        ("nonsense", []),
        (key[:-1], []),
        (key + "x", []),
        (key.upper(), []),
        ("x" * 4000, []),
        (None, [("authorization", f"Basic {key}")]),
        (None, [("authorization", key)]),
        (None, [("authorization", "Bearer")]),
        (key, [("authorization", "Bearer other")]),
        (key, [("x-api-key", "other")]),
    ]
    for sent, headers in wrong:
        with closed.call(sent, *headers) as client:
            for name in [*NEEDS, "no such action"]:
                assert outcome(attempt(client, name)) == ("unauthenticated", Unauthenticated.summary), name
            assert act(client, HEALTH) == {"ok": True}
            with fails("unauthenticated"):
                act(client, "list_series")
    assert closed.data_files() == before
    assert not (closed.folder / "tenants" / OPEN_TENANT_ID).exists()


def test_the_key_may_come_in_either_header_and_in_both(closed: Closed) -> None:
    key = closed.user("ann@headers.example")
    for sent, headers in [
        (key, []),
        (f"  {key}  ", []),
        (None, [("authorization", f"Bearer {key}")]),
        (None, [("authorization", f"bearer   {key}")]),
        (key, [("authorization", f"Bearer {key}")]),
        (key, [("authorization", "Basic abc")]),
    ]:
        with closed.call(sent, *headers) as client:
            assert act(client, "status")["tenant_id"] == ONE


def test_a_call_that_says_nothing_of_what_it_needs_is_for_nobody() -> None:
    everything = Caller(ONE, "ann@example.com")
    with pytest.raises(Forbidden, match="may not do this"):
        authorise(everything, None)
    with pytest.raises(Forbidden, match="may not do this"):
        authorise(everything, Action("new", Nothing, None, "{}", lambda *_: {}).access)
    authorise(Caller(OPEN_TENANT_ID, None), None)


def test_a_revoked_key_is_out_at_once_on_every_server(closed: Closed) -> None:
    key = closed.user("ann@revoked.example")
    other_lake = Lake.open(str(closed.folder), load_settings(ServerSettings, lake=str(closed.folder)))
    other = start_flight_server(other_lake, load_settings(ServerSettings, flight_port=0, shutdown_seconds=2.0))
    who = UserAddress(email="ann@revoked.example")
    try:
        with closed.call(key) as first, calling(other.url, key) as second:

            def codes() -> list[str]:
                return [outcome(partial(act, client, "status"))[0] for client in (first, second)]

            assert codes() == ["ok", "ok"]
            closed.lake.users.set_active(who, False)
            assert codes() == ["unauthenticated", "unauthenticated"]
            other_lake.users.set_active(who, True)
            assert codes() == ["ok", "ok"]
            renewed = other_lake.users.regenerate_key(who)["api_key"]
            assert codes() == ["unauthenticated", "unauthenticated"]
        with closed.call(renewed) as client:
            assert act(client, "status")["tenant_id"] == ONE
    finally:
        other.stop()
        other_lake.close()


def test_a_key_that_is_revoked_during_an_upload_ends_it(closed: Closed, name: str) -> None:
    key = closed.user("ann@midway.example")
    rows = rows_of(name, 1).to_batches()[0]
    with closed.call(key) as client:
        writer, reader = client.do_put(upload_command(run_id=name), rows.schema)
        writer.write_batch(rows)
        closed.lake.users.set_active(UserAddress(email="ann@midway.example"), False)

        def is_refused() -> bool:
            with suppress(flight.FlightError, pa.ArrowException):
                writer.write_batch(rows)
                return False
            return True

        eventually(is_refused)
        with fails("unauthenticated"):
            reader.read()
        with suppress(flight.FlightError, pa.ArrowException):
            writer.close()
    with closed.call(closed.user("bob@midway.example")) as client, fails("not_found"):
        act(client, "get_run", {"run_id": name})


def test_the_first_user_closes_a_lake_that_is_being_served(start: Callable[..., FlightService], tmp_path: Path) -> None:
    uri = str(tmp_path / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=2.0)
    lake = Lake.open(uri, settings)
    service = start_flight_server(lake, settings)
    try:
        with calling(service.url, "ignored") as client:
            send(client, rows_of("early"), rows=3)
            elsewhere = Lake.open(uri, settings)
            stranger = elsewhere.create_user(NewUser(email="eve@example.com", new_tenant=True))["api_key"]
            keeper = elsewhere.create_user(NewUser(email="bob@example.com", tenant_id=OPEN_TENANT_ID))["api_key"]
            elsewhere.close()
            with fails("unauthenticated"):
                read(client)
        with calling(service.url, stranger) as client:
            assert read(client).num_rows == 0, "a new tenant"
        with calling(service.url, keeper) as client:
            assert read(client).num_rows == 3, "what was written while the lake was open"
    finally:
        service.stop()
        lake.close()


def test_tenants_do_not_see_each_other(closed: Closed, name: str) -> None:
    with closed.call(closed.user("ann@one.example")) as one, closed.call(closed.user("ann@two.example", TWO)) as two:
        mine = send(one, rows_of(name), rows=3, run_id=name)[-1]["series_ids"][name]
        theirs = send(two, rows_of(name, 5), rows=5, run_id=name)[-1]["series_ids"][name]
        assert mine != theirs == series_id_for(TWO, name, {})
        assert read(one, series_keys=[name]).num_rows == 3
        assert read(two, series_keys=[name]).num_rows == 5
        assert [series["series_id"] for series in series_named(two, name)] == [theirs]
        assert act(two, "status")["tenant_id"] == TWO
        value_id = read(one, series_ids=[mine], columns=["value_id"]).column(0)[0].as_py()
        fix = {"valid_time": "2025-01-01T00:00:00Z", "value": 9.0}
        for body in (
            {"updates": [{**fix, "series_id": mine}]},
            {"updates": [{"value_id": value_id, "value": 9.0}]},
            {"updates": [{**fix, "series_id": mine, "run_id": name, "tenant_id": TWO}]},
        ):
            with fails("not_found"):
                act(two, "update_values", body)
        with fails("not_found"):
            read(two, series_ids=[mine])
        with fails("not_found"):
            act(two, "update_series", {"series_id": mine, "description": "theirs"})


def test_another_tenant_s_id_is_forbidden_before_anything_is_looked_up(closed: Closed) -> None:
    with closed.call(closed.user("ann@forbidden.example")) as client:
        for series_id in ("no such series", series_id_for(ONE, "nothing", {})):
            fix = {"series_id": series_id, "valid_time": "2025-01-01T00:00:00Z", "run_id": "none", "value": 1.0}
            with fails("forbidden", "updates.1.tenant_id", TWO):
                act(client, "update_values", {"updates": [fix, {**fix, "tenant_id": TWO}]})
            with fails("not_found"):
                act(client, "update_values", {"updates": [{**fix, "tenant_id": ONE}]})


def test_what_is_written_carries_the_e_mail_of_the_key_whatever_it_says(closed: Closed, name: str) -> None:
    with closed.call(closed.user("ann@written.example")) as ann, closed.call(closed.user("bob@written.example")) as bob:
        receipt = send(ann, rows_of(name), rows=3, run_id=name)[-1]
        fix = {"series_id": receipt["series_ids"][name], "valid_time": "2025-01-01T00:00:00Z", "value": 9.0}
        act(bob, "update_values", {"updates": [{**fix, "changed_by": "ann@written.example"}]})
        act(ann, "withdraw_run", {"run_id": name, "changed_by": "bob@written.example"})
        rows = read(bob, series_keys=[name], view="overlapping", all_versions=True, ordered=True)
        assert rows.column("changed_by").to_pylist() == [
            "ann@written.example",
            "bob@written.example",
            "ann@written.example",
            *["ann@written.example"] * 4,
        ]
        assert act(bob, "get_run", {"run_id": name})["created_by"] == "ann@written.example"


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "timedb.audit"]


def test_every_run_of_a_stream_has_a_line_in_the_audit_log(
    closed: Closed, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "timedb.audit")
    with closed.call(closed.user("ann@lines.example")) as client:
        stream = Stream(client, rows_of(name).schema)
        stream.run(0, rows_of(name), f"{name}-0")
        stream.run(1, rows_of(name), f"{name}-1", rows=4)
        stream.end()
    eventually(lambda: len(audit_lines(caplog)) == 3)
    lines = sorted(audit_lines(caplog), key=lambda line: str(line.get("run_id", "")))
    assert {(line["principal"], line["method"]) for line in lines} == {("ann@lines.example", "do_exchange/append")}
    assert [(line.get("run_id"), line["code"], line.get("rows")) for line in lines[1:]] == [
        (f"{name}-0", "ok", 3),
        (f"{name}-1", "incomplete_upload", None),
    ]
    assert lines[0]["runs"] == 1


def test_every_write_has_a_line_in_the_audit_log(closed: Closed, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "timedb.audit")
    key = closed.user("ann@audit.example", scopes=["read", "write"])
    with closed.call(key, ("x-request-id", "audit-1")) as client:
        series_id = act(client, "create_series", {"name": name})["series_id"]
        send(client, rows_of(name), rows=3, run_id=name)
        fix = {"series_id": series_id, "valid_time": "2025-01-01T00:00:00Z", "value": 9.0}
        act(client, "update_values", {"updates": [fix], "update_id": "u-1"})
        act(client, "withdraw_run", {"run_id": name})
        act(client, "restore_run", {"run_id": name})
        with fails("conflict"):
            send(client, rows_of(name, 4), rows=4, run_id=name)
        with fails("incomplete_upload"):
            send(client, rows_of(name), rows=4, run_id="broken")
        with fails("forbidden"):
            act(client, "apply_retention", {"rules": [{"labels": {}, "drop_after_days": 1}], "dry_run": False})
        read(client)
        act(client, "list_series")
    with closed.call("nobody's") as client, fails("unauthenticated"):
        send(client, rows_of(name), rows=3)
    lines = audit_lines(caplog)
    for line in lines:
        assert (line.pop("principal"), line.pop("tenant_id")) == ("ann@audit.example", ONE)
        assert line.pop("request_id") == "audit-1"
        assert line.pop("peer").startswith("ipv4:127.0.0.1:")
        assert line.pop("time").endswith("+00:00")
    assert lines == [
        {"method": "do_action/create_series", "code": "ok", "series_id": series_id, "created": True},
        {"method": "do_put", "code": "ok", "run_id": name, "rows": 3},
        {"method": "do_action/update_values", "code": "ok", "update_id": "u-1", "rows": 1},
        {"method": "do_action/withdraw_run", "code": "ok", "run_id": name, "rows": 3},
        {"method": "do_action/restore_run", "code": "ok", "run_id": name, "rows": 3},
        {"method": "do_put", "code": "conflict", "run_id": name},
        {"method": "do_put", "code": "incomplete_upload", "run_id": "broken"},
        {"method": "do_action/apply_retention", "code": "forbidden"},
    ]


def test_while_the_lake_is_open_the_audit_log_knows_no_names(
    client: flight.FlightClient, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "timedb.audit")
    send(client, rows_of(name), rows=3, run_id=name)
    (line,) = audit_lines(caplog)
    assert (line["principal"], line["tenant_id"], line["run_id"], line["rows"]) == (None, OPEN_TENANT_ID, name, 3)


def test_no_key_is_ever_told(closed: Closed, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = closed.user("ann@secret.example")
    old = closed.user("bob@secret.example")
    closed.lake.users.set_active(UserAddress(email="bob@secret.example"), False)
    heard = []
    for sent, headers in [(key, []), (old, []), (None, [("authorization", f"Bearer {old}")]), (key + "?", [])]:
        with closed.call(sent, *headers) as client:
            calls = (
                lambda client=client: send(client, rows_of(name), rows=3),
                lambda client=client: read(client, series_keys=["none"]),
                lambda client=client: act(client, "get_run", {"run_id": "none"}),
                lambda client=client: act(client, "compact"),
                lambda client=client: client.get_schema(read_command(columns=["none"])),
            )
            heard += [outcome(call) for call in calls]
    assert {code for code, _ in heard} == {"ok", "unauthenticated", "not_found", "forbidden", "invalid_request"}
    credentials = Credentials({"x-api-key": [key], "authorization": [f"Bearer {key}"]})
    assert credentials.key() == key
    told = [
        caplog.text,
        *(str(vars(record)) for record in caplog.records),
        *(detail for _, detail in heard),
        repr(credentials),
        repr(vars(CallContext("do_get", "id", "peer", credentials))),
        repr(closed.lake.users.list_users(include_inactive=True)),
    ]
    files = [path for path in closed.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for secret in (key, old):
        assert not [text for text in told if secret[4:] in text]
        assert not [path for path in files if secret[4:].encode() in bytes_of(path)]


def bytes_of(path: Path) -> bytes:
    """What is in a file; upkeep may have taken it away meanwhile."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
