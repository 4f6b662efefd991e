"""The Delta tables of a lake: their columns, partition columns and names."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "MIXED",
    "MIXED_GROUP_ROWS",
    "PARTITIONS",
    "READ_HELD",
    "RUNS",
    "SERIES",
    "TIERS",
    "UPDATES",
    "USERS",
    "VALUES",
    "VALUES_DATA",
    "VALUES_HELD",
    "WITHDRAWN",
]

TIMESTAMP = pa.timestamp("us", tz="UTC")

SERIES = pa.schema(
    [
        ("series_id", pa.string()),
        ("name", pa.string()),
        ("labels", pa.string()),
        ("unit", pa.string()),
        ("description", pa.string()),
        ("created_time", TIMESTAMP),
        ("created_by", pa.string()),
        ("auto_created", pa.bool_()),
        ("retired", pa.bool_()),
    ]
)
"""One row a series. ``auto_created``: made by an upload; the first explicit creation sets unit and description."""

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("workflow_id", pa.string()),
        ("run_start_time", TIMESTAMP),
        ("run_finish_time", TIMESTAMP),
        ("known_time", TIMESTAMP),
        ("run_params", pa.string()),
        ("rows", pa.int64()),
        ("change_time", TIMESTAMP),
        ("created_by", pa.string()),
        ("digest", pa.string()),
        ("receipt", pa.string()),
    ]
)
"""One row an upload."""

UPDATES = pa.schema(
    [
        ("update_id", pa.string()),
        ("rows", pa.int64()),
        ("change_time", TIMESTAMP),
        ("created_by", pa.string()),
        ("digest", pa.string()),
        ("receipt", pa.string()),
    ]
)
"""One row a batch of corrections that carried an ``update_id``. The receipt is JSON from which, with the rows, a retry
is answered: the first change_time, and how many items changed nothing; release 0.1 kept the whole answer."""

USERS = pa.schema(
    [
        ("user_id", pa.string()),
        ("tenant_id", pa.string()),
        ("email", pa.string()),
        ("scopes", pa.string()),
        ("labels", pa.string()),
        ("key_hash", pa.string()),
        ("active", pa.bool_()),
        ("created_time", TIMESTAMP),
        ("changed_time", TIMESTAMP),
    ]
)
"""One row a user of the lake; see ``timedb.storage.users.users.User``."""

VALUES_DATA = pa.schema(
    [
        ("series_id", pa.string()),
        ("valid_time", TIMESTAMP),
        ("valid_time_end", TIMESTAMP),
        ("known_time", TIMESTAMP),
        ("change_time", TIMESTAMP),
        ("value", pa.float64()),
        ("run_id", pa.string()),
        ("annotation", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("changed_by", pa.string()),
        ("retracted", pa.bool_()),
    ]
)
"""The values table without its partition columns: what a data file holds."""

_TEXT = pa.dictionary(pa.int32(), pa.string())

VALUES_HELD = pa.schema(
    [
        (column.name, pa.list_(_TEXT) if column.name == "tags" else _TEXT if pa.types.is_string(column.type) else kind)
        for column in VALUES_DATA
        for kind in [column.type]
    ]
)
"""The same as rows are held in memory: every text once, however many rows share it. A file of a few KiB may hold
gigabytes of text, row by row."""

READ_HELD = pa.schema([*VALUES_HELD, ("revision", pa.int32())])
"""The same of rows that are read: ``revision`` is not stored, it is counted."""

PARTITIONS = ("series_bucket", "tier")

MIXED = "mixed"
"""The ``series_bucket`` of small writes, whatever their series: a bucket's rows lie under its own name and here."""

MIXED_GROUP_ROWS = 4096
"""Rows of a row group of its files, so that a read of one series leaves most of a larger file alone."""

VALUES = pa.schema([*VALUES_DATA, *((name, pa.string()) for name in PARTITIONS)])
"""The values table as readers see it."""

TIERS = ("fresh", "current", "revised", "corrected")
"""What is known of a row: nothing yet; it wins its point; it stands but did not win; it is superseded or retracted."""

WITHDRAWN = pa.schema(
    [
        ("withdrawn_rows", pa.int64()),
        ("withdrawn_time", TIMESTAMP),
        ("withdrawn_by", pa.string()),
        ("withdrawn_reason", pa.string()),
    ]
)
"""What a run says of its withdrawal, as columns beside those of the runs table."""
