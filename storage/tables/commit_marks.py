"""What commits say about themselves: app ids of ``txn`` actions (Delta protocol, "Transaction Identifiers")."""

from __future__ import annotations

__all__ = ["CHANGE_TIME", "REACHED", "REPAIRED", "bucket_transaction"]

CHANGE_TIME = "timedb.change_time"
"""App transaction of the values table: the greatest change_time, as microseconds since 1970."""

REACHED = "timedb.values_version"
"""App transaction: the values version up to which a register has been written."""


REPAIRED = "timedb.repaired"
"""App transaction: how often the doctor has taken lost files out of the table, whose rows are missing since."""


def bucket_transaction(bucket: str) -> str:
    """The app transaction that every commit which removes files of a bucket carries."""
    return f"timedb.bucket.{bucket}"
