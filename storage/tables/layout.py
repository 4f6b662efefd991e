"""Where the tables lie in the lake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from timedb.contract.errors import TimeDBError
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Promised, Table
from timedb.storage.tables.commit_marks import REACHED
from timedb.storage.tables.inventory import Inventory
from timedb.storage.tables.schemas import PARTITIONS, RUNS, SERIES, UPDATES, USERS, VALUES

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
    "users_table",
]

MARKER = "timedb-lake.json"
TENANTS = "tenants"
USERS_FOLDER = "users"
SERVING = ".timedb-serving"
"""Folder of the signs of running servers: no part of the lake, and in no backup."""


@dataclass(frozen=True)
class TenantTables:
    """The Delta tables of one tenant, and what is known of them; ``updates`` is made with the first ``update_id``."""

    values: Table
    series: Table
    runs: Table
    updates: Table
    inventory: Inventory

    @classmethod
    def below(cls, store: Store, standing: Standing | None = None) -> TenantTables:
        """The tables of the tenant whose folder a store is, in the lake that is watched by ``standing``."""
        inventory = Inventory(store)
        known = inventory.promised.get
        return cls(
            values=Table(store.below("values"), VALUES, PARTITIONS, standing, known("values")),
            series=Table(store.below("series"), SERIES, standing=standing, promised=known("series")),
            runs=Table(store.below("runs"), RUNS, standing=standing, promised=known("runs")),
            updates=Table(store.below("updates"), UPDATES, standing=standing, promised=known("updates")),
            inventory=inventory,
        )

    def all(self) -> dict[str, Table]:
        """The tables by name, those that have not been made, too."""
        return {"values": self.values, "series": self.series, "runs": self.runs, "updates": self.updates}

    def by_name(self) -> dict[str, Table]:
        """The tables that have been made.

        Raises:
            Damaged: one has, and its log is gone.
        """
        return {name: table for name, table in self.all().items() if table.exists()}

    def check(self) -> None:
        """See that the tables fit each other: none is behind what another one knows of it.

        Raises:
            Damaged: the log of one has been cut short, or replaced by an empty one.
        """
        try:
            runs, values, series = (table.snapshot() for table in (self.runs, self.values, self.series))
        except TimeDBError:
            return  # whoever needs that table is told so
        # In this order: a record is written after its values, a series before them.
        reached = runs.transactions.get(REACHED, 0)
        if values.version < reached:
            raise self.values.log.damaged(
                f"it ends at version {values.version}, and the table runs knows of version {reached}"
            )
        if values.files and not series.files:
            raise self.series.log.damaged("it names no series, and the table values has rows of some")

    def note(self) -> bool:
        """Write down how far the tables have come; see :meth:`Inventory.note`.

        Raises:
            OSError: it could not be written.
            Busy: the lake is no longer the one that was opened.
        """
        if self.values.is_lost:
            return False
        self.values.check_lake()
        return self.inventory.note(self.all())


def users_table(store: Store, standing: Standing | None = None, *, made: bool = False) -> Table:
    """The table of the users, which lies in a folder.

    Args:
        store: The folder.
        standing: Watches the lake; None: nobody does.
        made: Whether the lake says that it has been made.
    """
    promised = Inventory(store).promised.get(USERS_FOLDER) or (Promised("", 0) if made else None)
    return Table(store, USERS, standing=standing, promised=promised)


def tenant_folder(tenant_id: str) -> str:
    """The folder of a tenant in the lake."""
    return f"{TENANTS}/{tenant_id}"


def tenant_ids(lake: Store) -> list[str]:
    """The tenants that the lake has."""
    return sorted({file.path.split("/")[1] for file in lake.list(TENANTS)})


FORMAT_VERSION = 2
"""2: small writes lie in the partition ``series_bucket=mixed`` until upkeep moves them."""
