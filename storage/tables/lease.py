"""Who serves a lake: a sign that each server leaves in it while it runs, for whoever is about to delete or lift it.

On a local disk a server holds a lock on a file of its own, which the kernel lets go when the process ends, however it
does. On an object store it writes an object of its own anew every ``HEARTBEAT_SECONDS``; one that is older than
``SILENCE_SECONDS`` by the store's own clock is of a server that was killed. A lake that cannot be written to is served
without a sign.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from timedb.contract.errors import Conflict, TimeDBError
from timedb.contract.times import format_time, now
from timedb.contract.wire import quoted
from timedb.storage.delta.object_store import PROBE_FOLDER
from timedb.storage.delta.privacy import opener_as_folder
from timedb.storage.delta.standing import Standing
from timedb.storage.delta.store import ASIDE_PREFIX, LocalStore, Store, make_folder
from timedb.storage.tables.layout import SERVING

__all__ = ["HEARTBEAT_SECONDS", "SILENCE_SECONDS", "Lease", "is_served", "refuse_served", "time_of"]

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
_WATCH_SECONDS = 1.0
_ATTEMPTS = 3
_log = logging.getLogger("timedb.storage")


class _Sign(Protocol):
    def renew(self) -> None:
        """Show that the server still runs."""

    def remove(self) -> None:
        """Show that it does not."""


class Lease:
    """A server's sign in its lake, and the thread that keeps it up and watches whether the lake stands.

    Args:
        store: The lake's folder.
        standing: Looked at once a second on a local disk, else with every sign of life.
        address: Where the server listens, for people.
        watch: Looks at what else may go wrong, as often.
    """

    def __init__(
        self, store: Store, standing: Standing, address: str, watch: Callable[[], None] = lambda: None
    ) -> None:
        self._standing = standing
        self._watch = watch
        self._period = _WATCH_SECONDS if isinstance(store, LocalStore) else HEARTBEAT_SECONDS
        about = {"address": address, "host": socket.gethostname(), "pid": os.getpid(), "since": format_time(now())}
        self._sign: _Sign | None = None
        try:
            self._sign = _sign(store, json.dumps(about).encode())
        except OSError as error:
            _log.info("the lake is served without a sign, as none can be written: %s", error.strerror or error)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timedb-lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the sign away; a second time does nothing."""
        self._stopping.set()
        self._thread.join()
        sign, self._sign = self._sign, None
        if sign is not None:
            with contextlib.suppress(OSError):
                sign.remove()

    def _run(self) -> None:
        while not self._stopping.wait(self._period):
            try:
                self._standing.check()
                self._watch()
                if self._sign is not None:
                    self._sign.renew()
            except TimeDBError:
                pass  # the log has it; a sign is no use in a place that has no lake
            except OSError as error:
                _log.warning("the lake does not answer: %s", error)


def is_served(store: Store) -> bool:
    """Whether a server runs on a lake, as far as can be known."""
    return bool(_signs(store))


def refuse_served(store: Store, uri: str, remedy: str) -> None:
    """Leave a lake alone that a server runs on.

    Args:
        store: The lake's folder.
        uri: Its address, for the message.
        remedy: What else can be done than to stop the server, after "stop it first"; may be empty.

    Raises:
        Conflict: names the servers.
    """
    if found := _signs(store):
        who = "; ".join(_who(content) for content in found)
        raise Conflict(f"lake: a server is running on {quoted(uri)} ({who}); stop it first{remedy}")


def _who(content: bytes) -> str:
    try:
        about: dict[str, Any] = json.loads(content)
        return f"process {about['pid']} of {about['host']}, {about['address']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _sign(store: Store, content: bytes) -> _Sign:
    return _LockedFile(store.root / SERVING, content) if isinstance(store, LocalStore) else _Object(store, content)


def _signs(store: Store) -> list[bytes]:
    return _locked_files(store.root / SERVING) if isinstance(store, LocalStore) else _live_objects(store)


class _LockedFile:
    """A file that has its name only once it is locked, so that nobody finds it without."""

    def __init__(self, folder: Path, content: bytes) -> None:
        for path, _ in _files(folder, locked=False):
            path.unlink(missing_ok=True)  # of a server that was killed
        self._path = folder / uuid4().hex
        self._descriptor = self._make(content)

    def _make(self, content: bytes) -> int:
        aside = self._path.with_name(f"{ASIDE_PREFIX}{self._path.name}")
        for attempt in range(_ATTEMPTS):
            make_folder(aside.parent)
            try:
                descriptor = opener_as_folder(str(aside), os.O_RDWR | os.O_CREAT | os.O_EXCL)
                break
            except FileNotFoundError:  # another server took the folder away behind it
                if attempt == _ATTEMPTS - 1:
                    raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, content)
            os.rename(aside, self._path)
        except OSError:
            os.close(descriptor)
            aside.unlink(missing_ok=True)
            raise
        return descriptor

    def renew(self) -> None:
        """Nothing: the lock lasts as long as the process."""

    def remove(self) -> None:
        """Remove the file, and the folder after the last one."""
        try:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._path.parent.rmdir()
        finally:
            os.close(self._descriptor)


def _locked_files(folder: Path) -> list[bytes]:
    return [content for _, content in _files(folder, locked=True)]


def _files(folder: Path, *, locked: bool) -> list[tuple[Path, bytes]]:
    """The files whose lock somebody holds, or nobody does."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if _is_locked(file.fileno()) is locked and not path.name.startswith(ASIDE_PREFIX):
                    found.append((path, file.read()))
    return found


def _is_locked(descriptor: int) -> bool | None:
    """Whether another one holds a file's lock; None where the file system does not tell."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


class _Object:
    """An object that is written anew and anew."""

    def __init__(self, store: Store, content: bytes) -> None:
        self._store, self._content = store, content
        self._path = f"{SERVING}/{uuid4().hex}"
        self.renew()

    def renew(self) -> None:
        self._store.replace(self._path, self._content)

    def remove(self) -> None:
        self._store.delete(self._path)


def _live_objects(store: Store) -> list[bytes]:
    signs = list(store.list(SERVING))
    if not signs:
        return []
    oldest = time_of(store) - SILENCE_SECONDS
    found = []
    for sign in signs:
        if sign.modified >= oldest:
            with contextlib.suppress(FileNotFoundError):
                found.append(store.read(sign.path))
        else:
            with contextlib.suppress(OSError):
                store.delete(sign.path)  # of a server that was killed
    return found


def time_of(store: Store) -> float:
    """What the store's clock says, which dates its files, seconds since 1970; this machine's may differ.

    Raises:
        OSError: no file can be written.
    """
    if isinstance(store, LocalStore):
        with tempfile.TemporaryFile(dir=store.root) as file:  # of the file server's clock, where there is one
            file.write(b"\0")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    probe = f"{PROBE_FOLDER}/{uuid4().hex}"
    store.replace(probe, b"")
    try:
        return max(file.modified for file in store.list(probe))
    finally:
        store.delete(probe)
