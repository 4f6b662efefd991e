"""The marker, which makes a folder a lake and holds what is fixed of it; and what the lake knows of itself besides.

Of the marker there is a copy, so that one that is damaged can be written anew. Beside it lies an empty file for each
tenant that the lake has had, so that a tenant's folder that is gone is not taken for one that nobody has written to.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from timedb.storage.delta.store import Store
from timedb.storage.tables.layout import MARKER

__all__ = [
    "AUTHENTICATION",
    "KNOWN",
    "MARKER_COPY",
    "is_known",
    "known_tenants",
    "make_marker",
    "marker_of",
    "note_tenant",
    "read_copy",
    "write_marker",
]

KNOWN = ".timedb-known"
MARKER_COPY = f"{KNOWN}/marker.json"
AUTHENTICATION = "authentication"
_TENANTS = f"{KNOWN}/tenants"


def make_marker(lake: Store, marker: Mapping[str, Any]) -> bool:
    """Make a folder a lake; False where somebody else has just done so.

    Raises:
        OSError: it could not be made.
    """
    made = lake.put_if_absent(MARKER, _text(marker))
    if made:
        lake.replace(MARKER_COPY, _text(marker))
    return made


def write_marker(lake: Store, marker: Mapping[str, Any]) -> None:
    """Replace the marker and its copy.

    Raises:
        OSError: one could not be written.
    """
    lake.replace(MARKER, _text(marker))
    lake.replace(MARKER_COPY, _text(marker))


def marker_of(data: bytes) -> dict[str, Any]:
    """A marker's content.

    Raises:
        ValueError: it is none of a lake.
    """
    try:
        marker = json.loads(data)
        return {**marker, "format_version": int(marker["format_version"]), "bucket_digits": marker["bucket_digits"]}
    except (KeyError, TypeError):
        raise ValueError from None


def read_copy(lake: Store) -> dict[str, Any] | None:
    """The copy of the marker; None where there is none that can be read."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return marker_of(lake.read(MARKER_COPY))
    return None


def note_tenant(lake: Store, tenant_id: str) -> None:
    """Write down that the lake has a tenant, unless that has been done.

    Raises:
        OSError: it could not be written.
    """
    if not is_known(lake, tenant_id):
        lake.put_if_absent(f"{_TENANTS}/{tenant_id}", b"")


def is_known(lake: Store, tenant_id: str) -> bool:
    """Whether the tenant has been written down."""
    return lake.exists(f"{_TENANTS}/{tenant_id}")


def known_tenants(lake: Store) -> set[str]:
    """The tenants that have been written down."""
    return {file.path.rpartition("/")[2] for file in lake.list(_TENANTS)}


def _text(marker: Mapping[str, Any]) -> bytes:
    return (json.dumps(marker, indent=1) + "\n").encode()
