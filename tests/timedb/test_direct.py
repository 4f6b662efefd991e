"""Reads past the service, as a user calls them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pandas as pd
import polars as pl
import pytest

import timedb as td
from tests.timedb.cli.test_cli import timedb
from tests.timedb.conftest import T0, frame
from timedb.client import Client
from timedb.contract.identity import OPEN_TENANT_ID


@pytest.fixture
def series(client: Client, name: str) -> UUID:
    """A series of three hours, each forecast twice."""
    for known, values in enumerate(([1.0, 2.0, 3.0], [4.0, 5.0])):
        client.upload(frame(name, values), known_time=T0 + pd.Timedelta(hours=known))
    return UUID(client.list_series(name=name)[0]["series_id"])


def test_arguments_of_all_kinds(client: Client, service_lake: Path, name: str, series: UUID) -> None:
    start, known = pd.Timestamp(T0) + pd.Timedelta(hours=1), "2025-01-01T01:00:00+01:00"
    everything = td.scan_lake(str(service_lake), series_ids=series).collect()
    assert sorted(everything["value"]) == [3.0, 4.0, 5.0]
    by_path = td.scan_lake(service_lake, UUID(OPEN_TENANT_ID), series_keys=[name], start_valid=start).collect()
    assert sorted(by_path["value"]) == [3.0, 5.0]
    assert td.scan_lake(service_lake, series_keys=name, end_known=known).collect().height == 0
    (part,) = td.split_read(service_lake, series_ids=[series], start_valid=start, lead_time="1h").parts
    assert part.read().equals(client.read(series_ids=series, start_valid=start, lead_time="1h"))


def test_it_is_lazy(service_lake: Path, series: UUID) -> None:
    query = td.scan_lake(service_lake, view="overlapping", series_ids=series, columns=["known_time", "series_unit"])
    assert isinstance(query, pl.LazyFrame)
    assert query.collect_schema() == {"known_time": pl.Datetime("us", "UTC"), "series_unit": pl.String}


def test_the_command_prints_the_same_sql(service_lake: Path) -> None:
    folder = str(service_lake / "tenants" / OPEN_TENANT_ID)
    assert timedb("sql", "--lake", str(service_lake)).stdout == td.duckdb_macros(service_lake)
    spark = timedb("sql", "--dialect", "spark", "--prefix", "mine", "--tenant", OPEN_TENANT_ID, TIMEDB_LAKE=folder)
    assert spark.stdout == td.spark_functions(folder, prefix="mine")
    wrong = timedb("sql", "--lake", str(service_lake / "nowhere"))
    assert (wrong.returncode, wrong.stdout) == (5, "")
    assert "path: there is no lake at" in wrong.stderr
