"""Lifting a lake from the format that it has to the newest one, a step a format version.

What a newer release gives to tables without another format, properties that direct readers look at, comes after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timedb.contract.errors import InvalidRequest
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Table
from timedb.storage.tables.layout import USERS_FOLDER, TenantTables, tenant_folder, tenant_ids
from timedb.storage.tables.schemas import USERS

__all__ = ["STEPS", "Step", "lift", "renew_tables", "tables_of"]

Step = Callable[[Store], None]
"""Changes a lake's files, the store being its folder, from one format version to the next.

It may be stopped at any moment and is then done again from its start, so it must bear to be repeated.
"""


def _allow_mixed_files(lake: Store) -> None:
    """Nothing: version 2 adds a partition for small writes, and what version 1 has stays where it is."""


STEPS: Mapping[int, Step] = {1: _allow_mixed_files}
"""The step that leads away from each format version; version 1 is the first."""


def lift(
    store: Store,
    marker: dict[str, Any],
    newest: int,
    steps: Mapping[int, Step],
    write: Callable[[dict[str, Any]], None],
) -> dict[str, int]:
    """Take the steps that a lake lacks; what it is at is written down after each.

    Args:
        store: The lake's folder.
        marker: What the lake says of itself, with ``format_version``.
        newest: The format version that is asked for.
        steps: The step away from each version.
        write: Replaces what the lake says of itself.

    Returns:
        ``{from, to}``: the format versions before and after.

    Raises:
        InvalidRequest: the lake is newer, or there is no way to lift it; nothing was changed.
    """
    version = marker["format_version"]
    if version > newest:
        raise InvalidRequest(f"lake: it has format version {version}, this service knows {newest}")
    missing = [step for step in range(version, newest) if step not in steps]
    if missing:
        raise InvalidRequest(f"lake: format version {missing[0]} cannot be lifted")
    for step in range(version, newest):
        steps[step](store)
        write({**marker, "format_version": step + 1})
    return {"from": version, "to": newest}


def tables_of(lake: Store) -> dict[str, Table]:
    """The tables that a lake has, by the names that the doctor gives them."""
    found: dict[str, Table] = {}
    for tenant_id in tenant_ids(lake):
        tables = TenantTables.below(lake.below(tenant_folder(tenant_id))).by_name()
        found.update((f"{tenant_id}/{name}", table) for name, table in tables.items())
    users = Table(lake.below(USERS_FOLDER), USERS)
    return {**found, USERS_FOLDER: users} if users.exists() else found


def renew_tables(lake: Store) -> int:
    """Give the tables of a lake the properties that they have if they are made today; how many lacked some.

    Raises:
        Internal: a log is damaged.
        Unimplemented: another writer changed a table; see ``timedb.storage.delta.protocol``.
    """
    return sum(table.renew() for table in tables_of(lake).values())
