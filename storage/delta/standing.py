"""Whether the lake that was opened is still the one at its address.

A lake can go from under a server: it is deleted, its folder is moved away, another one is made or restored in its
place. A server that went on would acknowledge writes into nothing, or mix two lakes. So every look at a table and every
commit first asks here. On a local disk that is one ``stat`` of the marker, and its content is read only when the file
is another one; on an object store it is a request, at most one in ``max_age_seconds``.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from timedb.contract.errors import Busy
from timedb.storage.delta.store import LocalStore, Store

__all__ = ["DELETED_TIME", "LAKE_ID", "Standing", "identity_of", "running_seconds"]

LAKE_ID = "lake_id"  # in the marker
DELETED_TIME = "deleted_time"

_ADVICE = "it reads and writes nothing until its own lake is back, or it is started anew"
_GONE = f"the lake that this server serves is gone from its place; {_ADVICE}"
_OTHER = f"another lake is in the place of the one that this server serves; {_ADVICE}"
_DELETED = "the lake that this server serves is being deleted"
_log = logging.getLogger("timedb.storage")

Signature = tuple[int, ...]


def identity_of(marker: Mapping[str, Any]) -> str:
    """What tells a lake from every other one by its marker; markers of old lakes have only the moment of its making."""
    return str(marker.get(LAKE_ID) or marker.get("created_time") or "")


def running_seconds() -> float:
    """A clock that no setting of the time moves, and that goes on while the machine is suspended, where it can."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Standing:
    """Watches one lake's marker. Thread-safe.

    Args:
        store: The lake's folder.
        marker: The name of the file that makes it a lake.
        identity: :func:`identity_of` the marker that the lake was opened with.
        max_age_seconds: How old a look at the marker may be on an object store. For so long writes may still be
            acknowledged after the lake has gone.
    """

    def __init__(self, store: Store, marker: str, identity: str, *, max_age_seconds: float) -> None:
        self._store = store
        self._marker = marker
        self._identity = identity
        self.max_age_seconds = 0.0 if isinstance(store, LocalStore) else max_age_seconds
        self._path = store.root / marker if isinstance(store, LocalStore) else None
        self._signature: Signature | None = None
        self._looked = -float("inf")
        self._lock = threading.Lock()
        self.storage_fault: str | None = None
        """Why nothing can be written, as the disk said last; None: it can."""
        self.damage: dict[str, str] = {}
        """What is wrong with tables that cannot be read, by their addresses."""
        self.fault: str | None = None
        """What the last look found: why the lake cannot be used; None: it stands."""

    def check(self) -> None:
        """Look, unless that has been done just now.

        Raises:
            Busy: the lake is gone, or another one is in its place; says so.
            OSError: the marker cannot be read; whether the lake stands is not known.
        """
        if running_seconds() - self._looked >= self.max_age_seconds:
            self._look()
        if self.fault is not None:
            raise Busy(self.fault)

    def note_damage(self, table: str, fault: str | None) -> None:
        """Remember that a table of the lake cannot be read, and why; None: it can."""
        if fault is None:
            if self.damage.pop(table, None) is not None:
                _log.warning("%s can be read again", table)
        elif self.damage.get(table) != fault:
            self.damage[table] = fault
            _log.error("%s: %s", table, fault)

    def note_storage(self, fault: str | None) -> None:
        """Remember why nothing can be written; None: it can."""
        if fault != self.storage_fault:
            _log.log(logging.ERROR if fault else logging.WARNING, "%s", fault or "the lake can be written to again")
        self.storage_fault = fault

    def _look(self) -> None:
        began = running_seconds()
        if self._path is not None and self.fault is None:
            # Without the lock, and all that a call pays for as long as nothing happens.
            try:
                if _signature(self._path) == self._signature:
                    self._looked = began
                    return
            except (FileNotFoundError, NotADirectoryError):
                pass
        with self._lock:
            fault = self._read()
            if fault != self.fault:
                _log.log(logging.ERROR if fault else logging.WARNING, "%s", fault or "the lake is back in its place")
            self.fault, self._looked = fault, began

    def _read(self) -> str | None:
        try:
            signature = None if self._path is None else _signature(self._path)
            marker = json.loads(self._store.read(self._marker))
            if not isinstance(marker, dict):
                return _OTHER
        except (FileNotFoundError, NotADirectoryError):
            return _GONE
        except ValueError:
            return _OTHER
        if identity_of(marker) != self._identity:
            return _OTHER
        if marker.get(DELETED_TIME):
            return _DELETED
        self._signature = signature
        return None


def _signature(path: os.PathLike[str]) -> Signature:
    """What changes when a file is replaced or written to."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
