"""What a table keeps for readers of its earlier versions, and no longer: replaced files, and the log that knows them.

A commit that is older than what readers are promised is read once more, for the files that it replaced; they go, and
some time later the commit. So no list of replaced files is kept anywhere, and a clean-up that is cut short is taken up
by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timedb.storage.delta.checkpoints import is_readable
from timedb.storage.delta.log import LOG_FOLDER, checkpoint_version, commit_version, parse_commit
from timedb.storage.delta.store import StoredFile, table_name
from timedb.storage.delta.table import Table

__all__ = ["Expired", "Expiry"]

_KEPT_CHECKPOINTS = 2
_SPARSE = 8
"""So many checkpoints stay within the time for which the log is kept, so that it can go step by step."""


@dataclass(frozen=True)
class Expired:
    """How many files went: replaced ones, and those of the log."""

    files: int = 0
    log_files: int = 0


class Expiry:
    """Cleans one table; for one thread.

    Args:
        table: The table.
        stop: Asked now and then whether to leave the rest to the next time.
    """

    def __init__(self, table: Table, stop: Callable[[], bool] = lambda: False) -> None:
        self._table = table
        self._stop = stop
        self._done = -1

    def expire(self, *, now: float, files_seconds: float, log_seconds: float, not_after: int) -> Expired:
        """Remove what is too old: files that commits replaced, commits, and checkpoints that nobody needs.

        Args:
            now: Seconds since 1970.
            files_seconds: For how long replaced files stay.
            log_seconds: For how long commits stay, at least as long as the files.
            not_after: Commits after this version stay, whatever their age.
        """
        listed = list(self._table.log.store.list(LOG_FOLDER))
        commits = {version: file for file in listed if (version := commit_version(file.path)) >= 0}
        old = [version for version in sorted(commits) if commits[version].modified < now - files_seconds]
        files = self._delete_replaced(old, commits)
        return Expired(files, self._clean_log(listed, commits, now - log_seconds, log_seconds, not_after))

    def _delete_replaced(self, old: list[int], commits: Mapping[int, StoredFile]) -> int:
        live = self._table.snapshot().files
        deleted = 0
        for version in old:
            if version <= self._done:
                continue
            if self._stop():
                break
            data = self._table.log.store.read(commits[version].path)
            for path in parse_commit(version, data, table_name(self._table.store)).removes:
                if path not in live:
                    self._table.store.delete(path)
                    deleted += 1
            self._done = version
        return deleted

    def _clean_log(
        self,
        listed: list[StoredFile],
        commits: Mapping[int, StoredFile],
        older_than: float,
        kept_seconds: float,
        not_after: int,
    ) -> int:
        """The last two checkpoints and all commits since the older of them always stay, and everything where one of the
        two cannot be read: what would be cleaned away may be all that stands in for it.
        """
        checkpoints = {version: file for file in listed if (version := checkpoint_version(file.path)) >= 0}
        last = sorted(checkpoints)[-_KEPT_CHECKPOINTS:]
        if len(last) < _KEPT_CHECKPOINTS or not all(is_readable(self._table.log, version) for version in last):
            return 0
        # From there every version is opened that readers are promised.
        base = max((version for version, file in checkpoints.items() if file.modified < older_than), default=-1)
        needed = min(base, last[0])
        gone = [version for version in sorted(commits) if version < min(needed, not_after + 1, self._done + 1)]
        cleaned = 0
        # Oldest first: a clean-up that is cut short leaves no gap behind a commit that stays.
        for version in gone:
            if commits[version].modified >= older_than or self._stop():
                return cleaned
            self._table.log.store.delete(commits[version].path)
            cleaned += 1
        kept = _sparse(checkpoints, needed, kept_seconds / _SPARSE) | {*last}
        for file in listed:
            if (version := checkpoint_version(file.path)) >= 0 and version not in kept:
                self._table.log.store.delete(file.path)
                cleaned += 1
        return cleaned


def _sparse(checkpoints: Mapping[int, StoredFile], base: int, seconds: float) -> set[int]:
    """The checkpoint that the log begins with, and of those since one now and then."""
    kept, newest = set[int](), -float("inf")
    for version in sorted(checkpoints):
        if version >= base and checkpoints[version].modified >= newest + seconds:
            kept.add(version)
            newest = checkpoints[version].modified
    return kept
