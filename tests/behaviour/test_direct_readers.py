"""Polars and DuckDB read the Delta tables past the service and must find what the server's clients find.

The queries by hand and all blocks of code are those of docs/direct-reads.md, taken from the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from tests.behaviour.playing import Played, plain, play
from tests.behaviour.readers import DuckReader, ScanReader, duckdb_with_delta
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
def lake_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake of its own: what engines read is all of its log."""
    return str(tmp_path_factory.mktemp("direct") / "lake")


@pytest.fixture(scope="module")
def lake(lake_uri: str) -> Iterator[Lake]:
    lake = Lake.open(lake_uri, load_settings(ServerSettings, lake=lake_uri))
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def storage_door(lake: Lake) -> Door:
    return StorageDoor(lake.tenant(OPEN_TENANT_ID))


@pytest.fixture(scope="module")
def tenant(lake: Lake) -> Tenant:
    """The tenant whose tables are read."""
    return lake.tenant(OPEN_TENANT_ID)


@pytest.fixture(scope="module")
def folder(lake_uri: str) -> str:
    """The tenant's folder in the storage door's lake."""
    return f"{lake_uri}/tenants/{OPEN_TENANT_ID}"


@pytest.fixture(scope="module")
def readers(tenant: Tenant, lake_uri: str, folder: str) -> Iterator[tuple[ScanReader, DuckReader, DuckReader]]:
    """``td.scan_lake``, the macros made from the tenant's folder alone, and DuckDB in place of Spark."""
    with duckdb_with_delta() as one, duckdb_with_delta() as other:
        macros = DuckReader(tenant, one, td.duckdb_macros(folder))
        yield ScanReader(tenant, lake_uri), macros, DuckReader(tenant, other, spark_in_duckdb(lake_uri))


def spark_in_duckdb(lake: str) -> str:
    """The views of the SQL for Spark as DuckDB's macros; the sources and the clocks are DuckDB's own."""
    statements = [each for each in td.duckdb_macros(lake).split(";\n") if "AS TABLE\nSELECT" not in each]
    for statement in filter(None, sqlglot.parse(td.spark_functions(lake), read="spark")):
        assert isinstance(statement, expressions.Create), "what sqlglot does not understand is a command to it"
        body = statement.expression.this
        if statement.kind == "FUNCTION" and isinstance(body, expressions.Select):
            name, columns = statement.this.this.sql(), statement.this.expressions
            parameters = ", ".join(f"{each.name} := {each.constraints[0].kind.this.sql('duckdb')}" for each in columns)
            statements.append(f"CREATE OR REPLACE MACRO {name}({parameters}) AS TABLE {body.sql('duckdb')}")
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


def check(played: Played, reader: Any, views: list[tuple[str, bool]], extra: list[Read]) -> None:
    """Some views of everything, then reads that were drawn, through a reader, against the oracle."""
    played.door = reader
    for view, all_versions in views:
        played.check(view, all_versions=all_versions)
    for read in extra:
        played.check_read(reader.can(read))


def check_by_hand(played: Played, lake_uri: str, duck: duckdb.DuckDBPyConnection, folder: str) -> None:
    """The page's own queries, with all tiers and with those that it says are enough, against the oracle."""
    expected = {
        view: sorted(
            ((row.series_id, row.valid_time, plain(row.value)) for row in played.oracle.answer(view)), key=repr
        )
        for view in ("flat", "overlapping")
    }
    assert rows(in_polars(lake_uri, "flat"), played.series) == expected["flat"]
    assert rows(in_polars(lake_uri, "standing"), played.series) == expected["overlapping"]
    scan = "delta_scan(getvariable('values'))"
    narrowed = SQL.replace(scan, f"{scan} WHERE tier IN ('fresh', 'current')")
    assert narrowed != SQL
    for sql in (SQL, narrowed):
        assert rows(in_duckdb(duck, folder, sql), played.series) == expected["flat"]


@given(history=histories(), extra=st.lists(reads(), min_size=5, max_size=5))
def test_every_reader(
    readers: tuple[ScanReader, DuckReader, DuckReader],
    storage_door: Door,
    lake_uri: str,
    folder: str,
    duck: duckdb.DuckDBPyConnection,
    history: list[Write],
    extra: list[Read],
) -> None:
    scan, macros, functions = readers
    played = play(storage_door, history)
    check(played, scan, VIEWS, extra)
    check(played, macros, [], extra[:3])
    check(played, functions, [], extra[3:])
    storage_door.compact()
    check(played, scan, VIEWS, extra)
    check(played, macros, VIEWS[:1], extra[4:])
    check_by_hand(played, lake_uri, duck, folder)
