"""The memory of a server: each call asks for what it will hold, and waits its turn where that is not there.

What a call will hold is an estimate from what files and commands say. It is corrected by what the process has really
taken: where that is more than all estimates together, nobody is let in on the strength of estimates alone.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import pyarrow as pa

from timedb.contract.errors import Busy, TooLarge
from timedb.storage.memory.machine import resident_bytes

__all__ = ["Memory", "MemoryShare"]

_MIB = 1 << 20
_LOOK_SECONDS = 0.1
_SMALL = 64  # what takes less than this part of the limit waits for no larger call before it


class MemoryShare:
    """What one call may hold, until it is given back; a context that gives it back.

    Attributes:
        size: Bytes.
    """

    def __init__(self, memory: Memory, what: str, check: Callable[[], object]) -> None:
        self.size = 0
        self._memory = memory
        self._what = what
        self._check = check

    def grow(self, size: int) -> None:
        """Take so many bytes more, once they are there.

        Raises:
            TooLarge: there is not so much at all.
            Busy: others held it for too long.
        """
        self._memory.give(self, size, self._what, self._check)

    def release(self) -> None:
        """Give it back; again is no error."""
        self._memory.take_back(self)

    def __enter__(self) -> MemoryShare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Memory:
    """What all calls of a server may hold together. Thread-safe; who came first is first.

    Attributes:
        limit: Bytes that the process may take, about.
        refused: How many calls were refused, by the code of the error.

    Args:
        limit: Bytes that the process may take, about.
        wait_seconds: How long a call waits for its share.
        spare: Called where memory is short: lets go of what is only kept for the next time.
        measure: Says how many bytes the process has taken.
    """

    def __init__(
        self,
        limit: int,
        wait_seconds: float,
        *,
        spare: Callable[[], object] = lambda: None,
        measure: Callable[[], int] = resident_bytes,
    ) -> None:
        self.limit = limit
        self.refused: Counter[str] = Counter({Busy.code: 0, TooLarge.code: 0})
        self._wait_seconds = wait_seconds
        self._spare = spare
        self._measure = measure
        self._floor = min(measure(), limit // 2)
        self._shares: dict[int, int] = {}
        self._waiting: deque[object] = deque()
        # Reentrant: the garbage collector may end a forgotten stream, and so give back its share, at any place.
        self._changed = threading.Condition(threading.RLock())

    @property
    def for_calls(self) -> int:
        """What is left for calls beside what the process takes anyway."""
        return self.limit - self._floor

    @property
    def taken(self) -> int:
        """What is promised to calls."""
        return sum(self._shares.values())

    @property
    def resident(self) -> int:
        """What the process has really taken."""
        return self._measure()

    @property
    def waiting(self) -> int:
        """How many calls wait for their share."""
        return len(self._waiting)

    def share(self, what: str, size: int, check: Callable[[], object] = lambda: None) -> MemoryShare:
        """Take a share for a call, once it is there.

        Args:
            what: The field that makes the call as large as it is, for errors.
            size: Bytes that the call will hold, about.
            check: Called while it waits; what it raises ends the wait.

        Raises:
            TooLarge: there is not so much at all.
            Busy: it was not there in time.
        """
        share = MemoryShare(self, what, check)
        self.give(share, size, what, check)
        return share

    def give(self, share: MemoryShare, size: int, what: str, check: Callable[[], object]) -> None:
        """Let a share grow; see :meth:`MemoryShare.grow`."""
        try:
            self._give(share, size, what, check)
        except (Busy, TooLarge) as error:
            self.refused[error.code] += 1
            raise

    def _give(self, share: MemoryShare, size: int, what: str, check: Callable[[], object]) -> None:
        whole = share.size + size
        if whole > self.for_calls:
            raise TooLarge(
                f"{what}: the call takes about {whole // _MIB} MiB of memory, more than the {self.for_calls // _MIB} "
                "MiB that this server has for calls (TIMEDB_MEMORY_LIMIT_MB); ask for less, or send less, at once"
            )
        turn = object()
        deadline = time.monotonic() + self._wait_seconds
        with self._changed:
            if size * _SMALL > self.limit and not share.size:  # who holds some already waits behind nobody
                self._waiting.append(turn)
            try:
                while not self._fits(turn, share, size):
                    if time.monotonic() >= deadline:
                        raise Busy(
                            f"{what}: the call takes about {whole // _MIB} MiB of memory, and other calls hold what "
                            "there is; retry"
                        )
                    self._changed.wait(_LOOK_SECONDS)
                    check()
                share.size = whole
                self._shares[id(share)] = whole
            finally:
                with suppress(ValueError):
                    self._waiting.remove(turn)
                self._changed.notify_all()

    def take_back(self, share: MemoryShare) -> None:
        """Free what a share holds."""
        with self._changed:
            share.size = 0
            self._shares.pop(id(share), None)
            self._changed.notify_all()

    def _fits(self, turn: object, share: MemoryShare, size: int) -> bool:
        if turn in self._waiting and self._waiting[0] is not turn:
            return False
        if self.taken + size > self.for_calls:
            return False
        if self._measure() + size <= self.limit:
            return True
        self._let_go()
        # Alone it may try: what is taken then is nobody's, and nothing would ever free it.
        return self._measure() + size <= self.limit or self.taken == share.size

    def _let_go(self) -> None:
        """Give the system back what nobody uses."""
        self._spare()
        gc.collect()
        pa.default_memory_pool().release_unused()
        with suppress(AttributeError, OSError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
