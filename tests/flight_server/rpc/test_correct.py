"""``do_put`` of ``correct``: corrections as a table, as plain ``pyarrow.flight`` sees them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import START, TIMESTAMP, act, command, fails, hours, read, rows_of, send
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.storage import Lake

KNOWN = "2025-01-01T00:00:00+00:00"
LATER = "2025-01-01T06:00:00+00:00"


def correct(client: flight.FlightClient, table: pa.Table, **fields: Any) -> dict[str, Any]:
    """Send a table of corrections, confirmed unless ``rows`` says otherwise; the receipt."""
    fields = {"rows": table.num_rows, **fields}
    descriptor = flight.FlightDescriptor.for_command(command("correct", fields))
    writer, reader = client.do_put(descriptor, table.schema)
    writer.write_table(table)
    writer.done_writing()
    found = []
    while (message := reader.read()) is not None:
        found.append(json.loads(message.to_pybytes()))
    writer.close()
    (receipt,) = found
    return dict(receipt)


def corrections(name: str, count: int = 3, **columns: Any) -> pa.Table:
    """So many hours of a series, and what becomes of them."""
    return pa.table({"series_key": [name] * count, "valid_time": hours(count), **columns})


def stored(client: flight.FlightClient, name: str, *columns: str) -> list[dict[str, Any]]:
    """The flat rows of a series in order."""
    wanted = list(columns) or ["value"]
    rows: list[dict[str, Any]] = read(client, series_keys=[name], columns=wanted, ordered=True).to_pylist()
    return rows


@pytest.fixture
def series(client: flight.FlightClient, name: str) -> str:
    """Three hours by two runs, ``<name>-a`` and, known later, ``<name>-b``."""
    send(client, rows_of(name), rows=3, run_id=f"{name}-a", known_time=KNOWN)
    send(client, rows_of(name, value=pa.array([10.0, 11.0, 12.0])), rows=3, run_id=f"{name}-b", known_time=LATER)
    return name


def test_what_a_column_says_is_set_and_what_is_not_there_stays(client: flight.FlightClient, series: str) -> None:
    receipt = correct(client, corrections(series, value=[20.0, 11.0, None], tags=[["b", "A"], None, None]))
    assert (receipt["rows"], receipt["updated"], receipt["created"], receipt["skipped_no_ops"]) == (3, 2, 0, 1)
    assert [row["value"] for row in stored(client, series)] == [20.0, 11.0, None]
    correct(client, corrections(series, annotation=pa.array(["seen", " ", None]).dictionary_encode()))
    rows = stored(client, series, "value", "annotation", "tags")
    assert [row["value"] for row in rows] == [20.0, 11.0, None]
    assert [row["annotation"] for row in rows] == ["seen", None, None]
    assert [row["tags"] for row in rows] == [["a", "b"], None, None]
    correct(client, corrections(series, annotation=pa.nulls(3)))  # null clears
    assert {row["annotation"] for row in stored(client, series, "annotation")} == {None}


def test_a_row_is_named_by_its_run_or_is_the_winner(client: flight.FlightClient, series: str) -> None:
    runs = pa.array([f"{series}-a", None, f"{series}-b"])
    receipt = correct(client, corrections(series, run_id=runs, value=[1.5, 2.5, 3.5]))
    assert receipt["updated"] == 3
    rows = read(client, series_keys=[series], view="overlapping", columns=["run_id", "valid_time", "value"])
    found = {(row["run_id"][-1], (row["valid_time"] - START).seconds // 3600): row["value"] for row in rows.to_pylist()}
    assert found == {("a", 0): 1.5, ("b", 0): 10.0, ("a", 1): 1.0, ("b", 1): 2.5, ("a", 2): 2.0, ("b", 2): 3.5}


def test_value_ids_name_rows(client: flight.FlightClient, series: str) -> None:
    ids = read(client, series_keys=[series], columns=["value_id"], ordered=True)
    receipt = correct(client, ids.append_column("retracted", pa.array([True, False, True])))
    assert (receipt["updated"], receipt["skipped_no_ops"]) == (2, 1)
    assert [row["value"] for row in stored(client, series)] == [0.0, 11.0, 2.0]


def test_it_is_one_commit_and_a_retry_answers_as_the_first_time(
    client: flight.FlightClient, lake: Lake, series: str
) -> None:
    before = lake.tenant(OPEN_TENANT_ID).values.snapshot().version
    table = corrections(series, value=[7.0, 8.0, 9.0])
    receipt = correct(client, table, update_id=series)
    assert receipt["table_version"] > before
    correct(client, corrections(series, value=[0.0, 0.0, 0.0]))
    assert correct(client, table, update_id=series) == receipt
    assert [row["value"] for row in stored(client, series)] == [0.0, 0.0, 0.0]
    for other in (corrections(series, value=[7.0, 8.0, 9.5]), corrections(series, annotation=pa.nulls(3)), table[:2]):
        with fails("conflict", series):
            correct(client, other, update_id=series)


def test_a_record_stays_small(client: flight.FlightClient, lake: Lake, name: str) -> None:
    count = 5000
    send(client, rows_of(name, count), rows=count, run_id=name)
    correct(client, corrections(name, count, value=[1.5] * count), update_id=name)
    record = lake.tenant(OPEN_TENANT_ID).ledger.updates.find(name)
    assert record is not None
    assert record["rows"] == count
    assert len(record["receipt"]) < 300


def test_a_row_that_is_not_there_is_made_where_create_says_so(client: flight.FlightClient, series: str) -> None:
    later = pa.array([START + timedelta(hours=9)], TIMESTAMP)
    new = corrections(series, 1, valid_time=later, run_id=[f"{series}-a"], value=[5.0])
    with fails("not_found", "row 0", "create"):
        correct(client, new)
    receipt = correct(client, new, create=True)
    assert (receipt["updated"], receipt["created"]) == (0, 1)
    assert stored(client, series)[-1]["value"] == 5.0
    with fails("not_found", "row 0"):  # of no run
        correct(client, new.drop(["run_id"]).set_column(1, "valid_time", hours(20)[19:]), create=True)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no change": ({}, "invalid_request", "value: no column"),
    "an unknown column": ({"value": [1.0] * 3, "spam": [1] * 3}, "invalid_request", "spam"),
    "retracted null": ({"retracted": [True, None, True]}, "invalid_request", "retracted: row 1"),
    "retracted of another type": ({"retracted": [1, 0, 1]}, "invalid_request", "retracted"),
    "retracted all null": ({"retracted": pa.nulls(3)}, "invalid_request", "retracted: row 0"),
    "no such run": ({"value": [1.0] * 3, "run_id": [None, "no such run", None]}, "not_found", "run_id: row 1"),
    "an id beside its parts": ({"value": [1.0] * 3, "value_id": ["x"] * 3}, "invalid_request", "value_id"),
    "a run that is no text": ({"value": [1.0] * 3, "run_id": [1, 2, 3]}, "invalid_request", "run_id"),
    "two names": ({"value": [1.0] * 3, "labels": ["{", "{}", "{}"]}, "invalid_request", "labels: row 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    client: flight.FlightClient, series: str, case: str
) -> None:
    columns, code, part = REFUSED[case]
    before = stored(client, series)
    with fails(code, part):
        correct(client, corrections(series, **columns))
    assert stored(client, series) == before


def test_no_series_and_no_value_id(client: flight.FlightClient, series: str) -> None:
    with fails("not_found", "no such series"):
        correct(client, corrections("no such series", value=[1.0] * 3))
    (good,) = stored(client, series, "value_id")[:1]
    with fails("invalid_request", "value_id: row 1"):
        correct(client, pa.table({"value_id": [good["value_id"], "spam"], "value": [1.0] * 2}))


def test_a_table_that_is_not_confirmed_is_incomplete(client: flight.FlightClient, series: str) -> None:
    for rows in (None, 2):
        with fails("incomplete_upload"):
            correct(client, corrections(series, value=[1.0] * 3), rows=rows)
    assert [row["value"] for row in stored(client, series)] == [10.0, 11.0, 12.0]


def test_who_corrected_is_a_column_on_an_open_lake(client: flight.FlightClient, series: str) -> None:
    correct(client, corrections(series, value=[1.0] * 3, changed_by=["ann@example.com", None, "bo@example.com"]))
    rows = stored(client, series, "changed_by")
    assert [row["changed_by"] for row in rows] == ["ann@example.com", None, "bo@example.com"]


def test_an_action_and_a_table_share_their_update_ids(client: flight.FlightClient, series: str) -> None:
    correct(client, corrections(series, value=[1.0] * 3), update_id=f"{series}-shared")
    (row,) = stored(client, series, "value_id")[:1]
    with fails("conflict"):
        act(client, "update_values", {"updates": [{**row, "value": 1.0}], "update_id": f"{series}-shared"})
