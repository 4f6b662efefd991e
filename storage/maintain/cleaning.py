"""What tables keep on the disk: removed when readers no longer need it, and counted by kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from timedb.contract.settings import ServerSettings
from timedb.contract.times import format_time, now
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.expiry import Expired, Expiry
from timedb.storage.delta.log import LOG_FOLDER, checkpoint_version
from timedb.storage.delta.table import Table
from timedb.storage.delta.vacuum import vacuum
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import REACHED
from timedb.storage.tables.layout import TenantTables

__all__ = ["Cleaner", "disk_use"]

_PASSES = 24
"""So many times within the promised time it is looked what is over it."""
_COUNT_SECONDS = 60.0
_COUNT_SHARE = 100  # counting a lake of very many files takes a hundredth of the time


@dataclass
class Cleaner:
    """Cleans the tables of a tenant; for one thread.

    Args:
        tables: The tables.
        ledger: Their runs and updates; the values log is cleaned only as far as they have been written.
        settings: For how long what stays.
        clock: Says how old files are.
        stop: Asked now and then whether to leave the rest to the next time.
    """

    tables: TenantTables
    ledger: Ledger
    settings: ServerSettings
    clock: Clock
    stop: Callable[[], bool] = lambda: False
    use: dict[str, Any] | None = None
    """What the disk held when it was counted last; see :func:`disk_use`."""
    _expiries: dict[str, Expiry] = field(default_factory=dict)
    _next_pass: float = 0.0
    _next_sweep: float = 0.0
    _next_count: float = 0.0

    @property
    def promised_seconds(self) -> float:
        """For how long replaced files stay: no call of the service's own may lose what it reads."""
        return max(self.settings.retention_hours * 3600.0, self.settings.max_call_seconds)

    def look(self) -> None:
        """Do what is due: the first time since the start at once, for a server that was killed may have left something.

        Raises:
            OSError, TimeDBError: something could not be done; it is tried again when it is due again.
        """
        moment = time.monotonic()
        if moment >= self._next_pass:
            self._next_pass = moment + self.promised_seconds / _PASSES
            self.expire()
        if moment >= self._next_sweep and not self.stop():
            self._next_sweep = moment + self.promised_seconds
            self.sweep()
        if moment >= self._next_count and not self.stop():
            began = time.monotonic()
            self.count()
            self._next_count = began + max(_COUNT_SECONDS, (time.monotonic() - began) * _COUNT_SHARE)

    def expire(self) -> Expired:
        """Remove files that were replaced before readers' time, and the log before that."""
        done = [self._expire(name, table) for name, table in self.tables.by_name().items()]
        return Expired(sum(one.files for one in done), sum(one.log_files for one in done))

    def sweep(self) -> int:
        """Remove files that nothing has ever referred to, as broken writes leave them: how many."""
        # Those of an upload that still arrives look the same.
        oldest = self.clock.trusted_seconds() - max(self.promised_seconds, 2 * self.settings.max_call_seconds)
        return sum(vacuum(table, oldest) for table in self.tables.by_name().values())

    def count(self) -> None:
        """Count what the disk holds."""
        self.use = disk_use(self.tables)

    def _expire(self, name: str, table: Table) -> Expired:
        reached = table.snapshot().version
        if name == "values":
            self.ledger.catch_up(table.snapshot())
            self.ledger.write()
            reached = self.ledger.runs.snapshot().transactions.get(REACHED, 0)
        expiry = self._expiries.setdefault(name, Expiry(table, self.stop))
        return expiry.expire(
            now=self.clock.trusted_seconds(),
            files_seconds=self.promised_seconds,
            # The sweep asks the log which files were replaced of late, so the log outlives them.
            log_seconds=max(self.settings.log_retention_hours * 3600.0, self.promised_seconds),
            not_after=reached,
        )


def disk_use(tables: TenantTables) -> dict[str, Any]:
    """Bytes and files of a tenant by kind.

    Returns:
        ``{measured_time, bytes, files, live_bytes, replaced_bytes, log_bytes, checkpoint_bytes}``; ``replaced_bytes``
        are in data files that are live no longer, or not yet.
    """
    found = dict.fromkeys(("bytes", "files", "live_bytes", "replaced_bytes", "log_bytes", "checkpoint_bytes"), 0)
    for table in tables.by_name().values():
        live = table.snapshot().files
        for file in table.store.list():
            if checkpoint_version(file.path) >= 0:
                kind = "checkpoint_bytes"
            elif file.path.startswith(LOG_FOLDER):
                kind = "log_bytes"
            else:
                kind = "live_bytes" if file.path in live else "replaced_bytes"
            found[kind] += file.size
            found["bytes"] += file.size
            found["files"] += 1
    return {"measured_time": format_time(now()), **found}
