"""Whose the files of a folder are: what is made in a folder that others may not enter is as closed to them as it is.

The folder of a lake says it, for all that is ever written below it. A folder that everybody may enter leaves it to the
process (its umask), as it was before.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["close_folder", "folder_as_parent", "is_open_to_others", "opener_as_folder"]

_OTHERS = 0o007
_ALL = 0o777
_FILE = 0o666
_KEPT = 0o7000  # that new files get the group of their folder, say


def is_open_to_others(folder: Path) -> bool:
    """Whether somebody who is neither of the folder's owner nor of its group may look into it."""
    return bool(folder.stat().st_mode & _OTHERS)


def close_folder(folder: Path, mode: int, *, new: bool) -> None:
    """Close a folder to others; an old one that is closed already keeps what somebody has chosen.

    Args:
        folder: It exists. Where it belongs to somebody else it stays as it is.
        mode: What owner and group may do, such as ``0o700``.
        new: Whether it has just been made.
    """
    if new or is_open_to_others(folder):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode & _KEPT | mode)


def folder_as_parent(folder: Path) -> None:
    """Make a folder, as closed as the one that it lies in."""
    mode = _mode_in(folder.parent)
    try:
        folder.mkdir(_ALL if mode is None else mode)
    except FileExistsError:
        return
    if mode is not None:
        folder.chmod(folder.stat().st_mode & _KEPT | mode)  # whatever the umask has taken away


def opener_as_folder(path: str, flags: int) -> int:
    """Open a new file for :func:`open`, as closed as the folder that it lies in."""
    mode = _mode_in(os.path.dirname(path))
    descriptor = os.open(path, flags, _FILE if mode is None else mode & _FILE)
    if mode is not None:
        os.fchmod(descriptor, mode & _FILE)
    return descriptor


def _mode_in(folder: str | Path) -> int | None:
    """What a folder passes on; None: it is open to others."""
    mode = os.stat(folder).st_mode & _ALL
    return None if mode & _OTHERS else mode
