"""A peer for small uploads: Debian's PostgreSQL with the tables and the insert path of TimeDB 0.1.

The facts are those of rebase-energy/timedb before its move to ClickHouse (``timedb/db/insert.py``, ``timedb/sql/``),
the SQL is our own: a transaction an upload, which looks up the series, inserts the batch and, by ``executemany``, its
rows; 50 rows and more go by ``COPY``. The release ran on TimescaleDB, which Debian has not: its hypertables are plain
tables here, which spares PostgreSQL the choice of a chunk. Each client keeps its connection, as with the pool of 0.1.4.

``fsync``, ``full_page_writes`` and ``synchronous_commit`` stay on; ``shared_buffers`` is a quarter of memory and
``max_wal_size`` 4 GB, as its documentation advises (Resource Consumption).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from benchmarks.peers import Missing
from benchmarks.postgres_server import Server

__all__ = ["PostgreSQL", "Uploads"]

SCHEMA = """
    CREATE TABLE batches_table (
        batch_id bigserial PRIMARY KEY,
        workflow_id text,
        batch_start_time timestamptz,
        batch_finish_time timestamptz,
        known_time timestamptz NOT NULL DEFAULT now(),
        batch_params jsonb CHECK (batch_params IS NULL OR jsonb_typeof(batch_params) = 'object'),
        inserted_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE series_table (
        series_id bigserial PRIMARY KEY,
        name text NOT NULL CHECK (length(btrim(name)) > 0),
        unit text NOT NULL,
        labels jsonb NOT NULL DEFAULT '{}',
        description text,
        overlapping boolean NOT NULL DEFAULT false,
        retention text NOT NULL DEFAULT 'medium' CHECK (retention IN ('short', 'medium', 'long')),
        inserted_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (name, labels)
    );
    CREATE INDEX ON series_table USING gin (labels);
    CREATE TABLE overlapping_medium (
        overlapping_id bigserial,
        batch_id bigint NOT NULL REFERENCES batches_table ON DELETE CASCADE,
        series_id bigint NOT NULL REFERENCES series_table ON DELETE CASCADE,
        valid_time timestamptz NOT NULL,
        valid_time_end timestamptz CHECK (valid_time_end IS NULL OR valid_time_end > valid_time),
        value double precision,
        known_time timestamptz NOT NULL,
        annotation text,
        metadata jsonb,
        tags text[],
        changed_by text,
        change_time timestamptz NOT NULL DEFAULT now(),
        UNIQUE (series_id, valid_time, known_time)
    );
    CREATE INDEX ON overlapping_medium (series_id, valid_time, known_time DESC);
"""
COLUMNS = "(batch_id, series_id, valid_time, valid_time_end, value, known_time)"
COPY_FROM = 50  # rows from which 0.1 copies


class PostgreSQL:
    """A server with an empty database.

    Raises:
        Missing: its programs, psycopg, or a user that may run it are not here.
    """

    name = "PostgreSQL, TimeDB 0.1"

    def __init__(self) -> None:
        try:
            self._psycopg: Any = importlib.import_module("psycopg")
        except ImportError:
            raise Missing("psycopg is not installed") from None
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        self._server = Server(shared_buffers=f"{memory // 4}MB", max_wal_size="4GB", max_connections="100")
        self.url = self._server.conninfo
        try:
            with self.connect() as connection:
                connection.execute(SCHEMA)
                (version,) = connection.execute("SHOW server_version").fetchone()
        except BaseException:
            self.close()
            raise
        self.how = (
            f"PostgreSQL {version} on a Unix socket, psycopg {self._psycopg.__version__}; the tables and the insert "
            "path of TimeDB 0.1 as plain tables, a transaction an upload (series looked up, batch inserted, rows by "
            "`executemany`, from 50 rows by `COPY`), each client on a connection that it keeps. fsync, "
            "full_page_writes, synchronous_commit on; shared_buffers a quarter of memory, max_wal_size 4 GB, by its "
            "documentation (Resource Consumption)"
        )

    def connect(self) -> Any:
        """A connection in autocommit; waits for a server that is starting."""
        return self._server.connected(
            lambda: self._psycopg.connect(self.url, autocommit=True), self._psycopg.OperationalError
        )

    def series(self, names: Sequence[str]) -> list[int]:
        """Create series, or find them; their numbers."""
        with self.connect() as connection:
            return [
                connection.execute(
                    "INSERT INTO series_table (name, unit, overlapping) VALUES (%s, 'MW', true) "
                    "ON CONFLICT (name, labels) DO UPDATE SET unit = EXCLUDED.unit RETURNING series_id",
                    [name],
                ).fetchone()[0]
                for name in names
            ]

    def held(self) -> tuple[int, int, float]:
        """Batches, rows, and the sum of their values."""
        with self.connect() as connection:
            found: tuple[int, int, float] = connection.execute(
                "SELECT count(DISTINCT batch_id), count(*), coalesce(sum(value), 0) FROM overlapping_medium"
            ).fetchone()
        return found

    def query(self, sql: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows as Python tuples."""
        with self.connect() as connection:
            rows: list[tuple[Any, ...]] = connection.execute(sql, arguments).fetchall()
        return rows

    def close(self) -> None:
        """Stop the server at once, remove its folder."""
        self._server.close()


class Uploads:
    """One client: the insert path of 0.1 over a connection that is kept."""

    def __init__(self, url: str) -> None:
        psycopg: Any = importlib.import_module("psycopg")
        self._connection = psycopg.connect(url, autocommit=True)

    def __call__(self, series: int, rows: Sequence[tuple[Any, float]], known_time: Any = None) -> None:
        """One upload: ``(valid_time, value)`` rows of a series, in a transaction of its own."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT series_id, overlapping, retention FROM series_table WHERE series_id = ANY(%s)", [[series]]
            )
            cursor.fetchall()
            cursor.execute(
                "INSERT INTO batches_table (workflow_id, known_time) VALUES (%s, coalesce(%s, now())) "
                "RETURNING batch_id, known_time",
                ["benchmark", known_time],
            )
            batch, known = cursor.fetchone()
            values = [(batch, series, valid, None, value, known) for valid, value in rows]
            if len(values) < COPY_FROM:
                cursor.executemany(f"INSERT INTO overlapping_medium {COLUMNS} VALUES (%s, %s, %s, %s, %s, %s)", values)
            else:
                with cursor.copy(f"COPY overlapping_medium {COLUMNS} FROM STDIN") as copy:
                    for row in values:
                        copy.write_row(row)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
