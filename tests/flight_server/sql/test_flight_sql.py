"""SQL through the ADBC driver: what comes back is what the reads say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import duckdb
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import START, TIMESTAMP, act, hours, read, rows_of, send, series_named
from tests.flight_server.sql_client import ask, column, connected, fetch, refused
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.wire import ReadTicket
from timedb.flight_server import FlightService
from timedb.flight_server.sql.engine.table_scan import TableScan
from timedb.flight_server.sql.messages import CommandStatementQuery
from timedb.flight_server.sql.tables import SCHEMAS, tables_of
from timedb.storage import Lake

NAN = float("nan")
READS: dict[str, dict[str, Any]] = {
    "flat": {"view": "flat"},
    "overlapping": {"view": "overlapping"},
    "values": {"view": "overlapping", "all_versions": True},
}


@pytest.fixture(scope="module")
def sql(flight_service: FlightService) -> Iterator[adbc.Connection]:
    """The driver."""
    with connected(flight_service.url) as connection:
        yield connection


@pytest.fixture(scope="module")
def names(client: flight.FlightClient) -> list[str]:
    """Three series with revisions, corrections, a withdrawal, intervals and every kind of value."""
    names = [f"sql-{letter}" for letter in "abc"]
    values = pa.array([1.5, NAN, None, -0.0, float("inf"), 2.5])
    for index, name in enumerate(names):
        rows = rows_of(name, 6, value=values, tags=pa.array([["a", "b"], None, [], ["ü"], None, None]))
        send(client, rows, rows=6, run_id=f"{name}-1", known_time="2025-01-01T00:00:00Z")
        later = rows_of(name, 4, value=pa.array([7.0 + index, 8.0, NAN, 9.0]), annotation=["x", None, "quo'ted", None])
        send(client, later, rows=4, run_id=f"{name}-2", known_time="2025-01-02T00:00:00Z")
    send(client, rows_of(names[0], 2), rows=2, run_id="sql-wrong", known_time="2025-01-03T00:00:00Z")
    act(client, "withdraw_run", {"run_id": "sql-wrong"})
    ends = pa.array([START + timedelta(hours=2 + index) for index in range(3)], TIMESTAMP)
    send(client, rows_of(names[1], valid_time_end=ends), rows=3, run_id="sql-intervals")
    (series,) = series_named(client, names[2])
    fix = {"series_id": series["series_id"], "valid_time": START.isoformat(), "value": 70.0}
    act(client, "update_values", {"updates": [fix]})
    return names


@pytest.fixture(scope="module")
def truth(client: flight.FlightClient, names: list[str]) -> duckdb.DuckDBPyConnection:
    """The same tables in a DuckDB of our own, filled by reads; only the series of these tests are in them."""
    truth = duckdb.connect(config={"threads": 1})
    truth.execute("SET TimeZone = 'UTC'")
    for table, fields in READS.items():
        rows = read(client, **fields, series_keys=names, columns=SCHEMAS[table].names)
        truth.register("incoming", rows.cast(plain(rows.schema)))
        truth.execute(f'CREATE TABLE "{table}" AS FROM incoming')
    listed = [each for name in names for each in series_named(client, name)]
    truth.register("incoming", pa.Table.from_pylist([{"series_id": s["series_id"], "name": s["name"]} for s in listed]))
    truth.execute("CREATE TABLE series AS FROM incoming")
    return truth


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema without dictionaries and metadata."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


def cells(table: pa.Table) -> list[str]:
    """The rows of a table in some order, so that NaN is equal to itself."""
    return sorted(repr(row) for row in table.to_pylist())


@pytest.mark.parametrize("table", READS)
def test_a_table_is_its_read(sql: adbc.Connection, client: flight.FlightClient, names: list[str], table: str) -> None:
    found = ask(sql, f"SELECT * FROM \"{table}\" WHERE series_key IN ('sql-a', 'sql-b', 'sql-c')")
    expected = read(client, **READS[table], series_keys=names, columns=SCHEMAS[table].names)
    assert found.num_rows > 10
    assert found.schema.remove_metadata().equals(plain(expected.schema))
    assert cells(found) == cells(expected.cast(plain(expected.schema)))


QUERIES = [
    "SELECT count(*), sum(value), min(valid_time) FROM flat WHERE {mine}",
    "SELECT valid_time, value FROM flat WHERE series_key = 'sql-a' AND valid_time >= '2025-01-01 01:00:00Z'",
    "SELECT valid_time, value FROM flat WHERE {mine} AND valid_time < TIMESTAMP '2025-01-01 02:00'",
    "SELECT value FROM flat WHERE {mine} AND valid_time BETWEEN '2025-01-01T01:00:00Z' AND '2025-01-01T03:00:00Z'",
    "SELECT value FROM flat WHERE {mine} AND '2025-01-01 03:00:00+00' <= valid_time"
    " AND NOT valid_time > '2025-01-01 04:00:00Z'",
    "SELECT value FROM flat WHERE {mine} AND valid_time IN ('2025-01-01 00:00:00Z', '2025-01-01 05:00:00Z')",
    "SELECT value FROM flat WHERE {mine} AND (valid_time = '2025-01-01 00:00:00Z' OR value > 8)",
    "SELECT value FROM flat WHERE {mine} AND value > 2",
    "SELECT value FROM flat WHERE {mine} AND value <= 2",
    "SELECT value FROM flat WHERE {mine} AND isnan(value) OR series_key = 'sql-b' AND value IS NULL",
    "SELECT known_time, value FROM flat WHERE {mine} AND known_time < '2025-01-01 12:00:00Z'",
    "SELECT known_time, value FROM overlapping WHERE {mine} AND known_time <= '2025-01-01 00:00:00Z'",
    "SELECT run_id, retracted, value FROM \"values\" WHERE {mine} AND known_time > '2025-01-02 00:00:00Z'",
    "SELECT f.value - o.value AS d FROM flat f JOIN overlapping o USING (series_id, valid_time)"
    " WHERE f.series_key = 'sql-a' AND o.series_key = 'sql-a' AND o.known_time < '2025-01-02 00:00:00Z'",
    "SELECT name, valid_time, value FROM flat JOIN series USING (series_id)"
    " WHERE name = 'sql-b' AND valid_time > '2025-01-01 01:00:00Z' AND {mine}",
    "SELECT name, count(value) FROM series LEFT JOIN flat ON flat.series_id = series.series_id"
    " AND flat.valid_time > '2025-01-01 03:00:00Z' WHERE name LIKE 'sql-_' GROUP BY name",
    "SELECT name, flat.value FROM series LEFT JOIN flat USING (series_id)"
    " WHERE name LIKE 'sql-_' AND flat.valid_time > '2025-01-01 03:00:00Z'",
    "SELECT valid_time, value, lag(value) OVER (PARTITION BY series_id, valid_time_end ORDER BY valid_time) AS before"
    " FROM flat WHERE {mine}",
    "WITH flat AS (SELECT 1 AS value) SELECT value FROM flat",
    "WITH mine AS (SELECT * FROM flat WHERE {mine}) SELECT count(*) FROM mine a JOIN mine b USING (series_id)",
    "SELECT (SELECT max(known_time) FROM overlapping o WHERE o.series_id = f.series_id) AS last, f.value"
    " FROM flat f WHERE f.series_key = 'sql-c' AND f.valid_time = '2025-01-01 00:00:00Z'",
    "SELECT value FROM flat WHERE {mine} UNION ALL SELECT value FROM overlapping WHERE series_key = 'sql-a'",
    "SELECT * FROM (VALUES ('sql-a'), ('sql-b')) AS wanted(series_key) JOIN flat USING (series_key)"
    " WHERE valid_time < '2025-01-01 01:00:00Z'",
    # One row a time on the right: which of several an ASOF join takes is nobody's promise.
    "SELECT f.series_key, o.value FROM flat f ASOF JOIN"
    " (SELECT * FROM overlapping WHERE run_id LIKE '%-1' AND valid_time_end IS NULL) o"
    " ON f.series_id = o.series_id AND f.valid_time >= o.valid_time"
    " WHERE f.{mine} AND o.valid_time < '2025-01-01 01:00:00Z' AND f.valid_time_end IS NULL",
    "SELECT tag, count(*) FROM (SELECT unnest(tags) AS tag FROM flat WHERE {mine}) GROUP BY ALL",
    "SELECT value FROM flat WHERE {mine} AND valid_time > now() - INTERVAL 100 YEAR AND valid_time < now()",
    "SELECT series_key, arg_max(value, valid_time) AS last FROM flat WHERE {mine} GROUP BY 1 HAVING count(*) > 3",
    "SELECT flat FROM flat WHERE {mine} AND value = 1.5",
    "SELECT COLUMNS('.*_time') FROM flat WHERE {mine}",
    "SELECT series_key FROM flat WHERE {mine} AND 1 = 2",
    "SELECT count(*) FROM timedb.main.flat WHERE {mine}",
    "SELECT valid_time::DATE AS day, time_bucket(INTERVAL 2 HOUR, valid_time) AS two, count(*) FROM flat"
    " WHERE {mine} GROUP BY 1, 2",
]


@pytest.mark.parametrize("text", QUERIES)
def test_a_query_answers_as_it_would_over_the_reads(
    sql: adbc.Connection, truth: duckdb.DuckDBPyConnection, text: str
) -> None:
    text = text.replace("{mine}", "series_key IN ('sql-a', 'sql-b', 'sql-c')")
    expected = truth.execute(text.replace("timedb.main.", "")).to_arrow_table()
    found = ask(sql, text)
    assert found.schema.remove_metadata().equals(expected.schema)
    assert cells(found) == cells(expected)


def test_an_order_is_kept_and_an_empty_answer_has_its_columns(sql: adbc.Connection, names: list[str]) -> None:
    text = "SELECT valid_time FROM flat WHERE series_key = 'sql-a' ORDER BY valid_time DESC LIMIT 3 OFFSET 1"
    assert column(sql, text) == [START + timedelta(hours=hour) for hour in (4, 3, 2)]
    nothing = ask(sql, "SELECT valid_time, value, tags FROM flat WHERE series_key = 'no such series'")
    assert nothing.num_rows == 0
    assert nothing.schema.types == [TIMESTAMP, pa.float64(), pa.list_(pa.string())]


def test_the_catalog_tables_are_the_lists(sql: adbc.Connection, client: flight.FlightClient, names: list[str]) -> None:
    (series,) = series_named(client, "sql-a")
    rows = ask(sql, "SELECT series_id, name, labels, unit, retired FROM series WHERE name = 'sql-a'").to_pylist()
    assert rows == [
        {"series_id": series["series_id"], "name": "sql-a", "labels": "{}", "unit": "dimensionless", "retired": False}
    ]
    run = act(client, "get_run", {"run_id": "sql-a-1"})
    (row,) = ask(sql, "SELECT run_id, rows, known_time, workflow_id FROM runs WHERE run_id = 'sql-a-1'").to_pylist()
    assert row == {
        "run_id": "sql-a-1",
        "rows": run["rows"],
        "known_time": datetime(2025, 1, 1, tzinfo=UTC),
        "workflow_id": run["workflow_id"],
    }


def test_runs_say_what_is_withdrawn_of_them(sql: adbc.Connection, client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name), rows=3, run_id=name)
    text = f"SELECT withdrawn_rows, withdrawn_reason, withdrawn_by, withdrawn_time FROM runs WHERE run_id = '{name}'"
    (row,) = ask(sql, text).to_pylist()
    assert list(row.values()) == [0, None, None, None]
    act(client, "withdraw_run", {"run_id": name, "reason": "wrong", "changed_by": "me"})
    (row,) = ask(sql, text).to_pylist()
    assert list(row.values())[:3] == [3, "wrong", "me"]
    assert (
        row["withdrawn_time"].isoformat(timespec="microseconds")
        == act(client, "get_run", {"run_id": name})["withdrawn"]["time"]
    )
    assert name in ask(sql, "SELECT run_id FROM runs WHERE withdrawn_rows = rows").column("run_id").to_pylist()


def test_an_answer_says_which_state_it_is_of(client: flight.FlightClient, names: list[str]) -> None:
    answer = fetch(client, CommandStatementQuery("SELECT count(*) AS n FROM flat WHERE series_key = 'sql-a'"))
    metadata = read(client, series_keys=["sql-a"]).schema.metadata
    assert answer.schema.metadata == {key: metadata[key] for key in (b"table_version", b"as_of")}


def test_a_moment_sees_nothing_of_what_comes_later(lake: Lake, client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name), rows=3, run_id=f"{name}-1")
    snapshot = lake.tenant(OPEN_TENANT_ID).snapshot()
    send(client, rows_of(name, value=pa.array([7.0, 8.0, 9.0])), rows=3, run_id=f"{name}-2")
    ticket = ReadTicket(series_keys=[name], columns=["value"])
    assert snapshot.read(ticket).read_all().column("value").to_pylist() == [0.0, 1.0, 2.0]
    runs = snapshot.run_rows(["run_id"]).column("run_id").to_pylist()
    assert f"{name}-1" in runs
    assert f"{name}-2" not in runs


def test_a_query_for_a_run_reads_what_it_wrote_and_never_another_winner(
    lake: Lake, client: flight.FlightClient, name: str
) -> None:
    for run in (1, 2):
        send(client, rows_of(name, value=pa.array([run, run, run], pa.float64())), rows=3, run_id=f"{name}-{run}")
    tables = tables_of(lake.tenant(OPEN_TENANT_ID).snapshot())
    scan = TableScan(["run_id", "value"], texts={"run_id": [f"{name}-1"], "series_key": [name]})
    values = {table: tables.read(table, scan).read_all().column("value").to_pylist() for table in READS}
    assert values == {"flat": [2.0] * 3, "overlapping": [1.0] * 3, "values": [1.0] * 3}


PARAMETERS: list[tuple[str, list[Any], list[Any]]] = [
    ("SELECT value FROM flat WHERE series_key = ? AND valid_time = ?", ["sql-a", START], [7.0]),
    ("SELECT value FROM flat WHERE valid_time = $2 AND series_key = $1", ["sql-b", START], [8.0, 0.0]),
    ("SELECT count(*) FROM flat WHERE series_key IN (?, ?)", ["sql-a", "sql-c"], [12]),
    ("SELECT value FROM flat WHERE series_key = 'sql-a' AND valid_time = ? + INTERVAL 1 HOUR", [START], [8.0]),
    ("SELECT ? + 1", [41], [42]),
    ("SELECT ?", [None], [None]),
    ("SELECT ?", [True], [True]),
    ("SELECT ?", [1.5], [1.5]),
    ("SELECT ?", [b"\x00\xff"], [b"\x00\xff"]),
    ("SELECT ?", [date(2025, 1, 1)], [date(2025, 1, 1)]),
    ("SELECT ?", [Decimal("1.50")], [Decimal("1.50")]),
    ("SELECT ?", ["'; DROP TABLE flat; --"], ["'; DROP TABLE flat; --"]),
    ("SELECT 'x' LIMIT ?", [0], []),
]


@pytest.mark.parametrize(("text", "values", "expected"), PARAMETERS)
def test_parameters_are_values(
    sql: adbc.Connection, names: list[str], text: str, values: list[Any], expected: list[Any]
) -> None:
    assert column(sql, text, values) == expected


def test_a_prepared_query_runs_with_one_set_of_values_after_another(sql: adbc.Connection, names: list[str]) -> None:
    with sql.cursor() as cursor:
        text = "SELECT max(value) FROM flat WHERE series_key = ? AND valid_time < ?"
        parameters = cursor.adbc_prepare(text)
        assert parameters is not None
        assert parameters.types == [pa.string(), TIMESTAMP]
        for name, hour, expected in (("sql-a", 1, 7.0), ("sql-c", 1, 70.0), ("sql-a", 0, None)):
            cursor.execute(text, (name, START + timedelta(hours=hour)))
            assert cursor.fetchone() == (expected,)


def test_several_rows_of_parameters_are_not_offered(sql: adbc.Connection, names: list[str]) -> None:
    with sql.cursor() as cursor, refused("unimplemented", "several rows", "lookup"):
        cursor.execute("SELECT value FROM flat WHERE series_key = ?", pa.table({"name": ["sql-a", "sql-b"]}))


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        ("SELECT ?", (), "0 are bound, the query has 1"),
        ("SELECT ?", (1, 2), "2 are bound, the query has 1"),
        ("SELECT 1", (1,), "1 are bound, the query has none"),
    ],
)
def test_values_that_do_not_fit_the_parameters(
    sql: adbc.Connection, text: str, values: tuple[Any, ...], said: str
) -> None:
    with refused("invalid_request", said):
        ask(sql, text, values)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("SELEC 1", "invalid_request", 'syntax error at or near "SELEC" (at character 1)'),
        ("SELECT value FORM flat", "invalid_request", "syntax error"),
        ("SELECT nope FROM flat", "invalid_request", 'Referenced column "nope" not found'),
        ("SELECT * FROM nope", "not_found", "there is no table 'nope'; there are flat, overlapping, runs, series"),
        ("SELECT 'a'::INTEGER", "invalid_request", "Could not convert string 'a'"),
        ("SELECT run_id::INTEGER FROM runs", "invalid_request", "Could not convert string"),
        ("SELECT sum(series_id) FROM flat", "invalid_request", "No function matches"),
        ("-- nothing", "invalid_request", "is empty"),
        ("SELECT 1; SELECT 2", "unimplemented", "several statements"),
    ],
)
def test_a_fault_in_the_sql_is_named(sql: adbc.Connection, names: list[str], text: str, code: str, said: str) -> None:
    with refused(code, said):
        ask(sql, text)


@pytest.mark.parametrize(
    "text", ["INSERT INTO flat VALUES (1)", "DELETE FROM series", "CREATE TABLE x (a INTEGER)", "BEGIN TRANSACTION"]
)
def test_writing_is_not_offered(sql: adbc.Connection, text: str) -> None:
    with refused("unimplemented", "is not offered"), sql.cursor() as cursor:
        cursor.execute(text)
    with refused("unimplemented"), sql.cursor() as cursor:
        cursor.adbc_prepare(text)


def test_transactions_are_not_offered(flight_service: FlightService) -> None:
    with connected(flight_service.url) as connection:
        with connection.cursor() as cursor, refused("unimplemented", "append to values"):
            cursor.adbc_ingest("series", pa.table({"a": [1]}))
        with pytest.raises(adbc.Error, match="transaction"):
            connection.adbc_connection.set_autocommit(False)


def test_many_queries_at_once(flight_service: FlightService, names: list[str]) -> None:
    answers: dict[str, list[Any]] = {}

    def work(name: str) -> None:
        with connected(flight_service.url) as connection:
            answers[name] = column(connection, "SELECT run_id FROM flat WHERE series_key = ?", [name])

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(answers[name]) for name in names] == [6, 9, 6]
    assert [f"{name}-1" in answers[name] for name in names] == [True] * 3


def test_a_large_answer_comes_whole(sql: adbc.Connection, client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name, 120_000, valid_time=hours(120_000)), rows=120_000)
    table = ask(sql, f"SELECT valid_time, value, run_id FROM flat WHERE series_key = '{name}' ORDER BY valid_time")
    assert table.num_rows == 120_000
    assert table.column("value").to_pylist() == [float(number) for number in range(120_000)]
