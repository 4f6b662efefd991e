"""How much of streams of runs may wait for its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["AppendRoom"]

_LOOK_SECONDS = 0.5


class AppendRoom:
    """Counts runs and their bytes, of a stream or of the server. Thread-safe.

    Args:
        runs: How many may wait.
        size: How many bytes they may have together; what has begun is let in, whatever its size.
    """

    def __init__(self, runs: int, size: int) -> None:
        self._most = runs, size
        self._runs = self._bytes = 0
        self._changed = threading.Condition()

    @property
    def runs(self) -> int:
        """How many runs wait for their answers."""
        return self._runs

    def take(self, size: int) -> None:
        """Count a run in."""
        with self._changed:
            self._runs += 1
            self._bytes += size

    def give_back(self, size: int) -> None:
        """Count a run out again."""
        with self._changed:
            self._runs -= 1
            self._bytes -= size
            self._changed.notify_all()

    def wait(self, beside: int = 0, check: Callable[[], object] = lambda: None) -> None:
        """Wait until one more may come.

        Args:
            beside: Bytes to count with those that wait.
            check: Called while it waits; what it raises ends the wait.
        """
        with self._changed:
            while self._is_full(beside):
                self._changed.wait(_LOOK_SECONDS)
                check()

    def wait_for_none(self) -> None:
        """Wait until there are none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._runs)

    def _is_full(self, beside: int) -> bool:
        runs, size = self._most
        return self._runs >= runs or (self._runs > 0 and self._bytes + beside >= size)
