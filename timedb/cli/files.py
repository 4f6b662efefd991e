"""Names of files as they are typed: paths, and patterns where the shell leaves them as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted

__all__ = ["paths_of"]

_MAGIC = frozenset("*?[")


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
        if name == "-" or path.exists() or not _MAGIC.intersection(name):
            found.append(path)
            continue
        matches = sorted(each for each in _matching(path) if each.is_file())
        if not matches:
            raise InvalidRequest(f"FILE: {quoted(name)} finds no file")
        found += matches
    return list(dict.fromkeys(found))


def _matching(pattern: Path) -> Iterator[Path]:
    """The paths of a pattern: from the folder that is named before the first part that is one."""
    plain = next(place for place, part in enumerate(pattern.parts) if _MAGIC.intersection(part))
    return Path(*pattern.parts[:plain]).glob(str(Path(*pattern.parts[plain:])))
