"""What is kept in memory for the next time: one space for all tenants, whatever it is that is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

__all__ = ["Cache", "CachedFiles"]

Key = tuple[str, ...]

_REMEMBERED = 10_000  # files that are gone, and are not to come back with a read that began before


class Cache:
    """Keeps what was asked for last, up to a number of bytes of all owners together. Thread-safe.

    Args:
        max_bytes: The most that is kept; what would take more than a quarter of it alone is not.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held = 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._keys: dict[Key, set[Key]] = {}
        self._lock = threading.Lock()

    @property
    def entries(self) -> int:
        """How many things are kept."""
        return len(self._kept)

    @property
    def held(self) -> int:
        """About how many bytes they take."""
        return self._held

    @property
    def most(self) -> int:
        """The most bytes of one thing that is kept."""
        return self.max_bytes // 4

    def get(self, key: Key) -> Any | None:
        """What is kept under a key: an owner, a file, and what of it."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep something of so many bytes, unless it is too large or there already."""
        if size > self.most:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = value, size
            self._keys.setdefault(key[:2], set()).add(key)
            self._held += size
            while self._held > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def forget(self, owner: str, paths: Iterable[str]) -> None:
        """Let go of all that is of some files of an owner."""
        with self._lock:
            for path in paths:
                for key in list(self._keys.get((owner, path), ())):
                    self._drop(key)

    def forget_owner(self, owner: str) -> None:
        """Let go of all that is of an owner."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == owner]:
                self._drop(key)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()
            self._keys.clear()
            self._held = 0

    def _drop(self, key: Key) -> None:
        self._held -= self._kept.pop(key)[1]
        of_file = self._keys[key[:2]]
        of_file.discard(key)
        if not of_file:
            del self._keys[key[:2]]


class CachedFiles:
    """What is kept of the data files of one owner. They never change, so a file that is live never has to be forgotten.

    Args:
        cache: The space, which is shared.
        owner: Whose files they are.
    """

    def __init__(self, cache: Cache, owner: str) -> None:
        self._cache = cache
        self._owner = owner
        self._gone: OrderedDict[str, None] = OrderedDict()

    @property
    def most(self) -> int:
        """The most bytes of one thing that is kept."""
        return self._cache.most

    def get(self, path: str, *what: str) -> Any | None:
        """What is kept of a file under a name."""
        return self._cache.get((self._owner, path, *what))

    def put(self, path: str, *what: str, value: Any, size: int) -> None:
        """Keep something of a file that is live still."""
        if path not in self._gone:
            self._cache.put((self._owner, path, *what), value, size)

    def forget(self, paths: Iterable[str]) -> None:
        """The files are live no longer: compaction has replaced them, say. They are forgotten at once and for good."""
        paths = list(paths)
        self._gone.update(dict.fromkeys(paths))
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        self._cache.forget(self._owner, paths)

    def forget_all(self) -> None:
        """Nobody reads the files for now."""
        self._cache.forget_owner(self._owner)
