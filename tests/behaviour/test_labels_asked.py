"""``labels: {}`` means the series without labels, at every door, in reads as in uploads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl
import pytest

import timedb as td
from tests.timedb.cli.test_cli import ask, timedb

if TYPE_CHECKING:
    from timedb.client import Client
    from timedb.run.launch import Service

__all__ = ["ask"]

NAME = "asked with labels"
T0 = datetime(2025, 1, 1, tzinfo=UTC)
SERIES = {"{}": 1.0, '{"site":"north"}': 2.0, '{"site":"south"}': 3.0}
ASKED: list[tuple[Any, list[float]]] = [
    ({}, [1.0]),
    ({"site": "north"}, [2.0]),
    ({"site": ["north", "south"]}, [2.0, 3.0]),
    ({"site": None}, [1.0]),
    (None, [1.0]),  # the bare name: the unlabelled series
]


@pytest.fixture(scope="module", autouse=True)
def _uploaded(client: Client) -> None:
    rows = {"series_key": [NAME] * 3, "labels": list(SERIES), "valid_time": [T0] * 3, "value": list(SERIES.values())}
    client.upload(pl.DataFrame(rows))


@pytest.fixture(scope="module")
def rest(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.rest_url, timeout=60) as http:
        yield http


def values(frame: Any) -> list[float]:
    """The values of an answer, sorted."""
    return sorted(frame["value"].to_list())


@pytest.mark.parametrize(("labels", "expected"), ASKED, ids=str)
def test_reads(
    client: Client,
    rest: httpx.Client,
    service_lake: Path,
    ask: Any,
    labels: Any,
    expected: list[float],
) -> None:
    assert values(client.read(series_keys=NAME, labels=labels)) == expected
    assert values(td.scan_lake(service_lake, series_keys=NAME, labels=labels).collect()) == expected
    parts = td.split_read(service_lake, series_keys=[NAME], labels=labels).parts
    assert sorted(value for part in parts for value in part.read_arrow()["value"].to_pylist()) == expected
    parameters = {"name": NAME} if labels is None else {"name": NAME, "labels": json.dumps(labels)}
    assert sorted(row["value"] for row in rest.get("/values", params=parameters).json()["data"]) == expected
    typed = {"{}": ["--label", ""], '{"site": "north"}': ["--label", "site=north"], "null": []}
    if (options := typed.get(json.dumps(labels))) is not None:
        assert sorted(row["value"] for row in json.loads(ask("read", "--series", NAME, "--json", *options))) == expected


def test_lists(client: Client, rest: httpx.Client, ask: Any) -> None:
    assert [series["labels"] for series in client.list_series(name=NAME, labels={})] == [{}]
    assert len(client.list_series(name=NAME)) == len(client.list_series(name=NAME, labels=None)) == 3
    listed = rest.get("/list_timeseries", params={"name": NAME, "labels": "{}"}).json()
    assert [series["labels"] for series in listed.values()] == [{}]
    assert len(rest.get("/list_timeseries", params={"name": NAME}).json()) == 3
    assert [series["labels"] for series in json.loads(ask("series", "--name", NAME, "--label", "", "--json"))] == [{}]
    assert timedb("series", "--label", "", "--label", "site=north").returncode == 2


def test_all_the_unlabelled_series_and_no_other(client: Client, rest: httpx.Client) -> None:
    unlabelled = {series["series_id"] for series in client.list_series(labels={})}
    read = client.read(labels={}, columns=["series_id"])
    assert set(read["series_id"].to_list()) <= unlabelled
    ids = [series["series_id"] for series in client.list_series(name=NAME)]
    assert values(client.read(series_ids=ids, labels={})) == [1.0]
    found = rest.get("/accuracy", params={"name": NAME, "labels": "{}", "actual_key": NAME})
    assert found.status_code == 200, found.text


def test_a_lookup_says_it_as_an_upload_does(client: Client) -> None:
    asked = pl.DataFrame({"series_key": [NAME] * 4, "labels": [*SERIES, None], "valid_time": [T0] * 4})
    assert client.lookup(asked)["value"].to_list() == [*SERIES.values(), 1.0]


def test_a_name_without_an_unlabelled_series_says_so(client: Client) -> None:
    name = f"{NAME}, all labelled"
    client.upload(pl.DataFrame({"series_key": [name], "labels": ['{"a":"b"}'], "valid_time": [T0], "value": [1.0]}))
    with pytest.raises(td.NotFound, match=r"no series .* with labels '{}'"):
        client.read(series_keys=name, labels={})
