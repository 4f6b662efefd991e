"""The Delta transaction log after the last checkpoint: replayed, and extended by compare-and-set.

The format is the Delta protocol's (PROTOCOL.md of delta-io/delta): one JSON file a version, one action a line. A commit
is ours exactly if its file could be created, so two writers can never both have version N.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from timedb.contract.errors import Damaged, OutcomeUnknown, Unimplemented
from timedb.contract.times import MAX_MICROS, from_micros, parse_time, to_micros
from timedb.storage.delta import deltalake_adapter as delta
from timedb.storage.delta.protocol import check_action
from timedb.storage.delta.store import Store, table_name

__all__ = ["ENGINE", "Commit", "DataFile", "DeltaLog", "Snapshot"]

LOG_FOLDER = "_delta_log"
ENGINE = "timedb-flight"  # what our commits say of who made them
HINT = f"{LOG_FOLDER}/_last_checkpoint"
_COMMIT_NAME = re.compile(r"(\d{20})\.json")
_PART_NAME = re.compile(r"\d{20}\.checkpoint\.(\d{10}\.(\d{10})\.)?parquet")
_CHECKPOINT_NAME = re.compile(r"(\d{20})\.checkpoint\.(.+\.)?(parquet|json)")
_COUNT = "timedbActions"  # in the commit info: a file that was cut between two lines is whole JSON still
_MILLISECOND = 1000
Statistic = str | int
_log = logging.getLogger("timedb.storage")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A live data file with what its statistics promise; times as microseconds, rounded outwards to milliseconds."""

    path: str
    size: int
    rows: int
    partition: Mapping[str, str]
    minimum: Mapping[str, Statistic] = field(default_factory=dict)
    maximum: Mapping[str, Statistic] = field(default_factory=dict)
    null_count: Mapping[str, int] = field(default_factory=dict)
    modified_ms: int = 0

    def to_add(self, *, data_change: bool = True) -> dict[str, Any]:
        """The ``add`` action of this file."""
        statistics = {
            "numRecords": self.rows,
            "minValues": {name: _bound_text(value) for name, value in self.minimum.items()},
            "maxValues": {name: _bound_text(value) for name, value in self.maximum.items()},
            "nullCount": dict(self.null_count),
        }
        return {
            "add": {
                "path": quote(self.path, safe="/=-_."),
                "partitionValues": dict(self.partition),
                "size": self.size,
                "modificationTime": self.modified_ms,
                "dataChange": data_change,
                "stats": json.dumps(statistics, separators=(",", ":")),
            }
        }

    def to_remove(self, *, data_change: bool = False) -> dict[str, Any]:
        """The ``remove`` action of this file."""
        return {
            "remove": {
                "path": quote(self.path, safe="/=-_."),
                "deletionTimestamp": time.time_ns() // 1_000_000,
                "dataChange": data_change,
                "extendedFileMetadata": True,
                "partitionValues": dict(self.partition),
                "size": self.size,
            }
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table at one version: immutable, free to share between threads."""

    version: int
    files: Mapping[str, DataFile]
    transactions: Mapping[str, int]
    checkpoint: int = -1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The last ``metaData`` action: the table's columns and properties."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What one version of a table did: its actions, as the log has them."""

    version: int
    adds: Sequence[DataFile] = ()
    removes: Sequence[str] = ()
    transactions: Mapping[str, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None


class DeltaLog:
    """The log of one table."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(
        self, schema: pa.Schema, partitions: Sequence[str], configuration: Mapping[str, str], table_id: str
    ) -> bool:
        """Write version 0; False where somebody has already."""
        metadata = {
            "id": table_id,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": delta.schema_text(schema),
            "partitionColumns": list(partitions),
            "configuration": dict(configuration),
            "createdTime": time.time_ns() // 1_000_000,
        }
        actions: list[dict[str, Any]] = [
            {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
            {"metaData": metadata},
        ]
        return self.append(0, actions, "CREATE TABLE", {})

    def exists(self) -> bool:
        """Whether the table has been created."""
        # Other files do not count: a writer that died may have left one, and no table.
        return self.store.exists(commit_path(0)) or any(
            max(commit_version(file.path), checkpoint_version(file.path)) >= 0 for file in self.store.list(LOG_FOLDER)
        )

    def stands(self, version: int) -> bool:
        """Whether the log still has a version: its commit, or a checkpoint that stands for it."""
        return self.store.exists(commit_path(version)) or any(
            checkpoint_version(file.path) == version for file in self.store.list(LOG_FOLDER)
        )

    def load(self) -> Snapshot:
        """The latest version, from the last checkpoint on that can be read; -1 where there is none.

        Raises:
            Damaged: a commit is missing, empty or torn, or a checkpoint for which no commits stand in.
            Unimplemented: another writer made it a table that we do not know; see ``timedb.storage.delta.protocol``.
        """
        names = [file.path for file in self.store.list(LOG_FOLDER)]
        checkpoints = sorted({checkpoint_version(name) for name in names} - {-1}, reverse=True)
        last = max(map(commit_version, names), default=-1)
        fault: Damaged | None = None
        for checkpoint in [*checkpoints, -1]:
            try:
                base = self.load_checkpoint(checkpoint) if checkpoint >= 0 else Snapshot(-1, {}, {})
            except Damaged as error:
                fault = fault or error
                continue
            snapshot = self.refresh(base)
            # Commits stand in for a checkpoint that cannot be read, as far as they reach back.
            if snapshot.version < max([last, *checkpoints]):
                raise fault or self.damaged(f"commit {snapshot.version + 1} is missing")
            if fault is not None:
                _log.warning("%s; the commits of the log stand in for it", fault)
            return snapshot
        raise AssertionError

    def damaged(self, what: str) -> Damaged:
        """The error for this log; see :func:`damaged_log`."""
        return damaged_log(table_name(self.store), what)

    def refresh(self, snapshot: Snapshot) -> Snapshot:
        """Follow the log from a snapshot to its end; the same object where nothing is new."""
        commits = list(self.commits_after(snapshot.version))
        return apply_commits(snapshot, commits) if commits else snapshot

    def commits_after(self, version: int, until: int | None = None) -> Iterable[Commit]:
        """The commits that follow a version, in order."""
        while until is None or version < until:
            version += 1
            try:
                data = self.store.read(commit_path(version))
            except FileNotFoundError:
                return
            yield parse_commit(version, data, table_name(self.store))

    def append(
        self, version: int, actions: Sequence[Mapping[str, Any]], operation: str, info: Mapping[str, Any]
    ) -> bool:
        """Write a commit as ``version``; False where another writer has that version.

        Raises:
            OSError: it was not written, as the log tells.
            OutcomeUnknown: it may have been; the log cannot be read.
        """
        commit_info = {
            "timestamp": time.time_ns() // 1_000_000,
            "operation": operation,
            "operationParameters": {},
            "engineInfo": ENGINE,
            _COUNT: len(actions),
            **({"timedb": dict(info)} if info else {}),
        }
        lines = [json.dumps(action, separators=(",", ":")) for action in ({"commitInfo": commit_info}, *actions)]
        data = ("\n".join(lines) + "\n").encode()
        try:
            return self.store.put_if_absent(commit_path(version), data)
        except OSError:
            if self._is_ours(version, data):
                return True
            raise

    def sync(self, version: int) -> None:
        """Make a commit durable, and with it the names of those before it."""
        with contextlib.suppress(FileNotFoundError):  # cleaned away: a durable checkpoint stands for it
            self.store.sync(commit_path(version))

    def removed_since(self, moment: float) -> set[str]:
        """Data files that commits published since then (seconds since 1970) have replaced: snapshots still use them."""
        removed: set[str] = set()
        for file in self.store.list(LOG_FOLDER):
            if (version := commit_version(file.path)) >= 0 and file.modified >= moment:
                removed.update(parse_commit(version, self.store.read(file.path), table_name(self.store)).removes)
        return removed

    def _is_ours(self, version: int, data: bytes) -> bool:
        """After an error whose outcome is unknown: ask the log.

        Raises:
            OutcomeUnknown: the log does not answer either.
        """
        try:
            if self.store.read(commit_path(version)) != data:
                return False
            self.store.sync(commit_path(version))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise OutcomeUnknown from error
        return True

    def load_checkpoint(self, version: int) -> Snapshot:
        """The table as a checkpoint holds it.

        Raises:
            Damaged: the checkpoint cannot be read.
            Unimplemented: it is of a kind, or of a table, that we do not know.
        """
        files: dict[str, DataFile] = {}
        transactions: dict[str, int] = {}
        metadata: Mapping[str, Any] = {}
        try:
            for action in self._checkpoint_actions(version):
                check_action(action)
                if "add" in action:
                    file = _from_add(action["add"])
                    files[file.path] = file
                elif "txn" in action:
                    transactions[action["txn"]["appId"]] = action["txn"]["version"]
                elif "metaData" in action:
                    metadata = action["metaData"]
            if not metadata:
                raise ValueError
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise  # of the disk, not of what is on it
            raise self.damaged(f"the checkpoint of version {version} cannot be read") from error
        return Snapshot(version, files, transactions, checkpoint=version, metadata=metadata)

    def _checkpoint_actions(self, version: int) -> Iterator[dict[str, Any]]:
        """The actions of a checkpoint, as a commit's lines have them, but for those that no snapshot needs."""
        names = checkpoint_paths(self.store, version)
        parts = {path: match for path in names if (match := _PART_NAME.fullmatch(path.rpartition("/")[2]))}
        whole = [path for path, match in parts.items() if not match[1]]
        chosen = whole or sorted(parts)
        if not chosen:
            raise Unimplemented(f"the checkpoint of version {version} is of a form that this service does not know")
        if not whole and len(chosen) != int(parts[chosen[0]][2]):
            raise ValueError
        for path in chosen:
            table = pq.read_table(self.store.open(path), columns=["add", "txn", "protocol", "metaData"])
            for name in ("protocol", "metaData", "txn", "add"):
                if name in table.column_names:
                    for row in table.column(name).drop_null().to_pylist(maps_as_pydicts="strict"):
                        yield {name: row}


def apply_commits(snapshot: Snapshot, commits: Iterable[Commit]) -> Snapshot:
    """The snapshot after further commits."""
    files, transactions, version = dict(snapshot.files), dict(snapshot.transactions), snapshot.version
    metadata = snapshot.metadata
    for commit in commits:
        version = commit.version
        for path in commit.removes:
            files.pop(path, None)
        files.update((file.path, file) for file in commit.adds)
        transactions.update(commit.transactions)
        metadata = metadata if commit.metadata is None else commit.metadata
    return replace(snapshot, version=version, files=files, transactions=transactions, metadata=metadata)


def parse_commit(version: int, data: bytes, table: str) -> Commit:
    """Read one commit file.

    Args:
        version: Which it is.
        data: Its content.
        table: What the table is called, for errors.

    Raises:
        Damaged: it is empty or torn, which readers would take for a commit without rows.
        Unimplemented: it makes the table one that we do not know.
    """
    if not data.strip():
        raise damaged_log(table, f"commit {version} is empty")
    adds: list[DataFile] = []
    removes: list[str] = []
    transactions: dict[str, int] = {}
    info: dict[str, Any] = {}
    metadata: dict[str, Any] | None = None
    try:
        actions = [json.loads(line) for line in data.splitlines()]
        for action in actions:
            check_action(action)
            if "add" in action:
                adds.append(_from_add(action["add"]))
            elif "remove" in action:
                removes.append(unquote(action["remove"]["path"]))
            elif "txn" in action:
                transactions[action["txn"]["appId"]] = action["txn"]["version"]
            elif "metaData" in action:
                metadata = action["metaData"]
            elif "commitInfo" in action:
                info = action["commitInfo"].get("timedb") or {}
                if action["commitInfo"].get(_COUNT, len(actions) - 1) != len(actions) - 1:
                    raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_log(table, f"commit {version} is torn") from error
    return Commit(version, adds, removes, transactions, info, metadata)


def damaged_log(table: str, what: str) -> Damaged:
    """The error for a log that cannot be followed to its end: of which table, what is wrong, and what helps."""
    return Damaged(f"the log of the table {table} is damaged: {what}; run timedb doctor, or restore a backup")


def transaction(app_id: str, version: int) -> dict[str, Any]:
    """The ``txn`` action: an application's own number, which a table keeps until the next of that ``app_id``."""
    return {"txn": {"appId": app_id, "version": version, "lastUpdated": time.time_ns() // 1_000_000}}


def commit_version(path: str) -> int:
    """The version that a file of the log is the commit of; -1 where it is none."""
    match = _COMMIT_NAME.fullmatch(path.rpartition("/")[2])
    return int(match[1]) if match else -1


def checkpoint_version(path: str) -> int:
    """The version that a file of the log is a checkpoint of; -1 where it is none."""
    match = _CHECKPOINT_NAME.fullmatch(path.rpartition("/")[2])
    return int(match[1]) if match else -1


def checkpoint_paths(store: Store, version: int) -> list[str]:
    """The files of the log that are the checkpoint of a version; several where another writer cut it into parts."""
    usual = f"{LOG_FOLDER}/{version:020d}.checkpoint.parquet"
    if store.exists(usual):
        return [usual]  # so that a long log need not be listed
    return [file.path for file in store.list(LOG_FOLDER) if checkpoint_version(file.path) == version]


def commit_path(version: int) -> str:
    """Where the log has a version's commit."""
    return f"{LOG_FOLDER}/{version:020d}.json"


def _bound_text(value: Statistic) -> str:
    if isinstance(value, str):
        return value
    # The end of year 9999 has no millisecond above it.
    precision = "microseconds" if value % _MILLISECOND else "milliseconds"
    return from_micros(value).isoformat(timespec=precision).replace("+00:00", "Z")


def _bound(value: object) -> Statistic | None:
    if isinstance(value, datetime):
        return to_micros(value)
    if not isinstance(value, str):
        return None
    try:
        return to_micros(parse_time(value))
    except ValueError:
        return value


def floor_ms(micros: int) -> int:
    """A lower bound in whole milliseconds, the precision of Delta statistics."""
    return micros // _MILLISECOND * _MILLISECOND


def ceil_ms(micros: int) -> int:
    """An upper bound in whole milliseconds; writers that truncate are made up for by one more."""
    return min(-(-micros // _MILLISECOND) * _MILLISECOND, MAX_MICROS)


def _bounds(values: Mapping[str, object]) -> dict[str, Statistic]:
    return {name: bound for name, value in values.items() if (bound := _bound(value)) is not None}


def _upper_bounds(values: Mapping[str, object]) -> dict[str, Statistic]:
    # Other writers (Spark) cut a maximum to milliseconds, so a whole one may stand for up to a millisecond more.
    return {
        name: bound if isinstance(bound, str) else min(bound + _MILLISECOND, MAX_MICROS)
        for name, bound in _bounds(values).items()
    }


def _from_add(add: Mapping[str, Any]) -> DataFile:
    statistics = json.loads(add.get("stats") or "{}")
    return DataFile(
        path=unquote(add["path"]),
        size=add["size"],
        rows=statistics.get("numRecords", -1),
        partition={name: value for name, value in (add.get("partitionValues") or {}).items() if value is not None},
        minimum=_bounds(statistics.get("minValues") or {}),
        maximum=_upper_bounds(statistics.get("maxValues") or {}),
        null_count=statistics.get("nullCount") or {},
        modified_ms=add.get("modificationTime", 0),
    )
