"""The DuckDB that is installed knows nothing that nobody has looked at: functions, types and settings by name.

Where this fails, a newer DuckDB has brought something. Look at what it does (does it reach files, memory, settings,
other queries, the catalog?); what is harmless goes into ``tests/data/duckdb-names.txt``, what is not into the lists of
``flight_server/sql/engine/syntax.py`` or among the locks of ``query.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from timedb.flight_server.sql.engine.query import _LOCKS
from timedb.flight_server.sql.engine.query_error import QueryError
from timedb.flight_server.sql.engine.syntax import (
    _REFUSED_FUNCTIONS,
    _REFUSED_TYPES,
    _TABLE_FUNCTIONS,
    parse,
)

_DATA = Path(__file__).parents[2] / "data" / "duckdb-names.txt"
_INSTALLED = {
    "functions": "SELECT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro')",
    "types": "SELECT replace(logical_type, ' ', '_') FROM duckdb_types()",
    "settings": "SELECT name FROM duckdb_settings()",
}
_REFUSED: dict[str, set[str]] = {"functions": _REFUSED_FUNCTIONS, "types": _REFUSED_TYPES, "settings": set()}


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config=dict(_LOCKS)) as connection:
        yield connection


def looked_at(kind: str) -> set[str]:
    """The names of a kind that somebody has looked at and found harmless."""
    return set(_DATA.read_text().partition(f"[{kind}]")[2].partition("[")[0].split())


@pytest.mark.parametrize("kind", _INSTALLED)
def test_everything_that_is_installed_has_been_looked_at(engine: duckdb.DuckDBPyConnection, kind: str) -> None:
    installed = {str(name) for (name,) in engine.execute(_INSTALLED[kind]).fetchall()}
    refused = {name for name in installed if name.startswith("__") and kind == "functions"}
    refused |= {name for name in installed if {name.lower(), name} & _REFUSED[kind]}
    assert installed - refused - looked_at(kind) == set(), "new in this DuckDB: look at what they do"
    assert not refused & looked_at(kind)


def test_table_functions_are_refused_unless_they_are_named(engine: duckdb.DuckDBPyConnection) -> None:
    kinds = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('table', 'table_macro')"
    installed = {str(name) for (name,) in engine.execute(kinds).fetchall()}
    assert len(installed) > 80
    for name in installed - _TABLE_FUNCTIONS:
        with pytest.raises(QueryError, match="is not offered"):
            parse(engine, f'SELECT * FROM "{name}"()', {"flat"})
    for name in _TABLE_FUNCTIONS:
        parse(engine, f'SELECT * FROM "{name}"(1)', {"flat"})


def test_no_table_of_the_engine_s_own_catalog_can_be_named(engine: duckdb.DuckDBPyConnection) -> None:
    views = "SELECT DISTINCT schema_name, view_name FROM duckdb_views() WHERE internal"
    installed = engine.execute(views).fetchall()
    assert len(installed) > 30
    for schema, view in installed:
        for text in (f"FROM {view}", f"FROM {schema}.{view}", f"SELECT (SELECT count(*) FROM system.{schema}.{view})"):
            with pytest.raises(QueryError, match="there is no table"):
                parse(engine, text, {"flat"})


@pytest.mark.parametrize(
    "text",
    [
        "WITH a AS (FROM flat), b AS (FROM a) SELECT * FROM a, b WHERE EXISTS (SELECT (SELECT count(*) FROM b) FROM a)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT * FROM t",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL (WITH u AS (FROM t) SELECT n + 1 FROM u)) FROM t",
        "WITH a AS (SELECT 1) (FROM a UNION ALL FROM a) ORDER BY (SELECT count(*) FROM a)",
        "SELECT * FROM flat, LATERAL (WITH a AS (SELECT flat.value) SELECT * FROM a)",
        "WITH flat AS (SELECT * FROM flat) FROM FLAT",
        "WITH a AS MATERIALIZED (SELECT 1) SELECT list_transform([1], lambda x: x + (SELECT count(*) FROM A))",
        "DESCRIBE (WITH a AS (SELECT 1) FROM a)",
    ],
)
def test_names_that_a_query_gives_itself_are_in_sight_where_duckdb_sees_them(
    engine: duckdb.DuckDBPyConnection, text: str
) -> None:
    assert parse(engine, text, {"flat"}).names <= {"flat"}
