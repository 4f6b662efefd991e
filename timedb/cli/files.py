"""Names of files as they are typed: paths, and patterns where the shell leaves them as they are."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted

__all__ = ["paths_of"]


def paths_of(names: Sequence[str]) -> list[Path]:
    """The files of names and patterns, in the order of the names, those of a pattern by name.

    Raises:
        InvalidRequest: a pattern finds no file, or a name is that of a directory.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            raise InvalidRequest(f"FILE: {quoted(name)} is a directory; name its files, or watch it with timedb watch")
        if name == "-" or path.exists() or not glob.has_magic(name):
            found.append(path)
            continue
        matches = sorted(each for each in glob.glob(name, recursive=True) if Path(each).is_file())
        if not matches:
            raise InvalidRequest(f"FILE: {quoted(name)} finds no file")
        found += map(Path, matches)
    return list(dict.fromkeys(found))
