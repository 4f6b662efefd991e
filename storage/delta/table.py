"""One Delta table of ours: its published snapshot, and commits on top of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pyarrow as pa

from timedb.contract.errors import Busy, Damaged, Internal, OutcomeUnknown
from timedb.contract.times import MAX_MICROS
from timedb.storage.delta import deltalake_adapter as delta
from timedb.storage.delta.checkpoints import write_checkpoint
from timedb.storage.delta.log import LOG_FOLDER, Commit, DataFile, DeltaLog, Snapshot, apply_commits, transaction
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.protocol import check_metadata
from timedb.storage.delta.standing import Standing, running_seconds
from timedb.storage.delta.store import ASIDE_PREFIX, LocalStore, Store

__all__ = ["Promised", "Table"]

_PROPERTIES = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_REOPEN_SECONDS = 3600.0
_STOOD_SECONDS = 1.0
"""On an object store: for how long a commit that was read or written counts as being there still."""
_UNSEEN_SECONDS = 60.0
"""On an object store: whoever has not looked at a log for so long asks whether it still has the version that was seen
last; the log keeps its commits for far longer, so that whoever looks more often sees each of them.
"""


@dataclass(frozen=True)
class Promised:
    """What is known of a table from elsewhere: its id in the Delta log, empty where that is not known, and a version
    that it has reached.
    """

    table_id: str
    version: int


class Table:
    """A Delta table that is made by :meth:`create` or the first commit; before that it is empty, at version -1.

    Args:
        store: The table's folder.
        schema: All columns, partition columns included.
        partitions: Names of the partition columns.
        standing: Watches the lake of the table; None: nobody does.
        promised: How far the table must have come; None: it need not be there.

    Every method raises Busy where the lake is no longer what was opened, and Damaged where the table's log does not
    reach to where it was.
    """

    def __init__(
        self,
        store: Store,
        schema: pa.Schema,
        partitions: Sequence[str] = (),
        standing: Standing | None = None,
        promised: Promised | None = None,
    ) -> None:
        self.store = store
        self.log = DeltaLog(store)
        self.schema = schema
        self.partitions = partitions
        self._standing = standing
        is_local = isinstance(store, LocalStore)
        self._patience = 0.0 if is_local else _STOOD_SECONDS
        self._unseen = 0.0 if is_local else _UNSEEN_SECONDS
        self._snapshot: Snapshot | None = None
        self._live: Mapping[str, DataFile] = {}
        self._removed: Callable[[Collection[str]], object] = lambda _: None
        self._checked: Mapping[str, Any] | None = None
        self._opened = self._looked = 0.0
        self._stood = -float("inf")
        self._highest = -1
        self._promised = promised
        self._table_id = "" if promised is None else promised.table_id
        self._spoiled: Damaged | None = None
        self._lock = threading.Lock()

    def create(self) -> None:
        """Make the table where there is none, and never was one.

        Raises:
            Damaged: there was one; see :meth:`refuse_lost`.
        """
        self.check_lake()
        if not self.log.exists():
            self.refuse_lost()
            self.create_anew()

    def create_anew(self) -> None:
        """Make the table where there is no log, whatever there was before."""
        self.log.create(self.schema, self.partitions, self.properties(), str(uuid4()))

    def properties(self) -> dict[str, str]:
        """The properties that the table has for the sake of other readers and writers."""
        # delta-rs takes a column without statistics for one that is null throughout, unless it is told the columns that
        # have some, and its filters then find nothing.
        bounded = [each.name for each in self.schema if each.name == "series_id" or pa.types.is_timestamp(each.type)]
        return {**_PROPERTIES, "delta.dataSkippingStatsColumns": ",".join(bounded)}

    def exists(self) -> bool:
        """Whether the table has been made.

        Raises:
            Damaged: it has, and its log is gone.
        """
        # Of a table that is known its newest commit is asked for: the first ones may have been cleaned away.
        there = (self._highest >= 0 and self.log.stands(self._highest)) or self.log.exists()
        if not there and self._promised is not None:
            raise self._lost()
        return there

    def refuse_lost(self) -> None:
        """Refuse to take a table whose log is gone for one that has not been made.

        Raises:
            Damaged: it has been made, as is known from elsewhere, or as its data files tell.
        """
        if self.log.exists():
            return
        data = (file.path for file in self.store.list() if file.path.endswith(".parquet"))
        if self._promised is not None or any(not path.startswith((LOG_FOLDER, ASIDE_PREFIX)) for path in data):
            raise self._lost()

    def known(self) -> Promised | None:
        """What this process has seen of the table; None: nothing yet."""
        return Promised(self._table_id, self._highest) if self._highest >= 0 and self._table_id else None

    @property
    def seen(self) -> Snapshot | None:
        """The newest snapshot that this process has seen, without a look at the log; None: there was none yet."""
        return self._snapshot

    @property
    def is_lost(self) -> bool:
        """Whether the lake was gone, or another one, when somebody looked last."""
        return self._standing is not None and self._standing.fault is not None

    def tell_removed(self, removed: Callable[[Collection[str]], object]) -> None:
        """Have somebody told which files are live no longer, as soon as that is known."""
        self._removed = removed

    def _publish(self, snapshot: Snapshot) -> Snapshot:
        """Make a snapshot that which the next caller begins with."""
        self._snapshot = snapshot
        before, self._live = self._live, snapshot.files
        if before is not snapshot.files and (gone := before.keys() - snapshot.files.keys()):
            self._removed(gone)
        return snapshot

    def snapshot(self) -> Snapshot:
        """The table as of now, commits of other processes included.

        Raises:
            Damaged: the log is damaged, or does not reach to where it was.
            Unimplemented: another writer made it a table that we do not know; see ``timedb.storage.delta.protocol``.
        """
        self.check_lake()
        with self._lock:
            if self._snapshot is None and self._highest < 0 and not self.exists():
                return Snapshot(-1, {}, {})
            try:
                snapshot = self._publish(self._newest())
            except Damaged as error:
                self._tell(error)
                raise
            if snapshot.metadata is not self._checked:
                check_metadata(snapshot.metadata, delta.schema_text(self.schema), self.partitions)
                self._checked = snapshot.metadata
            self._tell(None)
            return snapshot

    def _newest(self) -> Snapshot:
        if self._snapshot is None or running_seconds() - self._opened > _REOPEN_SECONDS:
            # A log whose next commit was cleaned away looks unchanged, so it is opened anew now and then.
            return self._open()
        looked, self._looked = self._looked, running_seconds()
        newer = self.log.refresh(self._snapshot)
        if newer is not self._snapshot:
            self._stood = running_seconds()
        elif self._looked - looked >= self._unseen and not self.log.stands(newer.version):
            return self._open()  # its next commit was cleaned away while nobody looked here
        self._highest = max(self._highest, newer.version)
        return newer

    def _open(self) -> Snapshot:
        """Read the log from its last checkpoint on.

        Raises:
            Damaged: it cannot be read, or does not reach to where it was.
        """
        if self._spoiled is not None:
            raise self._spoiled
        opened = self.log.load()
        self._check_reach(opened)
        self._highest = opened.version
        self._opened = self._stood = self._looked = running_seconds()
        return opened

    def _check_reach(self, opened: Snapshot) -> None:
        """See that the log is that of the table that was known, and has all that was in it."""
        reached = max(self._highest, -1 if self._promised is None else self._promised.version)
        table_id = str(opened.metadata.get("id") or "")
        fault = None
        if opened.version < 0:
            fault = self._lost()
        elif self._table_id and table_id != self._table_id:
            fault = self.log.damaged(f"another table is in the place of the one that had version {reached}")
        elif opened.version < reached:
            fault = self.log.damaged(f"it ends at version {opened.version}, and was at version {reached} before")
        if fault is None:
            self._table_id = table_id
            return
        if self._highest >= 0:
            self._spoiled = fault  # what this process knows is no longer true, whatever is put there
        raise fault

    def _lost(self) -> Damaged:
        lost = self.log.damaged("it is missing, and the table had been made")
        self._tell(lost)
        return lost

    def _tell(self, fault: Damaged | None) -> None:
        if self._standing is not None and (fault is not None or self._standing.damage):
            self._standing.note_damage(self.store.url(), None if fault is None else fault.detail)

    def check_lake(self) -> None:
        """See that the lake is still the one that was opened.

        Raises:
            Busy: it is not.
        """
        if self._standing is not None:
            self._standing.check()

    def _base_stands(self, version: int) -> bool:
        return running_seconds() - self._stood < self._patience or self.log.stands(version)

    def is_current(self) -> bool:
        """Whether it has all that :meth:`renew` gives, or has not been made."""
        snapshot = self.snapshot()
        return snapshot.version < 0 or not self._renewal(snapshot)

    def renew(self) -> bool:
        """Give a table that an older release made what direct readers need of it; False where it is there.

        Servers go on meanwhile, those of older releases, too.

        Raises:
            OSError, OutcomeUnknown: it was not, or may not have been, written; do it again.
        """
        while actions := [] if (snapshot := self.snapshot()).version < 0 else self._renewal(snapshot):
            if self.log.append(snapshot.version + 1, actions, "SET TBLPROPERTIES", {}):
                self.log.sync(snapshot.version + 1)
                return True
        return False

    def _renewal(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        had = snapshot.metadata.get("configuration") or {}
        wanted = {**had, **self.properties()}
        metadata = {name: value for name, value in snapshot.metadata.items() if value is not None}
        actions = [] if wanted == had else [{"metaData": {**metadata, "configuration": wanted}}]
        # A bound that release 0.1.0 left out lies in the last millisecond of year 9999.
        for file in snapshot.files.values():
            open_ended = {name: MAX_MICROS for name in file.minimum if name not in file.maximum}
            if open_ended:
                bounded = replace(file, maximum={**file.maximum, **open_ended})
                actions.append(bounded.to_add(data_change=False))
        return actions

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
        """Commit on top of ``base``; None where another writer has committed since, or the base is no longer there.

        Raises:
            OSError, Busy, Internal: not committed.
            OutcomeUnknown: it may be part of a table that nobody can read.
        """
        self.check_lake()
        if base.version < 0:
            self.create()
            base = Snapshot(0, {}, {})
        elif not self._base_stands(base.version):
            with self._lock:
                self._snapshot = None  # to be opened anew, from a checkpoint
            return None
        version, transactions = base.version + 1, dict(transactions or {})
        actions: list[dict[str, Any]] = [transaction(app_id, number) for app_id, number in transactions.items()]
        actions += [file.to_remove(data_change=data_change) for file in removes]
        actions += [file.to_add(data_change=data_change) for file in adds]
        if not self.log.append(version, actions, operation, info or {}):
            return None
        self._confirm(base.version)
        done = Commit(version, adds, [file.path for file in removes], transactions)
        with self._lock:
            if self._snapshot is not None and self._snapshot.version == base.version:
                self._publish(apply_commits(self._snapshot, [done]))
            self._stood, self._highest = running_seconds(), max(self._highest, version)
        return apply_commits(base, [done])

    def _confirm(self, base: int) -> None:
        """See that a commit has not come too late: what was there before it must be there after it.

        Raises:
            OutcomeUnknown: it is not; nobody may be told that the commit is in.
        """
        try:
            self.check_lake()
            stands = self._base_stands(base)
        except Busy as error:
            raise OutcomeUnknown(error.detail) from error
        except OSError as error:
            raise OutcomeUnknown("the write was committed, but the lake could not be looked at afterwards") from error
        if not stands:
            raise OutcomeUnknown("the table's log was cut short while the write was committed")

    def commit_or_delete(self, base: Snapshot, *, adds: Sequence[DataFile], **fields: Any) -> Snapshot | None:
        """As :meth:`commit`; new files that no commit can refer to are deleted."""
        with NewFiles(self.store, adds) as new:
            committed = self.commit(base, adds=adds, **fields)
            if committed is not None:
                new.keep()
        return committed

    def checkpoint(self) -> int:
        """Write a verified checkpoint of the latest version, and return its version.

        Raises:
            Internal, OSError: there is none; the table is as before.
        """
        snapshot = self.snapshot()
        try:
            version = write_checkpoint(self.log, snapshot)
        except Internal:
            version = write_checkpoint(self.log)  # the checkpoint that the snapshot began with may be damaged since
        with self._lock:
            if self._snapshot is not None and self._snapshot.version >= version:
                self._publish(replace(self._snapshot, checkpoint=max(self._snapshot.checkpoint, version)))
        return version
