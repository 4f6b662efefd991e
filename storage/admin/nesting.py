"""One lake never lies inside another: whoever speaks of the outer one would not reach what is in the inner one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import local_path
from timedb.contract.wire import quoted
from timedb.storage.delta.object_store import ObjectStore
from timedb.storage.tables.layout import MARKER

__all__ = ["nesting", "outer_lake", "refuse_nested"]


_REMEDY = (
    "users and data of the one are none of the other: stop the servers, move the inner folder beside the outer one, "
    "and name with --lake the one that is meant"
)


def refuse_nested(uri: str, *, field: str = "lake") -> None:
    """Refuse to make a lake inside the folder of another.

    Args:
        uri: Where the lake is to be made.
        field: Whom an error names.

    Raises:
        InvalidRequest: a folder above it is a lake; names both.
    """
    outer = outer_lake(uri)
    if outer is not None:
        raise InvalidRequest(
            f"{field}: {quoted(uri)} lies inside the lake at {outer!a}, and one lake does not hold another; "
            "use that lake, or a folder beside it"
        )


def nesting(uri: str) -> str | None:
    """For people: that a lake lies in another, or holds one, as release 0.1.0 made them; None where it does not.

    Of local lakes the folders right below it are looked at, too.
    """
    if (outer := outer_lake(uri)) is not None:
        return f"the lake at {quoted(uri)} lies inside the lake at {outer!a}; {_REMEDY}"
    path = local_path(uri)
    inner = [] if path is None or not path.is_dir() else [each.parent for each in path.glob(f"*/{MARKER}")]
    return f"the lake at {quoted(uri)} holds the lake at {str(inner[0])!a}; {_REMEDY}" if inner else None


def outer_lake(uri: str) -> str | None:
    """The address of the lake that a lake of this address lies in; None where it lies in none."""
    return next((above for above in _above(uri) if _is_lake(above)), None)


def _above(uri: str) -> Iterator[str]:
    path = local_path(uri)
    if path is not None:
        # As it was typed, and where its links lead: /var/lib/timedb may be one to /var/lib/private/timedb.
        for folder in dict.fromkeys((*path.absolute().parents, *path.resolve().parents)):
            yield str(folder)
        return
    where = urlsplit(uri.rstrip("/"))
    parts = [part for part in where.path.split("/") if part]
    for count in reversed(range(len(parts))):
        yield where._replace(path="/".join(parts[:count])).geturl()


def _is_lake(uri: str) -> bool:
    path = local_path(uri)
    if path is not None:
        return os.path.lexists(path / MARKER)
    try:
        ObjectStore(uri, Path(tempfile.gettempdir())).read(MARKER)
    except OSError:  # not there, or not for these credentials to know
        return False
    return True
