"""A PostgreSQL server with an empty database for each test; skipped where there is none."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from benchmarks.peers import Missing
from benchmarks.postgres_server import Server

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server."""
    adbc = pytest.importorskip("adbc_driver_postgresql.dbapi", reason="no adbc-driver-postgresql: the extra postgres")
    try:
        server = Server(fsync="off", shared_buffers="16MB", max_connections="20")
    except Missing as missing:
        pytest.skip(str(missing))
    try:
        server.connected(lambda: adbc.connect(server.url), adbc.Error).close()
        yield server
    finally:
        server.close()


@pytest.fixture
def database(postgres: Server) -> Iterator[Callable[[str], str]]:
    """Runs SQL in a database of this test alone; gives its address."""
    adbc = importlib.import_module("adbc_driver_postgresql.dbapi")
    name = f"of_test_{next(_NUMBERS)}"
    with adbc.connect(postgres.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    url = postgres.url.replace("/postgres?", f"/{name}?")
    with adbc.connect(url, autocommit=True) as connection, connection.cursor() as cursor:

        def run(sql: str) -> str:
            for statement in filter(str.strip, sql.split(";")):
                cursor.execute(statement)
            return url

        yield run
