"""Checkpoints that are verified before anybody can trust them, and the clean-up of the log that they make possible.

A torn checkpoint makes a table unopenable although every commit is there. So a new one is written aside, over links to
the log, read back and compared with the replayed log, fsynced, and only then given its name; the hint comes last.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from timedb.contract.errors import Damaged, Internal
from timedb.storage.delta import deltalake_adapter as delta
from timedb.storage.delta.log import HINT, LOG_FOLDER, DeltaLog, Snapshot, checkpoint_version, commit_version
from timedb.storage.delta.store import LocalStore, Store

__all__ = ["clean_log", "is_readable", "write_checkpoint"]

KEPT_CHECKPOINTS = 2


def write_checkpoint(log: DeltaLog) -> int:
    """Write a checkpoint of the latest version and return that version.

    Raises:
        Internal: the checkpoint does not hold what the log says; none was published.
        OSError: it could not be written; the table is as before.
    """
    snapshot = log.load()
    if snapshot.checkpoint == snapshot.version:
        return snapshot.version
    with tempfile.TemporaryDirectory(prefix="timedb-checkpoint-") as folder:
        aside = LocalStore(Path(folder))
        names = [LOG_FOLDER + "/" + name for name in _log_names_from(log.store, snapshot)]
        for name in names:
            aside.stage(name).write_bytes(log.store.read(name))
        version = delta.create_checkpoint(aside.url())
        _verify(aside, snapshot, version)
        made = next(file.path for file in aside.list(LOG_FOLDER) if checkpoint_version(file.path) == version)
        if not log.store.put_if_absent(made, aside.read(made)) and not is_readable(log, version):
            log.store.replace(made, aside.read(made))
        log.store.replace(HINT, aside.read(HINT))
    return version


def _log_names_from(store: Store, snapshot: Snapshot) -> list[str]:
    """The checkpoint that a snapshot began with, its hint, and the commits from there to the snapshot."""
    names = [file.path.rpartition("/")[2] for file in store.list(LOG_FOLDER)]
    first = max(snapshot.checkpoint, 0)
    commits = [name for name in names if first <= commit_version(name) <= snapshot.version]
    return commits + [name for name in names if checkpoint_version(name) == snapshot.checkpoint >= 0]


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


def clean_log(log: DeltaLog, *, older_than: float, not_after: int) -> int:
    """Delete commits and checkpoints that neither opening nor going back within the retention needs.

    Args:
        log: The table's log.
        older_than: Files that were published since this moment (seconds since 1970) stay.
        not_after: Commits after this version stay.

    Returns:
        How many files were deleted. The last two checkpoints and all commits since the older of them always stay, and
        everything where one of the two cannot be read.
    """
    files = list(log.store.list(LOG_FOLDER))
    checkpoints = sorted({checkpoint_version(file.path) for file in files} - {-1})
    if len(checkpoints) < KEPT_CHECKPOINTS:
        return 0
    needed = checkpoints[-KEPT_CHECKPOINTS]
    if not all(is_readable(log, version) for version in checkpoints[-KEPT_CHECKPOINTS:]):
        return 0  # what is cleaned away may be all that stands in for one that is damaged
    dead = [
        file.path
        for file in files
        if file.modified < older_than
        and (-1 < commit_version(file.path) < min(needed, not_after + 1) or -1 < checkpoint_version(file.path) < needed)
    ]
    # Oldest first: a clean-up that is cut short leaves no gap behind a commit that stays.
    for path in sorted(dead, key=lambda path: max(commit_version(path), checkpoint_version(path))):
        log.store.delete(path)
    return len(dead)
