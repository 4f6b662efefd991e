"""A PostgreSQL database, read in one state: as many streams as it takes, all of one snapshot."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from timedb.contract.errors import InvalidRequest, Unavailable

__all__ = ["Database", "first_of", "literal"]

_ISOLATED = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


def literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Database:
    """A database; a context manager.

    Args:
        url: ``postgresql://USER@HOST/DATABASE``; what it leaves out, libpq's environment says (``PGPASSWORD``).

    Raises:
        InvalidRequest: the driver is not installed, or it is no address.
        Unavailable: nobody answers there.
    """

    def __init__(self, url: str) -> None:
        if not re.match(r"postgres(ql)?://", url):
            raise InvalidRequest("URL: is not postgresql://USER@HOST/DATABASE")
        try:
            dbapi: Any = importlib.import_module("adbc_driver_postgresql.dbapi")
        except ModuleNotFoundError:
            raise InvalidRequest(
                "URL: the driver for PostgreSQL is an extra: pip install 'timedb-flight[postgres]'"
            ) from None
        self._api = dbapi
        self._url = url
        self._open: list[Any] = []
        self._first = self._connected()
        self._snapshot = self._first_value(f"{_ISOLATED}", "SELECT pg_export_snapshot()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self._open:
            with suppress(self._api.Error):
                connection.close()

    def columns(self) -> dict[str, set[str]]:
        """The tables that the connection finds without a schema: name → columns."""
        found: dict[str, set[str]] = {}
        query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = ANY("
        for row in self.query(f"{query}current_schemas(false))"):
            found.setdefault(row["table_name"], set()).add(row["column_name"])
        return found

    def query(self, sql: str) -> list[dict[str, Any]]:
        """A short answer, row by row."""
        with self._speaking(), self._first.cursor() as cursor:
            cursor.execute(sql)
            rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
            return rows

    def stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        """A long answer, batch by batch, over a connection of its own."""
        connection = self._connected()
        try:
            with self._speaking(), connection.cursor() as cursor:
                for statement in (
                    _ISOLATED,
                    f"SET TRANSACTION SNAPSHOT {literal(self._snapshot)}",
                    "SET TIME ZONE 'UTC'",
                ):
                    cursor.execute(statement)
                cursor.execute(sql)
                yield from cursor.fetch_record_batch()
        finally:
            self._open.remove(connection)
            with suppress(self._api.Error):
                connection.close()

    def _connected(self) -> Any:
        try:
            connection = self._api.connect(self._url)
        except self._api.Error as error:
            raise Unavailable(f"the database cannot be reached: {self._reason(error)}") from None
        self._open.append(connection)
        return connection

    def _first_value(self, *statements: str) -> str:
        with self._speaking(), self._first.cursor() as cursor:
            for statement in (*statements[:-1], "SET TIME ZONE 'UTC'", statements[-1]):
                cursor.execute(statement)
            return str(cursor.fetchone()[0])

    def _speaking(self) -> _Speaking:
        return _Speaking(self)

    def _reason(self, error: Exception) -> str:
        return re.sub(r"//[^@/\s]*@", "//…@", " ".join(str(error).split()))[:300]


class _Speaking:
    """What the database refuses, as an error of ours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, self._database._api.Error):
            raise InvalidRequest(f"the database refuses it: {self._database._reason(error)}") from None


def first_of(names: Sequence[str], there: set[str] | dict[str, Any]) -> str | None:
    """The first of some names that is there."""
    return next((name for name in names if name in there), None)
