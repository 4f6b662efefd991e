"""Runs queries in processes of their own, and feeds them the tables that they read."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from timedb.contract.errors import Busy, Internal, InvalidRequest, NotFound, TimeDBError, TooLarge, Unimplemented
from timedb.contract.settings import ServerSettings
from timedb.flight_server.sql.engine.channel import (
    BATCH,
    DESCRIPTION,
    END,
    ERROR,
    FAILED,
    JOB,
    NEXT,
    PARAMETERS,
    RESULT,
    SCAN,
    Channel,
    Hangup,
)
from timedb.flight_server.sql.engine.streams import open_pieces, pieces_of, schema_from_text, schema_to_text
from timedb.flight_server.sql.engine.table_scan import TableScan

__all__ = ["Description", "Processes", "Query", "Statement", "Tables"]

logger = logging.getLogger("timedb.flight")

_BOOT = (
    "import sys; descriptor, folder, *path = sys.argv[1:]; sys.path[:] = [folder, *path]; "
    "from engine.zygote import main; main(int(descriptor))"
)
# Of the server's environment nothing: it may hold credentials. One thread at most beside the first, as forks need it.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "TZ": "UTC",
}
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_ERRORS: dict[str, type[TimeDBError]] = {cls.code: cls for cls in (InvalidRequest, NotFound, TooLarge, Unimplemented)}


@dataclass(frozen=True)
class Statement:
    """SQL and the values of its parameters: one row, or none.

    Attributes:
        sql: The text.
        values: Those of its parameters.
        query_id: Which of its runs a ticket is for.
    """

    sql: str
    values: pa.Table | None = None
    query_id: str | None = None


@dataclass(frozen=True)
class Description:
    """What is known of a statement before it is run.

    Attributes:
        schema: Of its answer; None where that depends on what will be bound.
        parameters: One column each.
    """

    schema: pa.Schema | None
    parameters: pa.Schema


@dataclass(frozen=True)
class Tables:
    """What can be queried.

    Attributes:
        schemas: Of each table.
        read: Reads a table, as far as is needed of it.
    """

    schemas: Mapping[str, pa.Schema]
    read: Callable[[str, TableScan], pa.RecordBatchReader]


class Processes:
    """Starts a process for each query. Thread-safe.

    Args:
        settings: What a query may take.
        memory_bytes: What of memory.
    """

    def __init__(self, settings: ServerSettings, memory_bytes: int) -> None:
        self._settings = settings
        self.memory_bytes = memory_bytes
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False

    def describe(
        self, statement: Statement, tables: Tables, watch: Callable[[], None], *, partly: bool = False
    ) -> Description:
        """Find out what a statement will answer, without running it.

        Args:
            statement: What is asked.
            tables: What there is.
            watch: Called now and then; what it raises ends the query.
            partly: The parameters are not bound yet.

        Raises:
            TimeDBError: the statement is refused.
        """
        query = self._begin(statement, tables, watch, describe=True, partly=partly)
        try:
            return query.describe()
        finally:
            query.close()

    def run(self, statement: Statement, tables: Tables, watch: Callable[[], None]) -> tuple[pa.Schema, Query]:
        """Run a statement.

        Returns:
            The columns of its answer, as soon as they are known, and the running query.

        Raises:
            TimeDBError: the statement is refused, or fails before its first row.
        """
        query = self._begin(statement, tables, watch, describe=False)
        try:
            schema = query.describe().schema
            if schema is None:
                raise Internal("a query runs without saying what it answers")
        except BaseException:
            query.close()
            raise
        return schema, query

    def close(self) -> None:
        """Start no more; those that run are ended by whoever runs them."""
        with self._lock:
            self._closed = True
            self._drop()

    def _begin(
        self, statement: Statement, tables: Tables, watch: Callable[[], None], *, describe: bool, partly: bool = False
    ) -> Query:
        job = {
            "sql": statement.sql,
            "tables": {name: schema_to_text(schema) for name, schema in tables.schemas.items()},
            "describe": describe,
            "partly": partly,
            "seconds": self._settings.sql_seconds,
            "memory_bytes": self.memory_bytes,
            "rows": self._settings.sql_rows,
            "threads": self._settings.sql_threads,
        }
        values = statement.values
        channel = Channel(self._fork(), watch)
        try:
            channel.send(JOB, json.dumps(job).encode())
            channel.send(PARAMETERS, b"" if values is None else b"".join(pieces_of(values.schema, values.to_batches())))
        except Hangup as error:
            channel.close()
            raise Busy("no process can be started for the query; retry") from error
        except BaseException:
            channel.close()
            raise
        return Query(channel, tables)

    def _fork(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._closed:
                ours.close()
                raise Busy("the server is stopping; retry")
            try:
                socket.send_fds(self._running(), [b"q"], [theirs.fileno()])
            except OSError:
                # Somebody ended the zygote.
                self._drop()
                socket.send_fds(self._running(), [b"q"], [theirs.fileno()])
        return ours

    def _running(self) -> socket.socket:
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                number = theirs.fileno()
                folder = str(Path(__file__).parent)
                self._zygote = subprocess.Popen(
                    [sys.executable, "-I", "-W", "ignore", "-c", _BOOT, str(number), folder, *filter(None, sys.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(number,),
                    cwd="/",
                    env={**_ENVIRONMENT, **{name: os.environ[name] for name in _KEPT if name in os.environ}},
                )
            ours.settimeout(_START_SECONDS)
            if not ours.recv(1):
                raise OSError("the process ended")
            ours.settimeout(None)
        except OSError as error:
            ours.close()
            self._drop()
            raise Internal("the process that runs queries could not be started") from error
        self._control = ours
        return ours

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._zygote is not None:
            try:
                self._zygote.wait(_STOP_SECONDS)  # it ends as its connection does
            except subprocess.TimeoutExpired:
                self._zygote.kill()
                self._zygote.wait()
        self._control = self._zygote = None


class Query:
    """A query that runs in its process. One thread uses it; closing it ends the process."""

    def __init__(self, channel: Channel, tables: Tables) -> None:
        self._channel = channel
        self._tables = tables
        self._scans: dict[int, Iterator[bytes]] = {}
        self._failure: BaseException | None = None

    def describe(self) -> Description:
        """Wait for the columns of the answer."""
        said = json.loads(self._next_piece(DESCRIPTION))
        schema = None if said["schema"] is None else schema_from_text(said["schema"])
        return Description(schema, schema_from_text(said["parameters"]))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The answer.

        Raises:
            TimeDBError: it fails in the middle.
        """
        try:
            for batch in open_pieces(self._next_piece):
                # It comes from a process in which somebody else's SQL has been at work.
                batch.validate(full=True)
                yield batch
        except pa.ArrowException as error:
            raise Internal("the answer of a query is not valid Arrow data") from error
        finally:
            self.close()

    def close(self) -> None:
        """End the process; again is no error."""
        self._channel.close()
        self._scans.clear()

    def _next_piece(self, wanted: bytes = RESULT) -> bytearray:
        """The next bytes of the answer, none at its end; tables are read meanwhile."""
        try:
            while True:
                kind, body = self._channel.receive()
                if kind in (wanted, END):
                    return body
                if kind == ERROR:
                    raise self._error(body)
                self._serve(kind, body)
        except Hangup as error:
            if self._failure is not None:
                raise self._failure from None
            logger.warning("the process of a query ended without a word: %s", error)
            raise TooLarge("query: its process was ended, most likely for the memory that it took") from error

    def _serve(self, kind: bytes, body: bytearray) -> None:
        try:
            if kind == SCAN:
                said = json.loads(body)
                scan = TableScan(said["columns"], said["low"], said["high"], said["texts"])
                self._scans[int(said["scan"])] = self._scan(str(said["table"]), scan)
                return
            if kind != NEXT:
                raise Hangup(f"{kind!r} from a query")
            data = next(self._scans[int(body)], b"")
        except (Hangup, ValueError, KeyError, TypeError) as error:
            raise Internal(f"the process of a query does not speak as it should: {error!r}") from error
        except BaseException as error:
            self._failure = error
            self._channel.send(FAILED)
            return
        self._channel.send(BATCH, data)

    def _scan(self, name: str, scan: TableScan) -> Iterator[bytes]:
        reader = self._tables.read(name, scan)
        yield from pieces_of(reader.schema, reader)

    def _error(self, body: bytearray) -> BaseException:
        if self._failure is not None:
            return self._failure
        try:
            said: dict[str, Any] = json.loads(body)
        except ValueError:
            said = {}
        kind = _ERRORS.get(str(said.get("code")))
        if kind is None:
            return Internal(f"a query failed: {said.get('trace') or said}")
        return kind(str(said.get("detail")))
