"""What SQL may not do, and what becomes of queries that take too much: the server goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_manager
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import Start, eventually, fails, rows_of, send
from tests.flight_server.sql_client import ask, column, connected, fetch, query, refused
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.sql.messages import CommandStatementQuery
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c WHERE a.range + b.range = c.range"
HOSTILE: dict[str, str] = {
    "SELECT * FROM read_csv('/etc/passwd')": "unimplemented",
    "SELECT * FROM read_text('/etc/passwd')": "unimplemented",
    "SELECT * FROM read_blob('/proc/self/environ')": "unimplemented",
    "SELECT * FROM read_parquet('s3://bucket/*')": "unimplemented",
    "SELECT * FROM parquet_metadata('/etc/passwd')": "unimplemented",
    "SELECT * FROM glob('/*')": "unimplemented",
    "SELECT * FROM '/etc/passwd'": "not_found",
    "SELECT * FROM 'https://example.com/a.parquet'": "not_found",
    "SELECT * FROM flat, '/etc/passwd'": "not_found",
    "SELECT (SELECT count(*) FROM '/etc/passwd')": "not_found",
    "WITH x AS (SELECT * FROM read_csv('/etc/passwd')) SELECT 1": "unimplemented",
    "SELECT * FROM query('SELECT 1')": "unimplemented",
    "SELECT * FROM query_table('flat')": "unimplemented",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))": "unimplemented",
    "SELECT * FROM arrow_scan(1::BIGINT::POINTER, 1::BIGINT::POINTER, 1::BIGINT::POINTER)": "unimplemented",
    "SELECT 1::BIGINT::POINTER": "unimplemented",
    "SELECT CAST(NULL AS STRUCT(a POINTER))": "unimplemented",
    "SELECT finalize('x'::BLOB)": "unimplemented",
    "SELECT __internal_decompress_string('x')": "unimplemented",
    "SELECT main.current_setting('secret_directory')": "unimplemented",
    "SELECT getvariable('x')": "unimplemented",
    "SELECT write_log('x')": "unimplemented",
    "SELECT sleep_ms(1000)": "unimplemented",
    "SELECT * FROM duckdb_settings()": "unimplemented",
    "SELECT * FROM duckdb_secrets()": "unimplemented",
    "SELECT * FROM pg_catalog.pg_class": "not_found",
    "SELECT * FROM information_schema.tables": "not_found",
    "SELECT * FROM temp.main.flat": "not_found",
    'SELECT * FROM "flat of the server"': "not_found",
    "SELECT * FROM memory.main.flat": "not_found",
    "SELECT * FROM flat AT (VERSION => 1)": "unimplemented",
    "SELECT b.* FROM (WITH pg_database AS (SELECT 1) SELECT 1) a, pg_database b": "not_found",
    "SELECT (WITH pg_database AS (SELECT 1) SELECT 1), (SELECT count(*) FROM pg_database)": "not_found",
    "SELECT 1 WHERE EXISTS (WITH pg_database AS (SELECT 1) SELECT 1) AND EXISTS (FROM pg_database)": "not_found",
    "WITH pg_database AS (SELECT * FROM pg_database) SELECT * FROM pg_database": "not_found",
    "WITH a AS (SELECT * FROM pg_database), pg_database AS (SELECT 1) SELECT * FROM a": "not_found",
    "WITH a AS (WITH pg_database AS (SELECT 1) SELECT 1), b AS (SELECT * FROM pg_database) FROM b": "not_found",
    "WITH RECURSIVE pg_class AS (SELECT oid FROM pg_class UNION SELECT oid FROM pg_class) FROM pg_class": "not_found",
    "(WITH pg_class AS (SELECT 1) FROM pg_class) UNION ALL (SELECT oid FROM pg_class)": "not_found",
    "(SELECT oid FROM pg_class) EXCEPT (WITH pg_class AS (SELECT 1) FROM pg_class)": "not_found",
    "SELECT * FROM flat JOIN (WITH sqlite_master AS (SELECT 1) FROM sqlite_master) ON true, sqlite_master": "not_found",
    "SELECT list_transform([1], lambda x: (WITH pg_class AS (SELECT 1) SELECT 1)) FROM pg_class": "not_found",
    "DESCRIBE (SELECT (WITH pg_class AS (SELECT 1) SELECT 1), oid FROM pg_class)": "not_found",
    "SHOW DATABASES": "unimplemented",
    "IMPORT DATABASE '/any/folder'": "unimplemented",
    "SELECT {'a': 1}::VARIANT": "unimplemented",
    "SELECT [{'a': value::VARIANT}] FROM flat": "unimplemented",
    "COPY flat TO '/tmp/out.csv'": "unimplemented",
    "COPY (SELECT 1) TO '/tmp/out.parquet'": "unimplemented",
    "EXPORT DATABASE '/tmp/out'": "unimplemented",
    "ATTACH '/tmp/x.db'": "unimplemented",
    "ATTACH ':memory:' AS other": "unimplemented",
    "DETACH timedb": "unimplemented",
    "USE memory": "unimplemented",
    "INSTALL httpfs": "unimplemented",
    "LOAD httpfs": "unimplemented",
    "SET memory_limit = '100GB'": "unimplemented",
    "RESET memory_limit": "unimplemented",
    "PRAGMA threads = 64": "unimplemented",
    "CALL pragma_version()": "unimplemented",
    "CREATE MACRO f(x) AS x": "unimplemented",
    "CREATE SECRET (TYPE s3)": "unimplemented",
    "DROP VIEW flat": "unimplemented",
    "UPDATE series SET name = 'x'": "unimplemented",
    "EXPLAIN ANALYZE SELECT 1": "unimplemented",
    "VACUUM": "unimplemented",
    "CHECKPOINT": "unimplemented",
    "PREPARE x AS SELECT 1": "unimplemented",
    "EXECUTE x": "unimplemented",
    "SELECT 1; COPY flat TO '/tmp/out.csv'": "unimplemented",
    f"SELECT {'CASE WHEN true THEN ' * 3000}1{' END' * 3000}": "invalid_request",
    f"SELECT {'+'.join(['1'] * 5000)}": "invalid_request",
    f"SELECT {'[' * 400}1{']' * 400}": "invalid_request",
    f"SELECT {'NOT ' * 20_000}true": "invalid_request",
    "SELECT '\x00'": "invalid_request",
    "SELECT 'x" * 1000: "invalid_request",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:60])
def test_what_leads_out_of_the_tables_is_refused(client: flight.FlightClient, text: str) -> None:
    with fails(HOSTILE[text], "query"):
        client.get_flight_info(query(text))
    assert not [path for path in ("/tmp/out.csv", "/tmp/out.parquet", "/tmp/out", "/tmp/x.db") if os.path.exists(path)]


GREEDY = [
    "SELECT len(repeat('x', 4000000000))",
    "SELECT len(range(2000000000))",
    "SELECT list(range) FROM range(1000000000)",
    "SELECT array_agg(r.range) OVER () FROM range(100000) r",
    "SELECT median(range) FROM range(300000000)",
    "SELECT range FROM range(1000000000) ORDER BY random()",
    "WITH RECURSIVE t AS (SELECT 'x' AS n UNION ALL SELECT n || n FROM t) SELECT count(*) FROM t",
]


@pytest.fixture(scope="module")
def strict(lake: Lake) -> Iterator[FlightService]:
    """A server that gives a query little."""
    limits: dict[str, Any] = {"sql_memory_bytes": 64 << 20, "sql_rows": 1000, "max_sql_bytes": 5000}
    service = start_flight_server(lake, load_settings(ServerSettings, flight_port=0, shutdown_seconds=2.0, **limits))
    yield service
    service.stop()


@pytest.mark.parametrize("text", GREEDY)
def test_a_query_that_takes_too_much_memory_ends_alone(strict: FlightService, text: str) -> None:
    before = _memory_of(os.getpid())
    with flight.connect(strict.url) as client:
        with fails("too_large", "memory"):
            fetch(client, CommandStatementQuery(text))
        assert fetch(client, CommandStatementQuery("SELECT 1 AS a")).to_pylist() == [{"a": 1}]
    assert _memory_of(os.getpid()) - before < 64 << 20, "the server itself has taken none of it"


def test_a_query_over_its_time_fails(start: Start) -> None:
    service = start(sql_seconds=0.5)
    with connected(service.url) as sql, refused("timeout", "0.5 seconds"):
        ask(sql, ENDLESS)
    eventually(lambda: not _queries_of(service))


def test_an_answer_of_too_many_rows_fails(strict: FlightService) -> None:
    with connected(strict.url) as sql:
        assert len(column(sql, "SELECT * FROM range(1000)")) == 1000
        with refused("too_large", "1000 rows"):
            ask(sql, "SELECT * FROM range(1001)")


def test_a_text_over_the_limit_is_not_parsed(strict: FlightService) -> None:
    with connected(strict.url) as sql, refused("too_large", "limit of 5000"):
        ask(sql, f"SELECT '{'x' * 5000}'")


def test_queries_over_the_limit_are_busy_and_a_cancelled_one_is_gone(start: Start) -> None:
    service = start(max_concurrent_sql=1, sql_wait_seconds=0)
    with connected(service.url) as sql, connected(service.url) as other:
        cursor, failures = sql.cursor(), []

        def run() -> None:
            try:
                cursor.execute(ENDLESS)
                cursor.fetchone()
            except adbc_driver_manager.Error as error:
                failures.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: len(_queries_of(service)) == 1 and service.calls_in_flight == 1)
        with refused("busy", "1 sql"):
            ask(other, "SELECT 1")
        cursor.adbc_cancel()
        thread.join()
        assert "cancel" in failures[0].lower()
        eventually(lambda: not _queries_of(service) and service.calls_in_flight == 0)
        assert column(other, "SELECT 1") == [1]
        cursor.close()


def test_queries_wait_for_their_turn_and_leave_the_processors_to_the_server(start: Start) -> None:
    service = start(max_concurrent_sql=1)
    with flight.connect(service.url) as client:
        (endpoint,) = client.get_flight_info(query("SELECT * FROM range(5000000)")).endpoints
        first = client.do_get(endpoint.ticket)
        first.read_chunk()
        (process,) = _queries_of(service)
        assert os.getpriority(os.PRIO_PROCESS, process) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(_one(service))) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: service._server.sql.slots.waiting == 4)
        first.cancel()
        for thread in threads:
            thread.join()
    assert found == [1] * 4


def _one(service: FlightService) -> int:
    with connected(service.url) as sql:
        return int(column(sql, "SELECT 1")[0])


def test_a_query_over_its_share_of_memory_waits_and_is_told(start: Start) -> None:
    service = start()
    memory = service._server._lake.memory.calls
    eventually(lambda: memory.taken == 0)
    with connected(service.url) as sql:
        with memory.share("another", memory.for_calls), refused("busy", "query: the call takes about"):
            ask(sql, "SELECT 1")
        assert column(sql, "SELECT 1") == [1]
    assert memory.taken == 0


def test_a_query_takes_a_slot_of_the_reads(start: Start) -> None:
    service = start(max_concurrent_reads=1)
    with flight.connect(service.url) as client:
        (endpoint,) = client.get_flight_info(query("SELECT * FROM range(5000000)")).endpoints
        stalled = client.do_get(endpoint.ticket)
        stalled.read_chunk()
        with fails("busy", "1 reads"):
            client.do_get(endpoint.ticket).read_all()
        stalled.cancel()
        eventually(lambda: not _queries_of(service))
        eventually(lambda: outcome(lambda: client.do_get(endpoint.ticket).read_all())[0] == "ok")


def test_a_process_that_is_killed_is_an_error_and_the_next_query_works(start: Start) -> None:
    service = start()
    with connected(service.url) as sql:
        killed = threading.Thread(target=_kill_soon, args=(service,))
        killed.start()
        with refused("too_large", "its process was ended"):
            ask(sql, ENDLESS)
        killed.join()
        assert column(sql, "SELECT 1") == [1]
        os.kill(_zygote_of(service), signal.SIGKILL)
        time.sleep(0.1)
        assert column(sql, "SELECT 2") == [2]


def test_queries_run_in_a_bare_process_that_ends_with_the_server(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    service = start()
    with connected(service.url) as sql:
        assert column(sql, "SELECT 1") == [1]
    zygote = _zygote_of(service)
    environment = Path(f"/proc/{zygote}/environ").read_bytes()
    assert b"s3cret" not in environment
    assert os.readlink(f"/proc/{zygote}/cwd") == "/"
    service.stop()
    assert not os.path.exists(f"/proc/{zygote}")


def test_what_a_key_may_not_see_is_not_there_for_its_queries(tmp_path: Path) -> None:
    uri = str(tmp_path / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=2.0)
    lake = Lake.open(uri, settings)
    ann = lake.create_user(NewUser(email="ann@example.com"))
    tenant = ann["tenant_id"]
    ben = lake.create_user(
        NewUser(email="ben@example.com", tenant_id=tenant, scopes=["read"], labels={"region": "north"})
    )
    eve = lake.create_user(NewUser(email="eve@example.com", new_tenant=True))
    writer = lake.create_user(NewUser(email="pen@example.com", tenant_id=tenant, scopes=["write"]))
    service = start_flight_server(lake, settings)
    try:
        with calling(service.url, ann["api_key"]) as client:
            for name, region in (("a", "north"), ("b", "south")):
                send(client, rows_of(name, labels=[f'{{"region": "{region}"}}'] * 3), rows=3, run_id=name)
        counts = 'SELECT (SELECT count(*) FROM series), (SELECT count(*) FROM flat), (SELECT count(*) FROM "values")'
        counts += ", (SELECT count(*) FROM overlapping), (SELECT count(*) FROM runs)"
        seen = {}
        for user in (ann, ben, eve):
            with connected(service.url, user["api_key"]) as sql:
                seen[user["email"]] = tuple(ask(sql, counts).to_pylist()[0].values())
                named = column(sql, "SELECT series_key FROM flat WHERE series_key = ?", ["b"])
                assert named == (["b"] * 3 if user is ann else [])
        assert seen == {
            "ann@example.com": (2, 6, 6, 6, 2),
            "ben@example.com": (1, 3, 3, 3, 0),
            "eve@example.com": (0, 0, 0, 0, 0),
        }
        for key, code in ((writer["api_key"], "forbidden"), ("wrong", "unauthenticated"), (None, "unauthenticated")):
            with calling(service.url, key) as client:
                assert outcome(lambda client=client: client.get_flight_info(query("SELECT 1")))[0] == code  # type: ignore[misc]  # what a default binds, mypy does not infer
    finally:
        service.stop()
        lake.close()


def _zygote_of(service: FlightService) -> int:
    process = service._server.sql._processes._zygote
    assert process is not None
    return int(process.pid)


def _queries_of(service: FlightService) -> list[int]:
    """The processes of the queries that run."""
    if service._server.sql._processes._zygote is None:
        return []
    zygote = _zygote_of(service)
    return [int(child) for child in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()]


def _kill_soon(service: FlightService) -> None:
    eventually(lambda: service._server.reads.taken == 1 and bool(_queries_of(service)))
    time.sleep(0.2)
    for child in _queries_of(service):
        os.kill(child, signal.SIGKILL)


def _memory_of(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
