"""What has been committed, for all who follow a tenant: one thread looks at the log, however many they are.

It ends with the last of them. Commits of this process wake it, those of other servers it finds when it looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from timedb.contract.errors import Busy, TimeDBError
from timedb.contract.times import from_micros
from timedb.storage.boundary import our_error
from timedb.storage.catalog.catalog import Catalog, KnownSeries
from timedb.storage.catalog.unit_changes import in_step
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.rows.scan import RowSelection
from timedb.storage.tables.commit_marks import CHANGE_TIME

__all__ = ["Committed", "LogWatch"]

_GATHER_SECONDS = 0.02  # between two looks, so that commits in quick succession are told together
_MOST_STARTS = 64


@dataclass(frozen=True)
class Committed:
    """A state of a tenant's values, and the series that were known with it.

    Attributes:
        snapshot: Of the values table.
        series: All series, as of the snapshot or later.
    """

    snapshot: Snapshot
    series: KnownSeries
    _after: dict[datetime, Snapshot] = field(default_factory=dict, repr=False, compare=False)

    @property
    def newest(self) -> datetime:
        """The greatest change_time, UTC."""
        return from_micros(self.snapshot.transactions.get(CHANGE_TIME, 0))

    def written_after(self, start: datetime) -> Snapshot:
        """The snapshot with those of its files alone that can hold rows of later change_times; found out once."""
        found = self._after.get(start)
        if found is None:
            selection = RowSelection(changed_after=start)
            files = {path: file for path, file in self.snapshot.files.items() if selection.may_hold(file)}
            found = replace(self.snapshot, files=files)
            if len(self._after) < _MOST_STARTS:
                self._after[start] = found
        return found


class LogWatch:
    """Watches the values table of a tenant as long as anybody follows it. Thread-safe.

    Args:
        values: The values table.
        catalog: All series of the tenant.
        look_seconds: Between two looks for commits of other servers.
    """

    def __init__(self, values: Table, catalog: Catalog, look_seconds: float) -> None:
        self._values = values
        self._catalog = catalog
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._news = threading.Condition(self._lock)
        self._members = 0
        self._woken = self._closed = False
        self._thread: threading.Thread | None = None
        self._state: Committed | None = None
        self._fault: TimeDBError | None = None

    def join(self) -> Callable[[], None]:
        """Be told of commits from now on.

        Returns:
            What ends it; to be called once.

        Raises:
            Busy: the service is stopping.
        """
        with self._lock:
            if self._closed:
                raise Busy("the service is stopping")
            self._members += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timedb-log-watch", daemon=True)
                self._thread.start()
        return self._leave

    def _leave(self) -> None:
        with self._lock:
            self._members -= 1
            if not self._members:
                self._work.notify()

    def wake(self) -> None:
        """Say that this process has committed something."""
        if self._members:
            with self._lock:
                self._woken = True
                self._work.notify()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._lock:
            self._closed = True
            self._work.notify()
            self._news.notify_all()

    def look(self) -> Committed:
        """What has been committed by now, other servers' commits included.

        Raises:
            TimeDBError: the table cannot be read.
        """
        snapshot, series = in_step(self._values, self._catalog)
        found = Committed(snapshot, series)
        with self._lock:
            if self._state is None or self._state.snapshot.version <= snapshot.version:
                self._state = found
            self._fault = None
            self._news.notify_all()
            return self._state

    def wait(self, after: Committed, seconds: float) -> Committed:
        """Wait until something has been committed after a state; the same state where nothing was in that time.

        Raises:
            Busy: the service is stopping.
            TimeDBError: the table could not be read when it was looked at last.
        """
        with self._lock:
            self._news.wait_for(lambda: self._closed or self._fault or self._is_newer(after), seconds)
            if self._closed:
                raise Busy("the service is stopping")
            if self._fault is not None:
                raise type(self._fault)(self._fault.detail)
            return self._state if self._state is not None and self._is_newer(after) else after

    def _is_newer(self, than: Committed) -> bool:
        return self._state is not None and self._state.snapshot.version > than.snapshot.version

    def _run(self) -> None:
        while True:
            with self._lock:
                self._work.wait_for(lambda: self._woken or self._closed or not self._members, self._look_seconds)
                if self._closed or not self._members:
                    self._thread = self._state = None
                    return
                self._woken = False
            try:
                self.look()
            except BaseException as error:  # PanicException of the engines is no Exception
                with self._lock:
                    self._fault = our_error(error, "what has been committed could not be looked at")
                    self._news.notify_all()
            time.sleep(_GATHER_SECONDS)
