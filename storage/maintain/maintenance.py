"""Maintenance of a tenant beside its writes: compaction by thresholds, checkpoints, vacuum of what nobody can read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Any

from timedb.contract.errors import TimeDBError
from timedb.contract.settings import ServerSettings
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.checkpoints import clean_log
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.delta.vacuum import vacuum
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import CHANGE_TIME, REACHED
from timedb.storage.tables.layout import TenantTables
from timedb.storage.tables.schemas import MIXED

__all__ = ["Maintenance"]

_log = logging.getLogger("timedb.storage")


class Maintenance:
    """One thread a tenant; every job can also be asked for.

    Args:
        tables: The tenant's tables.
        ledger: Their runs and updates; the values log is cleaned only as far as they have been written.
        compactor: Compacts the values table.
        settings: Thresholds.
        clock: Says how old files are.
    """

    def __init__(
        self, tables: TenantTables, ledger: Ledger, compactor: Compactor, settings: ServerSettings, clock: Clock
    ) -> None:
        self._clock = clock
        self._values = tables.values
        self._tables = tables
        self._ledger = ledger
        self._compactor = compactor
        self._settings = settings
        self._working = threading.Lock()
        self._stopping = threading.Event()
        self.last_compaction: float | None = None
        self._thread = threading.Thread(target=self._run, name="timedb-maintenance", daemon=True)
        self._thread.start()

    def compact(self) -> dict[str, Any]:
        """Settle all fresh rows: ``{buckets, rows, files_before, files_after}``."""
        with self._working:
            return self._settle_all()

    def maintain(self) -> dict[str, Any]:
        """Compaction, checkpoints, vacuum and clean-up of all logs: what was done."""
        with self._working:
            done: dict[str, Any] = {"compacted": self._settle_all()}
            tables = self._tables.by_name()
            done["checkpoints"] = {name: table.checkpoint() for name, table in tables.items()}
            done["vacuumed_files"] = sum(self._vacuum(table) for table in tables.values())
            done["cleaned_log_files"] = sum(self._clean_log(name, table) for name, table in tables.items())
            return done

    def close(self) -> None:
        """Stop; what is under way is finished first."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.maintenance_seconds):
            try:
                with self._working:
                    self._look()
                self._tables.note()
            except OSError as error:
                _log.warning("maintenance was put off: %s", error)
            except TimeDBError as error:
                _log.warning("maintenance was put off: %s", error)
            except BaseException:  # PanicException of the engines is no Exception
                _log.exception("maintenance failed; the tables are as before")

    def _look(self) -> None:
        if self._values.is_lost or not self._values.exists():
            return  # a lake that is gone has been told of; what is in its place is not to be touched
        self._clock.look(self._values.snapshot().transactions.get(CHANGE_TIME, 0))
        if MIXED in self._ripe():
            self._compactor.mover.move()
        self._compact(self._ripe() - {MIXED})
        for table in self._tables.by_name().values():
            if self._checkpoint_is_due(table.snapshot()):
                table.checkpoint()

    def _ripe(self) -> set[str]:
        """The buckets, the mixed partition among them, whose fresh files have become too many."""
        return {
            bucket
            for bucket, (files, rows) in _fresh(self._values.snapshot()).items()
            if files >= self._settings.compact_fresh_files or rows >= self._settings.compact_fresh_rows
        }

    def _settle_all(self) -> dict[str, Any]:
        mixed, moved = self._compactor.mover.move()
        done = self._compact(_fresh(self._values.snapshot()).keys() - {MIXED})
        done["files_before"] += mixed - moved  # what they have become has just been counted
        return done

    def _compact(self, buckets: Collection[str]) -> dict[str, Any]:
        totals = {"buckets": len(buckets), "rows": 0, "files_before": 0, "files_after": 0}
        for bucket in sorted(buckets):
            if self._stopping.is_set():
                break
            for name, count in self._compactor.compact(bucket).items():
                totals[name] += count
            self.last_compaction = time.time()
        return totals

    def _checkpoint_is_due(self, snapshot: Snapshot) -> bool:
        return snapshot.version - max(snapshot.checkpoint, 0) >= self._settings.checkpoint_commits

    def _vacuum(self, table: Table) -> int:
        """Delete data files that no snapshot within the retention refers to, and what broken writes left behind."""
        return vacuum(table, self._clock.trusted_seconds() - self._settings.retention_hours * 3600)

    def _clean_log(self, name: str, table: Table) -> int:
        reached = table.snapshot().version
        if name == "values":
            self._ledger.catch_up(table.snapshot())
            self._ledger.write()
            reached = self._ledger.runs.snapshot().transactions.get(REACHED, 0)
        # Vacuum asks the log which files were replaced of late, so the log outlives them.
        hours = max(self._settings.log_retention_hours, self._settings.retention_hours)
        return clean_log(table.log, older_than=self._clock.trusted_seconds() - hours * 3600, not_after=reached)


def _fresh(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    """Fresh files and rows of each bucket that has any."""
    found: dict[str, tuple[int, int]] = {}
    for file in snapshot.files.values():
        if file.partition["tier"] == "fresh":
            files, rows = found.get(file.partition["series_bucket"], (0, 0))
            found[file.partition["series_bucket"]] = files + 1, rows + max(file.rows, 0)
    return found
