"""The audit log as a file that no full disk robs of a line: room is kept for the lines of the calls that are let in.

Beside the log lies a file of nothing (``.room``). Where a line does not fit any more that file goes, and the line is
written in its place; until there is room again, calls that would change something are refused before they do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import logging.handlers
import os
import resource
import stat
from pathlib import Path

from timedb.contract.errors import StorageFull, StorageRefused

__all__ = ["AuditFile"]

_ROOM_BYTES = 1 << 20
_PRIVATE = 0o600
_MOST_WAITING = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger("timedb.flight")


class AuditFile(logging.handlers.WatchedFileHandler):
    """Appends each message as a line; goes on in a new file where another program has moved the file away.

    Args:
        path: The file; a new one is its owner's alone. One server has one of its own.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, mode="ab")
        self.setFormatter(logging.Formatter("%(message)s"))
        self._room = Path(f"{path}.room")
        self._has_room = False
        self._waiting: list[bytes] = []

    def _open(self) -> io.FileIO:  # type: ignore[override] # of bytes, so that what a full disk has taken is known
        return io.FileIO(os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE), "ab")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or keep it until it can be written."""
        line = self.format(record).encode() + b"\n"
        with contextlib.suppress(OSError):
            self.reopenIfNeeded()
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(line)
        if (error := self._write()) is not None:
            _log.error("the audit log cannot be written (%s): %s", error.strerror, line.decode().rstrip())

    def require_room(self) -> None:
        """See that the line of a call can be written when it has ended.

        Raises:
            StorageFull: there is no room for it.
            StorageRefused: the file cannot be written for another reason.
        """
        with self.lock or contextlib.nullcontext():
            error = self._write() or self._make_room()
        if error is not None:
            kind = StorageFull if error.errno in _FULL else StorageRefused
            raise kind(f"the audit log cannot be written ({error.strerror}), so nothing is changed")

    def close(self) -> None:
        """Close the file; the room is not needed any more."""
        with contextlib.suppress(OSError):
            self._room.unlink(missing_ok=True)
        super().close()

    @property
    def _descriptor(self) -> int:
        return -1 if self.stream is None else self.stream.fileno()

    def _write(self) -> OSError | None:
        """Write what waits; what is wrong where it goes on waiting."""
        while self._waiting:
            try:
                written = os.write(self._descriptor, self._waiting[0])
            except OSError as error:
                if not self._has_room:
                    return error
                self._has_room = False
                with contextlib.suppress(OSError):
                    self._room.unlink(missing_ok=True)
                continue
            self._waiting[0] = self._waiting[0][written:]
            if not self._waiting[0]:
                del self._waiting[0]
        return None

    def _make_room(self) -> OSError | None:
        if self._has_room:
            return None
        try:
            about = os.fstat(self._descriptor)
            if not stat.S_ISREG(about.st_mode):  # a device or a pipe: an empty line shows whether it takes any
                os.write(self._descriptor, b"\n")
            else:
                most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
                if most != resource.RLIM_INFINITY and about.st_size + _ROOM_BYTES > most:
                    return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                self._fill_room()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._room.unlink(missing_ok=True)
            return error
        self._has_room = True
        return None

    def _fill_room(self) -> None:
        descriptor = os.open(self._room, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        try:
            os.posix_fallocate(descriptor, 0, _ROOM_BYTES)
        finally:
            os.close(descriptor)
