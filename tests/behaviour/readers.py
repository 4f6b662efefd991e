"""Readers that go past the service: each is a door that writes through storage and reads the Delta tables itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

import timedb as td
from storage import Tenant
from storage.schemas import VALUES_DATA
from tests.behaviour.doors import StorageDoor, iso, read_fields
from tests.behaviour.histories import Read
from tests.behaviour.oracle import LENGTHS

_INSTANTS = ("start_valid", "end_valid", "start_known", "end_known", "as_of")
_NEW_YORK = "America/New_York"


def delta_extension() -> Path:
    """DuckDB's Delta extension, from the installed package and not from the network."""
    package = importlib.util.find_spec("duckdb_extension_delta")
    assert package is not None
    (folder,) = package.submodule_search_locations or []
    (extension,) = Path(folder).rglob(f"v{duckdb.__version__}/delta.duckdb_extension")
    return extension


@contextmanager
def duckdb_with_delta() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with its Delta extension; some dozen rows need no threads."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"LOAD '{delta_extension()}'")
        yield connection


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
        """The read, or one like it that this reader knows."""
        view = read.view if read.view in ("flat", "overlapping") else "flat"
        return replace(read, view=view, relative=None, lead_time=None)


class DuckReader(StorageDoor):
    """Macros of a DuckDB connection, which shows times in a zone of its own."""

    def __init__(self, tenant: Tenant, connection: duckdb.DuckDBPyConnection, macros: str) -> None:
        super().__init__(tenant)
        self.connection = connection
        self.connection.execute(f"SET TimeZone = '{_NEW_YORK}'")
        self.connection.execute(macros)

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        view = f"{view}_versions" if all_versions else view
        arguments = [f"{name} := '{iso(filters[name])}'" for name in _INSTANTS if name in filters]
        if "lead_time" in filters:
            arguments.append(f"lead_time := INTERVAL '{LENGTHS[filters['lead_time']].micros} microseconds'")
        arguments += [f"{name} := {value!r}" for name, value in filters.get("relative", {}).items()]
        columns = ", ".join(filters.get("columns", VALUES_DATA.names))
        query = f"SELECT {columns} FROM timedb_{view}({', '.join(arguments)}) WHERE list_contains($series, series_id)"
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
        return replace(read, relative=None) if general else read


class PartsReader(StorageDoor):
    """``td.split_read``, each part pickled and read on its own."""

    def __init__(self, tenant: Tenant, path: str, compute: Any) -> None:
        super().__init__(tenant)
        self.path = path
        self.compute = compute

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table:
        answer: pa.Table = self.compute(td.split_read(self.path, **read_fields(view, all_versions, filters)))
        return answer

    @staticmethod
    def can(read: Read) -> Read:
        """The read: this reader knows them all."""
        return read
