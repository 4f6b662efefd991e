"""Where files live. A local store acknowledges nothing that is not on the disk: files and folders are fsynced.

deltalake and object_store do not fsync local files and publish a commit before its bytes are durable, so a power cut
can leave an empty commit that readers take for a valid one. Here a file is written aside, fsynced, and only then
given its name by ``link``, which fails where the name is taken: the compare-and-set of the Delta log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

__all__ = ["ASIDE_PREFIX", "LocalStore"]

ASIDE_PREFIX = ".aside-"


class LocalStore:
    """Files below one folder, named by relative paths with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def url(self, path: str = "") -> str:
        """The address of a file as Polars and deltalake take it."""
        return str(self.root / path) if path else str(self.root)

    def below(self, path: str) -> LocalStore:
        """The store of a folder inside this one."""
        return LocalStore(self.root / path)

    def read(self, path: str) -> bytes:
        """All bytes of a file; ``FileNotFoundError`` where there is none."""
        return (self.root / path).read_bytes()

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return os.path.lexists(self.root / path)

    def list(self, folder: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """Every file below a folder as (relative path, stat); files that vanish meanwhile are left out."""
        for base, _, names in os.walk(self.root / folder):
            for name in names:
                full = os.path.join(base, name)
                with contextlib.suppress(FileNotFoundError):
                    yield os.path.relpath(full, self.root).replace(os.sep, "/"), os.stat(full)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Publish a durable file under a name that nobody has; False where somebody has it already.

        Raises:
            OSError: nothing was published (the disk is full, say), or the folder could not be synced.
        """
        target = self.root / path
        self._make_folder(target.parent)
        aside = target.parent / f"{ASIDE_PREFIX}{uuid4().hex}"
        try:
            write_durably(aside, data)
            os.link(aside, target)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(target.parent)
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write a durable file, in place of the one that may be there."""
        target = self.root / path
        self._make_folder(target.parent)
        aside = target.parent / f"{ASIDE_PREFIX}{uuid4().hex}"
        try:
            write_durably(aside, data)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(target.parent)

    def prepare(self, path: str) -> Path:
        """The local path of a new file whose folder is there and durable."""
        target = self.root / path
        self._make_folder(target.parent)
        return target

    def sync(self, path: str) -> None:
        """Make a file that was written by somebody else durable, with its name."""
        target = self.root / path
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(target.parent)

    def delete(self, path: str) -> None:
        """Remove a file; no error where there is none."""
        (self.root / path).unlink(missing_ok=True)

    def delete_all(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=False)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            sync_folder(new.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and fsync it."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
