"""Queries that run, and their end by another call: a ticket holds an id, by which whoever has it cancels the query."""

from __future__ import annotations

import threading
from collections.abc import Callable

from timedb.contract.errors import Timeout

__all__ = ["RunningQueries"]

_Key = tuple[str, str]


class RunningQueries:
    """The queries that run on this server, by tenant and id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[_Key, list[threading.Event]] = {}

    def begin(self, tenant_id: str, query_id: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """A query runs.

        Returns:
            A check, which raises Timeout once the query has been cancelled; and what to call when it has ended.
        """
        key, cancelled = (tenant_id, query_id), threading.Event()
        with self._lock:
            self._runs.setdefault(key, []).append(cancelled)

        def check() -> None:
            if cancelled.is_set():
                raise Timeout("the query was cancelled")

        def end() -> None:
            with self._lock:
                runs = self._runs[key] = [run for run in self._runs.get(key, ()) if run is not cancelled]
                if not runs:
                    del self._runs[key]

        return check, end

    def cancel(self, tenant_id: str, query_id: str) -> bool:
        """End a query as soon as it looks; whether it ran here."""
        with self._lock:
            runs = list(self._runs.get((tenant_id, query_id), ()))
        for run in runs:
            run.set()
        return bool(runs)
