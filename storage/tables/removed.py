"""What retention has removed, as its commits say: reads as of a moment before that are refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, from_micros, to_micros
from timedb.storage.delta.log import Snapshot

__all__ = ["REMOVED", "REMOVED_CHANGED", "REMOVED_VALID", "refuse_incomplete", "refuse_removed", "refuse_unseen"]

REMOVED = "timedb.retention."
"""App transaction of the values table, before a bucket: the change_time of the last commit that removed rows of it."""

REMOVED_VALID = "timedb.retention_valid."
"""The last valid_time that lost a row."""

REMOVED_CHANGED = "timedb.retention_changed."
"""The greatest change_time of a row that went; lakes where release 0.1 removed rows may lack it."""


def refuse_removed(
    snapshot: Snapshot, buckets: Collection[str] | None, as_of: datetime, start_valid: datetime | None
) -> None:
    """Refuse a read as of a moment before retention removed rows that it may have seen.

    The marks are a bucket's, not a series', and the valid_times from the first on: a read of series or valid_times that
    lost nothing may be refused, one that lost rows never is answered.

    Args:
        snapshot: The values table.
        buckets: The buckets that the read is about; None: all.
        as_of: Its cut-off.
        start_valid: Where its valid_times begin; None: they have no beginning.

    Raises:
        InvalidRequest: names the cut-off, the retention's change_time and the valid_time.
    """
    for removed, last, _ in _marks(snapshot, buckets, start_valid):
        if to_micros(as_of) < removed:
            raise InvalidRequest(
                f"as_of: {format_time(as_of)} is before {format_time(from_micros(removed))}, when retention removed "
                f"values of valid_time up to {format_time(from_micros(last))}; ask for a later as_of, or start after it"
            )


def refuse_incomplete(
    snapshot: Snapshot, buckets: Collection[str] | None, start_valid: datetime | None, *, field: str, wanted: str
) -> None:
    """Refuse a read that needs every revision ever written, where retention may have taken one.

    Args:
        snapshot: The values table.
        buckets: The buckets that the read is about; None: all.
        start_valid: Where its valid_times begin; None: they have no beginning.
        field: What of the read needs them.
        wanted: What it says of that.

    Raises:
        InvalidRequest: names the field and the valid_time.
    """
    for _, last, _ in _marks(snapshot, buckets, start_valid):
        raise InvalidRequest(
            f"{field}: {wanted} is not known where retention has removed revisions, which it has of valid_time up to "
            f"{format_time(from_micros(last))}; give a start_valid after it"
        )


def refuse_unseen(
    snapshot: Snapshot,
    buckets: Collection[str] | None,
    start_valid: datetime | None,
    *,
    after: datetime,
    seen: datetime,
) -> None:
    """Refuse to go on from where retention has since removed rows that were written after it.

    Args:
        snapshot: The values table.
        buckets: The buckets that the read is about; None: all.
        start_valid: Where its valid_times begin; None: they have no beginning.
        after: Up to which change_time every row was read.
        seen: Up to which change_time retention's work was seen.

    Raises:
        InvalidRequest: names the moment and the valid_time.
    """
    for removed, last, changed in _marks(snapshot, buckets, start_valid):
        if removed > to_micros(seen) and changed > to_micros(after):
            raise InvalidRequest(
                f"since: retention has removed rows at {format_time(from_micros(removed))} that were written after "
                f"{format_time(after)}, and were not read yet, of valid_time up to {format_time(from_micros(last))}; "
                "begin anew (without since) to have all that is left, or with now"
            )


def _marks(
    snapshot: Snapshot, buckets: Collection[str] | None, start_valid: datetime | None
) -> Iterator[tuple[int, int, int]]:
    """When retention removed rows that a read may be about, their last valid_time and their greatest change_time;
    microseconds since 1970.
    """
    for app_id, removed in snapshot.transactions.items():
        bucket = app_id.removeprefix(REMOVED)
        if bucket == app_id or (buckets is not None and bucket not in buckets):
            continue
        last = snapshot.transactions[REMOVED_VALID + bucket]
        if start_valid is None or to_micros(start_valid) <= last:
            yield removed, last, snapshot.transactions.get(REMOVED_CHANGED + bucket, removed)
