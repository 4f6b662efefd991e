"""The threads of upkeep: a few for all tenants of a server, each of which has its turn again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Round", "Rounds"]

_THREADS = 4


@dataclass(eq=False, slots=True)
class Round:
    """What is done again and again.

    Attributes:
        work: Does it, never fails, and says in how many seconds it is due again.
        due: When it is due, on the clock of :func:`time.monotonic`.
        is_running: Whether a thread is at it.
    """

    work: Callable[[], float]
    due: float
    is_running: bool = False


class Rounds:
    """Gives each round a thread when it is due; who has waited longest is first. Thread-safe.

    Args:
        threads: How many rounds may run at once. There are no threads as long as there are no rounds.
    """

    def __init__(self, threads: int = _THREADS) -> None:
        self._most = threads
        self._rounds: set[Round] = set()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()

    def add(self, work: Callable[[], float], seconds: float) -> Round:
        """Have something done for the first time in so many seconds; see :class:`Round`."""
        added = Round(work, time.monotonic() + seconds)
        with self._changed:
            self._rounds.add(added)
            if len(self._threads) < min(self._most, len(self._rounds)):
                thread = threading.Thread(target=self._run, name=f"timedb-upkeep-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()
        return added

    def wake(self, sleeper: Round, seconds: float) -> None:
        """Have it due in so many seconds, unless it is due before that."""
        due = time.monotonic() + seconds
        with self._changed:
            if due < sleeper.due:
                sleeper.due = due
                self._changed.notify_all()

    def end(self, ended: Round) -> None:
        """Do it no more; what is under way is finished first. A second time does nothing."""
        with self._changed:
            self._rounds.discard(ended)
            self._changed.notify_all()
            while ended.is_running:
                self._changed.wait()

    def close(self) -> None:
        """Wait for the threads, once all rounds have ended."""
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        with self._changed:
            while self._rounds:
                first = min((each for each in self._rounds if not each.is_running), key=_due, default=None)
                seconds = None if first is None else first.due - time.monotonic()
                if first is None or seconds is None or seconds > 0:
                    self._changed.wait(seconds)
                    continue
                first.is_running, first.due = True, float("inf")  # whoever wakes it meanwhile wants it once more
                self._changed.release()
                pause = 0.0
                try:
                    pause = first.work()
                finally:
                    self._changed.acquire()
                    first.is_running, first.due = False, min(first.due, time.monotonic() + pause)
                    self._changed.notify_all()
            self._threads.remove(threading.current_thread())


def _due(each: Round) -> float:
    return each.due
