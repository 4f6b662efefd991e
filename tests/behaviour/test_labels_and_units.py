"""Labels and units that go in by one door come out the same by every door; and so do answers of lookups."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

import timedb as td
from tests.behaviour.doors import json_number
from tests.behaviour.histories import utc
from tests.behaviour.pairs import (
    Doors,
    Item,
    arrow_bytes,
    arrow_table,
    bits,
    csv_text,
    in_by_file,
    json_rows,
    ndjson_rows,
    parquet_bytes,
    posted,
    rows_of,
    sent_by_flight,
)
from tests.flight_server import sql_client
from timedb.contract.wire import ReadTicket

if TYPE_CHECKING:
    pass

Labels = dict[str, str]
NOON = utc("2025-01-01 12:00")
LABELS: list[Labels] = [
    {},
    {"site": "north"},
    {"site": "north", "kind": "-"},
    {"site": "nörd, ⚡日本", 'q"uote': "it's = 1"},
    {"null": "null", "a b": "x/y?z&%20#"},
    {"{}": "[]", "back\\slash": "=1+1"},
]
KEYS = sorted({key for labels in LABELS for key in labels})


# Labels in. The value of a row is the place of its labels.


def rows_with_labels(name: str) -> pa.Table:
    texts = [json.dumps(labels) if labels else None for labels in LABELS]
    items = [Item(name, NOON, float(place)) for place in range(len(LABELS))]
    return arrow_table(items).append_column("labels", pa.array(texts, pa.string())).drop_columns(["tags"])


def csv_with_labels(name: str) -> bytes:
    return bytes(pl.DataFrame(rows_with_labels(name)).write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ").encode())


def fill(doors: Doors, ids: list[str]) -> None:
    """Values of series that are there, by their ids."""
    rows = [
        {"series_id": one, "valid_time": "2025-01-01T12:00:00Z", "value": float(place)} for place, one in enumerate(ids)
    ]
    posted(doors, "application/x-ndjson", "".join(json.dumps(row) + "\n" for row in rows).encode())


def posted_series(doors: Doors, path: str, body: dict[str, Any]) -> Any:
    answer = doors.http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


def made_by_rest(doors: Doors, name: str) -> None:
    made = [posted_series(doors, "/series", {"name": name, "labels": labels}) for labels in LABELS]
    fill(doors, [one["series_id"] for one in made])


def made_many_by_rest(doors: Doors, name: str) -> None:
    series = [{"name": name, "labels": labels} for labels in LABELS]
    fill(doors, [one["series_id"] for one in posted_series(doors, "/series/many", {"series": series})["series"]])


def uploaded_with_options(doors: Doors, name: str) -> None:
    columns = {f"column {place}": [labels.get(key) for labels in LABELS] for place, key in enumerate(KEYS)}
    times = {"valid_time": ["2025-01-01T12:00Z"] * len(LABELS), "value": list(range(len(LABELS)))}
    path = doors.folder / "options.csv"
    pl.DataFrame(times | columns).write_csv(path)
    options = [each for place, key in enumerate(KEYS) for each in ("--label", f"{key}=column {place}")]
    doors.cli("upload", str(path), "--series", name, *options)


LABELS_IN: dict[str, Callable[[Doors, str], None]] = {
    "flight": lambda doors, name: sent_by_flight(doors, rows_with_labels(name)),
    "client": lambda doors, name: receipt_of(doors.client.upload(pl.DataFrame(rows_with_labels(name)))),
    "client, made one by one": lambda doors, name: fill(
        doors, [doors.client.create_series(name, labels=labels) for labels in LABELS]
    ),
    "client, made at once": lambda doors, name: fill(
        doors, doors.client.create_many_series([{"name": name, "labels": labels} for labels in LABELS])
    ),
    "rest, made one by one": made_by_rest,
    "rest, made at once": made_many_by_rest,
    "rest csv": lambda doors, name: posted(doors, "text/csv", csv_with_labels(name)),
    "rest parquet": lambda doors, name: posted(
        doors, "application/vnd.apache.parquet", parquet_bytes(rows_with_labels(name))
    ),
    "rest arrow": lambda doors, name: posted(
        doors, "application/vnd.apache.arrow.stream", arrow_bytes(rows_with_labels(name))
    ),
    "cli csv": lambda doors, name: in_by_file(doors, "csv", csv_with_labels(name)),
    "cli arrow": lambda doors, name: in_by_file(doors, "arrow", arrow_bytes(rows_with_labels(name))),
    "cli options": uploaded_with_options,
}


def receipt_of(receipt: td.Receipt) -> None:
    """The receipt has the labels, too."""
    assert [one["labels"] for one in sorted(receipt.series, key=lambda one: LABELS.index(one["labels"]))] == LABELS


# Labels out: pairs of labels and the value of their row.

Found = list[tuple[Labels, float]]


def exactly(labels: Labels) -> dict[str, str | None]:
    """The criteria that only these labels meet."""
    return {key: labels.get(key) for key in KEYS} if labels else {}


def by_list(doors: Doors, listed: list[dict[str, Any]]) -> Found:
    values = doors.client.read(series_ids=[one["series_id"] for one in listed])
    by_id = dict(values.select("series_id", "value").iter_rows())
    return [(one["labels"], by_id[one["series_id"]]) for one in listed]


def by_sql(doors: Doors, name: str) -> Found:
    query = "SELECT labels, value FROM flat JOIN series USING (series_id) WHERE name = ?"
    with sql_client.connected(doors.flight_url) as connection:
        rows = sql_client.ask(connection, query, [name]).to_pylist()
    return [(json.loads(row["labels"]), row["value"]) for row in rows]


def by_export(doors: Doors, name: str, form: str) -> Found:
    path = doors.folder / f"labelled.{form}"
    doors.cli("export", str(path), "--yes", *[x for one in ids_of(doors, name) for x in ("--series-id", one)])
    rows = ndjson_rows(path.read_bytes()) if form == "ndjson" else pl.read_csv(path).to_dicts()
    return [(json.loads(row["labels"] or "{}"), row["value"]) for row in rows]


def ids_of(doors: Doors, name: str) -> list[str]:
    return [one["series_id"] for one in doors.client.list_series(name=name)]


def by_lookup(doors: Doors, name: str) -> Found:
    asked = pl.DataFrame(rows_with_labels(name)).select("series_key", "labels", "valid_time")
    found = doors.client.lookup(asked)
    return [(json.loads(row["labels"] or "{}"), row["value"]) for row in found.to_dicts()]


def by_rest_criteria(doors: Doors, name: str) -> Found:
    found: Found = []
    for labels in LABELS:
        parameters = {"name": name, "labels": json.dumps(exactly(labels))}
        found += [(labels, row["value"]) for row in doors.http.get("/values", params=parameters).json()["data"]]
    return found


LABELS_OUT: dict[str, Callable[[Doors, str], Found]] = {
    "client list": lambda doors, name: by_list(doors, doors.client.list_series(name=name)),
    "rest list": lambda doors, name: by_list(doors, doors.http.get("/series", params={"name": name}).json()["series"]),
    "cli list": lambda doors, name: by_list(doors, json.loads(doors.cli("series", "--name", name, "--json"))),
    "sql": by_sql,
    "export csv": lambda doors, name: by_export(doors, name, "csv"),
    "export ndjson": lambda doors, name: by_export(doors, name, "ndjson"),
    "lookup": by_lookup,
    "client criteria": lambda doors, name: [
        (labels, value)
        for labels in LABELS
        for value in doors.client.read(series_keys=name, labels=exactly(labels))["value"]
    ],
    "rest criteria": by_rest_criteria,
    "scan criteria": lambda doors, name: [
        (labels, value)
        for labels in LABELS
        for value in td.scan_lake(doors.lake, series_keys=name, labels=exactly(labels)).collect()["value"]
    ],
}


@pytest.fixture(scope="module")
def labelled(doors: Doors) -> str:
    """One name; each way in writes the same rows of the same series, with which it has to find what is there."""
    for send in LABELS_IN.values():
        send(doors, "labelled everywhere")
    return "labelled everywhere"


@pytest.mark.parametrize("way", LABELS_IN)
def test_labels_are_those_that_went_in(doors: Doors, way: str) -> None:
    name = f"labelled by {way}"
    LABELS_IN[way](doors, name)
    assert sorted(by_sql(doors, name), key=lambda one: one[1]) == list(zip(LABELS, range(len(LABELS)), strict=True))


@pytest.mark.parametrize("out", LABELS_OUT)
def test_all_doors_mean_the_same_series_by_the_same_labels(doors: Doors, labelled: str, out: str) -> None:
    assert len(ids_of(doors, labelled)) == len(LABELS), "each way found the series of the one before"
    found = sorted(LABELS_OUT[out](doors, labelled), key=lambda one: one[1])
    once = found[:: len(LABELS_IN)] if out.startswith("export") else found
    assert once == list(zip(LABELS, range(len(LABELS)), strict=True))
    values = {key: sorted({labels[key] for labels in LABELS if key in labels}) for key in KEYS}
    assert doors.client.series_labels(labelled) == values
    assert doors.http.get("/series/labels", params={"name": labelled}).json()["labels"] == values


# Units: kW go into series of MW, and °C into series of K.

VALUES: list[float | None] = [1234.5, -0.5, 0.0, -0.0, None, math.nan, math.inf, -math.inf, 1e300]
STORED = [None if value is None else value / 1000 for value in VALUES]


def unit_items(name: str) -> list[Item]:
    return [Item(name, NOON + place * 1_000_000, value) for place, value in enumerate(VALUES)]


def in_frame_with_a_unit(doors: Doors, name: str) -> None:
    doors.client.upload(arrow_table(unit_items(name)), unit="kW")


def in_json_with_a_unit(doors: Doors, name: str) -> None:
    body = {"run_start_time": "2025-01-01", "unit": "kW", "value_rows": json_rows(unit_items(name))}
    posted(doors, "application/json", json.dumps(body).encode())


def in_csv_with_a_unit(doors: Doors, name: str) -> None:
    answer = doors.http.post(
        "/upload", params={"unit": "kW"}, content=csv_text(unit_items(name)), headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 200, answer.text


def in_file_with_a_unit(doors: Doors, name: str) -> None:
    path = doors.folder / "unit.csv"
    path.write_bytes(csv_text(unit_items(name)))
    doors.cli("upload", str(path), "--unit", "kW")


UNITS_IN: dict[str, Callable[[Doors, str], None]] = {
    "flight": lambda doors, name: sent_by_flight(doors, arrow_table(unit_items(name)), unit="kW"),
    "client": in_frame_with_a_unit,
    "rest json": in_json_with_a_unit,
    "rest csv": in_csv_with_a_unit,
    "cli": in_file_with_a_unit,
}


def from_flight(doors: Doors, name: str, unit: str | None) -> list[Any]:
    with flight.FlightClient(doors.flight_url) as client:
        ticket = ReadTicket(series_keys=[name], unit=unit, ordered=True).to_bytes()
        return [row["value"] for row in rows_of(client.do_get(flight.Ticket(ticket)).read_all())]


def from_rest(doors: Doors, name: str, unit: str | None) -> list[Any]:
    asked = {"name": name, "non_finite": "text", **({} if unit is None else {"unit": unit})}
    return [row["value"] for row in doors.http.get("/values", params=asked).json()["data"]]


def from_cli(doors: Doors, name: str, unit: str | None) -> list[Any]:
    options = [] if unit is None else ["--unit", unit]
    return [row["value"] for row in json.loads(doors.cli("read", "--series", name, "--json", *options))]


UNITS_OUT = {"flight": from_flight, "rest": from_rest, "cli": from_cli}


@pytest.mark.parametrize("way", UNITS_IN)
def test_units_are_converted_alike(doors: Doors, way: str) -> None:
    name = f"unit by {way}"
    doors.client.create_series(name, unit="MW")
    UNITS_IN[way](doors, name)
    for out, read in UNITS_OUT.items():
        if out == "cli" and way != "flight":
            continue  # a process each; what it reads is what Flight gives
        assert [bits(value) for value in read(doors, name, None)] == [bits(value) for value in STORED], out
        assert [bits(value) for value in read(doors, name, "kW")] == [bits(value) for value in VALUES], out
    (listed,) = doors.http.get("/series", params={"name": name}).json()["series"]
    assert listed["unit"] == "MW"


@pytest.mark.parametrize("way", UNITS_IN)
def test_an_upload_makes_series_of_its_unit_at_every_door(doors: Doors, way: str) -> None:
    name = f"new unit by {way}"
    UNITS_IN[way](doors, name)
    assert [one["unit"] for one in doors.client.list_series(name=name)] == ["kW"]
    assert [json_number(value) for value in from_flight(doors, name, None)] == [json_number(one) for one in VALUES]
    with pytest.raises(td.InvalidRequest, match="units of different kinds"):
        doors.client.read(series_keys=name, unit="EUR")
