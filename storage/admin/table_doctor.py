"""Examines one Delta table, log first, and mends what can be mended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from timedb.contract.errors import Damaged, Unimplemented
from timedb.storage.admin.findings import BEHIND, FOREIGN, FOREIGN_COMMIT, LOST_LOG, UNREADABLE, Finding
from timedb.storage.delta.log import (
    ENGINE,
    HINT,
    LOG_FOLDER,
    DataFile,
    DeltaLog,
    Snapshot,
    checkpoint_version,
    commit_version,
    parse_commit,
    transaction,
)
from timedb.storage.delta.pages import check_pages
from timedb.storage.delta.store import ASIDE_PREFIX, Store, table_name
from timedb.storage.delta.table import Promised
from timedb.storage.tables.commit_marks import REACHED, REPAIRED, bucket_transaction

__all__ = ["ORPHAN_SECONDS", "TableDoctor"]

_KEPT = f"{ASIDE_PREFIX}doctor"
_WITH_LOSS = "--repair --accept-loss"
_BACKUP = "restore a backup"
_BATCH_ROWS = 65_536
ORPHAN_SECONDS = 3600.0
"""A file that nobody refers to may be on its way in for about so long."""


class TableDoctor:
    """Examines one Delta table.

    Args:
        name: How findings call the table.
        store: Its folder.
        promised: How far it must have come; None: that is not known.
        repair: Whether to mend what can be mended without loss of acknowledged rows.
        accept_loss: Whether to mend what costs rows, too.
        every_page: Whether to read every byte of its files.
        rebuild: Makes the table anew where all that it holds can be written again from elsewhere; None: it cannot.
        progress: Is told of the bytes of each file that has been looked at.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        promised: Promised | None = None,
        *,
        repair: bool = False,
        accept_loss: bool = False,
        every_page: bool = True,
        rebuild: Callable[[], object] | None = None,
        progress: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._name = name
        self._store = store
        self._log = DeltaLog(store)
        self._promised = promised
        self._repair = repair
        self._accept_loss = repair and accept_loss
        self._every_page = every_page
        self._rebuild = rebuild
        self._progress = progress
        self.accepted = False
        """Whether the loss of commits was accepted: what was known of the table is no longer true."""
        self.without_checksums = 0
        """Live files whose pages have no checksums."""
        self._foreign: list[Finding] = []
        self._replayed: dict[int, frozenset[str]] = {}

    def examine(self) -> Iterator[Finding]:
        """The faults of the table, those of the log first; what follows may depend on their repair."""
        if not self._log.exists():
            yield from self._without_log()
            return
        yield from self._commits()
        yield from self._checkpoints()
        try:
            snapshot = self._log.load()
        except (Damaged, Unimplemented) as error:
            fault = FOREIGN if isinstance(error, Unimplemented) else UNREADABLE
            yield Finding(self._name, fault, LOG_FOLDER, f"none: {error.detail}")
            return
        yield from self._foreign
        behind = list(self._behind(snapshot))
        yield from behind
        if any(not finding.repaired for finding in behind):
            return  # its files may be of commits that are gone
        yield from self._bad_files(snapshot)
        if not self.accepted:  # else they may yet be needed
            yield from self._orphans()

    def _without_log(self) -> Iterator[Finding]:
        """A table that has no log: it was never made, or has lost it, and then its files are all that is left."""
        data = [file for file in self._store.list() if _is_data(file.path)]
        if self._promised is not None or data:
            size = sum(file.size for file in data)
            if self._rebuild is not None:
                if self._repair:
                    self._rebuild()
                    self.accepted = True
                cure = "make it anew from the values log"
                yield Finding(self._name, LOST_LOG, LOG_FOLDER, cure, self._repair)
                return
            loss = f"all that the table holds: {len(data)} data files of {size} bytes are there, and are left alone"
            yield Finding(self._name, LOST_LOG, LOG_FOLDER, f"none: {_BACKUP}", loss=loss)

    def _behind(self, snapshot: Snapshot) -> Iterator[Finding]:
        """Whether the log ends before what is known of the table, or is another one."""
        known = self._promised
        if known is None or self.accepted:
            return
        other = known.table_id and known.table_id != snapshot.metadata.get("id")
        if other or snapshot.version < known.version:
            what = "it is of another table" if other else f"it ends at version {snapshot.version}"
            loss = f"{what}, and the table was at version {known.version}: what was written in between"
            self.accepted = self._accept_loss if self._rebuild is None else self._repair
            cure = f"{_BACKUP}, or {_WITH_LOSS}" if self._rebuild is None else "write it again from the values log"
            yield Finding(self._name, BEHIND, LOG_FOLDER, cure, self.accepted, loss if self._rebuild is None else None)

    def _commits(self) -> Iterator[Finding]:
        files = [file.path for file in self._store.list(LOG_FOLDER)]
        versions = sorted(set(map(commit_version, files)) - {-1})
        checkpoints = set(map(checkpoint_version, files))
        live: set[str] = set()
        for number, version in enumerate(versions):
            path = f"{LOG_FOLDER}/{version:020d}.json"
            data = self._store.read(path)
            try:
                commit = parse_commit(version, data, self._name)
            except Unimplemented:
                continue  # whole; named where the log is read
            except Damaged:
                yield self._torn(path, data, last=version == versions[-1])
                continue
            self._foreign += _foreign(self._name, path, data)
            live.difference_update(commit.removes)
            live.update(file.path for file in commit.adds)
            if version in checkpoints and version == number:  # everything from the first commit on has been seen
                self._replayed[version] = frozenset(live)
        for before, after in pairwise(versions):
            if after != before + 1:
                path = f"{LOG_FOLDER}/{before + 1:020d}.json"
                yield Finding(self._name, "gap in the log", path, f"none: {_BACKUP}")

    def _torn(self, path: str, data: bytes, *, last: bool) -> Finding:
        """A commit gets its name when it is whole, so one that is torn was whole, and acknowledged, before."""
        if not last:
            return Finding(self._name, "torn commit", path, f"none: later commits build on it; {_BACKUP}")
        if self._rebuild is not None:
            self.accepted = self.accepted or self._repair
            cure = "move it aside, and write what it said again from the values log"
            return Finding(self._name, "torn commit", path, cure, self._move_aside(path, self._repair))
        self.accepted = self.accepted or self._accept_loss
        cure = f"{_BACKUP}, or {_WITH_LOSS} moves it aside"
        return Finding(self._name, "torn commit", path, cure, self._move_aside(path, self._accept_loss), _said_by(data))

    def _checkpoints(self) -> Iterator[Finding]:
        files = [file.path for file in self._store.list(LOG_FOLDER)]
        for path in sorted(path for path in files if checkpoint_version(path) >= 0):
            if not self._is_good(checkpoint_version(path)):
                moved = self._repair and self._is_dispensable(checkpoint_version(path))
                self._move_aside(HINT, moved)
                cure = "move it and the hint aside: the commits of the log stand in for it"
                if not self._is_dispensable(checkpoint_version(path)) and self._store.exists(path):
                    cure = f"none: the log does not reach back behind it; {_BACKUP}"
                yield Finding(self._name, "bad checkpoint", path, cure, self._move_aside(path, moved))
        if self._store.exists(HINT):
            try:
                version = json.loads(self._store.read(HINT))["version"]
                known = any(checkpoint_version(path) == version for path in files)
            except (ValueError, KeyError, TypeError):
                known = False
            if not known:
                moved = self._move_aside(HINT, self._repair)
                yield Finding(self._name, "bad checkpoint hint", HINT, "move it aside", moved)

    def _is_dispensable(self, version: int) -> bool:
        """Whether what a checkpoint holds can be had from an older one, or the first commit, and the commits since."""
        files = [file.path for file in self._store.list(LOG_FOLDER)]
        older = {checkpoint_version(path) for path in files if -1 < checkpoint_version(path) < version}
        start = max((one for one in older if self._is_good(one)), default=-1)
        there = {commit_version(path) for path in files}
        return all(number in there for number in range(start + 1, version + 1))

    def _is_good(self, version: int) -> bool:
        """Whether a checkpoint can be read and, where the log reaches back, says what the log says."""
        try:
            seen = self._log.load_checkpoint(version)
        except Damaged:
            return False
        except Unimplemented:
            return True
        said = self._replayed.get(version)
        return said is None or said == seen.files.keys()

    def _bad_files(self, snapshot: Snapshot) -> Iterator[Finding]:
        sizes = {file.path: file.size for file in self._store.list() if not file.path.startswith(LOG_FOLDER)}
        lost = [
            file for path, file in snapshot.files.items() if sizes.get(path) != file.size or not self._readable(file)
        ]
        if lost and self._rebuild is not None:
            # All of them, as a register that is written again is so from its beginning.
            done = self._repair and self._give_up(snapshot, list(snapshot.files.values()))
            self.accepted = self.accepted or done
        else:
            done = bool(lost) and self._accept_loss and self._give_up(snapshot, lost)
        for file in lost:
            fault = "damaged data file" if file.path in sizes else "missing data file"
            if self._rebuild is not None:
                yield Finding(self._name, fault, file.path, "write the table again from the values log", done)
                continue
            rows = "an unknown number of" if file.rows < 0 else str(file.rows)
            loss = f"its {rows} rows of the table {table_name(self._store)}"
            yield Finding(self._name, fault, file.path, f"{_BACKUP}, or {_WITH_LOSS} takes it out", done, loss)

    def _readable(self, file: DataFile) -> bool:
        try:
            source = self._store.open(file.path)
            if pq.read_metadata(source).num_rows != file.rows >= 0:
                return False
            if not isinstance(source, str):
                source.seek(0)
            if not check_pages(source, first_only=not self._every_page):
                self.without_checksums += 1
                if self._every_page:
                    _decode(self._store.open(file.path))
        except (pa.ArrowException, OSError, ValueError):
            return False
        finally:
            self._progress(file.size)
        return True

    def _give_up(self, snapshot: Snapshot, lost: list[DataFile]) -> bool:
        buckets = {file.partition["series_bucket"] for file in lost if "series_bucket" in file.partition}
        guards = [bucket_transaction(bucket) for bucket in sorted(buckets)]
        actions = [transaction(guard, snapshot.transactions.get(guard, 0) + 1) for guard in guards]
        actions.append(transaction(REPAIRED, snapshot.transactions.get(REPAIRED, 0) + 1))
        if self._rebuild is not None:
            actions.append(transaction(REACHED, 0))
        actions += [file.to_remove(data_change=True) for file in lost]
        return self._log.append(snapshot.version + 1, actions, "REPAIR", {})

    def _orphans(self) -> Iterator[Finding]:
        oldest = time.time() - ORPHAN_SECONDS
        files = list(self._store.list())
        try:
            # Read after the list was made: servers may run, and what they have committed by now is no orphan.
            known = self._log.removed_since(0.0) | self._log.load().files.keys()
        except (Damaged, Unimplemented):
            return  # a torn commit may have named any of them
        for file in files:
            left_over = ASIDE_PREFIX in file.path and not file.path.startswith(_KEPT)
            if file.modified < oldest and (left_over or (_is_data(file.path) and file.path not in known)):
                if self._repair:
                    self._store.delete(file.path)
                yield Finding(self._name, "orphan file", file.path, "delete it", self._repair)

    def _move_aside(self, path: str, wanted: bool) -> bool:
        if wanted and self._store.exists(path):
            self._store.put_if_absent(f"{_KEPT}/{uuid4().hex}-{path.rpartition('/')[2]}", self._store.read(path))
            self._store.delete(path)
        return wanted


def _decode(source: str | pa.BufferReader) -> None:
    """Read all rows of a file, which is all that can be done where its pages have no checksums."""
    with pq.ParquetFile(source) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS):
            batch.validate(full=True)


def _is_data(path: str) -> bool:
    return path.endswith(".parquet") and not path.startswith((LOG_FOLDER, ASIDE_PREFIX))


def _foreign(name: str, path: str, data: bytes) -> Iterator[Finding]:
    """A commit that is not the service's; one that changes no rows is worth a word and no more."""
    if f'"engineInfo":"{ENGINE}"'.encode() in data:
        return
    actions: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()]
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    files = [action.get("add") or action.get("remove") or {} for action in actions]
    changes = any(file.get("dataChange") for file in files)
    who = f"{info.get('engineInfo') or 'an unnamed writer'}: {info.get('operation') or 'no operation'}"
    cure = f"none needed if it was meant, else {_BACKUP}" if changes else "none needed: it changed no rows"
    yield Finding(name, FOREIGN_COMMIT, path, f"{cure} ({who})", notice=not changes)


def _said_by(torn: bytes) -> str:
    """What can still be told of what a torn commit did."""
    files, rows, names = 0, 0, []
    for line in torn.splitlines():
        try:
            action: dict[str, Any] = json.loads(line)
            names += [one["run_id"] for one in action.get("commitInfo", {}).get("timedb", {}).get("uploads", ())]
            if "add" in action:
                files, rows = files + 1, rows + json.loads(action["add"].get("stats") or "{}").get("numRecords", 0)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    runs = f" of the runs {', '.join(map(repr, names))}" if names else ""
    return f"what was acknowledged with it: at least {rows} rows in {files} files{runs}, as far as it can be read"
