"""Where the tables lie in the lake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Table
from timedb.storage.tables.schemas import PARTITIONS, RUNS, SERIES, UPDATES, VALUES

if TYPE_CHECKING:
    from timedb.storage.delta.standing import Standing

__all__ = [
    "FORMAT_VERSION",
    "MARKER",
    "SERVING",
    "TENANTS",
    "USERS_FOLDER",
    "TenantTables",
    "tenant_folder",
    "tenant_ids",
]

MARKER = "timedb-lake.json"
TENANTS = "tenants"
USERS_FOLDER = "users"
SERVING = ".timedb-serving"
"""Folder of the signs of running servers: no part of the lake, and in no backup."""


@dataclass(frozen=True)
class TenantTables:
    """The Delta tables of one tenant; ``updates`` is made with the first ``update_id``."""

    values: Table
    series: Table
    runs: Table
    updates: Table

    @classmethod
    def below(cls, store: Store, standing: Standing | None = None) -> TenantTables:
        """The tables of the tenant whose folder a store is, in the lake that is watched by ``standing``."""
        return cls(
            values=Table(store.below("values"), VALUES, PARTITIONS, standing),
            series=Table(store.below("series"), SERIES, standing=standing),
            runs=Table(store.below("runs"), RUNS, standing=standing),
            updates=Table(store.below("updates"), UPDATES, standing=standing),
        )

    def by_name(self) -> dict[str, Table]:
        """The tables that have been made."""
        tables = {"values": self.values, "series": self.series, "runs": self.runs, "updates": self.updates}
        return {name: table for name, table in tables.items() if table.exists()}


def tenant_folder(tenant_id: str) -> str:
    """The folder of a tenant in the lake."""
    return f"{TENANTS}/{tenant_id}"


def tenant_ids(lake: Store) -> list[str]:
    """The tenants that the lake has."""
    return sorted({file.path.split("/")[1] for file in lake.list(TENANTS)})


FORMAT_VERSION = 1
