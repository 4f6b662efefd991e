"""Series and runs over REST: create, upload, list, edit, withdraw."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.rest_gateway.calls import START, assert_error, hours, read, upload
from timedb.rest_gateway.ask.rows import rows_to_table

RECEIPT = {"run_id", "message", "series_ids"}


def listed(rest: httpx.Client, name: str) -> dict[str, Any]:
    """The one series of that name, as /list_timeseries has it."""
    (series,) = rest.get("/list_timeseries", params={"name": name}).json().values()
    found: dict[str, Any] = series
    return found


def test_an_upload_answers_with_exactly_three_fields(rest: httpx.Client, name: str) -> None:
    answer = upload(rest, hours(name, [1.0]))
    assert set(answer) == RECEIPT
    assert answer["message"] == "Run created successfully"
    assert UUID(answer["run_id"]).version == 4
    assert list(answer["series_ids"]) == [name]


def test_upload_and_runs_are_the_same_call(rest: httpx.Client, name: str) -> None:
    body = {"run_start_time": START, "known_time": START, "run_id": name, "value_rows": hours(name, [1.0])}
    answers = [rest.post(path, json=body).json() for path in ("/runs", "/upload")]
    assert answers[0] == answers[1]
    assert read(rest, name)["count"] == 1


def test_a_value_key_that_does_not_exist_becomes_a_series(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0]), series_descriptions={name: "made on the way"})
    assert listed(rest, name) == {
        "series_key": name,
        "description": "made on the way",
        "unit": "dimensionless",
        "labels": {},
    }
    created = rest.post("/series", json={"name": name, "unit": "MW", "description": "said on purpose"}).json()
    assert created["message"] == "Series already exists"
    assert listed(rest, name) == {"series_key": name, "description": "said on purpose", "unit": "MW", "labels": {}}


def test_an_upload_keeps_the_unit_and_description_of_a_series(rest: httpx.Client, name: str) -> None:
    created = rest.post("/series", json={"name": name, "unit": "MW", "description": "mine"}).json()
    run = upload(rest, hours(name, [1.0]), series_descriptions={name: "another"})
    assert run["series_ids"] == {name: created["series_id"]}
    assert listed(rest, name) == {"series_key": name, "description": "mine", "unit": "MW", "labels": {}}
    assert read(rest, name)["data"][0]["series_unit"] == "MW"


def test_all_fields_of_a_row_and_of_a_run(rest: httpx.Client, name: str) -> None:
    row = {
        "valid_time": "2025-01-01T00:00:00+02:00",
        "valid_time_end": "2025-01-01 01:00",
        "known_time": "2024-12-31T12:00:00.123456",
        "value_key": name,
        "series_id": None,
        "value": 7,
        "annotation": "a\n\"b\" 'c'",
        "tags": ["Two", "one "],
    }
    upload(
        rest,
        [row],
        run_id=name,
        workflow_id="by-hand",
        run_start_time="2025-01-01T00:00:00",
        run_finish_time="2025-01-01T00:05:00",
        known_time="2025-01-01T00:00:00",
        run_params={"big": 2**70, "nested": {"x": [None, True, 1.5]}},
    )
    (found,) = read(rest, name, all_versions=True, intervals=True)["data"]
    assert found["valid_time"] == "2024-12-31T22:00:00.000000+00:00"
    assert found["valid_time_end"] == "2025-01-01T01:00:00.000000+00:00"
    assert found["known_time"] == "2024-12-31T12:00:00.123456+00:00"
    assert (found["value"], found["annotation"], found["tags"]) == (7.0, "a\n\"b\" 'c'", ["one", "two"])
    run = rest.get(f"/runs/{name}").json()
    assert run["workflow_id"] == "by-hand"
    assert run["run_params"] == {"big": 2**70, "nested": {"x": [None, True, 1.5]}}
    assert run["run_start_time"] == "2025-01-01T00:00:00.000000+00:00"
    assert run["run_finish_time"] == "2025-01-01T00:05:00.000000+00:00"
    assert run["known_time"] == "2025-01-01T00:00:00.000000+00:00"
    assert run["rows"] == 1


def test_ids_and_keys_may_be_mixed_where_they_agree(rest: httpx.Client, name: str) -> None:
    first, second = (rest.post("/series", json={"name": f"{name}-{index}"}).json()["series_id"] for index in range(2))
    upload(
        rest,
        [
            {"valid_time": START, "series_id": first, "value": 1.0},
            {"valid_time": START, "value_key": f"{name}-1", "value": 2.0},
            {"valid_time": "2025-01-02", "value_key": f"{name}-1", "series_id": second, "value": 3.0},
        ],
    )
    found = rest.get("/values", params={"series_id": [first, second]}).json()["data"]
    assert {(row["series_id"], row["value"]) for row in found} == {(first, 1.0), (second, 2.0), (second, 3.0)}
    row = {"valid_time": START, "value_key": f"{name}-1", "series_id": first, "value": 4.0}
    body = {"run_start_time": START, "value_rows": [row]}
    assert_error(rest.post("/runs", json=body), 422, "invalid_request", f"'{name}-1'", f"'{name}-0'")


def test_a_run_of_no_rows_is_a_run(rest: httpx.Client, name: str) -> None:
    assert upload(rest, [], run_id=name) == {"run_id": name, "message": "Run created successfully", "series_ids": {}}
    assert rest.get(f"/runs/{name}").json()["rows"] == 0


def test_a_run_is_written_once(rest: httpx.Client, name: str) -> None:
    rows = hours(name, [1.0, 2.0])
    first = upload(rest, rows, run_id=name, known_time=START)
    assert upload(rest, rows[::-1], run_id=name, known_time=START) == first, "a retry, in any order"
    assert read(rest, name, mode="overlapping")["count"] == 2
    body = {"run_start_time": START, "known_time": START, "run_id": name, "value_rows": hours(name, [1.0, 2.5])}
    assert_error(rest.post("/runs", json=body), 409, "conflict", name)
    assert read(rest, name, mode="overlapping")["count"] == 2


def test_the_same_point_twice_in_a_run_is_an_error(rest: httpx.Client, name: str) -> None:
    body = {"run_start_time": START, "value_rows": hours(name, [1.0]) * 2}
    assert_error(rest.post("/runs", json=body), 422, "invalid_request", "2025-01-01T00:00:00")
    assert rest.get("/values", params={"name": name}).status_code == 404, "nothing was written"


def test_runs_are_listed_newest_first(rest: httpx.Client, name: str) -> None:
    for day in (1, 2, 3):
        start = f"2025-01-0{day}T00:00:00Z"
        upload(rest, hours(name, [1.0]), run_id=f"{name}/{day}", workflow_id=name, run_start_time=start)
    runs = rest.get("/runs", params={"workflow_id": name}).json()
    assert [run["run_id"] for run in runs["runs"]] == [f"{name}/{day}" for day in (3, 2, 1)]
    window = {"workflow_id": name, "start": "2025-01-02", "end": "2025-01-03"}
    assert [run["run_id"] for run in rest.get("/runs", params=window).json()["runs"]] == [f"{name}/2"]
    assert len(rest.get("/runs", params={"workflow_id": name, "limit": 2}).json()["runs"]) == 2
    assert rest.get(f"/runs/{name}/3").json() == runs["runs"][0], "a run_id may hold a slash"


def test_a_withdrawn_run_no_longer_counts_but_is_still_there(rest: httpx.Client, name: str) -> None:
    upload(rest, hours(name, [1.0, 2.0]), known_time="2025-01-01")
    upload(rest, hours(name, [10.0, 20.0]), run_id=f"{name}/bad", known_time="2025-01-02")
    answer = rest.post(f"/runs/{name}/bad/withdraw", json={"reason": "wrong input", "changed_by": "me"})
    assert answer.json() == {"withdrawn": 2}
    assert [row["value"] for row in read(rest, name)["data"]] == [1.0, 2.0]
    audit = read(rest, name, mode="overlapping", all_versions=True)["data"]
    gone = [row for row in audit if row["retracted"]]
    assert {(row["annotation"], row["changed_by"], row["run_id"]) for row in gone} == {
        ("wrong input", "me", f"{name}/bad")
    }
    assert rest.post(f"/runs/{name}/bad/withdraw").json() == {"withdrawn": 0}, "no body is needed"
    run = rest.get(f"/runs/{name}/bad").json()
    assert (run["withdrawn"]["reason"], run["withdrawn"]["changed_by"]) == ("wrong input", "me")
    assert run in rest.get("/runs").json()["runs"]
    again = upload(rest, hours(name, [10.0, 20.0]), run_id=f"{name}/bad", known_time="2025-01-02")
    assert again["withdrawn"] == run["withdrawn"]
    assert again["withdrawn_rows"] == 2
    assert "is withdrawn since" in again["message"]
    assert f"until it is restored (POST /runs/{again['run_id']}/restore)" in again["message"]
    assert rest.post(f"/runs/{name}/bad/restore").json() == {"restored": 2, "left_retracted": 0}
    assert [row["value"] for row in read(rest, name)["data"]] == [10.0, 20.0]
    assert rest.get(f"/runs/{name}/bad").json()["withdrawn"] is None


def test_a_run_can_be_withdrawn_for_some_series(rest: httpx.Client, name: str) -> None:
    run = upload(rest, hours(f"{name}-a", [1.0]) + hours(f"{name}-b", [2.0]))
    body = {"series_ids": [run["series_ids"][f"{name}-a"]]}
    assert rest.post(f"/runs/{run['run_id']}/withdraw", json=body).json() == {"withdrawn": 1}
    assert read(rest, f"{name}-a")["count"] == 0
    assert read(rest, f"{name}-b")["count"] == 1


def test_a_series_is_described_and_retired(rest: httpx.Client, name: str) -> None:
    series_id = rest.post("/series", json={"name": name, "unit": "MW", "description": "old"}).json()["series_id"]
    changed = rest.patch(f"/series/{series_id}", json={"description": "new"}).json()
    expected = {
        "series_id": series_id,
        "name": name,
        "labels": {},
        "unit": "MW",
        "description": "new",
        "retired": False,
    }
    assert changed == expected
    assert rest.patch(f"/series/{series_id}", json={}).json() == changed, "what is left out stays"
    assert rest.patch(f"/series/{series_id}", json={"description": None}).json()["description"] is None
    assert rest.patch(f"/series/{series_id}", json={"retired": True}).json()["retired"] is True
    assert rest.get("/list_timeseries", params={"name": name}).json() == {}
    assert rest.patch(f"/series/{series_id}", json={"retired": False}).json()["retired"] is False
    assert listed(rest, name)["unit"] == "MW"


def test_series_are_listed_by_name_and_labels(rest: httpx.Client, name: str) -> None:
    for site in ("north", "south"):
        rest.post("/series", json={"name": name, "labels": {"site": site}}).raise_for_status()
    rest.post("/series", json={"name": name}).raise_for_status()
    by_label = {"name": name, "labels": json.dumps({"site": "north"})}
    assert [each["labels"] for each in rest.get("/list_timeseries", params=by_label).json().values()] == [
        {"site": "north"}
    ]
    unlabelled = {"name": name, "labels": '{"site": null}'}
    assert [each["labels"] for each in rest.get("/list_timeseries", params=unlabelled).json().values()] == [{}]
    assert rest.get("/series/labels", params={"name": name}).json() == {"labels": {"site": ["north", "south"]}}


@pytest.mark.parametrize("unit", [None, "MW"])
def test_creating_a_series_again_without_a_unit_is_no_conflict(rest: httpx.Client, name: str, unit: str | None) -> None:
    first = rest.post("/series", json={"name": name, **({"unit": unit} if unit else {})}).json()
    again = rest.post("/series", json={"name": name}).json()
    assert again == {"series_id": first["series_id"], "message": "Series already exists"}
    assert listed(rest, name)["unit"] == unit or "dimensionless"


def test_no_rows_make_a_table_that_can_be_sent() -> None:
    assert rows_to_table([]).column_names == ["valid_time", "value", "series_key"]


def test_many_series_in_one_call_and_page_by_page(rest: httpx.Client, name: str) -> None:
    items = [{"name": f"{name}-{number:02d}", "unit": "MW", "labels": {"n": str(number)}} for number in range(12)]
    made = rest.post("/series/many", json={"series": items}).json()["series"]
    assert [one["created"] for one in made] == [True] * 12
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"search": name, "limit": 5}
    while True:
        page = rest.get("/series", params=query).json()
        found += page["series"]
        if page["next_cursor"] is None:
            break
        query["after"] = page["next_cursor"]
    assert [one["series_id"] for one in found] == [one["series_id"] for one in made]
    assert [one["name"] for one in found] == [one["name"] for one in items]
    assert list(rest.get("/list_timeseries", params={"search": name}).json()) == [one["series_id"] for one in found]
    refused = rest.post("/series/many", json={"series": [{"name": f"{name}-new"}, items[0] | {"unit": "kW"}]})
    assert_error(refused, 409, "conflict")
    assert rest.get("/series", params={"name": f"{name}-new"}).json() == {"series": [], "next_cursor": None}
    assert_error(rest.get("/series", params={"after": "x"}), 422, "invalid_request")
