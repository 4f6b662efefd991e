"""Corrections: which row they mean, what they change, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.oracle import float_bits
from tests.storage.correcting import EAST, OTHER_TENANT, SOUTH, T1, T2, flat, update, versions, withdraw
from tests.storage.inspection import left_behind
from tests.storage.lakes import (
    Sent,
    Stored,
    hour,
    read,
    read_table,
    some_rows,
    unstamped,
    upload,
)
from timedb.contract.errors import Forbidden, InvalidRequest, NotFound, TimeDBError
from timedb.contract.identity import OPEN_TENANT_ID, RevisionKey
from timedb.contract.times import from_micros
from timedb.storage import Tenant


def test_addressed_by_run(two_runs: Tenant) -> None:
    answer = update(two_runs, {"run_id": "old", "series_id": SOUTH, "valid_time": T1, "value": 7.0})
    (item,) = answer["updated"]
    assert item == {
        "value_id": RevisionKey(SOUTH, T1, None, from_micros(hour(0)), "old").to_value_id(),
        "run_id": "old",
        "tenant_id": OPEN_TENANT_ID,
        "valid_time": "2025-01-01T01:00:00.000000+00:00",
        "series_id": SOUTH,
    }
    assert answer["skipped_no_ops"] == []
    first, second = versions(two_runs, "old")
    assert second == first._replace(change_time=second.change_time, value=float_bits(7.0))
    assert flat(two_runs)["south", 1] == 11.0, "the newer run still wins"


def test_addressed_by_nothing_but_the_point_means_the_winner(two_runs: Tenant) -> None:
    update(two_runs, {"series_id": SOUTH, "valid_time": T1, "value": 7.0})
    assert [row.value for row in versions(two_runs, "new")] == [float_bits(11.0), float_bits(7.0)]
    assert flat(two_runs)["south", 1] == 7.0
    withdraw(two_runs, "new")
    update(two_runs, {"series_id": SOUTH, "valid_time": T1, "value": 8.0})
    assert [row.value for row in versions(two_runs, "old")] == [float_bits(1.0), float_bits(8.0)]


def test_addressed_by_point_and_known_time(two_runs: Tenant) -> None:
    update(two_runs, {"series_id": SOUTH, "valid_time": T1, "known_time": from_micros(hour(0)), "value": 7.0})
    assert len(versions(two_runs, "old")) == 2


def test_addressed_by_value_id(two_runs: Tenant) -> None:
    table = read_table(two_runs, view="overlapping", columns=["value_id", "run_id", "value"])
    for row in table.to_pylist():
        answer = update(two_runs, {"value_id": row["value_id"], "value": row["value"] + 100})
        assert answer["updated"][0]["value_id"] == row["value_id"]
    after = read_table(two_runs, view="overlapping", columns=["value_id", "run_id", "value"]).to_pylist()
    assert sorted((row["value_id"], row["value"]) for row in after) == sorted(
        (row["value_id"], row["value"] + 100) for row in table.to_pylist()
    )


def test_an_interval_is_another_row(two_runs: Tenant) -> None:
    update(two_runs, {"series_id": SOUTH, "valid_time": T1, "valid_time_end": T2, "value": 7.0})
    chain = versions(two_runs, "interval")
    assert [row.value for row in chain] == [float_bits(50.0), float_bits(7.0)]
    assert flat(two_runs)["south", 2] == 12.0
    address = {"run_id": "interval", "series_id": SOUTH, "valid_time": T1, "valid_time_end": T2}
    with pytest.raises(NotFound, match=r"^updates.0: run 'interval' has no such row"):
        update(two_runs, {**address, "known_time": T1, "value": 1.0})


def test_several_rows_of_a_run_need_a_known_time(tenant: Tenant) -> None:
    rows = [Sent("south", hour(1), None, hour(known), float(known)) for known in (3, 4)]
    upload(tenant, rows, "run")
    with pytest.raises(InvalidRequest, match=r"^updates.0.known_time: 2 rows fit; .*T03:00.*T04:00"):
        update(tenant, {"run_id": "run", "series_id": SOUTH, "valid_time": T1, "value": 7.0})
    known = from_micros(hour(3))
    update(tenant, {"run_id": "run", "series_id": SOUTH, "valid_time": T1, "known_time": known, "value": 7.0})
    assert unstamped(versions(tenant, "run")[2:]) == unstamped(
        [versions(tenant, "run")[0]._replace(known_time=hour(3), value=float_bits(7.0))]
    )


def test_a_row_that_the_run_did_not_have(two_runs: Tenant) -> None:
    address = {"run_id": "old", "series_id": SOUTH, "valid_time": from_micros(hour(9))}
    with pytest.raises(InvalidRequest, match=r"^updates.0.value: is missing"):
        update(two_runs, {**address, "annotation": "x"})
    update(two_runs, {**address, "value": 9.0, "annotation": "x", "changed_by": "me"})
    (row,) = versions(two_runs, "old", 9)
    assert row == Stored(
        "south", hour(9), None, hour(0), row.change_time, "old", float_bits(9.0), "x", None, "me", False
    )
    assert flat(two_runs)["south", 9] == 9.0
    end = from_micros(hour(9))
    with pytest.raises(InvalidRequest, match=r"^updates.0.valid_time_end: .* is not after valid_time"):
        update(two_runs, {**address, "valid_time_end": end, "value": 1.0})


# What it changes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"value": 5.0}, {"value": float_bits(5.0)}),
        ({"value": None}, {"value": None}),
        ({"value": float("nan")}, {"value": float_bits(float("nan"))}),
        ({"annotation": "other"}, {"annotation": "other"}),
        ({"annotation": None}, {"annotation": None}),
        ({"annotation": "  "}, {"annotation": None}),
        ({"tags": [" B", "b", "A "]}, {"tags": ("a", "b")}),
        ({"tags": []}, {"tags": None}),
        ({"tags": None}, {"tags": None}),
        ({"retracted": True}, {"retracted": True}),
        ({"value": 5.0, "annotation": None}, {"value": float_bits(5.0), "annotation": None}),
    ],
    ids=repr,
)
def test_fields_are_left_cleared_or_set(two_runs: Tenant, change: dict[str, Any], expected: dict[str, Any]) -> None:
    update(two_runs, {"run_id": "new", "series_id": SOUTH, "valid_time": T1, **change})
    first, second = versions(two_runs, "new")
    assert second == first._replace(change_time=second.change_time, **expected)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 11.0},
        {"annotation": "noted"},
        {"tags": ["T ", "t"]},
        {"retracted": False},
        {"retracted": None},
        {"value": 11.0, "annotation": "noted", "tags": ["t"], "changed_by": "somebody else"},
    ],
    ids=repr,
)
def test_a_correction_that_changes_nothing(two_runs: Tenant, change: dict[str, Any]) -> None:
    before = read(two_runs)
    answer = update(two_runs, {"run_id": "new", "series_id": SOUTH, "valid_time": T1, **change})
    assert answer["updated"] == []
    assert len(answer["skipped_no_ops"]) == 1
    assert read(two_runs) == before


@pytest.mark.parametrize("value", [None, float("nan")], ids=repr)
def test_null_is_null_and_nan_is_nan(tenant: Tenant, value: float | None) -> None:
    upload(tenant, [Sent("south", hour(1), None, None, value)], "run")
    assert update(tenant, {"series_id": SOUTH, "valid_time": T1, "value": value})["updated"] == []
    other = float("nan") if value is None else None
    assert len(update(tenant, {"series_id": SOUTH, "valid_time": T1, "value": other})["updated"]) == 1


def test_the_last_of_two_items_for_one_row_wins(two_runs: Tenant) -> None:
    address = {"run_id": "new", "series_id": SOUTH, "valid_time": T1}
    value_id = RevisionKey(SOUTH, T1, None, from_micros(hour(10)), "new").to_value_id()
    answer = update(two_runs, {**address, "value": 1.0, "annotation": "first"}, {"value_id": value_id, "value": 2.0})
    assert len(answer["updated"]) == 1
    (_, last) = versions(two_runs, "new")
    assert (last.value, last.annotation) == (float_bits(2.0), "noted")


def test_a_batch_is_all_or_nothing(two_runs: Tenant, lake_dir: Path) -> None:
    before = read(two_runs)
    good = {"run_id": "new", "series_id": SOUTH, "valid_time": T1, "value": 1.0}
    with pytest.raises(NotFound, match=r"^updates.1"):
        update(two_runs, good, {**good, "run_id": "nobody"})
    assert read(two_runs) == before
    assert left_behind(lake_dir) == []


def test_items_are_stamped_in_their_order(two_runs: Tenant) -> None:
    items: list[dict[str, Any]] = [
        {"run_id": run, "series_id": series, "valid_time": time, "value": 99.0}
        for run in ("new", "old")
        for series in (EAST, SOUTH)
        for time in (T2, T1)
    ]
    newest = max(row.change_time for row in read(two_runs))
    answer = update(two_runs, *items)
    new = sorted((row for row in read(two_runs) if row.change_time > newest), key=lambda row: row.change_time)
    assert len({row.change_time for row in new}) == 8
    names = {SOUTH: "south", EAST: "east"}
    assert [(row.run_id, row.series) for row in new] == [(item["run_id"], names[item["series_id"]]) for item in items]
    assert [item["run_id"] for item in answer["updated"]] == [item["run_id"] for item in items]


def test_who_did_it(two_runs: Tenant) -> None:
    item = {"run_id": "new", "series_id": SOUTH, "valid_time": T1}
    update(two_runs, {**item, "value": 1.0, "changed_by": "claimed"})
    update(two_runs, {**item, "value": 2.0})
    update(two_runs, {**item, "value": 3.0, "changed_by": "claimed"}, changed_by="key@example.org")
    assert [row.changed_by for row in versions(two_runs, "new")] == [None, "claimed", None, "key@example.org"]


def test_no_updates_at_all(two_runs: Tenant) -> None:
    assert update(two_runs) == {"updated": [], "skipped_no_ops": []}
    assert update(two_runs, update_id="empty") == {"updated": [], "skipped_no_ops": []}


# Once


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({}, InvalidRequest, "updates.0: needs series_id .or series_key. and valid_time, or value_id"),
        ({"series_id": SOUTH}, InvalidRequest, "updates.0: needs series_id .or series_key. and valid_time"),
        ({"value_id": "nonsense"}, InvalidRequest, "updates.0.value_id: 'nonsense' is not a value_id"),
        (
            {"value_id": "x", "run_id": "new", "series_id": SOUTH},
            InvalidRequest,
            "updates.0: value_id already says which row; leave out run_id, series_id",
        ),
        ({"series_id": "nobody", "valid_time": T1}, NotFound, "updates.0.series_id: there is no series 'nobody'"),
        (
            {"series_id": SOUTH, "valid_time": T1, "run_id": "nobody"},
            NotFound,
            "updates.0.run_id: there is no run 'nobody'",
        ),
        (
            {"series_id": SOUTH, "valid_time": from_micros(hour(9)), "value": 1.0},
            NotFound,
            "updates.0: there is no value of series",
        ),
        (
            {"value_id": RevisionKey(SOUTH, T1, None, T2, "new").to_value_id(), "value": 1.0},
            NotFound,
            "updates.0.value_id: there is no row",
        ),
        (
            {"value_id": RevisionKey(OTHER_TENANT, T1, None, T2, "new").to_value_id(), "value": 1.0},
            NotFound,
            "updates.0.value_id: there is no series",
        ),
        (
            {"series_id": SOUTH, "valid_time": T1, "tenant_id": OTHER_TENANT, "value": 1.0},
            Forbidden,
            f"updates.0.tenant_id: '{OTHER_TENANT}' is not the caller's tenant",
        ),
        (
            {"series_id": "nobody", "valid_time": T1, "tenant_id": OTHER_TENANT},
            Forbidden,
            "updates.0.tenant_id",
        ),
        ({"series_id": SOUTH, "valid_time": T1, "value": "1"}, InvalidRequest, "updates.0.value: '1' is not a number"),
        (
            {"series_id": SOUTH, "valid_time": T1, "value": True},
            InvalidRequest,
            "updates.0.value: True is not a number",
        ),
        (
            {"series_id": SOUTH, "valid_time": "yesterday"},
            InvalidRequest,
            "updates.0.valid_time: 'yesterday' is not an",
        ),
        (
            {"series_id": SOUTH, "valid_time": "2025-01-01T00:00:00"},
            InvalidRequest,
            "updates.0.valid_time: .*time zone",
        ),
        ({"series_id": SOUTH, "valid_time": T1, "price": 1.0}, InvalidRequest, "updates.0.price: unknown field"),
        ({"series_id": SOUTH, "valid_time": T1, "tags": "a"}, InvalidRequest, "updates.0.tags: 'a'"),
        ({"series_id": SOUTH, "valid_time": T1, "retracted": "yes"}, InvalidRequest, "updates.0.retracted: 'yes'"),
        (
            {"series_id": SOUTH, "valid_time": T1, "annotation": "x" * 10_001},
            InvalidRequest,
            "updates.0.annotation: 'x+",
        ),
    ],
)
def test_bad_items(two_runs: Tenant, item: dict[str, Any], error: type[TimeDBError], message: str) -> None:
    before = read(two_runs)
    with pytest.raises(error, match=f"^{message}"):
        update(two_runs, item)
    assert read(two_runs) == before


def test_corrections_between_uploads_change_the_winner_of_the_moment(tenant: Tenant) -> None:
    upload(tenant, some_rows(3), "run")
    for number in range(9):
        update(tenant, {"series_id": SOUTH, "valid_time": from_micros(hour(0)), "value": float(number)})
        upload(tenant, some_rows(3, known=number + 1, value=100.0), f"run-{number}")
    for number in range(8):
        assert [row.value for row in versions(tenant, f"run-{number}", 0)] == [
            float_bits(100.0),
            float_bits(number + 1.0),
        ]
