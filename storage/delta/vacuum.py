"""Deletes files of a table that nobody can need any more."""

from __future__ import annotations

from timedb.storage.delta.log import LOG_FOLDER
from timedb.storage.delta.store import ASIDE_PREFIX
from timedb.storage.delta.table import Table

__all__ = ["vacuum"]


def vacuum(table: Table, oldest: float) -> int:
    """Delete files of a table that are older than a moment and that nobody can need any more.

    Args:
        table: The table.
        oldest: Seconds since 1970; snapshots since then may still be read.

    Returns:
        How many files were deleted.
    """
    live = table.snapshot().files
    dead = [
        file.path
        for file in table.store.list()
        if file.modified < oldest
        and file.path not in live
        and ((file.path.endswith(".parquet") and not file.path.startswith(LOG_FOLDER)) or ASIDE_PREFIX in file.path)
    ]
    recently_removed = table.log.removed_since(oldest)
    dead = [path for path in dead if path not in recently_removed]
    for path in dead:
        table.store.delete(path)
    return len(dead)
