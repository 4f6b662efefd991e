"""A bare name is never one quantile of a forecast or one member of an ensemble, in writes as in reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest

import timedb as td
from tests.behaviour.histories import utc
from tests.behaviour.pairs import (
    WAYS_IN,
    Doors,
    Item,
    arrow_table,
    csv_text,
    json_rows,
    posted,
    sent_by_flight,
)
from tests.flight_server import sql_client
from tests.timedb.cli.test_cli import timedb

if TYPE_CHECKING:
    from timedb.client import Client

NOON = utc("2025-01-01 12:00")
SIBLINGS = [{"quantile": "0.1"}, {"quantile": "0.9"}], [{"member": "3"}], [{"quantile": "0.5", "site": "north"}]


@pytest.fixture(params=SIBLINGS, ids=str)
def name(request: pytest.FixtureRequest, client: Client) -> str:
    """A name of which there are only quantiles or members, each with the value 1."""
    name = f"of many {uuid4()}"
    labels = [json.dumps(each) for each in request.param]
    rows = arrow_table([Item(name, NOON)] * len(labels)).drop_columns(["tags"])
    client.upload(rows.append_column("labels", pa.array(labels)))
    return name


def by_append(doors: Doors, name: str, **fields: Any) -> None:
    with doors.client.writer(**fields) as writer:
        writer.upload(arrow_table([Item(name, NOON, 7.0)])).result()


def by_ingest(doors: Doors, name: str) -> None:
    with sql_client.connected(doors.flight_url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("values", arrow_table([Item(name, NOON, 7.0)]).drop_columns(["tags"]), mode="append")


def one_row(send: Callable[[Doors, list[Item]], None]) -> Callable[[Doors, str], None]:
    return lambda doors, name: send(doors, [Item(name, NOON, 7.0)])


BY_FILE = {
    way: send for way, send in WAYS_IN.items() if "correction" not in way and way not in ("cli_parquet", "cli_arrow")
}
IN: dict[str, Callable[[Doors, str], None]] = {
    **{way: one_row(send) for way, send in BY_FILE.items()},
    "append": by_append,
    "ingest": by_ingest,
}


def values_by_labels(client: Client, name: str) -> dict[str, float]:
    series = {each["series_id"]: json.dumps(each["labels"]) for each in client.list_series(name=name)}
    rows = client.read(series_ids=list(series), columns=["series_id", "value"])
    return {series[series_id]: value for series_id, value in rows.iter_rows()}


@pytest.mark.parametrize("name", SIBLINGS[:1], ids=str, indirect=True)
@pytest.mark.parametrize("way", IN)
def test_an_upload_makes_the_unlabelled_series(doors: Doors, name: str, way: str) -> None:
    before = values_by_labels(doors.client, name)
    IN[way](doors, name)
    assert values_by_labels(doors.client, name) == {**before, "{}": 7.0}
    assert doors.client.read(series_keys=name)["value"].to_list() == [7.0]


def test_whatever_its_siblings_are(doors: Doors, name: str) -> None:
    before = values_by_labels(doors.client, name)
    by_append(doors, name)
    assert values_by_labels(doors.client, name) == {**before, "{}": 7.0}


def test_what_makes_no_series_finds_none_and_names_the_siblings(doors: Doors, name: str) -> None:
    item, before = Item(name, NOON, 7.0), values_by_labels(doors.client, name)
    listed = json.dumps(json.loads(next(iter(before))), separators=(",", ":"))
    lookup = pl.DataFrame({"series_key": [name], "valid_time": arrow_table([item])["valid_time"].to_pylist()})
    correction = pl.DataFrame(arrow_table([item])).select("series_key", "valid_time", "value")
    body = {"run_start_time": "2025-01-01", "create_series": False, "value_rows": json_rows([item])}
    asked: dict[str, Callable[[], object]] = {
        "flight": lambda: doors.client.upload(arrow_table([item]), create_series=False),
        "append": lambda: by_append(doors, name, create_series=False),
        "correct": lambda: doors.client.correct(correction, create=True),
        "lookup": lambda: doors.client.lookup(lookup),
        "read": lambda: doors.client.read(series_keys=name),
        "scan": lambda: td.scan_lake(doors.lake, series_keys=name),
        "split": lambda: td.split_read(doors.lake, series_keys=[name]),
        "accuracy": lambda: doors.client.accuracy(actual_key=name, horizon="1h"),
    }
    for door, ask in asked.items():
        with pytest.raises(td.NotFound) as refused:
            ask()
        assert listed in refused.value.detail, door
        assert "labels" in refused.value.detail, door
    for response in (
        doors.http.post("/upload", json=body),
        doors.http.post(
            "/upload",
            content=csv_text([item]),
            params={"create_series": "false"},
            headers={"Content-Type": "text/csv"},
        ),
        doors.http.get("/values", params={"name": name}),
        doors.http.get("/accuracy", params={"actual_key": name, "horizon": "1h"}),
    ):
        assert response.status_code == 404, response.text
        assert listed in response.json()["detail"]
    assert values_by_labels(doors.client, name) == before


@pytest.mark.parametrize("name", SIBLINGS[:1], ids=str, indirect=True)
def test_commands_say_the_option_that_tells_them_apart(doors: Doors, name: str) -> None:
    for arguments in (
        ["update-series", name, "--description", "x"],
        ["accuracy", "--series", name, "--actual-id", str(uuid4())],
    ):
        done = timedb(*arguments, TIMEDB_FLIGHT_URL=doors.flight_url)
        assert done.returncode != 0
        assert "--label" in done.stderr or "actual" in done.stderr, done.stderr
    doors.cli("update-series", name, "--label", "quantile=0.1", "--description", "the low one")
    assert [one["description"] for one in doors.client.list_series(name=name, labels={"quantile": "0.1"})] == [
        "the low one"
    ]


def test_the_only_series_of_a_name_is_still_meant_by_it(doors: Doors) -> None:
    name = f"one of a site {uuid4()}"
    rows = arrow_table([Item(name, NOON)]).drop_columns(["tags"])
    doors.client.upload(rows.append_column("labels", pa.array(['{"site":"north"}'])))
    sent_by_flight(doors, arrow_table([Item(name, NOON, 7.0, known_time=NOON)]))
    assert values_by_labels(doors.client, name) == {'{"site": "north"}': 7.0}
    posted(doors, "text/csv", csv_text([Item(name, NOON, 8.0, known_time=NOON + 1)]))
    assert doors.client.read(series_keys=name)["value"].to_list() == [8.0]
