"""The tables ``runs`` and ``updates`` follow the values log a moment behind, and no acknowledgement waits for them."""

from __future__ import annotations

import contextlib
import logging
import threading

from timedb.contract.errors import TimeDBError
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.table import Table

__all__ = ["WriteBehind"]

_AGAIN = 10  # after a failure it waits so many times as long
_log = logging.getLogger("timedb.storage")


class WriteBehind:
    """Writes a tenant's records into their tables some time after it is told that there are new ones. Thread-safe.

    Args:
        values: The values table.
        ledger: The records.
        seconds: For how long records are gathered before they are written.
    """

    def __init__(self, values: Table, ledger: Ledger, seconds: float) -> None:
        self._values = values
        self._ledger = ledger
        self._seconds = seconds
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def soon(self) -> None:
        """There may be records to be written."""
        self._after(self._seconds)

    @translating_errors()
    def write(self) -> None:
        """Write all records of the values log now.

        Raises:
            TimeDBError: they could not be; they stay in the log until they can.
        """
        self._ledger.catch_up(self._values.snapshot())
        self._ledger.write()

    def close(self) -> None:
        """Write what is left; a second time does nothing."""
        with self._lock:
            timer, self._timer = self._timer, None
            closed, self._closed = self._closed, True
        if timer is not None:
            timer.cancel()
            timer.join()
        if not closed and not self._values.is_lost:
            self._try()

    def _after(self, seconds: float) -> None:
        with self._lock:
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(seconds, self._run)
                self._timer.name, self._timer.daemon = "timedb-records", True
                self._timer.start()

    def _run(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # closed meanwhile
        done = self._values.is_lost or self._try()
        with self._lock:
            if self._timer is threading.current_thread():
                self._timer = None
        if not done:
            self._after(self._seconds * _AGAIN)
        elif self._ledger.is_behind:  # what came while it was written
            self.soon()

    def _try(self) -> bool:
        try:
            self.write()
        except TimeDBError as error:
            _log.warning("the tables runs and updates were not written: %s; the values log has the records", error)
            return False
        except BaseException:  # PanicException of the engines is no Exception
            with contextlib.suppress(Exception):
                _log.exception("the tables runs and updates could not be written; the values log has the records")
            return False
        return True
