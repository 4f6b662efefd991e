"""Checkpoints that are verified before anybody can trust them.

A torn checkpoint makes a table unopenable although every commit is there. So a new one is written aside, over links to
the log, read back and compared with the replayed log, fsynced, and only then given its name; the hint comes last.

A checkpoint lists live files alone. The tombstones that other writers keep there, of every file that was replaced of
late, would make it larger the more is written, and are for clean-ups by somebody who has nothing but the checkpoint.
Ours goes by the commits (``timedb.storage.delta.expiry``), which stay as long as the files that they replaced.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from timedb.contract.errors import Damaged, Internal
from timedb.storage.delta import deltalake_adapter as delta
from timedb.storage.delta.log import (
    HINT,
    LOG_FOLDER,
    DeltaLog,
    Snapshot,
    checkpoint_paths,
    checkpoint_version,
    commit_path,
    commit_version,
)
from timedb.storage.delta.store import LocalStore, Store

__all__ = ["is_readable", "write_checkpoint"]


def write_checkpoint(log: DeltaLog, snapshot: Snapshot | None = None) -> int:
    """Write a checkpoint of the latest version and return that version.

    Args:
        log: The log.
        snapshot: The latest version, if it has been read; None: it is read now.

    Raises:
        Internal: the checkpoint does not hold what the log says; none was published.
        OSError: it could not be written; the table is as before.
    """
    snapshot = log.load() if snapshot is None else snapshot
    if snapshot.checkpoint == snapshot.version:
        return snapshot.version
    with tempfile.TemporaryDirectory(prefix="timedb-checkpoint-") as folder:
        aside = LocalStore(Path(folder))
        _copy_log(log.store, snapshot, aside)
        version = delta.create_checkpoint(aside.url())
        _verify(aside, snapshot, version)
        made = next(file.path for file in aside.list(LOG_FOLDER) if checkpoint_version(file.path) == version)
        if not log.store.put_if_absent(made, aside.read(made)) and not is_readable(log, version):
            log.store.replace(made, aside.read(made))
        log.store.replace(HINT, aside.read(HINT))
    return version


def _copy_log(store: Store, snapshot: Snapshot, aside: LocalStore) -> None:
    """The checkpoint that a snapshot began with, and the commits from there to the snapshot, without tombstones."""
    if snapshot.checkpoint >= 0:
        for path in checkpoint_paths(store, snapshot.checkpoint):
            aside.stage(path).write_bytes(store.read(path))
    for version in range(max(snapshot.checkpoint, 0), snapshot.version + 1):
        path = commit_path(version)
        try:
            data = store.read(path)
        except FileNotFoundError:
            if version == snapshot.checkpoint:
                continue  # a restored log begins with its checkpoint
            raise
        aside.stage(path).write_bytes(b"\n".join(map(_expired, data.splitlines())) + b"\n")


def _expired(line: bytes) -> bytes:
    """A line of a commit; of a ``remove`` action, one of long ago, which no checkpoint keeps."""
    if not line.startswith(b'{"remove"'):
        return line
    action = json.loads(line)
    action["remove"]["deletionTimestamp"] = 0
    return json.dumps(action, separators=(",", ":")).encode()


def _verify(aside: LocalStore, snapshot: Snapshot, version: int) -> None:
    for file in list(aside.list(LOG_FOLDER)):
        if commit_version(file.path) >= 0 and commit_version(file.path) != version:
            aside.delete(file.path)
    seen = DeltaLog(aside).load()
    if seen.version != snapshot.version or seen.transactions != snapshot.transactions:
        raise Internal("the new checkpoint does not stand for the log's last version; it was not published")
    if {path: file.rows for path, file in seen.files.items()} != {
        path: file.rows for path, file in snapshot.files.items()
    }:
        raise Internal("the new checkpoint does not hold the log's files; it was not published")


def is_readable(log: DeltaLog, version: int) -> bool:
    """Whether the checkpoint of a version can be read."""
    try:
        log.load_checkpoint(version)
    except Damaged:
        return False
    return True
