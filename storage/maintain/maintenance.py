"""Maintenance of a tenant beside its writes: compaction by thresholds, checkpoints, vacuum of what nobody can read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from timedb.contract.errors import TimeDBError
from timedb.contract.settings import ServerSettings
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.delta.table import Table
from timedb.storage.maintain.cleaning import Cleaner
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.maintain.rounds import Rounds
from timedb.storage.rows.scan import is_mixed
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.layout import TenantTables
from timedb.storage.tables.schemas import MIXED

__all__ = ["Maintenance"]

_FILES_A_COMMIT = 10
_CHECKPOINT_SHARE = 30  # checkpoints take a thirtieth of the time
_AT_MOST = 10  # but no more commits than so many times what is due
_IDLE_SECONDS = 300.0
"""The longest pause between two looks at a tenant that nobody writes to: each is twice as long as the one before."""
_log = logging.getLogger("timedb.storage")


class Maintenance:
    """Looks at a tenant whenever it has its round; every job can also be asked for.

    Args:
        tables: The tenant's tables.
        ledger: Their runs and updates; the values log is cleaned only as far as they have been written.
        compactor: Compacts the values table.
        settings: Thresholds.
        clock: Says how old files are.
        rounds: The threads, which tenants share.
    """

    def __init__(
        self,
        tables: TenantTables,
        ledger: Ledger,
        compactor: Compactor,
        settings: ServerSettings,
        clock: Clock,
        rounds: Rounds,
    ) -> None:
        self._clock = clock
        self._values = tables.values
        self._stopping = threading.Event()
        self._cleaner = Cleaner(tables, ledger, settings, clock, self._stopping.is_set)
        self._tables = tables
        self._compactor = compactor
        self._settings = settings
        self._working = threading.Lock()
        self._not_before: dict[str, float] = {}
        self.last_compaction: float | None = None
        self._pause = settings.maintenance_seconds
        self._seen = -1
        self._rounds = rounds
        self._round = rounds.add(self._look_again, self._pause)

    def compact(self) -> dict[str, Any]:
        """Settle all fresh rows: ``{buckets, rows, files_before, files_after}``."""
        with self._working:
            return self._settle_all()

    def maintain(self) -> dict[str, Any]:
        """Compaction, checkpoints, vacuum and clean-up of all logs: what was done."""
        with self._working:
            done: dict[str, Any] = {"compacted": self._settle_all()}
            done["checkpoints"] = {name: table.checkpoint() for name, table in self._tables.by_name().items()}
            expired = self._cleaner.expire()
            done["vacuumed_files"] = expired.files + self._cleaner.sweep()
            done["cleaned_log_files"] = expired.log_files
            self._cleaner.count()
            return done

    def disk_use(self) -> dict[str, Any]:
        """What the disk held when it was counted last; see :func:`timedb.storage.maintain.cleaning.disk_use`."""
        if self._cleaner.use is None:
            self._cleaner.count()
        return dict(self._cleaner.use or {})

    def look(self) -> None:
        """Do what is due, as is done by itself every ``maintenance_seconds``, and less often while nobody writes.

        Raises:
            OSError, TimeDBError: something could not be done; the next look tries again.
        """
        with self._working:
            if self._values.is_lost or not self._values.exists():
                return  # a lake that is gone has been told of; what is in its place is not to be touched
            self._clock.look(self._values.snapshot().transactions.get(CHANGE_TIME, 0))
            self._tend_mixed()
            self._compact(self._ripe(), self._tend_mixed)
            for name, table in self._tables.by_name().items():
                self._checkpoint(name, table)
            self._cleaner.look()

    def close(self) -> None:
        """Stop; what is under way is finished first."""
        self._stopping.set()
        self._rounds.end(self._round)

    def wake(self) -> None:
        """Something has been written: look at it before long."""
        self._rounds.wake(self._round, self._settings.maintenance_seconds)

    def _look_again(self) -> float:
        """Look, and say for how many seconds that will do."""
        shortest = self._settings.maintenance_seconds
        before, self._pause = self._pause, shortest
        if self._stopping.is_set():
            return shortest
        try:
            self.look()
            self._tables.note()
            seen, self._seen = self._seen, self._values.snapshot().version
            if seen == self._seen:
                self._pause = max(shortest, min(2 * before, _IDLE_SECONDS))
        except OSError as error:
            _log.warning("maintenance was put off: %s", error)
        except TimeDBError as error:
            _log.warning("maintenance was put off: %s", error)
        except BaseException:  # PanicException of the engines is no Exception
            _log.exception("maintenance failed; the tables are as before")
        return self._pause

    def _tend_mixed(self) -> None:
        """Keep small writes few files: gather them while they are few rows, then move them into their buckets."""
        mixed = [file for file in self._values.snapshot().files.values() if is_mixed(file)]
        many = len(mixed) >= self._settings.mixed_files
        if sum(file.rows for file in mixed) >= self._settings.move_rows or (
            many and any(map(may_hold_corrections, mixed))
        ):
            self._compactor.mover.move()
        elif many:
            self._compactor.mover.gather(self._settings.mixed_files)

    def _ripe(self) -> set[str]:
        """The buckets whose fresh files have become too many."""
        return {
            bucket
            for bucket, (files, rows) in _fresh(self._values.snapshot()).items()
            if bucket != MIXED
            and (files >= self._settings.compact_fresh_files or rows >= self._settings.compact_fresh_rows)
        }

    def _settle_all(self) -> dict[str, Any]:
        mixed, moved = self._compactor.mover.move()
        done = self._compact(_fresh(self._values.snapshot()).keys() - {MIXED})
        done["files_before"] += mixed - moved  # what they have become has just been counted
        return done

    def _compact(self, buckets: Collection[str], between: Callable[[], None] = lambda: None) -> dict[str, Any]:
        totals = {"buckets": len(buckets), "rows": 0, "files_before": 0, "files_after": 0}
        for bucket in sorted(buckets):
            if self._stopping.is_set():
                break
            for name, count in self._compactor.settle(bucket).items():
                totals[name] += count
            self.last_compaction = time.time()
            between()
        return totals

    def _checkpoint(self, name: str, table: Table) -> None:
        """Write one where it is due: of many files, which costs more, less often; a share of the time at most."""
        snapshot, began = table.snapshot(), time.monotonic()
        commits = max(self._settings.checkpoint_commits, len(snapshot.files) // _FILES_A_COMMIT)
        since = snapshot.version - max(snapshot.checkpoint, 0)
        if since >= commits and (began >= self._not_before.get(name, 0.0) or since >= commits * _AT_MOST):
            table.checkpoint()
            self._not_before[name] = began + (time.monotonic() - began) * _CHECKPOINT_SHARE


def _fresh(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    """Fresh files and rows of each bucket that has any."""
    found: dict[str, tuple[int, int]] = {}
    for file in snapshot.files.values():
        if file.partition["tier"] == "fresh":
            files, rows = found.get(file.partition["series_bucket"], (0, 0))
            found[file.partition["series_bucket"]] = files + 1, rows + max(file.rows, 0)
    return found
