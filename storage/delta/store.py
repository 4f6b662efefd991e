"""Where files live: what the rest of the lake asks of a store, and the store in a local folder.

deltalake and object_store do not fsync local files and publish a commit before its bytes are durable, so a power cut
can leave an empty commit that readers take for a valid one. Here a file is written aside, fsynced, and only then
given its name by ``link``, which fails where the name is taken: the compare-and-set of the Delta log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pyarrow as pa

from timedb.storage.delta.pages import check_pages
from timedb.storage.delta.privacy import folder_as_parent, opener_as_folder

__all__ = ["ASIDE_PREFIX", "LocalStore", "Store", "StoredFile", "table_name"]

ASIDE_PREFIX = ".aside-"
_CHECKED_FILES = 10_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing shows it; ``modified`` in seconds since 1970."""

    path: str
    size: int
    modified: float


class Store(Protocol):
    """Files below one address, named by relative paths with forward slashes.

    Data files are written to a local path (:meth:`stage`) and get their name for good by :meth:`publish`; until then
    nobody else need see them.
    """

    def url(self, path: str = "") -> str:
        """The address of a published file as Polars and deltalake take it."""

    def staged_url(self, path: str) -> str:
        """The address under which this process can read a staged file, published or not."""

    def below(self, path: str) -> Store:
        """The store of a folder inside this one."""

    def read(self, path: str) -> bytes:
        """All bytes of a file; ``FileNotFoundError`` where there is none."""

    def open(self, path: str) -> str | pa.BufferReader:
        """A published file as pyarrow takes it."""

    def check(self, path: str) -> None:
        """See that a data file is as it was written, where that has not been seen and the store itself does not.

        Raises:
            ValueError, OSError, pa.ArrowException: it is not, or cannot be read.
        """

    def exists(self, path: str) -> bool:
        """Whether a file of that name is there."""

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        """Every file below a folder."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Publish a durable file under a name that nobody has; False where somebody has it already.

        Raises:
            OSError: it may not have been published.
        """

    def put_new(self, path: str, data: bytes | pa.Buffer) -> None:
        """Publish a durable file under a name that nobody else has, or looks for yet.

        Raises:
            OSError: it was not published, or in part.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Publish a durable file in place of the one that may be there."""

    def stage(self, path: str) -> Path:
        """Where to write a new file, on a local disk."""

    def persist(self, path: str) -> None:
        """Begin to make a staged file durable, so that publishing it takes little time."""

    def publish(self, path: str) -> None:
        """Make a staged file durable under its name. May be repeated after the staged file has changed."""

    def release(self, path: str) -> None:
        """Drop what is left of a published file's staging."""

    def sync(self, path: str) -> None:
        """Make a file that another program wrote durable."""

    def delete(self, path: str) -> None:
        """Remove a file, staged or published; no error where there is none."""

    def delete_all(self) -> None:
        """Remove everything below the address."""

    def delete_folder(self) -> None:
        """Remove the address itself, if nothing is left below it."""


class CheckedFiles:
    """Files whose pages have been checked, those that were asked for last; they are known by what ``stat`` says."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, path: str) -> None:
        """See that the pages of a file have their checksums.

        Raises:
            ValueError, OSError, pa.ArrowException: they have not, or the file cannot be read.
        """
        found = os.stat(path)
        signature = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._seen.get(path) == signature:
            return
        check_pages(path)
        with self._lock:
            self._seen[path] = signature
            while len(self._seen) > _CHECKED_FILES:
                self._seen.popitem(last=False)


class LocalStore:
    """A store in a folder. Nothing is acknowledged that is not on the disk: files and folders are fsynced.

    Args:
        root: The folder.
        checked: Which files have been checked; those of stores that are :meth:`below` others are remembered together.
    """

    def __init__(self, root: Path, checked: CheckedFiles | None = None) -> None:
        self.root = root.absolute()
        self._base = str(
            self.root
        )  # joined as text: a Path costs ten times as much, and every call of a client has dozens
        self._checked = CheckedFiles() if checked is None else checked

    def url(self, path: str = "") -> str:
        """The absolute path of a file."""
        return f"{self._base}/{path}" if path else self._base

    def staged_url(self, path: str) -> str:
        """The same as :meth:`url`: a staged file has its name already, only nobody refers to it."""
        return self.url(path)

    def below(self, path: str) -> LocalStore:
        """The store of a folder inside this one."""
        return LocalStore(self.root / path, self._checked)

    def check(self, path: str) -> None:
        """See that a data file's pages have their checksums, unless that has been seen and it has not changed since."""
        self._checked.check(self.url(path))

    def read(self, path: str) -> bytes:
        """All bytes of a file; ``FileNotFoundError`` where there is none."""
        with open(self.url(path), "rb") as file:
            return file.read()

    def open(self, path: str) -> str:
        """The absolute path of a file, which pyarrow maps and closes itself."""
        return self.url(path)

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return os.path.lexists(self.url(path))

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        """Every file below a folder; files that vanish meanwhile are left out."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.url(folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self.list(path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat()
                    yield StoredFile(path, found.st_size, found.st_mtime)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Publish a durable file under a name that nobody has; False where somebody has it already.

        Raises:
            OSError: nothing was published (the disk is full, say), or the folder could not be synced.
        """
        target = self.url(path)
        aside = self._write_aside(target, data)
        try:
            os.link(aside, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(aside)
        sync_folder(os.path.dirname(target))
        return True

    def put_new(self, path: str, data: bytes | pa.Buffer) -> None:
        """Publish a durable file; what there is of it after an error is the caller's to delete."""
        target = self.url(path)
        write_durably(target, data)
        sync_folder(os.path.dirname(target))

    def replace(self, path: str, data: bytes) -> None:
        """Publish a durable file in place of the one that may be there."""
        target = self.url(path)
        aside = self._write_aside(target, data)
        try:
            os.replace(aside, target)
        except BaseException:
            os.unlink(aside)
            raise
        sync_folder(os.path.dirname(target))

    def _write_aside(self, target: str, data: bytes) -> str:
        """A durable file beside another one, under a name of its own."""
        aside = f"{os.path.dirname(target)}/{ASIDE_PREFIX}{uuid4().hex}"
        try:
            write_durably(aside, data)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            raise
        return aside

    def stage(self, path: str) -> Path:
        """The path of a new file whose folder is there and durable."""
        target = self.root / path
        make_folder(target.parent)
        return target

    def persist(self, path: str) -> None:
        """Fsync the file and its name."""
        self.sync(path)

    def publish(self, path: str) -> None:
        """Fsync the file and its name."""
        self.sync(path)

    def release(self, path: str) -> None:
        """Nothing: a staged file is the published one."""

    def sync(self, path: str) -> None:
        """Fsync a file and its name."""
        target = self.url(path)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(os.path.dirname(target))

    def delete(self, path: str) -> None:
        """Remove a file; no error where there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.url(path))

    def delete_all(self) -> None:
        """Remove the folder with all that is in it; no error where there is none."""
        if self.root.is_dir():
            shutil.rmtree(self.root)

    def delete_folder(self) -> None:
        """Remove the folder if it is empty."""
        with contextlib.suppress(OSError):
            self.root.rmdir()


def table_name(store: Store) -> str:
    """What a table's folder is called, for people."""
    return store.url().rpartition("/")[2]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, with durable names."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        folder_as_parent(new)
        sync_folder(new.parent)


def write_durably(path: str, data: bytes | pa.Buffer) -> None:
    """Write a new file and fsync it; where its folder is missing that is made."""
    try:
        file = open(path, "xb", opener=opener_as_folder)  # noqa: SIM115
    except FileNotFoundError:
        make_folder(Path(path).parent)
        file = open(path, "xb", opener=opener_as_folder)  # noqa: SIM115
    with file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: str | Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
