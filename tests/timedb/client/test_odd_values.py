"""What JSON cannot say, or says of two series at once, is refused by name at each door, and receipts stay short."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pyarrow as pa
import pytest

from tests.timedb.conftest import T0, frame
from timedb.client import Client, connect
from timedb.contract.errors import Busy, InvalidRequest
from timedb.contract.wire import UploadCommand, parse
from timedb.run.launch import Service


def deep(levels: int) -> str:
    return '{"a":' * levels + "{}" + "}" * levels


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (nested(101), "run_params: is nested more than 100 levels deep"),
        (nested(600), "run_params: is nested too deeply"),
        (nested(30_000), "run_params: is nested too deeply"),
        ({"a": {"\ud800": 1}}, "run_params: '\\ud800' holds half of a character"),
        ({"a": ["\ud800"]}, "run_params: a.0 holds half of a character"),
        ({"a": {1, 2}}, "run_params: a is of type set, which JSON cannot say"),
        ({"a": object()}, "run_params: a is of type object, which JSON cannot say"),
        ({1: 2}, "run_params: 1 is no text"),
    ],
    ids=["101", "600", "30000", "surrogate key", "surrogate", "set", "object", "number as key"],
)
def test_the_client_refuses_parameters_that_json_cannot_say(client: Client, params: Any, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.upload(frame("x", [1.0]), run_params=params)
    assert says in refused.value.detail


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": [1, 1e309]}', "1e309 is too large"),
        (deep(101), "nested more than 100 levels"),
        (deep(600), "nested"),
        (deep(30_000), "nested"),
        ('{"a": "\\ud800"}', "half of"),
        ('{"\\ud800": 1}', "half of"),
    ],
    ids=["1e309", "deep", "deeper", "deepest", "surrogate", "key"],
)
def test_the_doors_refuse_parameters_that_do_not_come_back(service: Service, text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse(UploadCommand, f'{{"op": "upload", "run_params": {text}}}'.encode(), what="command", max_bytes=1 << 20)
    with httpx.Client(base_url=service.rest_url) as rest:
        body = f'{{"run_start_time": "2025-01-01", "value_rows": [], "run_params": {text}}}'
        answers = [rest.post("/runs", content=body, headers={"Content-Type": "application/json"})]
        if len(text) < 10_000:  # longer ones are no address
            rows, csv = "series_key,valid_time,value\nx,2025-01-01,1\n", {"Content-Type": "text/csv"}
            answers.append(rest.post("/runs", params={"run_params": text}, content=rows, headers=csv))
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
        assert says in answer.json()["detail"]


def test_parameters_may_hold_times_and_a_hundred_levels(client: Client, name: str) -> None:
    receipt = client.upload(frame(name, [1.0]), run_params={"a": nested(98), "at": datetime(2025, 1, 1, tzinfo=UTC)})
    assert client.get_run(receipt.run_id)["run_params"] == {"a": nested(98), "at": "2025-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ('{"a": "\\ud800"}', "half of"),
        ('{"\\ud800": "a"}', "half of"),
        ('{"": "a"}', "at least 1 character"),
        ('{"a\\u0000": "a"}', "printable"),
        (json.dumps({"a": "x" * 256}), "at most 255"),
        ('{"a": 1}', "valid string"),
        ("[" * 30_000, "nested"),
    ],
    ids=["surrogate", "surrogate key", "empty key", "control key", "long", "number", "deep"],
)
def test_labels_in_a_column_are_those_that_create_series_takes(
    client: Client, name: str, labels: str, says: str
) -> None:
    table = pa.table({"series_key": [name], "labels": [labels], "valid_time": [T0], "value": [1.0]})
    with pytest.raises(InvalidRequest) as refused:
        client.upload(table)
    assert refused.value.detail.startswith("labels: row 0: ")
    assert says in refused.value.detail
    assert client.list_series(name=name) == []


def test_half_a_character_chooses_no_series(client: Client, service: Service) -> None:
    for call in (client.list_series, client.read):
        with pytest.raises(InvalidRequest, match=r"labels: .* half of a character"):
            call(labels={"\ud800": "x"})
    answer = httpx.get(f"{service.rest_url}/series", params={"labels": '{"\\ud800": "x"}'})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


def test_an_id_and_a_name_that_contradict_each_other_are_refused(client: Client, service: Service, name: str) -> None:
    mine, other = (client.create_series(f"{name}-{each}") for each in "ab")
    rows = {"valid_time": [T0, T0], "value": [1.0, 2.0]}
    both = pa.table({"series_id": [mine, mine], "series_key": [f"{name}-a", f"{name}-b"], **rows})
    for send in (client.upload, lambda table: client.lookup(table.drop_columns("value"))):
        with pytest.raises(InvalidRequest) as refused:
            send(both)
        assert refused.value.detail.startswith(f"series_key: row 1 says '{name}-b', but its series_id '{mine}' ")
        assert f"'{name}-a'" in refused.value.detail
    labelled = pa.table({"series_id": [mine], "series_key": [f"{name}-a"], "labels": ['{"x": "y"}']})
    with pytest.raises(InvalidRequest, match=r'labels \{"x":"y"\}'):
        client.upload(labelled.append_column("valid_time", [[T0]]).append_column("value", [[1.0]]))
    row = {"value_key": f"{name}-a", "series_id": other, "valid_time": "2025-01-01", "value": 1}
    answer = httpx.post(f"{service.rest_url}/runs", json={"run_start_time": "2025-01-01", "value_rows": [row]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"value_rows.0.value_key: says '{name}-a', but its series_id '{other}' ")

    agreeing = both.set_column(1, "series_key", [[f"{name}-a", None]]).set_column(
        2, "valid_time", [[T0, T0.replace(hour=1)]]
    )
    assert client.upload(agreeing).series_ids == {f"{name}-a": mine}


def test_a_receipt_of_many_series_is_shown_short_and_holds_all(client: Client, name: str) -> None:
    names = [f"{name}-{number}" for number in range(500)]
    receipt = client.upload(pa.table({"series_key": names, "valid_time": [T0] * 500, "value": [1.0] * 500}))
    assert (len(receipt.series_ids), len(receipt.series)) == (500, 500)
    assert len(repr(receipt)) < 1500
    assert "… 500 in all}" in repr(receipt)
    assert f"run_id={receipt.run_id!r}" in repr(receipt)
    one = client.upload(frame(name, [1.0]))
    assert f"series_ids={one.series_ids!r}, series={one.series!r}" in repr(one)


def test_a_path_is_no_data_and_a_gateway_no_flight_server(client: Client, service: Service) -> None:
    with pytest.raises(InvalidRequest, match=r"data: str is neither .*; client.upload_file reads files"):
        client.upload("forecast.csv")
    with connect(service.rest_url.replace("http", "grpc")) as astray, pytest.raises(Busy, match="a REST gateway may"):
        astray.status()
