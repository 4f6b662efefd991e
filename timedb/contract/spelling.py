"""Names that were meant: what an error says where a name is none of those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]

_LISTED = 30
_COMPARED_CHARS = 100


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that is most like this one, if one is like it; case, ``-`` and ``_`` do not count."""
    plain = {_plain(each): each for each in names}
    found = difflib.get_close_matches(_plain(name[:_COMPARED_CHARS]), plain, n=1, cutoff=0.7)
    return plain[found[0]] if found else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error about a name that is none: ``; did you mean X? there are X, Y, Z``."""
    listed = list(names)
    meant = nearest(name, listed[:1000])
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    there = f"there are {', '.join(listed[:_LISTED])}{more}"
    return f"; did you mean {meant}? {there}" if meant else f"; {there}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
