"""Polars and DuckDB read the Delta tables past the service and must find what the server's clients find.

The queries are the ones of docs/direct-reads.md, taken from the page.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

from tests.behaviour.doors import Door
from tests.behaviour.histories import Write, histories
from tests.behaviour.oracle import Row
from tests.behaviour.playing import plain, play
from timedb.identity import OPEN_TENANT_ID

PAGE = (Path(__file__).parents[2] / "docs" / "direct-reads.md").read_text()
(POLARS,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SQL,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
COLUMNS = ["series_id", "valid_time", "value"]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with its Delta extension, from the installed package and not from the network."""
    package = importlib.util.find_spec("duckdb_extension_delta")
    assert package is not None
    (folder,) = package.submodule_search_locations or []
    (extension,) = Path(folder).rglob(f"v{duckdb.__version__}/delta.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def folder(lake_uri: str) -> str:
    """The tenant's folder in the storage door's lake."""
    return f"{lake_uri}/tenants/{OPEN_TENANT_ID}"


def rows(answer: pa.Table, series: list[str]) -> list[tuple[Any, ...]]:
    """The answer's rows of some series, comparable to the bit."""
    data = pl.DataFrame(answer.select(COLUMNS)).with_columns(pl.col("series_id").cast(pl.String))
    found = data.filter(pl.col("series_id").is_in(series)).with_columns(pl.col("valid_time").dt.epoch("us"))
    return sorted((tuple(plain(cell) for cell in row) for row in found.iter_rows()), key=repr)


def in_polars(lake: str, name: str) -> pa.Table:
    """``flat`` or ``standing`` of the page's Polars block."""
    namespace: dict[str, Any] = {"lake": lake, "tenant": OPEN_TENANT_ID}
    exec(POLARS, namespace)
    answer: pl.DataFrame = namespace[name].select(COLUMNS).collect()
    return answer.to_arrow()


def in_duckdb(duck: duckdb.DuckDBPyConnection, folder: str, sql: str = SQL) -> pa.Table:
    """The page's SQL block over the values table."""
    duck.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})
    return duck.execute(sql).to_arrow_table()


@given(history=histories())
def test_flat_and_overlapping(
    storage_door: Door, lake_uri: str, folder: str, duck: duckdb.DuckDBPyConnection, history: list[Write]
) -> None:
    played = play(storage_door, history)
    flat = rows(storage_door.read(series_ids=played.series), played.series)
    assert rows(in_polars(lake_uri, "flat"), played.series) == flat
    assert rows(in_duckdb(duck, folder), played.series) == flat
    overlapping = rows(storage_door.read("overlapping", series_ids=played.series), played.series)
    assert rows(in_polars(lake_uri, "standing"), played.series) == overlapping


@given(history=histories())
def test_the_tiers_that_the_page_names_are_enough(
    storage_door: Door, folder: str, duck: duckdb.DuckDBPyConnection, history: list[Write]
) -> None:
    played = play(storage_door, history)
    storage_door.compact()
    everything = rows(in_duckdb(duck, folder), played.series)
    assert everything == rows(storage_door.read(series_ids=played.series), played.series)
    scan = "delta_scan(getvariable('values'))"
    for tiers in ("'fresh', 'current'", "'fresh', 'current', 'revised'"):
        narrowed = SQL.replace(scan, f"{scan} WHERE tier IN ({tiers})")
        assert narrowed != SQL
        assert rows(in_duckdb(duck, folder, narrowed), played.series) == everything


def upload_one(door: Door, name: str) -> str:
    """Upload one row of a series of its own."""
    series = door.create_series(name)
    row = Row(series, 0, None, 0, name, 0, 1.0, None, None, retracted=False)
    door.upload([row], run_id=name, known_time=0)
    return series


def test_series_lie_in_the_bucket_that_the_page_says(
    storage_door: Door, folder: str, duck: duckdb.DuckDBPyConnection
) -> None:
    upload_one(storage_door, "in-a-bucket")
    duck.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})
    buckets = "SELECT bool_and(series_bucket = left(series_id, 1)) FROM delta_scan(getvariable('values'))"
    assert duck.execute(buckets).fetchall() == [(True,)]


def test_a_reader_sees_what_was_acknowledged(storage_door: Door, folder: str) -> None:
    series = upload_one(storage_door, "seen-at-once")
    assert pl.scan_delta(f"{folder}/values").filter(series_id=series).collect()["value"].to_list() == [1.0]
