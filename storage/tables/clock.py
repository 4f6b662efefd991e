"""The clock that stamps change times, and when it is not to be trusted.

A clock that is far wrong does lasting harm: the change_time of every later write lies behind that of the one that it
stamped. It shows where the clock lies behind the last change_time, where it has moved on by more than the time that
the machine has run meanwhile, and where the store dates its files by another one. A server that is started far behind
the last write of its lake cannot know whether nobody wrote for so long: it warns, and removes nothing for a while.
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
_IDLE_SECONDS = 30 * 86400.0
"""A lake whose last write is older than this when a server is started makes the clock doubtful."""
_DOUBT_SECONDS = 7 * 86400.0
"""For how long nothing is then removed because of its age: the time in which somebody may see the warning."""
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
        self._last_write: float | None = None
        self._lock = threading.Lock()
        self._behind: str | None = None
        self._told = (False, False)

    @property
    def fault(self) -> str | None:
        """Why nothing is stamped, as far as is known; None: the clock is trusted."""
        return self._jumped() or self._behind

    @property
    def warning(self) -> str | None:
        """Why the clock may be wrong although writes are stamped; None: nothing is known against it."""
        if self._last_write is None:
            return None
        idle = _wall_seconds() - self._run_seconds() - self._last_write
        if idle <= max(_IDLE_SECONDS, self._max_skew):
            return None
        last = format_time(from_micros(round(self._last_write * _MICROS)))
        return (
            f"this server was started {_span(idle)} after the last write to its lake, {last}, by its clock: "
            f"if that is not so, {_REMEDY}"
        )

    def begin(self, newest: int) -> None:
        """Take note of the greatest change_time of the whole lake, before this server has written anything.

        Args:
            newest: Microseconds since 1970; 0: nothing has been written.
        """
        self._last_write = newest / _MICROS if newest > 0 else None
        if (warning := self.warning) is not None:
            _log.warning("%s", warning)

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

    def check_ages(self) -> None:
        """Refuse to judge ages by a clock that has jumped ahead, or may have been ahead since the start.

        Raises:
            Busy: says by how much.
        """
        if (fault := self._jumped()) is not None:
            raise Busy(fault)
        if self._is_doubtful():
            raise Busy(
                f"{self.warning}; where nobody wrote for so long, raise TIMEDB_MAX_CLOCK_SKEW_SECONDS over it for this "
                "once: until then nothing is removed by its age in the first seven days"
            )

    def trusted_seconds(self) -> float:
        """The time, seconds since 1970, by which files may be called old: no later than the machine has run for."""
        began = self._began[0]
        if self._is_doubtful() and self._last_write is not None:
            began = self._last_write
        return min(_wall_seconds(), began + self._run_seconds() + self._max_skew)

    def _is_doubtful(self) -> bool:
        return self._run_seconds() < _DOUBT_SECONDS and self.warning is not None

    def _run_seconds(self) -> float:
        return running_seconds() - self._began[1]

    def _jumped(self) -> str | None:
        ahead = _wall_seconds() - self._began[0] - self._run_seconds()
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
