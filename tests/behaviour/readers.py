"""Readers that go past the service: each is a door that writes through storage and reads the Delta tables itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

import timedb as td
from tests.behaviour.doors import StorageDoor, instant, iso, read_fields
from tests.behaviour.histories import Read
from tests.behaviour.oracle import LENGTHS, Row
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.storage import Tenant
from timedb.storage.tables.schemas import VALUES_DATA

_INSTANTS = ("start_valid", "end_valid", "start_known", "end_known", "as_of")
_NEW_YORK = "America/New_York"
_LAST_FIRST = "PARTITION BY series_id ORDER BY valid_time DESC, valid_time_end DESC NULLS LAST"


@contextmanager
def duckdb_with_delta() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with its Delta extension; some dozen rows need no threads."""
    with duckdb.connect(config={"threads": 1}) as connection:
        td.load_duckdb_delta(connection)
        yield connection


def some_row(series: str, run_id: str, known: int, value: float, valid: int = 0) -> Row:
    """A row to upload."""
    return Row(series, valid, None, known, run_id, 0, value, None, None, retracted=False)


class ScanReader(StorageDoor):
    """``td.scan_lake``."""

    def __init__(self, tenant: Tenant, path: str) -> None:
        super().__init__(tenant)
        self.path = path

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        fields = read_fields(view, all_versions, filters)
        answer: pa.Table = td.scan_lake(self.path, **fields).collect().to_arrow()
        return answer

    @staticmethod
    def can(read: Read) -> Read:
        """The read: this reader knows them all."""
        return read


class DuckReader(StorageDoor):
    """Macros of a DuckDB connection, which shows times in a zone of its own."""

    def __init__(self, tenant: Tenant, connection: duckdb.DuckDBPyConnection, macros: str) -> None:
        super().__init__(tenant)
        self.connection = connection
        self.connection.execute(f"SET TimeZone = '{_NEW_YORK}'")
        self.connection.execute(macros)

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        view = f"{view}_versions" if all_versions else "newest_run" if filters.get("newest_run") else view
        arguments = [f"{name} := '{iso(filters[name])}'" for name in _INSTANTS if name in filters]
        if "lead_time" in filters:
            arguments.append(f"lead_time := INTERVAL '{LENGTHS[filters['lead_time']].elapsed} microseconds'")
        arguments += [f"{name} := {value!r}" for name, value in filters.get("relative", {}).items()]
        names = ("run_ids", "workflow_id", "corrections")
        arguments += [f"{name} := {filters[name]!r}" for name in names if name in filters]
        columns = ", ".join(filters.get("columns", VALUES_DATA.names))
        query = f"SELECT {columns} FROM timedb_{view}({', '.join(arguments)}) WHERE list_contains($series, series_id)"
        if "last" in filters:
            query += f" QUALIFY dense_rank() OVER ({_LAST_FIRST}) <= {filters['last']}"
        found = self.connection.execute(query, {"series": filters["series_ids"]}).to_arrow_table()
        return found.cast(
            pa.schema(
                pa.field(field.name, pa.timestamp("us", "UTC")) if pa.types.is_timestamp(field.type) else field
                for field in found.schema
            )
        )

    @staticmethod
    def can(read: Read) -> Read:
        """The read, or one like it that this reader knows."""
        general = read.relative is not None and "window_length" in read.relative
        return replace(
            read,
            view="flat" if read.newest_run else read.view,
            relative=None if general else read.relative,
            corrections=None if read.all_versions else read.corrections,
            revision=False,
        )


class PartsReader(StorageDoor):
    """``td.split_read``, each part pickled and read on its own."""

    def __init__(self, tenant: Tenant, path: str, compute: Any) -> None:
        super().__init__(tenant)
        self.path = path
        self.compute = compute

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        split = td.split_read(self.path, **read_fields(view, all_versions, filters))
        answer: pa.Table = self.compute(split)
        return answer.replace_schema_metadata(split.schema.metadata)

    @staticmethod
    def can(read: Read) -> Read:
        """The read: this reader knows them all."""
        return read


class PolarsByHand(StorageDoor):
    """The page's queries with ``pl.scan_delta``; filters go where the page says: before both steps."""

    def __init__(self, tenant: Tenant, path: str, code: str) -> None:
        super().__init__(tenant)
        self.path = path
        self.code = code.replace('/values")', '/values").filter(*filters)')
        assert self.code != code

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        tests = {
            "start_valid": pl.col("valid_time").ge,
            "end_valid": pl.col("valid_time").lt,
            "start_known": pl.col("known_time").ge,
            "end_known": pl.col("known_time").lt,
            "as_of": pl.col("change_time").le,
        }
        given = [tests[name](instant(value)) for name, value in filters.items() if name in tests]
        given.append(pl.col("series_id").is_in(filters["series_ids"]))
        if "run_ids" in filters:
            given.append(pl.col("run_id").is_in(filters["run_ids"]))
        namespace: dict[str, Any] = {"lake": self.path, "tenant": OPEN_TENANT_ID, "filters": given}
        exec(self.code, namespace)
        rows: pl.LazyFrame = namespace["values" if all_versions else "flat" if view == "flat" else "standing"]
        return rows.select(VALUES_DATA.names).collect().to_arrow()

    @staticmethod
    def can(read: Read) -> Read:
        """The read, or one like it that the page has a query for."""
        view = "overlapping" if read.view == "overlapping" or read.all_versions else "flat"
        others: dict[str, Any] = dict.fromkeys(("relative", "lead_time", "workflow", "corrections", "last"))
        return replace(read, view=view, newest_run=False, revision=False, **others)


class SqlByHand(StorageDoor):
    """The page's SQL with ``delta_scan``; filters go where the page says: before both steps.

    Args:
        tenant: The tenant.
        connection: DuckDB.
        folder: The tenant's folder.
        sql: The page's query.
        tiers: A condition on the tiers that the page says changes nothing of the flat view.
    """

    def __init__(
        self, tenant: Tenant, connection: duckdb.DuckDBPyConnection, folder: str, sql: str, tiers: str = "true"
    ) -> None:
        super().__init__(tenant)
        self.connection = connection
        self.scan = "delta_scan(getvariable('values'))"
        assert self.scan in sql
        self.flat = sql.replace("series_id, valid_time, value FROM", "* FROM")
        self.standing = self.flat.rpartition("QUALIFY")[0]
        self.tiers = tiers
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        tests = {
            "start_valid": "valid_time >= ",
            "end_valid": "valid_time < ",
            "start_known": "known_time >= ",
            "end_known": "known_time < ",
            "as_of": "change_time <= ",
        }
        given = [f"{tests[name]}TIMESTAMPTZ '{iso(value)}'" for name, value in filters.items() if name in tests]
        if "run_ids" in filters:
            given.append(f"list_contains({filters['run_ids']!r}, run_id)")
        where = " AND ".join([*given, "list_contains($series, series_id)", self.tiers])
        query = f"SELECT * FROM {self.scan}" if all_versions else self.flat if view == "flat" else self.standing
        query = query.replace(self.scan, f"(SELECT * FROM {self.scan} WHERE {where})")
        columns = ", ".join(VALUES_DATA.names)
        found = self.connection.execute(f"SELECT {columns} FROM ({query})", {"series": filters["series_ids"]})
        return found.to_arrow_table()

    can = staticmethod(PolarsByHand.can)
