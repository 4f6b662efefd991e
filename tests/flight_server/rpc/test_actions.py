"""Every action once, as a plain client calls it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pyarrow import flight

from tests.flight_server.flights import act, fails, read, rows_of, send, series_named
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.flight_server.rpc.actions import ACTIONS, HEALTH

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


def test_list_actions_names_each_with_its_body(client: flight.FlightClient) -> None:
    listed = {action.type: action.description for action in client.list_actions()}
    assert set(listed) == {*ACTIONS, HEALTH}
    assert set(ACTIONS) == {
        "create_many_series",
        "create_series",
        "update_series",
        "list_series",
        "series_labels",
        "update_values",
        "get_run",
        "list_runs",
        "withdraw_run",
        "restore_run",
        "compact",
        "maintain",
        "apply_retention",
        "status",
        "metrics",
    }
    assert all(description.startswith("{") for description in listed.values())


def test_create_list_and_update_a_series(client: flight.FlightClient, name: str) -> None:
    body = {"name": name, "unit": "MW", "description": "ärger \u2028", "labels": {"zone": "SE3"}}
    created = act(client, "create_series", body)
    series_id = series_id_for(OPEN_TENANT_ID, name, {"zone": "SE3"})
    assert created == {"series_id": series_id, "created": True}
    assert act(client, "create_series", body) == {"series_id": series_id, "created": False}
    assert series_named(client, name) == [{"series_id": series_id, **body}]
    assert act(client, "list_series", {"series_ids": [series_id]})["series"] == [{"series_id": series_id, **body}]
    assert "SE3" in act(client, "series_labels", {"name": name})["labels"]["zone"]
    updated = act(client, "update_series", {"series_id": series_id, "description": None})
    assert (updated["description"], updated["retired"], updated["unit"]) == (None, False, "MW")
    assert act(client, "update_series", {"series_id": series_id, "retired": True})["retired"] is True
    assert series_named(client, name) == []
    with fails("conflict"):
        act(client, "create_series", {**body, "unit": "kW"})


def test_correct_and_withdraw(client: flight.FlightClient, name: str) -> None:
    series_id = send(client, rows_of(name), rows=3, run_id=name)[-1]["series_ids"][name]
    fix = {"series_id": series_id, "valid_time": "2025-01-01T00:00:00Z", "value": "NaN", "changed_by": "a@b.c"}
    answer = act(client, "update_values", {"updates": [fix]})
    (updated,) = answer["updated"]
    assert (updated["run_id"], updated["tenant_id"], updated["series_id"]) == (name, OPEN_TENANT_ID, series_id)
    assert TIME.fullmatch(updated["valid_time"])
    assert act(client, "update_values", {"updates": [fix]})["skipped_no_ops"] == [updated]
    who = read(client, series_keys=[name], all_versions=True).column("changed_by").to_pylist()
    assert who.count("a@b.c") == 1
    assert act(client, "withdraw_run", {"run_id": name, "reason": "wrong"}) == {"withdrawn": 3}
    assert read(client, series_keys=[name]).num_rows == 0
    with fails("not_found"):
        act(client, "withdraw_run", {"run_id": f"{name}-other"})
    with fails("forbidden"):
        act(client, "update_values", {"updates": [{**fix, "tenant_id": "00000000-0000-0000-0000-000000000001"}]})


def test_runs(client: flight.FlightClient, name: str) -> None:
    params = {"text": "ü", "nested": {"list": [1, None, 2.5]}}
    run_start = "2025-01-01T00:00:00Z"
    fields: dict[str, Any] = {"run_id": name, "workflow_id": name, "run_start_time": run_start, "run_params": params}
    send(client, rows_of(name), rows=3, **fields)
    run = act(client, "get_run", {"run_id": name})
    assert (run["run_id"], run["workflow_id"], run["rows"], run["run_params"]) == (name, name, 3, params)
    for field in ("run_start_time", "known_time", "change_time"):
        assert TIME.fullmatch(run[field]), field
    assert act(client, "list_runs", {"workflow_id": name}) == {"runs": [run]}
    assert act(client, "list_runs", {"workflow_id": name, "end": "2025-01-01T00:00:00Z"}) == {"runs": []}
    with fails("not_found"):
        act(client, "get_run", {"run_id": f"{name}-other"})


@pytest.mark.parametrize("action", ["status", "compact", "maintain"])
def test_actions_without_a_body(client: flight.FlightClient, action: str) -> None:
    assert act(client, action, {})
    assert act(client, action)
    with fails("invalid_request", "force"):
        act(client, action, {"force": True})


def test_an_unknown_action_says_which_there_are(client: flight.FlightClient) -> None:
    with fails("unimplemented", "'drop_everything'", "list_series", "health"):
        act(client, "drop_everything")
    with fails("unimplemented"):
        act(client, "x" * 100_000)
    with fails("unimplemented"):
        act(client, "")


def test_flights_are_listed_page_by_page(client: flight.FlightClient, name: str) -> None:
    act(client, "create_many_series", {"series": [{"name": f"{name}-{number}"} for number in range(5)]})
    whole = [info.descriptor.command for info in client.list_flights(json.dumps({"search": name}).encode())]
    found, criteria = [], {"search": name, "limit": 2}
    while True:
        page = list(client.list_flights(json.dumps(criteria).encode()))
        found += [info.descriptor.command for info in page]
        if not page[-1].app_metadata:
            break
        criteria["after"] = page[-1].app_metadata.decode()
    assert found == whole
    assert len(whole) == 5
    with fails("invalid_request", "after"):
        list(client.list_flights(b'{"after": "x"}'))
