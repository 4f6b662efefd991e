"""One query in its process: limits, DuckDB with nothing but our tables, the answer as an Arrow stream."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from .channel import BATCH, DESCRIPTION, END, ERROR, JOB, NEXT, PARAMETERS, RESULT, SCAN, Channel, Hangup
from .parameters import parameter_schema
from .pushdown import scans_of
from .query_error import QueryError, query_error_of
from .streams import open_pieces, pieces_of, schema_from_text, schema_to_text
from .syntax import CATALOG, SCHEMA, Query, parse
from .table_scan import TableScan

__all__ = ["serve"]

_BATCH_ROWS = 65_536
_BATCH_BYTES = 8 << 20
_GRACE_SECONDS = 2.0
_MAX_DEPTH = 250
_MAX_PYTHON_DEPTH = 10_000
_ENGINE_SHARE = 0.8  # of the memory; the rest is for the batches on their way
_OPEN_FILES = 64
_SERIES = "series to choose from"
_NICENESS = 10

# Grafana's Flight SQL macros expand to it; PostgreSQL and DataFusion have it, DuckDB has it by another name.
_MACROS = (
    "CREATE MACRO date_bin(stride, source, origin := TIMESTAMPTZ '1970-01-01 00:00:00+00') AS "
    "time_bucket(stride, source, origin::TIMESTAMPTZ)",
)
_LOCKS = {
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "max_temp_directory_size": "0B",
    "python_enable_replacements": "false",
    "temp_directory": "",
}


def serve(connection: socket.socket) -> None:
    """Do what the server asks for over a connection, once."""
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    channel = Channel(connection)
    try:
        job = json.loads(_expected(channel, JOB))
        values = _expected(channel, PARAMETERS)
        _limit(job["memory_bytes"], job["seconds"])
        _step_back()
        _Runner(channel, job, values).run()
    except Hangup:
        return
    except BaseException as error:
        said = query_error_of(error)
        told = {"trace": traceback.format_exc()} if said is None else {"code": said.code, "detail": said.detail}
        with suppress(Hangup):
            channel.send(ERROR, json.dumps(told).encode())


def _expected(channel: Channel, wanted: bytes) -> bytes:
    kind, body = channel.receive()
    if kind != wanted:
        raise Hangup(f"{kind!r} in place of {wanted!r}")
    return bytes(body)


def _end_with(connection: socket.socket) -> None:
    """End this process as soon as the server hangs up, whatever it is at."""
    watch = select.poll()
    watch.register(connection, 0)  # a hang-up is told without being asked for
    watch.poll()
    os._exit(1)


def _step_back() -> None:
    """Leave the processors to the server where it wants them: a query that never ends is not to slow reads down."""
    with suppress(OSError):
        os.nice(_NICENESS)


def _limit(memory_bytes: int, seconds: float) -> None:
    """Have the kernel end what DuckDB cannot: not every allocation of a query counts for DuckDB's own limit."""
    with suppress(OSError, ValueError):
        used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
        data = (int(used.split()[1]) << 10) + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(limit, (value, value))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # rather this process than the server
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS)


class _Runner:
    def __init__(self, channel: Channel, job: Mapping[str, Any], values: bytes) -> None:
        self._channel = channel
        self._lock = threading.RLock()  # DuckDB reads tables on threads of its own
        self._scans = 0
        self._job = job
        self._schemas = {name: schema_from_text(text) for name, text in job["tables"].items()}
        self._values = pa.ipc.open_stream(values).read_all().to_pylist()[0] if values else {}
        self._engine = duckdb.connect(
            config={
                **_LOCKS,
                "memory_limit": f"{int(job['memory_bytes'] * _ENGINE_SHARE)}B",
                "threads": job["threads"],
            }
        )

    def run(self) -> None:
        """Answer or describe the query."""
        for setting in ("TimeZone = 'UTC'", "errors_as_json = true", f"max_expression_depth = {_MAX_DEPTH}"):
            self._engine.execute(f"SET {setting}")
        self._engine.execute("SET lock_configuration = true")
        self._engine.execute(f"ATTACH ':memory:' AS {CATALOG}")
        self._engine.execute(f"USE {CATALOG}.{SCHEMA}")
        for macro in _MACROS:
            self._engine.execute(macro)
        sys.setrecursionlimit(_MAX_PYTHON_DEPTH)
        query = parse(self._engine, self._job["sql"], self._schemas)
        if self._job["describe"]:
            self._describe(query)
        else:
            self._answer(query)

    def _describe(self, query: Query) -> None:
        self._register({name: TableScan(schema.names) for name, schema in self._schemas.items()})
        schema: pa.Schema | None = None
        if not self._job["partly"]:
            schema = self._schema_of(query, self._bound(query))
        else:
            with suppress(duckdb.Error):  # of what type a parameter is may show only when it is bound
                schema = self._schema_of(query, dict.fromkeys(query.parameters))
        self._tell(schema, parameter_schema(query, self._schemas))

    def _schema_of(self, query: Query, values: Mapping[str, object]) -> pa.Schema:
        text = query.runnable if not query.shows else f"SELECT * FROM ({query.runnable})"
        columns = self._engine.execute(f"DESCRIBE {text}", _arguments(values)).fetchall()
        empty = ", ".join(f"NULL::{kind} AS {_quoted(name)}" for name, kind, *_ in columns)
        return self._engine.execute(f"SELECT {empty} LIMIT 0").to_arrow_table().schema

    def _answer(self, query: Query) -> None:
        values = self._bound(query)
        columns = {name: schema.names for name, schema in self._schemas.items()}
        self._engine.begin()
        try:
            scans = scans_of(query, columns, self._engine, values, self._series_of(query))
        except duckdb.Error:
            self._engine.rollback()
            self._engine.begin()
            scans = {name: TableScan(columns[name]) for name in query.names}
        self._register({name: TableScan(columns[name]) for name in columns if query.shows} | scans)
        reader = self._engine.execute(query.runnable, _arguments(values)).to_arrow_reader(_BATCH_ROWS)
        self._tell(reader.schema, pa.schema([]))
        for piece in pieces_of(reader.schema, self._parts(reader)):
            with self._lock:
                self._channel.send(RESULT, piece)
        self._channel.send(END)

    def _series_of(self, query: Query) -> str | None:
        """All of ``series``, where a join with it may say of which series values are needed."""
        if "series" not in query.names or len(query.names) < 2:
            return None
        schema = self._schemas["series"]
        self._engine.register(_SERIES, _Table(self, "series", schema, TableScan(schema.names)))
        return f"temp.main.{_quoted(_SERIES)}"

    def _tell(self, schema: pa.Schema | None, parameters: pa.Schema) -> None:
        texts = {"schema": None if schema is None else schema_to_text(schema), "parameters": schema_to_text(parameters)}
        with self._lock:
            self._channel.send(DESCRIPTION, json.dumps(texts).encode())

    def _parts(self, answer: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of the answer in pieces of a size that travels well."""
        count = 0
        for batch in answer:
            count += batch.num_rows
            if count > self._job["rows"]:
                raise QueryError("too_large", f"query: the answer has more than {self._job['rows']} rows")
            rows = max(1, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1))
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)

    def _bound(self, query: Query) -> dict[str, object]:
        """The values of the parameters, by name; those of ``?`` in the order in which they came.

        Raises:
            QueryError: there are too few or too many.
        """
        if all(name.isdigit() for name in query.parameters):
            given = {str(place): value for place, value in enumerate(self._values.values(), 1)}
        else:
            given = dict(self._values)
        if set(given) != set(query.parameters):
            wanted = f"{len(query.parameters)} ({', '.join(query.parameters)})" if query.parameters else "none"
            raise QueryError("invalid_request", f"parameters: {len(given)} are bound, the query has {wanted}")
        return given

    def _register(self, scans: Mapping[str, TableScan]) -> None:
        for name, scan in scans.items():
            schema = pa.schema([self._schemas[name].field(column) for column in scan.columns])
            inner = f"{name} of the server"
            self._engine.register(inner, _Table(self, name, schema, scan))
            self._engine.execute(f"CREATE VIEW {CATALOG}.{SCHEMA}.{_quoted(name)} AS FROM temp.main.{_quoted(inner)}")

    def scan(self, name: str, scan: TableScan) -> pa.RecordBatchReader:
        """Ask the server for a table, and read its answer piece by piece."""
        with self._lock:
            self._scans += 1
            number = self._scans
            self._channel.send(SCAN, json.dumps({"scan": number, "table": name, **scan.to_json()}).encode())
        return open_pieces(partial(self._next_piece, number))

    def _next_piece(self, scan: int) -> bytearray:
        with self._lock:
            self._channel.send(NEXT, str(scan).encode())
            kind, body = self._channel.receive()
        if kind != BATCH:
            raise OSError("the table cannot be read")  # the server knows why, and says it
        return body


class _Table:
    """A table as DuckDB reads it: from the server, anew each time."""

    def __init__(self, runner: _Runner, name: str, schema: pa.Schema, scan: TableScan) -> None:
        self._runner = runner
        self._name = name
        self._schema = schema
        self._scan = scan

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield from self._runner.scan(self._name, self._scan)


def _arguments(values: Mapping[str, object]) -> Any:
    if not values:
        return None
    if all(name.isdigit() for name in values):
        return [values[name] for name in sorted(values, key=int)]
    return dict(values)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
