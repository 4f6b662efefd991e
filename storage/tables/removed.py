"""What retention has removed, as its commits say: reads as of a moment before that are refused."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, from_micros, to_micros
from timedb.storage.delta.log import Snapshot

__all__ = ["refuse_removed"]

REMOVED = "timedb.retention."


REMOVED_VALID = "timedb.retention_valid."


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
    for app_id, removed in snapshot.transactions.items():
        if not app_id.startswith(REMOVED) or to_micros(as_of) >= removed:
            continue
        bucket = app_id.removeprefix(REMOVED)
        last = snapshot.transactions[REMOVED_VALID + bucket]
        if (buckets is None or bucket in buckets) and (start_valid is None or to_micros(start_valid) <= last):
            raise InvalidRequest(
                f"as_of: {format_time(as_of)} is before {format_time(from_micros(removed))}, when retention removed "
                f"values of valid_time up to {format_time(from_micros(last))}; ask for a later as_of, or start after it"
            )
