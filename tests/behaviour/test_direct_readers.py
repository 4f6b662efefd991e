"""Polars and DuckDB read the Delta tables past the service and must find what the server's clients find.

The queries by hand and all blocks of code are those of docs/direct-reads.md, taken from the page.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import expressions

import timedb as td
from storage import Lake, Tenant
from tests.behaviour.doors import Door, StorageDoor
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.oracle import Oracle, Row
from tests.behaviour.playing import Played, plain, play
from tests.behaviour.readers import DuckReader, PartsReader, ScanReader, duckdb_with_delta
from timedb.identity import OPEN_TENANT_ID
from timedb.settings import ServerSettings, load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "direct-reads.md").read_text()
BLOCKS = re.findall(r"```(python|sql spark|sql)\n(.*?)```", PAGE, re.DOTALL)
ON_A_CLUSTER = "from distributed import"
(POLARS,) = [text for kind, text in BLOCKS if kind == "python" and "scan_delta" in text]
(SQL,) = [text for kind, text in BLOCKS if kind == "sql" and "delta_scan" in text]
COLUMNS = ["series_id", "valid_time", "value"]
VIEWS = [("flat", False), ("flat", True), ("overlapping", False), ("overlapping", True)]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with its Delta extension."""
    with duckdb_with_delta() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def tenant(lake: Lake) -> Tenant:
    """The tenant whose tables are read."""
    return lake.tenant(OPEN_TENANT_ID)


@pytest.fixture(scope="module")
def folder(lake_uri: str) -> str:
    """The tenant's folder in the storage door's lake."""
    return f"{lake_uri}/tenants/{OPEN_TENANT_ID}"


@pytest.fixture(scope="module")
def scanning(tenant: Tenant, lake_uri: str) -> ScanReader:
    return ScanReader(tenant, lake_uri)


@pytest.fixture(scope="module")
def macros(tenant: Tenant, folder: str) -> Iterator[DuckReader]:
    """The macros, made from no more than the tenant's folder."""
    with duckdb_with_delta() as connection:
        yield DuckReader(tenant, connection, td.duckdb_macros(folder))


@pytest.fixture(scope="module")
def functions(tenant: Tenant, lake_uri: str) -> Iterator[DuckReader]:
    """The functions for Spark, as far as another engine can stand in for it."""
    with duckdb_with_delta() as connection:
        yield DuckReader(tenant, connection, spark_in_duckdb(lake_uri))


def spark_in_duckdb(lake: str) -> str:
    """The views of the SQL for Spark as DuckDB's macros; sources and clocks are DuckDB's own."""
    own = [each for each in td.duckdb_macros(lake).split(";\n") if "ATTACH" in each or "MACRO timedb_" in each]
    statements = [each for each in own if not re.search(r"MACRO timedb_\w+\([^)]*\) AS TABLE\nSELECT", each)]
    for statement in filter(None, sqlglot.parse(td.spark_functions(lake), read="spark")):
        assert isinstance(statement, expressions.Create), "Spark's parser is stricter than one that takes all text"
        query = statement.expression
        if statement.kind != "FUNCTION" or not isinstance(query, expressions.Select):
            continue
        head = statement.this
        parameters = [
            f"{each.name} := {default.sql('duckdb') if (default := each.args.get('default')) else 'NULL'}"
            for each in head.expressions
        ]
        statements.append(
            f"CREATE OR REPLACE MACRO {head.this.name}({', '.join(parameters)}) AS TABLE {query.sql('duckdb')}"
        )
    return ";\n".join(statements)


def rows(answer: pa.Table, series: list[str]) -> list[tuple[Any, ...]]:
    """The answer's rows of some series, comparable to the bit."""
    data = pl.DataFrame(answer.select(COLUMNS)).with_columns(pl.col("series_id").cast(pl.String))
    found = data.filter(pl.col("series_id").is_in(series)).with_columns(pl.col("valid_time").dt.epoch("us"))
    return sorted((tuple(plain(cell) for cell in row) for row in found.iter_rows()), key=repr)


def in_polars(lake: str, name: str) -> pa.Table:
    """``flat`` or ``standing`` of the page's block that needs Polars alone."""
    namespace: dict[str, Any] = {"lake": lake, "tenant": OPEN_TENANT_ID}
    exec(POLARS, namespace)
    answer: pl.DataFrame = namespace[name].select(COLUMNS).collect()
    return answer.to_arrow()


def in_duckdb(duck: duckdb.DuckDBPyConnection, folder: str, sql: str = SQL) -> pa.Table:
    """The page's SQL block over the values table."""
    duck.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})
    return duck.execute(sql).to_arrow_table()


def check(played: Played, reader: Any, extra: list[Read]) -> None:
    """Every view, then the reads that were drawn, through a reader, against the oracle."""
    played.door = reader
    for view, all_versions in VIEWS:
        played.check(view, all_versions=all_versions)
    for read in extra:
        played.check_read(reader.can(read))


@given(history=histories(), extra=st.lists(reads(), min_size=4, max_size=6))
def test_scan_lake_and_the_macros(
    storage_door: Door, scanning: ScanReader, macros: DuckReader, history: list[Write], extra: list[Read]
) -> None:
    played = play(storage_door, history)
    for settle in (False, True):
        if settle:
            storage_door.compact()
        check(played, scanning, extra)
        check(played, macros, extra)
    played.check("latest")


@given(history=histories(), extra=st.lists(reads(), min_size=4, max_size=6))
def test_the_functions_for_spark(
    storage_door: Door, functions: DuckReader, history: list[Write], extra: list[Read]
) -> None:
    check(play(storage_door, history), functions, extra)


@given(history=histories())
def test_by_hand(
    storage_door: Door, lake_uri: str, folder: str, duck: duckdb.DuckDBPyConnection, history: list[Write]
) -> None:
    played = play(storage_door, history)
    flat = rows(storage_door.read(series_ids=played.series), played.series)
    assert rows(in_polars(lake_uri, "flat"), played.series) == flat
    assert rows(in_duckdb(duck, folder), played.series) == flat
    overlapping = rows(storage_door.read("overlapping", series_ids=played.series), played.series)
    assert rows(in_polars(lake_uri, "standing"), played.series) == overlapping
    storage_door.compact()
    # The tiers that the page names are enough.
    scan = "delta_scan(getvariable('values'))"
    for tiers in ("'fresh', 'current'", "'fresh', 'current', 'revised'"):
        narrowed = SQL.replace(scan, f"{scan} WHERE tier IN ({tiers})")
        assert narrowed != SQL
        assert rows(in_duckdb(duck, folder, narrowed), played.series) == flat
