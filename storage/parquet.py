"""Data files: Parquet written durably, with the statistics that the Delta log promises about them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.delta_log import DataFile, ceil_ms, floor_ms
from storage.store import Store
from timedb.errors import Internal
from timedb.times import MAX_MICROS

__all__ = ["CORRECTION_PREFIX", "UPLOAD_PREFIX", "may_hold_corrections", "restamp", "stage_file", "write_file"]

UPLOAD_PREFIX = "upload-"
CORRECTION_PREFIX = "correction-"
_ROW_GROUP_ROWS = 131_072
_COMPRESSION_LEVEL = 1
_READ_MOST = ("fresh", "current")  # the others are most of a long history's bytes
_SAMPLE_ROWS = 8192
_FEW_VALUES = 0.6
_DELTA_ENCODED = ("valid_time", "valid_time_end", "known_time")
_STAMP = "change_time"
_STAMP_BYTES = 8
_VALUE = "value"


def may_hold_corrections(file: DataFile) -> bool:
    """Whether a file may hold a second version of a revision: its name says so, or it is of another writer."""
    return not file.path.rpartition("/")[2].startswith(UPLOAD_PREFIX)


def write_file(store: Store, table: pa.Table, partition: Mapping[str, str], prefix: str = "part-") -> DataFile:
    """Write a new data file of a Delta table and fsync it; nothing refers to it until a commit does.

    Args:
        store: The Delta table's folder.
        table: The rows in the order they shall have, without partition columns.
        partition: The partition values, in the order of the partition columns.
        prefix: How the file's name begins; :data:`UPLOAD_PREFIX` says that its rows are of uploads alone.

    Raises:
        OSError: the file could not be written; what there is of it has been removed.
    """
    file = stage_file(store, table, partition, prefix)
    try:
        store.publish(file.path)
        store.release(file.path)
    except BaseException:
        store.delete(file.path)
        raise
    return file


def stage_file(store: Store, table: pa.Table, partition: Mapping[str, str], prefix: str) -> DataFile:
    """Write a data file as :func:`write_file` does, but leave it to the caller to publish it."""
    folder = "/".join(f"{name}={value}" for name, value in partition.items())
    name = f"{prefix}{uuid4().hex}.parquet"
    path = f"{folder}/{name}" if folder else name
    minimum, maximum = _bounds(table)
    target = store.stage(path)
    try:
        _write(table, target, partition.get("tier"))
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


def _write(table: pa.Table, target: os.PathLike[str], tier: str | None) -> None:
    text = [
        column.name for column in table.schema if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)
    ]
    times = [name for name in _DELTA_ENCODED if name in table.column_names]
    # The stamp's dictionary stays uncompressed and without statistics, so that restamp() can find and change it.
    leaves = ["tags.list.element" if name == "tags" else name for name in table.column_names]
    compressed = [name for name in leaves if name != _STAMP]
    codecs = {name: "none" if name == _STAMP else "zstd" for name in leaves}
    levels = dict.fromkeys(compressed, _COMPRESSION_LEVEL)
    if _VALUE in codecs:
        if tier in _READ_MOST:
            # Values are most of a file's bytes: LZ4 takes half the time of ZSTD, writing and reading.
            codecs[_VALUE] = "lz4"
            del levels[_VALUE]
        if _repeats(table.column(_VALUE)):
            text.append(_VALUE)
    pq.write_table(
        table,
        target,
        row_group_size=_ROW_GROUP_ROWS,
        compression=codecs,
        compression_level=levels,
        write_statistics=compressed,
        use_dictionary=[*text, _STAMP],
        column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED"),
        store_schema=False,
    )


def _repeats(values: pa.ChunkedArray) -> bool:
    """Whether the values are so few that a dictionary of them is worth its while, as far as a sample tells."""
    sample = values.slice(len(values) // 2, _SAMPLE_ROWS)
    return len(sample) > 0 and pc.count_distinct(sample).as_py() < _FEW_VALUES * len(sample)


def restamp(store: Store, file: DataFile, old: int, new: int) -> DataFile:
    """Change the change_time of a staged file whose rows all have the same one, and publish it.

    The column is one dictionary entry a row group, eight bytes that end where the data page begins, so a bulk upload
    can be encoded before its turn and stamped in it.

    Args:
        store: The Delta table's folder.
        file: A file that no commit refers to yet.
        old: The change_time that it has, microseconds since 1970.
        new: The change_time that it shall have.

    Raises:
        Internal: the file does not look as expected; it is unchanged.
        OSError: it could not be written.
    """
    target = store.stage(file.path)
    groups = pq.read_metadata(target)
    index = groups.schema.to_arrow_schema().get_field_index(_STAMP)
    spots = [
        groups.row_group(number).column(index).data_page_offset - _STAMP_BYTES
        for number in range(groups.num_row_groups)
    ]
    with open(target, "r+b") as handle:
        for spot in spots:
            handle.seek(spot)
            if handle.read(_STAMP_BYTES) != old.to_bytes(_STAMP_BYTES, "little", signed=True):
                raise Internal("a staged file does not hold the stamp that it was written with")
        for spot in spots:
            handle.seek(spot)
            handle.write(new.to_bytes(_STAMP_BYTES, "little", signed=True))
    store.publish(file.path)
    bounds = {_STAMP: floor_ms(new)}, {_STAMP: ceil_ms(new)}
    return replace(file, minimum={**file.minimum, **bounds[0]}, maximum={**file.maximum, **bounds[1]})


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
                minimum[column.name] = floor_ms(low.as_py())
                if ceil_ms(high.as_py()) <= MAX_MICROS:  # the last millisecond of year 9999 has no upper bound
                    maximum[column.name] = ceil_ms(high.as_py())
    return minimum, maximum
