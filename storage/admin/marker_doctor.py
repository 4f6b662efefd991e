"""Examines the marker of a lake and its copy, and writes one anew from the other, or from the tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from timedb.contract.errors import TimeDBError
from timedb.contract.times import format_time, now
from timedb.storage.admin.findings import Finding
from timedb.storage.delta.privacy import is_open_to_others
from timedb.storage.delta.standing import LAKE_ID, identity_of
from timedb.storage.delta.store import LocalStore, Store
from timedb.storage.tables.layout import FORMAT_VERSION, MARKER, USERS_FOLDER, TenantTables, tenant_folder, tenant_ids
from timedb.storage.tables.marker import AUTHENTICATION, MARKER_COPY, marker_of, read_copy, write_marker
from timedb.storage.tables.schemas import MIXED

__all__ = ["examine_marker"]

_FIRST_FORMAT, _MIXED_FORMAT = 1, 2
_LONGEST = 3
_LAKE = "lake"
_OPEN = "files that others on this machine may read"


def examine_marker(lake: Store, *, repair: bool) -> Iterator[Finding]:
    """The faults of the marker and of its copy."""
    copy = read_copy(lake)
    if copy is not None and (copy["format_version"] > FORMAT_VERSION or not identity_of(copy)):
        copy = None
    try:
        marker = marker_of(lake.read(MARKER)) if lake.exists(MARKER) else None
    except ValueError:
        marker = None
    if marker is None:
        fault = "damaged marker" if lake.exists(MARKER) else "missing marker"
        wanted = copy or _found_out(lake)
        source = "its copy" if copy else "the tables"
        if repair and wanted is not None:
            write_marker(lake, _asking_for_keys(lake, wanted))
        cure = f"write it anew from {source}" if wanted else "none: restore a backup"
        yield Finding(_LAKE, fault, MARKER, cure, repair and wanted is not None)
    elif marker["format_version"] > FORMAT_VERSION or (copy and identity_of(copy) != identity_of(marker)):
        cure = "none: install the release that knows it, or restore a backup; its copy is left as it is"
        yield Finding(_LAKE, "marker of another lake or release", MARKER, cure)
    elif copy != marker:
        if repair:
            write_marker(lake, marker)
        missing = not lake.exists(MARKER_COPY)
        # Lakes of old releases have none until a server opens them.
        yield Finding(_LAKE, "damaged copy of the marker", MARKER_COPY, "write it anew", repair, notice=missing)
    if isinstance(lake, LocalStore) and is_open_to_others(lake.root):
        # Lakes of old releases are as their process was told; whether that is meant, their keeper knows.
        yield Finding(_LAKE, _OPEN, ".", f"chmod -R o-rwx {shlex.quote(lake.url())}", notice=True)


def _asking_for_keys(lake: Store, marker: dict[str, Any]) -> dict[str, Any]:
    """A lake that has users asks for keys, whatever a copy says that may be older than they are."""
    has_users = lake.exists(USERS_FOLDER)
    return {**marker, AUTHENTICATION: True} if has_users else marker


def _found_out(lake: Store) -> dict[str, Any] | None:
    """What the tables tell of the marker; a lake without a copy of it was made by the first release."""
    digits: str | None = None
    version = _FIRST_FORMAT
    for tenant_id in tenant_ids(lake):
        try:
            files = TenantTables.below(lake.below(tenant_folder(tenant_id))).values.snapshot().files.values()
        except TimeDBError:
            return None
        for file in files:
            bucket = file.partition["series_bucket"]
            if bucket == MIXED:
                version = _MIXED_FORMAT
            else:
                digits = str(len(bucket)) if len(bucket) <= _LONGEST else "full"
    return {
        "format_version": version,
        LAKE_ID: str(uuid4()),
        "bucket_digits": digits or "1",
        "created_time": format_time(now()),
    }
