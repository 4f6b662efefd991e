"""What a server looks at beside its calls, so that ``health`` can tell of it: the disk, the clock, the tables."""

from __future__ import annotations

import contextlib

from timedb.contract.errors import Damaged, TimeDBError
from timedb.storage.delta.disk import disk_fault
from timedb.storage.delta.standing import Standing, running_seconds
from timedb.storage.delta.store import LocalStore, Store
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.layout import TenantTables, tenant_folder
from timedb.storage.tables.lease import time_of
from timedb.storage.tables.marker import known_tenants

__all__ = ["Watch"]

_COMPARE_SECONDS = 60.0
_TENANTS_LOOKED_AT = 100


class Watch:
    """Watches one lake; its findings are in ``standing`` and ``clock``.

    Args:
        store: The lake's folder.
        standing: Is told of the disk and of tables that cannot be read.
        clock: Is told of the store's, and of the last write.
    """

    def __init__(self, store: Store, standing: Standing, clock: Clock) -> None:
        self._store = store
        self._standing = standing
        self._clock = clock
        self._compared = -float("inf")
        self._looked = False

    def begin(self) -> None:
        """Look at what the first write must know, the clock, before any call is served.

        Raises:
            OSError: the store does not answer.
        """
        self._compare()
        # An object store has told its own time by now, and is slow to open the tables of.
        if isinstance(self._store, LocalStore):
            self._looked = True
            self._clock.begin(self._look_at_tables())

    def look(self) -> None:
        """Look at the disk each time, at the store's clock once a minute, at all tables once.

        Raises:
            OSError: the store does not answer.
        """
        if isinstance(self._store, LocalStore):
            self._standing.note_storage(disk_fault(self._store.root))
        if not self._looked:
            self._looked = True
            self._look_at_tables()
        if running_seconds() - self._compared > _COMPARE_SECONDS:
            self._compare()

    def _compare(self) -> None:
        self._compared = running_seconds()
        # A local disk has this machine's clock, unless it lies in the network; what ails it is found out by a look.
        with contextlib.suppress(OSError) if isinstance(self._store, LocalStore) else contextlib.nullcontext():
            self._clock.compare(time_of(self._store))

    def _look_at_tables(self) -> int:
        """Open the tables of tenants whom nobody has asked for since the start: the greatest change_time of theirs."""
        newest = 0
        for tenant_id in sorted(known_tenants(self._store))[:_TENANTS_LOOKED_AT]:
            path = tenant_folder(tenant_id)
            try:
                tables = TenantTables.below(self._store.below(path), self._standing)
                if not self._store.exists(path):
                    raise Damaged(f"the folder {path} is gone, with all that the tenant had; restore a backup")
                tables.check()
            except Damaged as error:
                self._standing.note_damage(path, error.detail)
                continue
            for table in tables.all().values():
                with contextlib.suppress(TimeDBError):  # it has told by then
                    newest = max(newest, table.snapshot().transactions.get(CHANGE_TIME, 0))
        return newest
