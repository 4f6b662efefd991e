"""Finds what is wrong with a lake on disk and, asked to, repairs it. Works on the files; no server needs to run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from timedb.contract.errors import Internal, Unimplemented
from timedb.storage.admin.upgrade import tables_of
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.log import (
    HINT,
    LOG_FOLDER,
    DataFile,
    DeltaLog,
    Snapshot,
    apply_commits,
    checkpoint_version,
    commit_version,
    parse_commit,
    transaction,
)
from timedb.storage.delta.store import ASIDE_PREFIX, Store
from timedb.storage.delta.table import Table
from timedb.storage.tables.commit_marks import REACHED, bucket_transaction
from timedb.storage.tables.layout import TenantTables, tenant_folder, tenant_ids

__all__ = ["Finding", "TableDoctor", "examine_lake"]

UNREADABLE = "unreadable"
FOREIGN = "changed by another writer"
NESTED = "lake inside another"
OUTDATED = "filters of delta-rs find nothing"
_CLOSED = (UNREADABLE, FOREIGN)
_KEPT = f"{ASIDE_PREFIX}doctor"
ORPHAN_SECONDS = 3600.0
"""A file that nobody refers to may be on its way in for about so long."""


@dataclass(frozen=True)
class Finding:
    """One fault of a table: what, which file, whether the doctor can mend it, and whether it has."""

    table: str
    fault: str
    path: str
    cure: str
    repaired: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return asdict(self)


class TableDoctor:
    """Examines one Delta table.

    Args:
        name: How findings call the table.
        store: Its folder.
        repair: Whether to mend what can be mended without loss of acknowledged rows.
        accept_loss: Whether live files that are missing may be taken out of the table.
    """

    def __init__(self, name: str, store: Store, *, repair: bool = False, accept_loss: bool = False) -> None:
        self._name = name
        self._store = store
        self._log = DeltaLog(store)
        self._repair = repair
        self._accept_loss = accept_loss

    def examine(self) -> Iterator[Finding]:
        """The faults of the table, those of the log first; what follows may depend on their repair."""
        yield from self._commits()
        yield from self._checkpoints()
        try:
            snapshot = self._log.load()
        except (Internal, Unimplemented) as error:
            fault = FOREIGN if isinstance(error, Unimplemented) else UNREADABLE
            yield Finding(self._name, fault, LOG_FOLDER, f"none: {error.detail}")
            return
        yield from self._missing(snapshot)
        yield from self._orphans()

    def _commits(self) -> Iterator[Finding]:
        versions = sorted({commit_version(file.path) for file in self._store.list(LOG_FOLDER)} - {-1})
        for version in versions:
            path = f"{LOG_FOLDER}/{version:020d}.json"
            try:
                parse_commit(version, self._store.read(path))
            except Unimplemented:
                continue  # whole; named where the log is read
            except Internal:
                # A commit is acknowledged after its bytes are durable, so a torn last one never was.
                last = version == versions[-1]
                cure = "move it aside" if last else "none: later commits build on it; restore a backup"
                yield Finding(self._name, "torn commit", path, cure, last and self._move_aside(path))
        for before, after in pairwise(versions):
            if after != before + 1:
                path = f"{LOG_FOLDER}/{before + 1:020d}.json"
                yield Finding(self._name, "gap in the log", path, "none: restore a backup")

    def _checkpoints(self) -> Iterator[Finding]:
        files = [file.path for file in self._store.list(LOG_FOLDER)]
        for path in sorted(path for path in files if checkpoint_version(path) >= 0):
            if not self._is_good(checkpoint_version(path)):
                self._move_aside(HINT)
                yield Finding(self._name, "bad checkpoint", path, "move it and the hint aside", self._move_aside(path))
        if self._store.exists(HINT):
            try:
                version = json.loads(self._store.read(HINT))["version"]
                known = any(checkpoint_version(path) == version for path in files)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                yield Finding(self._name, "bad checkpoint hint", HINT, "move it aside", self._move_aside(HINT))

    def _is_good(self, version: int) -> bool:
        """Whether a checkpoint can be read and, where the log reaches back, says what the log says."""
        try:
            seen = self._log.load_checkpoint(version)
        except Internal:
            return False
        except Unimplemented:
            return True
        if not self._store.exists(f"{LOG_FOLDER}/{0:020d}.json"):
            return True
        try:
            replayed = apply_commits(Snapshot(-1, {}, {}), self._log.commits_after(-1, version))
        except (Internal, Unimplemented):
            return True  # a torn commit before it is no fault of the checkpoint, which is all that is left of it
        return replayed.version != version or replayed.files.keys() == seen.files.keys()

    def _missing(self, snapshot: Snapshot) -> Iterator[Finding]:
        sizes = {file.path: file.size for file in self._store.list() if not file.path.startswith(LOG_FOLDER)}
        lost = [
            file for path, file in snapshot.files.items() if sizes.get(path) != file.size or not self._readable(file)
        ]
        done = bool(lost) and self._repair and self._accept_loss and self._give_up(snapshot, lost)
        for file in lost:
            fault = "damaged data file" if file.path in sizes else "missing data file"
            yield Finding(self._name, fault, file.path, "restore a backup, or accept the loss of its rows", done)

    def _readable(self, file: DataFile) -> bool:
        try:
            return bool(pq.read_metadata(self._store.open(file.path)).num_rows == file.rows)
        except (pa.ArrowException, OSError):
            return False

    def _give_up(self, snapshot: Snapshot, lost: list[DataFile]) -> bool:
        buckets = {file.partition["series_bucket"] for file in lost if "series_bucket" in file.partition}
        guards = [bucket_transaction(bucket) for bucket in sorted(buckets)]
        actions = [transaction(guard, snapshot.transactions.get(guard, 0) + 1) for guard in guards]
        actions += [file.to_remove(data_change=True) for file in lost]
        return self._log.append(snapshot.version + 1, actions, "REPAIR", {})

    def _orphans(self) -> Iterator[Finding]:
        oldest = time.time() - ORPHAN_SECONDS
        files = list(self._store.list())
        try:
            # Read after the list was made: servers may run, and what they have committed by now is no orphan.
            known = self._log.removed_since(0.0) | self._log.load().files.keys()
        except (Internal, Unimplemented):
            return  # a torn commit may have named any of them
        for file in files:
            left_over = ASIDE_PREFIX in file.path and not file.path.startswith(_KEPT)
            data = file.path.endswith(".parquet") and not file.path.startswith((LOG_FOLDER, ASIDE_PREFIX))
            if file.modified < oldest and (left_over or (data and file.path not in known)):
                if self._repair:
                    self._store.delete(file.path)
                yield Finding(self._name, "orphan file", file.path, "delete it", self._repair)

    def _move_aside(self, path: str) -> bool:
        if self._repair and self._store.exists(path):
            self._store.put_if_absent(f"{_KEPT}/{uuid4().hex}-{path.rpartition('/')[2]}", self._store.read(path))
            self._store.delete(path)
        return self._repair


def examine_lake(lake: Store, *, repair: bool = False, accept_loss: bool = False) -> list[Finding]:
    """Examine every table of a lake.

    Args:
        lake: The lake's folder.
        repair: Mend what can be mended without loss of acknowledged rows.
        accept_loss: Also take data files that are missing or damaged out of their tables.
    """
    found: list[Finding] = []
    for name, table in tables_of(lake).items():
        faults = list(TableDoctor(name, table.store, repair=repair, accept_loss=accept_loss).examine())
        if not any(finding.fault in _CLOSED for finding in faults):
            faults += _changed_or_old(name, table, repair=repair)
        found += faults
    closed = {finding.table.partition("/")[0] for finding in found if finding.fault in _CLOSED}
    for tenant_id in tenant_ids(lake):
        if tenant_id not in closed:
            tables = TenantTables.below(lake.below(tenant_folder(tenant_id)))
            found += _runs_without_row(tenant_id, tables, repair=repair)
    return found


def _changed_or_old(name: str, table: Table, *, repair: bool) -> Iterator[Finding]:
    try:
        if not table.is_current():
            yield Finding(name, OUTDATED, LOG_FOLDER, "timedb upgrade", repair and table.renew())
    except Unimplemented as error:
        yield Finding(name, FOREIGN, LOG_FOLDER, f"none: {error.detail}")


def _runs_without_row(tenant_id: str, tables: TenantTables, *, repair: bool) -> Iterator[Finding]:
    ledger = Ledger(tables.values, tables.runs, tables.updates)
    snapshot = tables.values.snapshot()
    reached = ledger.runs.snapshot().transactions.get(REACHED, 0)
    commits = list(tables.values.log.commits_after(reached, snapshot.version))
    run_ids = [run["run_id"] for commit in commits for run in commit.info.get("uploads", ())]
    lost = [run_id for run_id in run_ids if ledger.runs.find(run_id) is None]
    if lost and repair:
        ledger.catch_up(snapshot)
    for run_id in lost:
        yield Finding(f"{tenant_id}/runs", "run without a row", run_id, "write it from the values log", repair)
