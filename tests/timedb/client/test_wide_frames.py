"""Frames with a column for each series, labels that are structs or maps, corrections by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight, parquet

from tests.flight_server.flights import fails, send
from tests.timedb.conftest import T0
from timedb.client import Client
from timedb.client.frames import open_data
from timedb.client.wide_frames import Wide
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.run.launch import Service

HOURS = [T0, T0 + timedelta(hours=1)]
WIDE = pl.DataFrame({"valid_time": HOURS, "north": [1, 2], "south": [3.5, None]})
ROWS = [
    {"series_key": "north", "valid_time": T0, "value": 1.0},
    {"series_key": "north", "valid_time": HOURS[1], "value": 2.0},
    {"series_key": "south", "valid_time": T0, "value": 3.5},
    {"series_key": "south", "valid_time": HOURS[1], "value": None},
]
LABELS: list[dict[str, str | None]] = [{"site": "a", "unit": None}, {"site": None, "unit": "7"}]


def sent(data: object, wide: Wide = True) -> list[dict[str, Any]]:
    """What goes over the wire."""
    rows: list[dict[str, Any]] = open_data(data, wide=wide).open().read_all().to_pylist()
    return rows


def by_pandas(index: str | None) -> pd.DataFrame:
    return WIDE.to_pandas().set_index("valid_time").rename_axis(index)


@pytest.mark.parametrize(
    "data",
    [
        WIDE,
        WIDE.to_arrow(),
        WIDE.to_arrow().to_reader(max_chunksize=2),
        WIDE.to_pandas(),
        by_pandas("valid_time"),
        by_pandas(None),
        by_pandas("Zeit"),
    ],
    ids=["polars", "table", "reader", "pandas", "named index", "unnamed index", "index of another name"],
)
def test_a_wide_frame_is_a_row_for_each_value(data: object) -> None:
    assert sent(data) == ROWS


def test_what_else_a_frame_says_of_a_row_holds_for_all_its_series() -> None:
    more = {"labels": pl.Series(LABELS), "known_time": pl.Series([T0, T0]), "quantile": pl.Series([0.1, 0.9])}
    rows = sent(WIDE.with_columns(**more).rename({"north": "value"}), ["value", "south"])
    assert [(row["series_key"], row["labels"], row["quantile"]) for row in rows] == [
        (name, labels, quantile)
        for name in ("value", "south")
        for labels, quantile in (('{"site": "a"}', 0.1), ('{"unit": "7"}', 0.9))
    ]
    assert {row["known_time"] for row in rows} == {T0}


def test_a_large_wide_frame_goes_out_in_few_batches_of_bounded_size() -> None:
    names = [f"s{number}" for number in range(300)]
    table = pl.DataFrame({"valid_time": HOURS * 100, **dict.fromkeys(names, 1.0)}).to_arrow()
    batches = list(open_data(pa.Table.from_batches(table.to_batches(max_chunksize=50)), wide=True).open())
    assert len(batches) == 1
    assert batches[0].num_rows == 300 * 200


@pytest.mark.parametrize(
    ("data", "wide", "says"),
    [
        (WIDE, ["north"], "south: nothing takes the column; name it in wide, too, or drop it"),
        (WIDE, "nort", "wide: there is no column 'nort'; did you mean north?"),
        (WIDE, ["north", "north"], "wide: 'north' comes twice"),
        (WIDE, [1], "wide: 1 is neither True nor the name of a column"),
        (WIDE, ["valid_time"], "wide: valid_time is no series, but says of each row what it always does"),
        (WIDE.drop("north", "south"), True, "wide: no column is left to be a series of 'valid_time'"),
        (WIDE.rename({"valid_time": "time"}), True, "valid_time: the column is missing; rename the one of the times"),
        (WIDE.with_columns(series_key=pl.lit("x")), True, "series_key: under wide the columns name their series"),
        (WIDE.with_columns(remark=pl.lit("x")), True, "remark: text is not a number; cast the column, or drop it"),
        (WIDE.with_columns(on=pl.lit(True)), True, "on: bool is not a number; cast the column, or drop it"),
        (WIDE.with_columns(pl.col("valid_time").dt.replace_time_zone(None)), True, "valid_time: its times have no "),
        (WIDE.with_columns(big=pl.Series([1, 2**63 - 1])), True, "big: row 1: "),
        (by_pandas(None).rename(columns={"north": 1}), True, "data: the name 1 of a column is no text; rename it"),
        (pd.concat({"load": by_pandas(None)}, axis=1), True, "data: its columns have several levels; join them"),
    ],
)
def test_what_cannot_be_sent_names_the_column_and_what_to_do(data: object, wide: Wide, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(data, wide)
    assert refused.value.detail.startswith(says)


def test_a_wide_frame_comes_back_as_it_was_sent(client: Client, name: str) -> None:
    columns = {"north": f"{name} north", "south": f"{name} south"}
    data = WIDE.rename(columns)
    receipt = client.upload(data, wide=True, run_id=name, known_time=T0)
    assert (receipt.rows, sorted(receipt.series_ids)) == (4, sorted(columns.values()))
    assert client.upload(data, wide=list(columns.values()), run_id=name, known_time=T0).series == receipt.series
    back = client.read(series_keys=list(columns.values()), pivot="series_key").drop("valid_time_end", strict=False)
    assert back.to_dicts() == data.cast({columns["north"]: pl.Float64}).to_dicts()
    with client.writer() as writer:
        done = writer.upload(data, wide=True, run_id=f"{name} again", known_time=HOURS[1])
    assert done.result().rows == 4


# Labels


STRUCTS = pa.array(LABELS, pa.struct([("site", pa.string_view()), ("unit", pa.dictionary(pa.int8(), pa.string()))]))
MAPS = pa.array([[("site", "a"), ("unit", None)], [("unit", "7")]], pa.map_(pa.string(), pa.string()))
TEXTS = pa.array(['{"site": "a"}', '{"unit": "7"}'])
KINDS = {"structs": STRUCTS, "maps": MAPS, "texts": TEXTS}


def labelled(name: str, labels: pa.Array) -> pa.Table:
    return pa.table({"series_key": [name] * 2, "labels": labels, "valid_time": HOURS, "value": [1.0, 2.0]})


def labels_of(client: Client, name: str) -> list[dict[str, str]]:
    return sorted((each["labels"] for each in client.list_series(name=name)), key=str)


def by_upload(client: Client, service: Service, table: pa.Table, folder: Path) -> None:
    client.upload(table)
    with client.writer() as writer:
        writer.upload(table)


def by_file(client: Client, service: Service, table: pa.Table, folder: Path) -> None:
    parquet.write_table(table, folder / "labels.parquet")
    client.upload_file(folder / "labels.parquet", known_after="0h")


def by_flight(client: Client, service: Service, table: pa.Table, folder: Path) -> None:
    with flight.connect(service.flight_url) as raw:
        send(raw, table, rows=table.num_rows)


def by_rest(client: Client, service: Service, table: pa.Table, folder: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    answer = httpx.post(f"{service.rest_url}/runs", content=sink.getvalue().to_pybytes(), headers=kind, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", [by_upload, by_file, by_flight, by_rest])
def test_labels_of_any_make_are_the_same_labels(
    client: Client, service: Service, name: str, tmp_path: Path, kind: str, door: Callable[..., None]
) -> None:
    labels = KINDS[kind]
    if door is by_file and kind == "structs":  # Parquet has neither views nor dictionaries within structs
        labels = pa.array(LABELS, pa.struct([("site", pa.string()), ("unit", pa.string())]))
    door(client, service, labelled(name, labels), tmp_path)
    assert labels_of(client, name) == [{"site": "a"}, {"unit": "7"}]


@pytest.mark.parametrize("kind", KINDS)
def test_corrections_and_lookups_take_them_too(client: Client, name: str, kind: str) -> None:
    table = labelled(name, KINDS[kind])
    client.upload(table, known_time=T0)
    assert client.correct(table.set_column(3, "value", pa.array([5.0, 6.0])))["updated"] == 2
    asked = pl.DataFrame(table.drop(["value"]).to_pydict() if kind == "structs" else table.drop(["value"]))
    if kind != "maps":  # which Polars has as lists of structs
        assert client.lookup(asked)["value"].to_list() == [5.0, 6.0]
    with flight.connect(client._connection.url) as raw, fails("invalid_request", "labels: ", "cast it"):
        send(raw, labelled(name, pa.array([{"site": 7}] * 2)), rows=2)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (pa.array([{"site": 7}] * 2), "labels: its field 'site' is int64, and labels are texts; cast it"),
        (pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())), "labels: map<string, int64> is not a map of"),
        (pa.array([["a"]] * 2), "labels: list<item: string> is not text (a JSON object), a struct of texts or a map"),
        (pa.array([[("a", "b"), ("a", "c")]] * 2, MAPS.type), "labels: row 0 says a label twice"),
    ],
)
def test_labels_that_are_none_are_refused(client: Client, name: str, labels: pa.Array, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.upload(labelled(name, labels))
    assert refused.value.detail.startswith(says)


# Corrections by name


def test_an_item_names_its_series(client: Client, service: Service, name: str) -> None:
    client.upload(labelled(name, STRUCTS), run_id=name, known_time=T0)
    client.upload(WIDE.select("valid_time", pl.col("north").alias(f"{name} alone")), wide=True, known_time=T0)
    items = [
        {"series_key": name, "labels": {"site": "a"}, "valid_time": T0, "value": 7.0},
        {"series_key": f"{name} alone", "valid_time": T0, "value": 8.0},
    ]
    assert len(client.update_values(items)["updated"]) == 2
    body = {"updates": [{**item, "valid_time": T0.isoformat(), "annotation": "checked"} for item in items]}
    answer = httpx.put(f"{service.rest_url}/values", json=body, timeout=60)
    assert (answer.status_code, len(answer.json()["updated"])) == (200, 2), answer.text
    rows = client.read(series_keys=f"{name} alone", columns=["value", "annotation"], end_valid=HOURS[1])
    assert rows.rows() == [(8.0, "checked")]
    for wrong, says in (
        ({"series_key": name}, f"updates.0.series_key: '{name}' is the name of 2 series; add labels"),
        ({"series_key": f"no {name}"}, f"updates.0.series_key: there is no series 'no {name}'"),
        ({"series_key": name, "labels": {"site": "z"}}, f"updates.0.series_key: there is no series '{name}' with"),
        ({"series_id": name, "labels": {"site": "a"}}, "updates.0: labels: stand beside series_key, which is missing"),
        ({}, "updates.0: needs series_id (or series_key) and valid_time, or value_id"),
    ):
        with pytest.raises((InvalidRequest, NotFound)) as refused:
            client.update_values([{"valid_time": T0, "value": 1.0, **wrong}])
        assert refused.value.detail.startswith(says)
