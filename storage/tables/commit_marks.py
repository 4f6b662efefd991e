"""What commits say about themselves: app ids of ``txn`` actions (Delta protocol, "Transaction Identifiers")."""

from __future__ import annotations

__all__ = ["CHANGE_TIME", "REACHED", "REPAIRED", "UNITS", "bucket_transaction", "converted_transaction"]

CHANGE_TIME = "timedb.change_time"
"""App transaction of the values table: the greatest change_time, as microseconds since 1970."""

REACHED = "timedb.values_version"
"""App transaction: the values version up to which a register has been written."""


REPAIRED = "timedb.repaired"
"""App transaction: how often the doctor has taken lost files out of the table, whose rows are missing since."""

UNITS = "timedb.units"
"""App transaction: the values version of the last change of a series' unit; of the series table: what it follows."""


def converted_transaction(series_id: str) -> str:
    """The app transaction of the values table that says at which version the values of a series were converted last."""
    return f"timedb.converted.{series_id}"


def bucket_transaction(bucket: str) -> str:
    """The app transaction that every commit which removes files of a bucket carries."""
    return f"timedb.bucket.{bucket}"
