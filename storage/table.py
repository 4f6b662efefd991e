"""One Delta table of ours: its published snapshot, and commits on top of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa

from storage.checkpoints import write_checkpoint
from storage.delta_log import Commit, DataFile, DeltaLog, Snapshot, apply_commits, transaction
from storage.store import Store
from timedb.errors import OutcomeUnknown

__all__ = ["Table"]

_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_REOPEN_SECONDS = 3600.0


class Table:
    """A Delta table that is made by :meth:`create` or the first commit; before that it is empty, at version -1.

    Args:
        store: The table's folder.
        schema: All columns, partition columns included.
        partitions: Names of the partition columns.
    """

    def __init__(self, store: Store, schema: pa.Schema, partitions: Sequence[str] = ()) -> None:
        self.store = store
        self.log = DeltaLog(store)
        self._schema = schema
        self._partitions = partitions
        self._snapshot: Snapshot | None = None
        self._opened = 0.0
        self._lock = threading.Lock()

    def create(self) -> None:
        """Make the table where there is none."""
        if not self.log.exists():
            self.log.create(self._schema, self._partitions, _CONFIGURATION, str(uuid4()))

    def exists(self) -> bool:
        """Whether the table has been made."""
        return self.log.exists()

    def snapshot(self) -> Snapshot:
        """The table as of now, commits of other processes included."""
        with self._lock:
            if self._snapshot is None and not self.log.exists():
                return Snapshot(-1, {}, {})
            if self._snapshot is None or time.monotonic() - self._opened > _REOPEN_SECONDS:
                # A log whose next commit was cleaned away looks unchanged, so it is opened anew now and then.
                self._snapshot, self._opened = self.log.load(), time.monotonic()
            else:
                self._snapshot = self.log.refresh(self._snapshot)
            return self._snapshot

    def commit(
        self,
        base: Snapshot,
        *,
        adds: Sequence[DataFile] = (),
        removes: Sequence[DataFile] = (),
        transactions: Mapping[str, int] | None = None,
        operation: str = "WRITE",
        info: Mapping[str, Any] | None = None,
        data_change: bool = True,
    ) -> Snapshot | None:
        """Commit on top of ``base``; None where another writer has committed since.

        Raises:
            OSError: not committed.
        """
        if base.version < 0:
            self.create()
            base = Snapshot(0, {}, {})
        version, transactions = base.version + 1, dict(transactions or {})
        actions: list[dict[str, Any]] = [transaction(app_id, number) for app_id, number in transactions.items()]
        actions += [file.to_remove(data_change=data_change) for file in removes]
        actions += [file.to_add(data_change=data_change) for file in adds]
        if not self.log.append(version, actions, operation, info or {}):
            return None
        done = Commit(version, adds, [file.path for file in removes], transactions)
        with self._lock:
            if self._snapshot is not None and self._snapshot.version == base.version:
                self._snapshot = apply_commits(self._snapshot, [done])
        return apply_commits(base, [done])

    def commit_or_delete(self, base: Snapshot, *, adds: Sequence[DataFile], **fields: Any) -> Snapshot | None:
        """As :meth:`commit`; new files that no commit can refer to are deleted."""
        try:
            committed = self.commit(base, adds=adds, **fields)
        except OutcomeUnknown:
            raise  # the log may refer to the files
        except BaseException:
            self._delete(adds)
            raise
        if committed is None:
            self._delete(adds)
        return committed

    def _delete(self, files: Sequence[DataFile]) -> None:
        for file in files:
            self.store.delete(file.path)

    def checkpoint(self) -> int:
        """Write a verified checkpoint of the latest version, and return its version.

        Raises:
            Internal, OSError: there is none; the table is as before.
        """
        version = write_checkpoint(self.log)
        with self._lock:
            self._snapshot, self._opened = self.log.load(), time.monotonic()
        return version
