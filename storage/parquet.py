"""Data files: Parquet written durably, with the statistics that the Delta log promises about them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.delta_log import DataFile, ceil_ms, floor_ms
from storage.store import LocalStore

__all__ = ["bucket_folder", "may_hold_corrections", "write_file"]

ROW_GROUP_ROWS = 131_072
UPLOAD_PREFIX = "upload-"
CORRECTION_PREFIX = "correction-"
_COMPRESSION_LEVEL = 3
_DELTA_ENCODED = ("valid_time", "valid_time_end", "known_time", "change_time")


def bucket_folder(partition: Mapping[str, str]) -> str:
    """The folder of a partition, as Hive writes it."""
    return "/".join(f"{name}={value}" for name, value in partition.items())


def may_hold_corrections(file: DataFile) -> bool:
    """Whether a file may hold a second version of a revision: its name says so, or it is of another writer."""
    return not file.path.rpartition("/")[2].startswith(UPLOAD_PREFIX)


def write_file(store: LocalStore, table: pa.Table, partition: Mapping[str, str], prefix: str = "part-") -> DataFile:
    """Write a new data file of a Delta table and fsync it; nothing refers to it until a commit does.

    Args:
        store: The Delta table's folder.
        table: The rows in the order they shall have, without partition columns.
        partition: The partition values, in the order of the partition columns.
        prefix: How the file's name begins; :data:`UPLOAD_PREFIX` says that its rows are of uploads alone.

    Raises:
        OSError: the file could not be written; what there is of it has been removed.
    """
    folder = bucket_folder(partition)
    name = f"{prefix}{uuid4().hex}.parquet"
    path = f"{folder}/{name}" if folder else name
    target = store.prepare(path)
    minimum, maximum = _bounds(table)
    text = [
        column.name for column in table.schema if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)
    ]
    times = [name for name in _DELTA_ENCODED if name in table.column_names]
    try:
        pq.write_table(
            table,
            target,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=text,
            column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED"),
            store_schema=False,
        )
        store.sync(path)
    except BaseException:
        store.delete(path)
        raise
    return DataFile(
        path=path,
        size=target.stat().st_size,
        rows=table.num_rows,
        partition=dict(partition),
        minimum=minimum,
        maximum=maximum,
        null_count={name: table.column(name).null_count for name in table.column_names},
        modified_ms=time.time_ns() // 1_000_000,
    )


def _bounds(table: pa.Table) -> tuple[dict[str, str | int], dict[str, str | int]]:
    minimum: dict[str, str | int] = {}
    maximum: dict[str, str | int] = {}
    for column in table.schema:
        values = table.column(column.name)
        if column.name == "series_id":
            low, high = pc.min_max(pc.unique(values).cast(pa.string())).values()
            if low.is_valid:
                minimum[column.name], maximum[column.name] = low.as_py(), high.as_py()
        elif pa.types.is_timestamp(column.type):
            low, high = pc.min_max(values.cast(pa.int64())).values()
            if low.is_valid:
                minimum[column.name], maximum[column.name] = floor_ms(low.as_py()), ceil_ms(high.as_py())
    return minimum, maximum
