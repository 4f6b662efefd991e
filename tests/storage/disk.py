"""A faulty disk: the file operations of this process below some folders, counted, and one of them made to fail.

The calls are caught where the storage package makes them, in ``os``, ``open`` and the Parquet writer, so that all of
its own code runs. :class:`Disk` can also tell what a power cut would leave: only names and bytes that were fsynced.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq
import pytest

Kind = Literal["eio", "late", "doubt", "enospc", "short", "broken", "kill"]
"""How an operation fails.

eio: it fails and does nothing; late: it is done, and an error is reported (of a read that would be eio); doubt: the
same, and from here on nobody can read or fsync; short: half is written, then it fails; enospc: from here on nothing new
can be written; broken: from here on nothing works; kill: the process dies, half-way through where something is written.
"""

WRITES = {"write", "parquet"}
TAKES_SPACE = WRITES | {"create", "mkdir", "link", "replace"}


class Point(NamedTuple):
    """One file operation: which it is, what it does, and to which file."""

    number: int
    name: str
    path: str
    half_done: bool = False


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and at which operation."""

    kind: Kind
    at: int

    def hits(self, number: int, name: str) -> bool:
        """Whether an operation fails."""
        match self.kind:
            case "doubt":
                return number == self.at or (number > self.at and name in ("read", "fsync"))
            case "enospc":
                return number >= self.at and name in TAKES_SPACE
            case "broken":
                return number >= self.at
            case "short":
                return number == self.at and name in WRITES
            case "late":
                return number == self.at and name != "read"
            case _:
                return number == self.at


class Disk:
    """Watches the folders below ``roots`` while :meth:`watched` is entered.

    Args:
        roots: Folders.
        fault: What shall go wrong.
        observe: Called before each operation, and half-way through what writes; may copy the folders.
    """

    def __init__(
        self, *roots: Path, fault: Fault | None = None, observe: Callable[[Point], None] | None = None
    ) -> None:
        self.points: list[Point] = []
        self.fired = False
        self._failed = Point(0, "", "")
        self._roots = [str(root.absolute()) for root in roots]
        self._fault = fault
        self._observe = observe
        self._lock = threading.RLock()
        self._busy = threading.local()
        self._contents: dict[int, tuple[int, int]] = {}
        self._names: dict[str, set[str]] = {}

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """Catch the operations. What is there at the start counts as durable."""
        self._all_is_durable()
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((os, "link"), (os, "replace")):
                patch.setattr(module, name, self._to_target(name, getattr(module, name)))
            for name in ("unlink", "mkdir"):
                patch.setattr(os, name, self._on_path(name, getattr(os, name)))
            patch.setattr(os, "fsync", self._fsync(os.fsync))
            patch.setattr(pq, "write_table", self._write_table(pq.write_table))
            opened = self._open(builtins.open)
            patch.setattr(builtins, "open", opened)
            patch.setattr(io, "open", opened)
            yield self

    @property
    def hinders_clean_up(self) -> bool:
        """Whether files could not be removed, or had to stay because a commit may refer to them."""
        return self.fired and (
            self._failed.name == "unlink" or (self._fault is not None and self._fault.kind in ("broken", "doubt"))
        )

    def repair(self) -> None:
        """From here on nothing fails any more."""
        self._fault = None

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """File operations of this thread that are none of the storage package's."""
        self._busy.yes = True
        try:
            yield
        finally:
            self._busy.yes = False

    @contextmanager
    def still(self) -> Iterator[None]:
        """A moment in which no file operation of the storage package is under way."""
        with self._lock, self.unwatched():
            yield

    def power_cut(self, root: Path, copy: Path) -> None:
        """Copy what a power cut would leave of a folder: names that were fsynced, unsynced files without content."""
        self._copy_durable(str(root.absolute()), copy)

    # The operations

    def _to_target(self, name: str, real: Any) -> Any:
        def call(source: Any, target: Any, **kwargs: Any) -> Any:
            return self._do(name, target, lambda: real(source, target, **kwargs))

        return call

    def _on_path(self, name: str, real: Any) -> Any:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return real(path, *args, **kwargs)
            return self._do(name, path, lambda: real(path, *args, **kwargs))

        return call

    def _fsync(self, real: Any) -> Any:
        def call(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")

            def act() -> None:
                real(descriptor)
                if self._is_watched(path):
                    self._is_durable(path)

            self._do("fsync", path, act)

        return call

    def _write_table(self, real: Any) -> Any:
        def call(table: Any, where: Any, *args: Any, **kwargs: Any) -> None:
            def half() -> None:
                real(table, where, *args, **kwargs)
                os.truncate(where, os.path.getsize(where) // 2)

            self._do("parquet", where, lambda: real(table, where, *args, **kwargs), half)

        return call

    def _open(self, real: Any) -> Any:
        def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(file, str | os.PathLike) or not self._is_watched(file) or self._is_busy():
                return real(file, mode, *args, **kwargs)
            if not set(mode) & set("wxa+"):
                return self._do("read", file, lambda: real(file, mode, *args, **kwargs))
            handle = self._do("create", file, lambda: real(file, mode, *args, **kwargs))
            return _WatchedFile(handle, os.fspath(file), self._do)

        return call

    def _do(self, name: str, path: Any, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        if self._is_busy() or not self._is_watched(path):
            return act()
        with self.still():
            point = Point(len(self.points) + 1, name, os.fspath(path))
            self.points.append(point)
            if self._observe is not None:
                self._observe(point)
                if half is not None:
                    half()
                    self._observe(point._replace(half_done=True))
            if self._fault is not None and self._fault.hits(point.number, name):
                self.fired, self._failed = True, point
                self._fail(self._fault.kind, point, act, half)
            return act()

    def _fail(self, kind: Kind, point: Point, act: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        if kind == "late" or (kind == "doubt" and self._fault is not None and point.number == self._fault.at):
            opened = act()
            if hasattr(opened, "close"):
                opened.close()
        elif kind in ("short", "enospc", "kill") and half is not None:
            half()
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if kind == "enospc" else errno.EIO
        raise OSError(number, os.strerror(number), point.path)

    # What is whose

    def _is_watched(self, path: Any) -> bool:
        full = os.path.abspath(os.fspath(path))
        return any(full == root or full.startswith(root + os.sep) for root in self._roots)

    def _is_busy(self) -> bool:
        return getattr(self._busy, "yes", False)

    # What is durable

    def _all_is_durable(self) -> None:
        for root in self._roots:
            self._names.setdefault(os.path.dirname(root), set()).add(os.path.basename(root))
            for folder, folders, names in os.walk(root):
                self._names[folder] = {*folders, *names}
                for name in names:
                    self._is_durable(os.path.join(folder, name))

    def _is_durable(self, path: str) -> None:
        if os.path.isdir(path):
            self._names[path] = set(os.listdir(path))
        elif os.path.exists(path):
            found = os.stat(path)
            self._contents[found.st_ino] = (found.st_size, found.st_mtime_ns)

    def _copy_durable(self, folder: str, copy: Path) -> None:
        copy.mkdir()
        for name in self._names.get(folder, ()):
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                self._copy_durable(path, copy / name)
            elif os.path.exists(path):
                found = os.stat(path)
                if self._contents.get(found.st_ino) == (found.st_size, found.st_mtime_ns):
                    shutil.copy2(path, copy / name)
                else:
                    (copy / name).touch()


class _WatchedFile:
    """A file that is open for writing."""

    def __init__(self, file: Any, path: str, do: Callable[..., Any]) -> None:
        self._file = file
        self._path = path
        self._do = do

    def write(self, data: Any) -> Any:
        """Write, or fail to."""
        size = memoryview(data).nbytes

        def half() -> None:
            start = self._file.tell()
            self._file.write(memoryview(data)[: size // 2])
            self._file.flush()
            self._file.seek(start)

        return self._do("write", self._path, lambda: self._file.write(data), half)

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
