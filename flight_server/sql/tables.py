"""The tables that SQL sees: their columns, and how as much of them as a query needs is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.errors import Internal
from timedb.contract.times import MAX_MICROS, MIN_MICROS, from_micros
from timedb.contract.wire import ReadTicket, parse_object
from timedb.flight_server.sql.engine.table_scan import TableScan
from timedb.flight_server.sql.process import Tables
from timedb.storage.tables.schemas import RUNS, SERIES, WITHDRAWN

if TYPE_CHECKING:
    from timedb.storage import TenantSnapshot

__all__ = ["CATALOG", "SCHEMA", "SCHEMAS", "VIEWS", "tables_of"]

CATALOG = "timedb"
SCHEMA = "main"
VIEWS = ("flat", "overlapping")

_NOT_SHOWN = {"auto_created", "digest", "receipt"}

# What SQL counts itself, over the rows that a query is about, is no column; nor is what is always false in a view.
_VALUES = pa.schema([(name, kind) for name, kind in COLUMN_TYPES.items() if name != "revision"])
_VIEW = pa.schema([column for column in _VALUES if column.name != "retracted"])

SCHEMAS: dict[str, pa.Schema] = {
    "flat": _VIEW,
    "overlapping": _VIEW,
    "runs": pa.schema([*(column for column in RUNS if column.name not in _NOT_SHOWN), *WITHDRAWN]),
    "series": pa.schema([column for column in SERIES if column.name not in _NOT_SHOWN]),
    "values": _VALUES,
}
"""The columns of each table."""

_READS: dict[str, dict[str, Any]] = {
    "flat": {"view": "flat"},
    "overlapping": {"view": "overlapping"},
    "values": {"view": "overlapping", "all_versions": True},
}
# A filter may come before the winner is picked only if it cannot change who wins.
_BOUNDS = {"flat": ("valid",), "overlapping": ("valid", "known"), "values": ("valid", "known")}
_BY_RUN = ("overlapping", "values")


def tables_of(snapshot: TenantSnapshot) -> Tables:
    """The tables of a tenant, all on one snapshot."""

    def read(name: str, scan: TableScan) -> pa.RecordBatchReader:
        if name not in SCHEMAS or not set(scan.columns) <= set(SCHEMAS[name].names):
            raise Internal(f"a query asks for {scan.columns} of {name}")
        if name == "series":
            return snapshot.series_rows(scan.columns).to_reader()
        if name == "runs":
            return snapshot.run_rows(scan.columns).to_reader()
        ticket = _ticket(snapshot, name, scan)
        if ticket is None:
            return pa.schema([SCHEMAS[name].field(column) for column in scan.columns]).empty_table().to_reader()
        return snapshot.read(ticket)

    return Tables(SCHEMAS, read)


def _ticket(snapshot: TenantSnapshot, name: str, scan: TableScan) -> ReadTicket | None:
    """The read that gives what is needed; None where that is nothing."""
    fields: dict[str, Any] = {**_READS[name], "columns": list(scan.columns)}
    for time in _BOUNDS[name]:
        start, end = scan.low.get(f"{time}_time", MIN_MICROS), scan.high.get(f"{time}_time", MAX_MICROS) + 1
        if start >= end:
            return None
        if start > MIN_MICROS:
            fields[f"start_{time}"] = from_micros(start)
        if end <= MAX_MICROS:
            fields[f"end_{time}"] = from_micros(end)
    series_ids = _series_ids(snapshot, scan)
    if series_ids is not None:
        if not series_ids:
            return None
        fields["series_ids"] = sorted(series_ids)
    if name in _BY_RUN and "run_id" in scan.texts:
        fields["run_ids"] = list(scan.texts["run_id"])
    return parse_object(ReadTicket, fields)


def _series_ids(snapshot: TenantSnapshot, scan: TableScan) -> set[str] | None:
    """The series that count; None: all of them."""
    found: set[str] | None = None
    if "series_id" in scan.texts:
        found = set(scan.texts["series_id"]) & snapshot.series.keys()
    if "series_key" in scan.texts:
        names = set(scan.texts["series_key"])
        named = {series.series_id for series in snapshot.series.values() if series.name in names}
        found = named if found is None else found & named
    return found
