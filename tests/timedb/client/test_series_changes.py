"""A series set right through each door: Flight's client, REST and the command line; and what the audit log keeps."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

import timedb as td
from tests.timedb.cli.test_cli import timedb
from tests.timedb.conftest import frame
from timedb.client import Client
from timedb.contract.wire import UpdateSeries, parse_object
from timedb.flight_server.call.audit import facts_of
from timedb.run.launch import Service


def test_each_door_renames_and_declares(service: Service, client: Client, name: str) -> None:
    series_id = client.create_series(name)
    client.upload(frame(name, [1.0]), run_id=name)
    assert client.update_series(series_id, name=f"{name}-flight")["name"] == f"{name}-flight"
    told = client.update_series(series_id, unit="kW", unit_change="declare", description="power")
    assert (told["unit"], told["description"], told["name"]) == ("kW", "power", f"{name}-flight")
    rest = f"{service.rest_url}/series/{series_id}"
    answer = httpx.patch(rest, json={"name": f"{name}-rest", "unit": "MW", "unit_change": "declare"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["name"], answer.json()["unit"]) == (f"{name}-rest", "MW")
    arguments = ("--name", f"{name}-cli", "--unit", "GW", "--declare", "--description", "", "--json")
    done = timedb("update-series", f"{name}-rest", *arguments, TIMEDB_FLIGHT_URL=service.flight_url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["series_id"], told["name"], told["unit"], told["description"]) == (
        series_id,
        f"{name}-cli",
        "GW",
        None,
    )
    assert client.read(series_keys=[f"{name}-cli"], unit="MW")["value"].to_list() == [1000.0]
    for old in ("", "-flight", "-rest"):
        with pytest.raises(td.NotFound):
            client.read(series_keys=[f"{name}{old}"])


def test_each_door_converts(service: Service, client: Client, name: str) -> None:
    series_id = client.create_series(name, unit="kW")
    client.upload(frame(name, [1500.0, None]), run_id=name)
    told = client.update_series(series_id, unit="MW", unit_change="convert")
    assert (told["unit"], told["name"], told["retired"]) == ("MW", name, False)
    assert client.read(series_keys=[name], ordered=True)["value"].to_list() == [1.5, None]
    answer = httpx.patch(f"{service.rest_url}/series/{series_id}", json={"unit": "W", "unit_change": "convert"})
    assert (answer.status_code, answer.json()["unit"]) == (200, "W"), answer.text
    assert client.read(series_keys=[name], ordered=True)["value"].to_list() == [1.5e6, None]
    arguments = ("update-series", name, "--unit", "GW", "--convert", "--json")
    for _ in range(2):  # again is nothing
        done = timedb(*arguments, TIMEDB_FLIGHT_URL=service.flight_url)
        assert (done.returncode, json.loads(done.stdout)["unit"]) == (0, "GW"), done.stderr
    assert client.read(series_keys=[name], columns=["value", "series_unit"], ordered=True).rows() == [
        (0.0015, "GW"),
        (None, "GW"),
    ]


def test_what_does_not_convert_is_refused_alike_at_each_door(service: Service, client: Client, name: str) -> None:
    series_id = client.create_series(name, unit="MW")
    said = "'MW' and 'EUR/MWh' are units of different kinds"
    with pytest.raises(td.InvalidRequest, match=f"^unit: {said}$"):
        client.update_series(series_id, unit="EUR/MWh", unit_change="convert")
    body = {"unit": "EUR/MWh", "unit_change": "convert"}
    answer = httpx.patch(f"{service.rest_url}/series/{series_id}", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, f"unit: {said}")
    done = timedb("update-series", name, "--unit", "EUR/MWh", "--convert", TIMEDB_FLIGHT_URL=service.flight_url)
    assert (done.returncode, f"--unit: {said}" in done.stderr) == (2, True), done.stderr


def test_a_taken_name_is_the_same_conflict_at_each_door(service: Service, client: Client, name: str) -> None:
    client.create_series(name)
    other = client.create_series(f"{name}-other")
    said = f"name: '{name}' is the name of the series "
    with pytest.raises(td.Conflict, match=said):
        client.update_series(other, name=name)
    answer = httpx.patch(f"{service.rest_url}/series/{other}", json={"name": name})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert answer.json()["detail"].startswith(said)
    done = timedb("update-series", f"{name}-other", "--name", name, TIMEDB_FLIGHT_URL=service.flight_url)
    assert (done.returncode, f"'{name}' is the name of the series " in done.stderr) == (6, True), done.stderr


def test_the_command_line_wants_one_series(service: Service, client: Client, name: str) -> None:
    for site in ("a", "b"):
        client.create_series(name, labels={"site": site})
    address: dict[str, Any] = {"TIMEDB_FLIGHT_URL": service.flight_url}
    done = timedb("update-series", name, "--description", "x", **address)
    assert (done.returncode, "say which with --label KEY=VALUE" in done.stderr) == (2, True)
    done = timedb("update-series", name, "--label", "site=a", "--name", f"{name}-a", "--retire", **address)
    assert done.returncode == 0, done.stderr
    (left,) = [one for one in client.list_series() if one["name"].startswith(name)]
    assert left["labels"] == {"site": "b"}
    assert timedb("update-series", f"{name}-nobody", "--name", "x", **address).returncode == 5
    assert timedb("update-series", name, "--unit", "MW", **address).returncode == 2, "nothing says what it does"


def test_the_audit_log_keeps_what_was_changed() -> None:
    changes = {"series_id": "some-id", "name": "wind", "unit": "MW", "unit_change": "declare"}
    assert facts_of(parse_object(UpdateSeries, changes), {"series_id": "some-id", "retired": False}) == {
        **changes,
        "retired": False,
    }
