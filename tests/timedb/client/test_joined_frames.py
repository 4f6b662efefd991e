"""Frames of the client: names beside ids for the asking, and joins with each other and with text, without a cast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import timedb as td
from tests.timedb.conftest import frame
from timedb.client import Client
from timedb.contract.errors import InvalidRequest


@pytest.fixture
def both(client: Client, name: str) -> list[str]:
    """Two series with two values each."""
    names = [f"{name}-a", f"{name}-b"]
    for number, each in enumerate(names):
        client.upload(frame(each, [1.0 + 10 * number, 2.0 + 10 * number]))
    return names


@pytest.mark.parametrize("view", ["flat", "overlapping", "latest", "first", "changes"])
def test_names_stand_beside_ids(client: Client, both: list[str], view: Any) -> None:
    plain = client.read_arrow(series_keys=both, view=view)
    named = client.read_arrow(series_keys=both, view=view, names=True)
    first, *others = plain.column_names
    assert named.column_names == [first, "series_key", *others]
    assert set(named["series_key"].to_pylist()) == set(both)
    assert (
        client.read_arrow(series_keys=both, view="flat", all_versions=True, names=True).column_names[1] == "series_key"
    )


def test_names_are_no_columns_of_others(client: Client, both: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="names: columns says which there are: name series_key; leave names out"):
        client.read(series_keys=both, names=True, columns=["value"])
    with pytest.raises(InvalidRequest, match="names: pivot makes the columns; leave names out"):
        client.read(series_keys=both, names=True, pivot="series_key")


def test_frames_of_polars_join_without_a_cast(client: Client, both: list[str]) -> None:
    values, sites = client.read(series_keys=both, names=True), pl.DataFrame({"series_key": both, "site": ["n", "s"]})
    again = client.read(series_keys=both[0], view="overlapping")
    assert values.join(again, on=["series_id", "valid_time"]).height == 2, "two answers with each other"
    text = client.read(series_keys=both, names=True, identifiers="plain")
    assert text.schema["series_id"] == text.schema["series_key"] == pl.String
    series = pl.DataFrame(client.list_series(name=both[1]))
    assert text.join(series, on="series_id")["name"].to_list() == [both[1]] * 2, "an answer with the series"
    assert text.join(sites, on="series_key").filter(pl.col("site") == "n")["value"].sort().to_list() == [1.0, 2.0]
    asked = client.sql(f"SELECT series_id, unit FROM series WHERE name = '{both[0]}'")
    assert text.join(asked, on="series_id").height == 2, "an answer with one of SQL"


def test_frames_of_pandas_join_without_a_cast(client: Client, both: list[str]) -> None:
    values = client.read_pandas(series_keys=both, names=True)
    sites = pd.DataFrame({"series_key": both, "site": ["n", "s"]})
    again = client.read_pandas(series_keys=both[0], view="overlapping")
    assert len(values.merge(again, on=["series_id", "valid_time"])) == 2
    assert len(values.merge(pd.DataFrame(client.list_series(name=both[1])), on="series_id")) == 2
    text = client.read_pandas(series_keys=both, names=True, identifiers="plain")
    for frame_of_values in (values, text):
        assert sorted(frame_of_values.merge(sites, on="series_key").query("site == 'n'")["value"]) == [1.0, 2.0]


def test_a_scan_of_the_tables_has_names_too(client: Client, service_lake: Path, both: list[str]) -> None:
    found = td.scan_lake(service_lake, series_keys=both, names=True).collect()
    assert found.columns[:3] == ["series_id", "series_key", "valid_time"]
    assert found.join(client.read(series_keys=both, identifiers="plain"), on=["series_id", "valid_time"]).height == 4
