"""Checkpoints that are verified before anybody can trust them.

A torn checkpoint makes a table unopenable although every commit is there. So a new one is written aside, over a copy of
what the log says, read back and compared with the replayed log, fsynced, and only then given its name; the hint comes
last.

A checkpoint lists live files alone. The tombstones that other writers keep there, of every file that was replaced of
late, would make it larger the more is written, and are for clean-ups by somebody who has nothing but the checkpoint.
Ours goes by the commits (``timedb.storage.delta.expiry``), which stay as long as the files that they replaced.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from urllib.parse import unquote

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
        (made,) = checkpoint_paths(aside, version)
        target = f"{LOG_FOLDER}/{snapshot.version:020d}.checkpoint.parquet"
        if not log.store.put_if_absent(target, aside.read(made)) and not is_readable(log, snapshot.version):
            log.store.replace(target, aside.read(made))
        hint = {**json.loads(aside.read(HINT)), "version": snapshot.version}
        log.store.replace(HINT, json.dumps(hint, separators=(",", ":")).encode())
    return snapshot.version


def _copy_log(store: Store, snapshot: Snapshot, aside: LocalStore) -> None:
    """Copy the checkpoint that a snapshot began with, and all commits since then as one that does what they did.

    deltalake opens the files of a log all at once: a thousand commits are a thousand descriptors and 512 threads.
    Versions are counted anew aside, as a log begins with version 0 or a checkpoint.
    """
    begin = snapshot.checkpoint
    if begin >= 0:
        for path in checkpoint_paths(store, begin):
            renamed = path.replace(f"{begin:020d}", f"{0:020d}")
            aside.stage(renamed).write_bytes(store.read(path))
    last: dict[tuple[str, str], bytes] = {}
    for version in range(begin + 1, snapshot.version + 1):
        for line in store.read(commit_path(version)).splitlines():
            if (key := _subject(line)) is not None:
                last.pop(key, None)
                last[key] = line
    lines = sorted(map(_expired, last.values()), key=lambda line: not line.startswith(_HEADS))
    aside.stage(commit_path(0 if begin < 0 else 1)).write_bytes(b"\n".join(lines) + b"\n")


_HEADS = (b'{"protocol"', b'{"metaData"')
_IDENTITIES = {"add": "path", "remove": "path", "txn": "appId", "domainMetadata": "domain"}


def _subject(line: bytes) -> tuple[str, str] | None:
    """What an action of a commit is about, of which only its last action counts; None: nothing that a checkpoint has.

    Source: the Delta protocol, "Action Reconciliation".
    """
    ((kind, action),) = json.loads(line).items()
    if kind in ("protocol", "metaData"):
        return kind, ""
    if kind not in _IDENTITIES:
        return None
    identity = action[_IDENTITIES[kind]]
    return ("file", unquote(identity)) if kind in ("add", "remove") else (kind, identity)


def _expired(line: bytes) -> bytes:
    """A line of a commit; of a ``remove`` action, one of long ago, which no checkpoint keeps."""
    if not line.startswith(b'{"remove"'):
        return line
    action = json.loads(line)
    action["remove"]["deletionTimestamp"] = 0
    return json.dumps(action, separators=(",", ":")).encode()


def _verify(aside: LocalStore, snapshot: Snapshot, version: int) -> None:
    """See that the checkpoint alone, without the commit that it was made from, is what the snapshot is."""
    for file in list(aside.list(LOG_FOLDER)):
        if commit_version(file.path) >= 0 or checkpoint_version(file.path) not in (-1, version):
            aside.delete(file.path)
    seen = DeltaLog(aside).load()
    if seen.version != version or seen.transactions != snapshot.transactions:
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
