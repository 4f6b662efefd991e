"""A key that is limited to some labels: other series of its tenant do not exist for it, whatever it asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql.dbapi import connect
from pyarrow import flight

from tests.flight_server.appends import Stream, code_of
from tests.flight_server.callers import calling, exchange, outcome
from tests.flight_server.flights import (
    act,
    command,
    fails,
    hours,
    read,
    read_command,
    read_ticket,
    rows_of,
    send,
    series_named,
)
from timedb.contract.errors import Forbidden
from timedb.contract.identity import RevisionKey, series_id_for
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ApplyRetention, parse_object
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.rpc.actions import ACTIONS
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

TENANT = "11111111-1111-1111-1111-111111111111"
NORTH, SOUTH = {"region": "north"}, {"region": "south"}
NO_SUCH_ID = "99999999-9999-9999-9999-999999999999"


def series_id(name: str, labels: dict[str, str] | None = None) -> str:
    return series_id_for(TENANT, name, labels or {})


def labelled(name: str, labels: dict[str, str] | None, count: int = 3) -> pa.Table:
    """Hourly rows of a labelled series."""
    texts = pa.array([None if labels is None else json.dumps(labels)] * count, pa.string())
    return rows_of(name, count, labels=texts)


@dataclass(frozen=True)
class Divided:
    """A tenant with series of two regions and of none, a client that sees all and one that sees the north."""

    lake: Lake
    service: FlightService
    everything: flight.FlightClient
    north: flight.FlightClient

    def user(self, email: str, **fields: Any) -> str:
        """Make a user of the tenant; its key."""
        new = parse_object(NewUser, {"email": email, "tenant_id": TENANT, **fields})
        key: str = self.lake.create_user(new)["api_key"]
        return key


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Divided]:
    uri = str(tmp_path_factory.mktemp("divided") / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=5.0)
    lake = Lake.open(uri, settings)
    keys = [
        lake.create_user(parse_object(NewUser, {"email": email, "tenant_id": TENANT, "labels": labels}))["api_key"]
        for email, labels in (("all@example.com", {}), ("north@example.com", NORTH))
    ]
    service = start_flight_server(lake, settings)
    with calling(service.url, keys[0]) as everything, calling(service.url, keys[1]) as north:
        for name, labels in (("wind", NORTH), ("wind", SOUTH), ("wind", None), ("sun", SOUTH), ("rain", NORTH)):
            body = {"name": name, "unit": "MW", "labels": labels or {}}
            act(everything, "create_series", body)
        mixed = pa.concat_tables([labelled("wind", NORTH), labelled("wind", SOUTH, 5), labelled("sun", SOUTH, 7)])
        send(everything, mixed, rows=15, run_id="mixed")
        send(everything, labelled("wind", SOUTH, 4), rows=4, run_id="southern")
        yield Divided(lake, service, everything, north)
    service.stop()
    lake.close()


def test_it_lists_and_reads_its_own_series_alone(divided: Divided) -> None:
    north = divided.north
    listed = act(north, "list_series")["series"]
    assert [(series["name"], series["labels"]) for series in listed] == [("rain", NORTH), ("wind", NORTH)]
    assert act(north, "list_series", {"labels": SOUTH})["series"] == []
    assert act(north, "list_series", {"series_ids": [series_id("sun", SOUTH)]})["series"] == []
    assert act(north, "series_labels") == {"labels": {"region": ["north"]}}
    commands = [json.loads(info.descriptor.command)["series_ids"] for info in north.list_flights()]
    assert sorted(commands) == sorted([[series_id("rain", NORTH)], [series_id("wind", NORTH)]])
    own = [series_id("wind", NORTH)]
    for view in ("flat", "overlapping", "latest", "changes"):
        for fields in (
            {},
            {"labels": {"region": "north"}},
            {"limit": 100},
            {"ordered": True, "order_by": "valid_time"},
        ):
            found = read(north, view=view, columns=["series_id", "series_key"], **fields)
            assert set(found.column("series_id").to_pylist()) == set(own), (view, fields)
    assert read(north).num_rows == 3
    assert read(north, view="overlapping", all_versions=True).num_rows == 3
    assert read(north, labels={"region": None}).num_rows == read(north, labels={}).num_rows == 0
    assert read(divided.everything).num_rows == 15


def test_it_looks_up_its_own_series_alone(divided: Divided) -> None:
    asked = {"series_key": ["wind"] * 5, "valid_time": hours(5)}
    assert exchange(divided.north, asked).column("found").to_pylist() == [True] * 3 + [False] * 2
    assert exchange(divided.everything, asked).column("found").to_pylist() == [False] * 5, "the unlabelled one"


def test_the_plan_of_a_read_tells_nothing_of_the_rest(divided: Divided) -> None:
    info = divided.north.get_flight_info(read_command())
    assert (len(info.endpoints), info.total_records, info.total_bytes) == (1, -1, -1)
    assert "bucket" not in json.loads(info.endpoints[0].ticket.ticket)
    assert divided.north.do_get(info.endpoints[0].ticket).read_all().num_rows == 3
    # A ticket of somebody else's plan is no key.
    for endpoint in divided.everything.get_flight_info(read_command()).endpoints:
        found = divided.north.do_get(endpoint.ticket).read_all()
        assert set(found.column("series_id").to_pylist()) <= {series_id("wind", NORTH)}
    sun = {"series_ids": [series_id("sun", SOUTH)]}
    (endpoint,) = divided.everything.get_flight_info(read_command(**sun)).endpoints
    with fails("not_found"):
        divided.north.do_get(endpoint.ticket).read_all()


def value_id_of(divided: Divided, wanted: str) -> str:
    found = read(divided.everything, series_ids=[wanted], columns=["value_id"]).column(0)
    text: str = found[0].as_py()
    return text


HOUR = "2025-01-01T00:00:00Z"


def hidden_and_missing(divided: Divided) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Calls about what the key may not see, each beside the same call about what is not there at all."""
    north, hidden = divided.north, series_id("sun", SOUTH)
    value_id = value_id_of(divided, hidden)
    no_such_value = replace(RevisionKey.from_value_id(value_id), series_id=NO_SUCH_ID).to_value_id()
    ours = series_id("wind", NORTH)

    def update(**fields: Any) -> Callable[[], Any]:
        return lambda: act(north, "update_values", {"updates": [{"value": 1.0, **fields}]})

    def pair(make: Callable[[str], Callable[[], Any]], one: str, other: str) -> tuple[Any, Any]:
        return make(one), make(other)

    def upload(**columns: Any) -> Callable[[], Any]:
        table = pa.table({"valid_time": hours(1), "value": [1.0], **{name: [text] for name, text in columns.items()}})
        return lambda: send(north, table, rows=1, create_series=False)

    return {
        "read by id": pair(lambda one: lambda: read(north, series_ids=[one]), hidden, NO_SUCH_ID),
        "read by name": pair(lambda one: lambda: read(north, series_keys=[one]), "sun", "moon"),
        "read by name and labels": pair(
            lambda one: lambda: read(north, series_keys=[one], labels=SOUTH), "wind", "moon"
        ),
        "schema": pair(lambda one: lambda: north.get_schema(read_command(series_ids=[one])), hidden, NO_SUCH_ID),
        "plan": pair(lambda one: lambda: north.get_flight_info(read_command(series_ids=[one])), hidden, NO_SUCH_ID),
        "accuracy": pair(
            lambda one: (
                lambda: north.do_get(
                    flight.Ticket(command("accuracy", {"series_keys": ["wind"], "actual_id": one, "horizon": "1h"}))
                ).read_all()
            ),
            hidden,
            NO_SUCH_ID,
        ),
        "lookup by id": pair(
            lambda one: lambda: exchange(north, {"series_id": [one], "valid_time": hours(1)}), hidden, NO_SUCH_ID
        ),
        "lookup by name": pair(
            lambda one: lambda: exchange(north, {"series_key": [one], "valid_time": hours(1)}), "sun", "moon"
        ),
        "update_series": pair(
            lambda one: lambda: act(north, "update_series", {"series_id": one, "retired": True}), hidden, NO_SUCH_ID
        ),
        "correct by id": pair(lambda one: update(series_id=one, valid_time=HOUR), hidden, NO_SUCH_ID),
        "correct by id and run": pair(
            lambda one: update(series_id=one, valid_time=HOUR, run_id="mixed"), hidden, NO_SUCH_ID
        ),
        "correct in a run": pair(
            lambda one: update(series_id=ours, valid_time=HOUR, run_id=one), "southern", "unknown"
        ),
        "get_run": pair(lambda one: lambda: act(north, "get_run", {"run_id": one}), "southern", "unknown"),
        "withdraw_run": pair(lambda one: lambda: act(north, "withdraw_run", {"run_id": one}), "southern", "unknown"),
        "restore_run": pair(lambda one: lambda: act(north, "restore_run", {"run_id": one}), "southern", "unknown"),
        "restore a series": pair(
            lambda one: lambda: act(north, "restore_run", {"run_id": "mixed", "series_ids": [one]}), hidden, NO_SUCH_ID
        ),
        "withdraw a series": pair(
            lambda one: lambda: act(north, "withdraw_run", {"run_id": "mixed", "series_ids": [one]}), hidden, NO_SUCH_ID
        ),
        "correct by value_id": pair(lambda one: update(value_id=one), value_id, no_such_value),
        "upload by id": pair(lambda one: upload(series_id=one), hidden, NO_SUCH_ID),
        "upload by name": pair(lambda one: upload(series_key=one), "sun", "moon"),
        "upload by name and labels": pair(lambda one: upload(series_key=one, labels=json.dumps(SOUTH)), "sun", "moon"),
    }


def test_what_it_may_not_see_is_as_if_it_were_not_there(divided: Divided) -> None:
    before = divided.lake.tenant(TENANT).values.snapshot().version
    for what, (about_hidden, about_missing) in hidden_and_missing(divided).items():
        answers = [outcome(about_hidden), outcome(about_missing)]
        assert {code for code, _ in answers} == {"not_found"}, (what, answers)
        texts = [detail for _, detail in answers]
        for told in (series_id("sun", SOUTH), NO_SUCH_ID, "southern", "unknown", "sun", "moon", "wind"):
            texts = [text.replace(f"'{told}'", "X").replace(told, "X") for text in texts]
        assert texts[0] == texts[1], what
    assert divided.lake.tenant(TENANT).values.snapshot().version == before


def test_a_bare_name_means_the_one_that_it_sees(divided: Divided) -> None:
    assert read(divided.north, series_keys=["wind"]).num_rows == 3
    assert read(divided.everything, series_keys=["wind"]).num_rows == 0, "the unlabelled one"
    receipt = send(divided.north, rows_of("rain", 2), rows=2, run_id="bare")[-1]
    assert receipt["series_ids"] == {"rain": series_id("rain", NORTH)}
    assert act(divided.north, "withdraw_run", {"run_id": "bare"}) == {"withdrawn": 2}


def test_it_makes_series_that_fit_and_no_others(divided: Divided, name: str) -> None:
    north = divided.north
    fitting = {**NORTH, "kind": "new"}
    assert act(north, "create_series", {"name": name, "labels": fitting})["created"] is True
    send(north, labelled(f"{name}-auto", fitting), rows=3)
    assert [series["labels"] for series in series_named(north, f"{name}-auto")] == [fitting]
    for labels in (None, {}, SOUTH, {"kind": "new"}, {"region": "North"}):
        for known in (name, "sun"):  # whether there is such a series makes no difference
            with fails("forbidden", "limited to series of", "north", known):
                act(north, "create_series", {"name": known, "labels": labels or {}})
            with fails("forbidden", "limited to series of", "north", known):
                send(north, labelled(f"{known}-unseen" if known == name else known, labels), rows=3)
    assert series_named(divided.everything, f"{name}-unseen") == []
    mixed = pa.concat_tables([labelled("wind", NORTH), labelled(f"{name}-unseen", SOUTH)])
    with fails("forbidden"):
        send(north, mixed, rows=6, run_id=f"{name}-mixed")
    with fails("not_found"):
        act(divided.everything, "get_run", {"run_id": f"{name}-mixed"})


def test_each_run_that_it_appends_is_held_to_its_labels(divided: Divided, name: str) -> None:
    stream = Stream(divided.north, labelled(name, NORTH).schema)
    for seq, labels in enumerate((NORTH, SOUTH, None, NORTH)):
        stream.run(seq, labelled(f"{name}-{seq}", labels), f"{name}-{seq}")
    assert [code_of(answer) for answer in stream.end().values()] == ["ok", "forbidden", "forbidden", "ok"]
    assert [bool(series_named(divided.everything, f"{name}-{seq}")) for seq in range(4)] == [True, False, False, True]


def test_it_corrects_and_withdraws_its_rows_of_runs_of_others(divided: Divided, name: str) -> None:
    both = pa.concat_tables([labelled("wind", NORTH), labelled("sun", SOUTH)])
    send(divided.everything, both, rows=6, run_id=name)
    ours = series_id("wind", NORTH)
    fix = {"series_id": ours, "valid_time": HOUR, "run_id": name, "value": 9.0}
    body = {"updates": [fix], "update_id": f"{name}-north"}
    (updated,) = act(divided.north, "update_values", body)["updated"]
    assert updated["series_id"] == ours
    assert act(divided.north, "withdraw_run", {"run_id": name, "reason": "north only"}) == {"withdrawn": 3}
    assert act(divided.north, "withdraw_run", {"run_id": name}) == {"withdrawn": 0}
    left = read(divided.everything, view="overlapping", columns=["series_id", "run_id"])
    rows = [row for row in left.to_pylist() if row["run_id"] == name]
    assert {row["series_id"] for row in rows} == {series_id("sun", SOUTH)}
    assert len(rows) == 3


def test_withdrawals_are_told_and_undone_by_what_it_sees(divided: Divided, name: str) -> None:
    both = pa.concat_tables([labelled("wind", NORTH), labelled("sun", SOUTH)])
    send(divided.everything, both, rows=6, run_id=name)
    act(divided.everything, "withdraw_run", {"run_id": name, "reason": "all of it"})
    assert act(divided.north, "restore_run", {"run_id": name}) == {"restored": 3, "left_retracted": 0}
    run = act(divided.everything, "get_run", {"run_id": name})
    assert (run["withdrawn"], run["withdrawn_rows"]) == (None, 3)
    assert act(divided.everything, "restore_run", {"run_id": name}) == {"restored": 3, "left_retracted": 0}
    send(divided.north, labelled("wind", NORTH), rows=3, run_id=f"{name}-own")
    fix = {"series_id": series_id("sun", SOUTH), "valid_time": HOUR, "run_id": f"{name}-own", "value": 9.0}
    act(divided.everything, "update_values", {"updates": [fix]})
    act(divided.north, "withdraw_run", {"run_id": f"{name}-own"})
    assert act(divided.north, "get_run", {"run_id": f"{name}-own"})["withdrawn"] is not None, "of the rows it sees"
    assert act(divided.everything, "get_run", {"run_id": f"{name}-own"})["withdrawn"] is None
    *_, again = send(divided.north, labelled("wind", NORTH), rows=3, run_id=f"{name}-own")
    assert again["withdrawn"]["changed_by"] == "north@example.com"
    act(divided.everything, "withdraw_run", {"run_id": f"{name}-own"})
    act(divided.everything, "withdraw_run", {"run_id": name})


def test_the_answer_of_somebody_else_s_corrections_is_not_told(divided: Divided, name: str) -> None:
    body = {
        "updates": [{"series_id": series_id("sun", SOUTH), "valid_time": HOUR, "value": 1.5}],
        "update_id": name,
    }
    assert len(act(divided.everything, "update_values", body)["updated"]) == 1
    assert len(act(divided.everything, "update_values", body)["updated"]) == 1
    with fails("not_found"):
        act(divided.north, "update_values", body)


def test_of_the_runs_it_sees_its_own(divided: Divided, name: str) -> None:
    send(divided.north, labelled("wind", NORTH), rows=3, run_id=name)
    runs = act(divided.north, "list_runs")["runs"]
    assert name in {run["run_id"] for run in runs}
    assert {run["created_by"] for run in runs} == {"north@example.com"}
    assert act(divided.north, "get_run", {"run_id": name})["rows"] == 3
    assert {"mixed", "southern", name} <= {run["run_id"] for run in act(divided.everything, "list_runs")["runs"]}
    act(divided.north, "withdraw_run", {"run_id": name})


def test_a_retry_of_a_run_answers_and_one_with_other_content_is_a_conflict(divided: Divided, name: str) -> None:
    first = send(divided.north, labelled("wind", NORTH), rows=3, run_id=name)
    assert send(divided.north, labelled("wind", NORTH), rows=3, run_id=name) == first
    with fails("conflict"):
        send(divided.north, labelled("wind", NORTH, 2), rows=2, run_id=name)
    act(divided.north, "withdraw_run", {"run_id": name})


def test_what_is_about_all_series_is_refused(divided: Divided) -> None:
    whole = [name for name, action in ACTIONS.items() if action.access is None or not action.access.limited]
    assert {"status", "metrics", "compact", "maintain", "apply_retention"} <= set(whole)
    for name in whole:
        assert outcome(partial(act, divided.north, name))[0] == "forbidden", name


def test_storage_refuses_it_too(divided: Divided) -> None:
    tenant = divided.lake.tenant(TENANT).limited_to(NORTH, "north@example.com")
    retention = parse_object(ApplyRetention, {"rules": [{"labels": {}, "drop_after_days": 1}], "dry_run": True})
    for act_on_all in (
        tenant.status,
        tenant.compact,
        tenant.maintain,
        lambda: tenant.apply_retention(retention.rules, dry_run=True),
    ):
        with pytest.raises(Forbidden):
            act_on_all()


def test_a_limit_may_be_any_of_several_values(divided: Divided) -> None:
    key = divided.user("either@example.com", labels={"region": ["south", "west"]}, scopes=["read"])
    with calling(divided.service.url, key) as client:
        assert act(client, "series_labels") == {"labels": {"region": ["south"]}}
        assert {series["name"] for series in act(client, "list_series")["series"]} == {"sun", "wind"}
        assert outcome(lambda: client.do_get(read_ticket(series_keys=["rain"])).read_all())[0] == "not_found"
        with fails("forbidden", "'write'"):
            send(client, labelled("sun", SOUTH), rows=3)


def test_series_that_come_later_are_seen_at_once(divided: Divided, name: str) -> None:
    assert series_named(divided.north, name) == []
    act(divided.everything, "create_series", {"name": name, "labels": {**NORTH, "a": "b"}})
    act(divided.everything, "create_series", {"name": name, "labels": SOUTH})
    assert [series["labels"] for series in series_named(divided.north, name)] == [{"a": "b", **NORTH}]


def test_sql_sees_no_more(divided: Divided) -> None:
    key = divided.user("sql@example.com", labels=NORTH)
    options = {"adbc.flight.sql.rpc.call_header.x-api-key": key}
    own = {series["series_id"] for series in act(divided.north, "list_series")["series"]}
    with connect(divided.service.url, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        for table in ("series", "flat", "overlapping", '"values"'):
            cursor.execute(f"SELECT DISTINCT series_id FROM {table}")
            found = {row[0] for row in cursor.fetchall()}
            assert series_id("wind", NORTH) in found <= own, table
        cursor.execute("SELECT count(*) FROM runs")
        assert cursor.fetchall() == [(0,)], "none is of this key"
