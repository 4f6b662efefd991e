"""What a query is found to need of the tables: as little as is certain, never less than it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from timedb.contract.times import to_micros
from timedb.flight_server.sql.engine.pushdown import scans_of
from timedb.flight_server.sql.engine.syntax import parse
from timedb.flight_server.sql.engine.table_scan import TableScan

TABLES = {
    "flat": ["series_id", "series_key", "valid_time", "known_time", "value", "run_id"],
    "values": ["series_id", "series_key", "valid_time", "known_time", "value"],
    "series": ["series_id", "name"],
}
ALL = TABLES["flat"]
T1, T2 = (to_micros(datetime(2025, 1, day, tzinfo=UTC)) for day in (1, 2))
SINCE = {"low": {"valid_time": T1 - 1}}
UNTIL = {"high": {"valid_time": T2 + 1}}
AT = {"low": {"valid_time": T1 - 1}, "high": {"valid_time": T1 + 1}}


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """Any DuckDB."""
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        yield engine


def scans(engine: duckdb.DuckDBPyConnection, sql: str, **values: object) -> dict[str, TableScan]:
    return scans_of(parse(engine, sql, TABLES), TABLES, engine, values)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT value FROM flat", ["value"]),
        ("SELECT VALUE AS v FROM flat ORDER BY v", ["value"]),
        ("SELECT count(*) FROM flat", ["valid_time"]),
        ("SELECT f.value FROM flat f WHERE f.series_key = 'a'", ["series_key", "value"]),
        ("SELECT sum(value) FILTER (known_time > now()) OVER (ORDER BY valid_time) FROM flat", ALL[2:5]),
        ("SELECT name FROM flat JOIN series USING (series_id)", ["series_id"]),
        ("SELECT name FROM flat NATURAL JOIN series", ALL),
        ("SELECT * FROM flat", ALL),
        ("SELECT * EXCLUDE (value) FROM flat", ALL),
        ("SELECT COLUMNS('v.*') FROM flat", ALL),
        ("SELECT flat FROM flat", ALL),
        ("SELECT f FROM flat AS f", ALL),
        ("SELECT a FROM flat AS f(a, b)", ALL),
        ("SELECT x.value FROM (SELECT * FROM flat) x", ALL),
        ("DESCRIBE flat", ALL),
        ("SELECT (SELECT max(value) FROM flat WHERE series_id = s.series_id) FROM series s", ["series_id", "value"]),
    ],
)
def test_columns(engine: duckdb.DuckDBPyConnection, sql: str, columns: list[str]) -> None:
    assert scans(engine, sql)["flat"].columns == columns


BOUNDS: list[tuple[str, dict[str, Any]]] = [
    ("valid_time >= '2025-01-01 00:00:00Z'", SINCE),
    ("valid_time > TIMESTAMP '2025-01-01'", SINCE),
    ("valid_time > DATE '2025-01-01'", SINCE),
    ("TIMESTAMPTZ '2025-01-01 00:00:00+00' <= flat.valid_time", SINCE),
    ("valid_time < TIMESTAMP '2025-01-01' + INTERVAL 1 DAY", UNTIL),
    ("valid_time <= '2025-01-02' AND value > 5", UNTIL),
    ("valid_time = '2025-01-01'", AT),
    ("NOT valid_time > '2025-01-02'", UNTIL),
    ("valid_time BETWEEN '2025-01-01' AND '2025-01-02'", SINCE | UNTIL),
    ("valid_time IN ('2025-01-02', '2025-01-01')", SINCE | UNTIL),
    ("valid_time > '2024-01-01' AND (valid_time > '2025-01-01' AND TRUE)", SINCE),
    ("known_time < '2025-01-02'", {"high": {"known_time": T2 + 1}}),
    ("series_id = 'a'", {"texts": {"series_id": ["a"]}}),
    ("series_key IN ('b', 'a')", {"texts": {"series_key": ["a", "b"]}}),
    ("series_key IN ('b', 'a') AND 'a' = series_key", {"texts": {"series_key": ["a"]}}),
    ("series_key = 'a' AND series_key = 'b'", {"texts": {"series_key": []}}),
    ("run_id IN ('a', 'b')", {"texts": {"run_id": ["a", "b"]}}),
    # Nothing is certain.
    ("valid_time >= '2025-01-01' OR value > 5", {}),
    ("NOT (valid_time >= '2025-01-01' AND value > 5)", {}),
    ("valid_time <> '2025-01-01'", {}),
    ("valid_time NOT IN ('2025-01-01')", {}),
    ("valid_time > known_time", {}),
    ("valid_time + INTERVAL 1 DAY > '2025-01-01'", {}),
    ("valid_time > TIMESTAMP '2025-01-01' + random() * INTERVAL 1 DAY", {}),
    ("valid_time > (SELECT max(valid_time) FROM flat)", {}),
    ("valid_time > 'infinity'", {}),
    ("valid_time > NULL", {}),
    ("series_id = lower('A')", {}),
    ("series_id LIKE 'a%'", {}),
    ("series_id > 'a'", {}),
    ("series_id IN ('a', NULL)", {}),
]


@pytest.mark.parametrize(("test", "bounds"), BOUNDS)
def test_bounds(engine: duckdb.DuckDBPyConnection, test: str, bounds: dict[str, Any]) -> None:
    found = scans(engine, f"SELECT value FROM flat WHERE {test}")["flat"]
    assert found == TableScan(found.columns, **bounds)


SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("FROM flat f WHERE f.valid_time >= '2025-01-01'", SINCE),
    ("FROM flat JOIN series USING (series_id) WHERE valid_time >= '2025-01-01'", SINCE),
    ("FROM series LEFT JOIN flat USING (series_id) WHERE flat.valid_time >= '2025-01-01'", SINCE),
    ("FROM (SELECT * FROM flat WHERE valid_time >= '2025-01-01')", SINCE),
    ("FROM flat WHERE valid_time = '2025-01-01' UNION ALL SELECT 1 FROM flat WHERE valid_time >= '2025-01-01'", SINCE),
    ("FROM series WHERE EXISTS (FROM flat WHERE valid_time >= '2025-01-01')", SINCE),
    (
        "FROM flat a JOIN flat b USING (series_id) WHERE a.valid_time >= '2025-01-01' AND b.valid_time > '2025-02-01'",
        SINCE,
    ),
    # Nothing is certain.
    ("FROM flat a JOIN flat b USING (series_id) WHERE a.valid_time >= '2025-01-01'", {}),
    ("FROM flat JOIN \"values\" USING (series_id) WHERE valid_time >= '2025-01-01'", {}),
    ("FROM flat, (SELECT 1 AS one) x WHERE valid_time >= '2025-01-01'", {}),
    ("FROM flat UNION ALL SELECT 1 FROM flat WHERE valid_time >= '2025-01-01'", {}),
    ("FROM flat a ASOF JOIN flat b USING (series_id, valid_time) WHERE b.valid_time < '2025-01-02'", {}),
    ("FROM flat POSITIONAL JOIN series WHERE valid_time >= '2025-01-01'", {}),
    ("FROM flat TABLESAMPLE 10% WHERE valid_time >= '2025-01-01'", {}),
    ("FROM flat AS f(a, b, valid_time) WHERE f.valid_time >= '2025-01-01'", {}),
    ("FROM flat QUALIFY valid_time >= '2025-01-01'", {}),
    ("FROM flat GROUP BY valid_time HAVING valid_time >= '2025-01-01'", {}),
]


@pytest.mark.parametrize(("rest", "bounds"), SHAPES)
def test_where_a_filter_counts(engine: duckdb.DuckDBPyConnection, rest: str, bounds: dict[str, Any]) -> None:
    found = scans(engine, f"SELECT 1 {rest}")["flat"]
    assert found == TableScan(found.columns, **bounds)


def test_a_name_that_a_with_takes_is_no_longer_certain(engine: duckdb.DuckDBPyConnection) -> None:
    sql = "WITH flat AS (SELECT * FROM flat WHERE valid_time >= '2025-01-01') SELECT value FROM flat"
    assert scans(engine, sql)["flat"] == TableScan(ALL)


def test_parameters_count_as_what_they_are_bound_to(engine: duckdb.DuckDBPyConnection) -> None:
    sql = "SELECT value FROM flat WHERE valid_time >= $1 AND series_key = $2 AND known_time < $3"
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    times: dict[str, Any] = {"low": {"valid_time": T1 - 1}, "high": {"known_time": T2 + 1}}
    for start in (moment, moment.replace(tzinfo=None), moment.date(), "2025-01-01"):
        found = scans(engine, sql, **{"1": start, "2": "a", "3": "2025-01-02T00:00:00Z"})
        assert found["flat"] == TableScan(
            ["series_key", "valid_time", "known_time", "value"], texts={"series_key": ["a"]}, **times
        )
    nothing = scans(engine, sql, **{"1": None, "2": 5, "3": 5})
    assert nothing["flat"] == TableScan(["series_key", "valid_time", "known_time", "value"])


def test_now_is_that_of_the_transaction(engine: duckdb.DuckDBPyConnection) -> None:
    engine.begin()
    moment = engine.execute("SELECT epoch_us(now())").fetchall()[0][0]
    found = scans(engine, "SELECT value FROM flat WHERE valid_time < now() AND valid_time > now() - INTERVAL 1 DAY")
    engine.rollback()
    assert found["flat"].high == {"valid_time": moment + 1}
    assert found["flat"].low == {"valid_time": moment - 86_400_000_001}


LOAD, WIND, OTHER = "id of load", "id of wind", "id of other"
JOINED: list[tuple[str, list[str] | None]] = [
    ("FROM flat JOIN series USING (series_id) WHERE series.name = 'load'", [LOAD]),
    ("FROM flat JOIN series USING (series_id) WHERE name IN ('load', 'wind') AND unit = 'MW'", [LOAD, WIND]),
    ("FROM series s JOIN flat f ON s.series_id = f.series_id AND s.name = 'load'", [LOAD]),
    ("FROM flat f, series s WHERE f.series_id = s.series_id AND lower(s.name) LIKE $a", [WIND]),
    ("FROM flat f JOIN series s USING (series_id) WHERE (s.labels ->> 'site') = 'north' AND f.value > 1", [LOAD]),
    (f"FROM flat JOIN series USING (series_id) WHERE series_id = '{LOAD}'", [LOAD]),
    ("FROM flat JOIN series USING (series_id) WHERE name = 'load' AND series_key = 'wind'", [LOAD]),
    ("FROM flat JOIN series USING (series_id) WHERE name = 'nobody'", []),
    ("FROM (FROM flat JOIN series USING (series_id) WHERE name = 'load') x", [LOAD]),
    (f"FROM flat f JOIN series s USING (series_id) WHERE name <> 'other' AND f.series_id = '{LOAD}'", [LOAD]),
    # Nothing is certain.
    ("FROM flat JOIN series USING (series_id)", None),
    ("FROM flat LEFT JOIN series USING (series_id) WHERE name IS NULL", None),
    ("FROM flat FULL JOIN series USING (series_id) WHERE name = 'load'", None),
    ("FROM flat f JOIN series s ON f.series_key = s.name WHERE s.name = 'load'", None),
    ("FROM flat f JOIN series s ON f.series_id = s.series_id OR f.value > 1 WHERE s.name = 'load'", None),
    ("FROM flat f, series s WHERE f.series_id = s.series_id AND (s.name = 'load' OR f.value > 1)", None),
    ("FROM flat JOIN series USING (series_id) WHERE name = 'load' OR random() < 0.5", None),
    ("FROM flat JOIN series USING (series_id) WHERE random() < 2 AND name = (SELECT max(name) FROM series)", None),
    ("FROM flat, series WHERE name = 'load'", None),
    ("FROM flat JOIN series USING (series_id) WHERE name = 'load' UNION ALL SELECT 1 FROM flat", None),
]


@pytest.mark.parametrize(("rest", "ids"), JOINED)
def test_a_join_with_series_says_which_are_needed(
    engine: duckdb.DuckDBPyConnection, rest: str, ids: list[str] | None
) -> None:
    tables = {**TABLES, "series": ["series_id", "name", "unit", "labels"]}
    rows = [(LOAD, "load", "MW", '{"site": "north"}'), (WIND, "wind", "MW", "{}"), (OTHER, "other", "kW", "{}")]
    engine.execute("CREATE OR REPLACE TEMP TABLE known (series_id TEXT, name TEXT, unit TEXT, labels JSON)")
    engine.executemany("INSERT INTO known VALUES (?, ?, ?, ?)", rows)
    values = {"a": "w%"} if "$a" in rest else {}
    found = scans_of(parse(engine, f"SELECT 1 {rest}", tables), tables, engine, values, "temp.main.known")["flat"]
    assert found.texts.get("series_id") == (None if ids is None else sorted(ids))
