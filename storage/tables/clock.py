"""The clock that stamps change times, and when it is not to be trusted.

A clock that is far wrong does lasting harm: the change_time of every later write lies behind that of the one that it
stamped. It shows where the clock lies behind the last change_time, where it has moved on by more than the time that
the machine has run meanwhile, and, on an object store, where it differs from the store's own.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from timedb.contract.errors import Busy
from timedb.contract.times import format_time, from_micros
from timedb.storage.delta.standing import running_seconds

__all__ = ["Clock"]

_MICROS = 1_000_000
_REMEDY = "set the clock right; docs/operations.md says what else can be done"
_log = logging.getLogger("timedb.storage")


class Clock:
    """Watches this machine's clock for as long as a lake is open. Thread-safe.

    Args:
        max_skew_seconds: How far it may be wrong before nothing is stamped any more.
    """

    def __init__(self, max_skew_seconds: float) -> None:
        self._max_skew = max_skew_seconds
        self._began = _wall_seconds(), running_seconds()
        self._ahead_of_store = 0.0
        self._lock = threading.Lock()
        self._behind: str | None = None
        self._told = (False, False)

    @property
    def fault(self) -> str | None:
        """Why nothing is stamped, as far as is known; None: the clock is trusted."""
        return self._jumped() or self._behind

    def compare(self, store_seconds: float) -> None:
        """Take note of what the clock of the lake's store says now, seconds since 1970."""
        self._ahead_of_store = _wall_seconds() - store_seconds
        self._tell()

    def look(self, newest: int) -> str | None:
        """Compare the clock with the greatest change_time.

        Args:
            newest: Microseconds since 1970.

        Returns:
            :attr:`fault`.
        """
        behind = newest / _MICROS - _wall_seconds()
        late = None
        if behind > self._max_skew:
            late = (
                f"the clock of this server is {_span(behind)} behind the last change_time, "
                f"{format_time(from_micros(newest))}, and so a write would be stamped far ahead: {_REMEDY}"
            )
        self._behind = late
        return self._tell()

    def check(self, newest: int) -> None:
        """Refuse to stamp a write by a clock that is far wrong.

        Args:
            newest: The greatest change_time, microseconds since 1970.

        Raises:
            Busy: it is; says by how much.
        """
        if (fault := self.look(newest)) is not None:
            raise Busy(fault)

    def check_jump(self) -> None:
        """Refuse to judge ages by a clock that has jumped ahead.

        Raises:
            Busy: it has; says by how much.
        """
        if (fault := self._jumped()) is not None:
            raise Busy(fault)

    def trusted_seconds(self) -> float:
        """The time, seconds since 1970, by which files may be called old: no later than the machine has run for."""
        wall, running = self._began
        return min(_wall_seconds(), wall + running_seconds() - running + self._max_skew)

    def _jumped(self) -> str | None:
        wall, running = self._began
        ahead = _wall_seconds() - wall - (running_seconds() - running)
        if ahead > self._max_skew:
            return (
                f"the clock of this server has jumped ahead by {_span(ahead)} since it was started: {_REMEDY}; "
                "where it is right now, start the server anew"
            )
        if abs(self._ahead_of_store) > self._max_skew:
            side = "ahead of" if self._ahead_of_store > 0 else "behind"
            return f"the clock of this server is {_span(abs(self._ahead_of_store))} {side} the store's: {_REMEDY}"
        return None

    def _tell(self) -> str | None:
        fault, state = self.fault, (self._jumped() is not None, self._behind is not None)
        with self._lock:
            known, self._told = self._told, state
        if state != known:
            _log.log(logging.ERROR if fault else logging.WARNING, "%s", fault or "the clock is right again")
        return fault


def _wall_seconds() -> float:
    return time.time()


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
