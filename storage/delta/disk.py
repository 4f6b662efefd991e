"""What a local disk says of itself: whether it can be written to, and has room."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["disk_fault"]

_LEAST_BYTES = 1 << 18


def disk_fault(folder: Path) -> str | None:
    """Why nothing can be written to a folder; None: it can, as far as its disk tells.

    Raises:
        OSError: the disk does not answer.
    """
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        return "the disk of the lake is read-only: reads go on, writes are refused"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "this server has no permission to write to the lake: reads go on, writes are refused"
    if found.f_bavail * found.f_frsize < _LEAST_BYTES or (found.f_files and not found.f_favail):
        return "the disk of the lake is full: reads go on, writes are refused"
    return None
