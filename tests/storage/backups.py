"""Backups for tests: restored in one call, and lakes in which others do something amid a backup."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from timedb.contract.identity import OPEN_TENANT_ID
from timedb.storage import Lake
from timedb.storage.admin.backup import back_up
from timedb.storage.delta.store import LocalStore, StoredFile

MARKER = "timedb-lake.json"
ROOT = Path(__file__).parents[2]
VALUES = f"tenants/{OPEN_TENANT_ID}/values"


def restored(backup: Path, name: str = "restored") -> Path:
    """The folder of a lake made from a backup."""
    folder = backup.parent / name
    Lake.restore(str(backup), str(folder))
    return folder


class Watched(LocalStore):
    """A lake's folder in which others do something just before a file is read or a folder is listed."""

    def __init__(self, root: Path, before: Callable[[Path], None]) -> None:
        super().__init__(root)
        self.before = before

    def below(self, path: str) -> Watched:
        return Watched(self.root / path, self.before)

    def open(self, path: str) -> str:
        self.before(self.root / path)
        return super().open(path)

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        self.before(self.root / folder)
        return super().list(folder)


def once(condition: Callable[[Path], bool], work: Callable[[Path], None]) -> Callable[[Path], None]:
    """Do something the first time that a condition is true of what is read or listed."""
    done = threading.Event()

    def before(path: Path) -> None:
        if not done.is_set() and condition(path):
            done.set()
            work(path)

    return before


def die(path: Path) -> None:
    """The end of the process, once it reads a data file."""
    if path.match("tier=fresh/*.parquet"):
        os.kill(os.getpid(), 9)


if __name__ == "__main__":  # a backup that dies amid its work: LAKE BACKUP
    back_up(Watched(Path(sys.argv[1]), die), MARKER, Path(sys.argv[2]))
