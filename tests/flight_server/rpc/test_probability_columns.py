"""Uploads with a column ``quantile`` or ``member``: each a label of the series that a row names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

import timedb as td
from tests.flight_server.flights import act, fails, hours, read, send
from timedb.flight_server import FlightService

QUANTILES = [0.1, 0.5, 0.9, None]


def table(name: str, **columns: Any) -> pa.Table:
    """Four rows of one time."""
    return pa.table(
        {
            "series_key": [name] * 4,
            "valid_time": hours(1).take(pa.array([0] * 4)),
            "value": [1.0, 2.0, 3.0, 4.0],
            **columns,
        }
    )


def stored(client: flight.FlightClient, name: str) -> dict[str, float]:
    """The value of each series of a name, by its labels."""
    series = {each["series_id"]: each for each in act(client, "list_series", {"name": name})["series"]}
    rows = read(client, series_ids=list(series), columns=["series_id", "value"]).to_pylist()
    return {json.dumps(series[row["series_id"]]["labels"], sort_keys=True): row["value"] for row in rows}


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
@pytest.mark.parametrize("chunk", [None, 1])
def test_quantiles_become_labels(client: flight.FlightClient, kind: pa.DataType, chunk: int | None) -> None:
    name = f"quantiles as {kind} in pieces of {chunk}"
    send(client, table(name, quantile=pa.array(QUANTILES, kind)), rows=4, chunk_rows=chunk or 100)
    assert stored(client, name) == {
        '{"quantile": "0.1"}': 1.0,
        '{"quantile": "0.5"}': 2.0,
        '{"quantile": "0.9"}': 3.0,
        "{}": 4.0,
    }


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.dictionary(pa.int32(), pa.string())])
def test_members_do_too(client: flight.FlightClient, kind: pa.DataType) -> None:
    name = f"members as {kind}"
    send(
        client,
        table(name, member=pa.array([0, 1, 2, None] if kind == pa.int64() else ["0", "1", "2", None], kind)),
        rows=4,
    )
    assert stored(client, name) == {
        '{"member": "0"}': 1.0,
        '{"member": "1"}': 2.0,
        '{"member": "2"}': 3.0,
        "{}": 4.0,
    }


def test_they_stand_beside_other_labels(client: flight.FlightClient) -> None:
    labels = ['{"model": "ecmwf"}', None, '{"quantile": "0.9", "model": "gfs"}', "{}"]
    send(client, table("beside labels", quantile=QUANTILES, labels=labels), rows=4)
    assert stored(client, "beside labels") == {
        '{"model": "ecmwf", "quantile": "0.1"}': 1.0,
        '{"quantile": "0.5"}': 2.0,
        '{"model": "gfs", "quantile": "0.9"}': 3.0,
        "{}": 4.0,
    }


def test_a_run_is_the_same_by_column_and_by_label(client: flight.FlightClient) -> None:
    run: dict[str, Any] = {"rows": 4, "run_id": "either-way", "known_time": "2025-01-01T00:00:00Z"}
    send(client, table("either way", quantile=QUANTILES), **run)
    labels = [json.dumps({"quantile": str(each)}) if each else None for each in QUANTILES]
    again = send(client, table("either way", labels=labels), **run)
    assert again[-1]["rows"] == 4


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "zero": ({"quantile": [0.1, 0.0, 0.5, 0.9]}, ("quantile: row 1", "0.0", "(0, 1)")),
    "one": ({"quantile": [0.1, 1.0, 0.5, 0.9]}, ("quantile: row 1", "1.0")),
    "a percentage": ({"quantile": [0.1, 0.5, 0.9, 95.0]}, ("quantile: row 3", "95.0")),
    "NaN": ({"quantile": [0.1, 0.5, 0.9, np.nan]}, ("quantile: row 3", "nan")),
    "text": ({"quantile": ["0.1"] * 4}, ("quantile: string is not a float",)),
    "a whole number": ({"quantile": [1] * 4}, ("quantile: int64 is not a float",)),
    "member of numbers with places": ({"member": [0.5] * 4}, ("member: double is not text",)),
    "both": ({"quantile": QUANTILES, "member": ["1"] * 4}, ("member: stands beside quantile",)),
    "another label": ({"quantile": QUANTILES, "labels": ['{"quantile": "0.2"}'] * 4}, ("row 0", "0.1", "0.2")),
    "another spelling": (
        {"labels": ['{"quantile": "0.10"}'] * 4},
        ("labels: row 0", "another spelling of '0.1'"),
    ),
    "labels that are none": ({"quantile": QUANTILES, "labels": ["[]"] * 4}, ("labels: row 0",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_and_nothing_written(client: flight.FlightClient, case: str) -> None:
    columns, says = WRONG[case]
    with fails("invalid_request", *says):
        send(client, table("wrong quantiles", **columns), rows=4)
    assert act(client, "list_series", {"name": "wrong quantiles"})["series"] == []


def test_they_want_a_name(client: flight.FlightClient) -> None:
    (series_id,) = send(client, table("of an id", quantile=QUANTILES).slice(0, 1), rows=1)[-1]["series_ids"].values()
    by_id = (
        table("of an id", quantile=QUANTILES).drop_columns("series_key").append_column("series_id", [[series_id] * 4])
    )
    with fails("invalid_request", "quantile: the column stands beside series_key"):
        send(client, by_id, rows=4)


def test_frames_of_the_client_have_them(flight_service: FlightService, client: flight.FlightClient) -> None:
    frame = pl.from_arrow(table("of a frame", quantile=QUANTILES))
    with td.connect(flight_service.url) as sdk:
        assert sdk.upload(frame).rows == 4
    assert stored(client, "of a frame")['{"quantile": "0.5"}'] == 2.0
