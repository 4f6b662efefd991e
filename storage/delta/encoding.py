"""Rows as Parquet, in the encodings that suit them, and the statistics that the Delta log promises about them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.storage.delta.dictionaries import as_type, used_entries
from timedb.storage.delta.log import DataFile, ceil_ms, floor_ms

__all__ = ["STAMP", "Encoding"]

STAMP = "change_time"
"""A column of one value a row group mostly; see :func:`timedb.storage.delta.parquet.restamp`."""
_COMPRESSION_LEVEL = 1
_TINY_ROWS = 1 << 10  # about a block of the disk, however it is encoded
_WRITE_BATCH_ROWS = 65_536
_NEVER_NULL = ("series_id", "valid_time", "known_time", "change_time", "run_id")
_WITH_STATISTICS = ("series_id", "valid_time", "known_time", "run_id")
_READ_MOST = ("fresh", "current")  # the others are most of a long history's bytes
_SAMPLE_ROWS = 8192
_FEW_VALUES = 0.6
_DELTA_ENCODED = ("valid_time", "valid_time_end")  # a known_time repeats: ZSTD does that faster
_VALUE = "value"
_TAGS, _TAGS_LEAF = "tags", "tags.list.element"


class Encoding:
    """Rows as Parquet in a sink, piece by piece, and what the log is to be told of them.

    Columns that are null throughout are left out, as the Delta protocol allows: readers fill them in.

    Args:
        sink: Where to.
        first: Rows that are typical of all; its columns without a value are those that are left out.
        partition: The partition values, in the order of the partition columns.
        group_rows: Rows of a row group.

    Attributes:
        rows: How many have been written.
    """

    def __init__(self, sink: pa.NativeFile, first: pa.Table, partition: Mapping[str, str], group_rows: int) -> None:
        self.rows = 0
        self._partition = dict(partition)
        self._group_rows = group_rows
        self._minimum: dict[str, str | int] = {}
        self._maximum: dict[str, str | int] = {}
        self._null_count = dict.fromkeys(first.column_names, 0)
        self._columns = [name for name in first.column_names if not self._may_lack(name, first.column(name))]
        data = first.select(self._columns)
        self._schema = _without_nulls(data) if partition else data.schema
        options = _options(data, partition.get("tier"))
        self._writer = pq.ParquetWriter(sink, self._schema, store_schema=False, **options)

    def has_place_for(self, table: pa.Table) -> bool:
        """Whether all columns are there in which some rows have values, and take the nulls that are in them."""
        return all(
            self._schema.field(name).nullable or not table.column(name).null_count
            if name in self._columns
            else self._may_lack(name, table.column(name))
            for name in table.column_names
        )

    def add(self, table: pa.Table) -> None:
        """Write further rows, in the order they shall have."""
        data = table.select(self._columns)
        for start in range(0, data.num_rows, self._group_rows):
            self._writer.write_table(used_entries(self._typed(data.slice(start, self._group_rows))))
        self.rows += table.num_rows
        self._widen(*_bounds(table))
        for name in self._null_count:
            self._null_count[name] += table.column(name).null_count

    def close(self) -> None:
        """Write what Parquet has at its end."""
        self._writer.close()

    def give_up(self) -> None:
        """Let go of the sink, whatever has come there."""
        with contextlib.suppress(OSError):
            self._writer.close()
        self._writer.is_open = False

    def file(self, path: str, size: int) -> DataFile:
        """The rows as a file of that name and so many bytes."""
        return DataFile(
            path=path,
            size=size,
            rows=self.rows,
            partition=self._partition,
            minimum=self._minimum,
            maximum=self._maximum,
            null_count=self._null_count,
            modified_ms=time.time_ns() // 1_000_000,
        )

    def _typed(self, data: pa.Table) -> pa.Table:
        """The rows in the types of the file's schema, be their text as dictionaries or not."""
        columns = [
            pa.chunked_array([as_type(chunk, field.type) for chunk in data.column(field.name).chunks], field.type)
            for field in self._schema
        ]
        return pa.table(columns, schema=self._schema)

    def _may_lack(self, name: str, column: pa.ChunkedArray) -> bool:
        return bool(self._partition) and name not in _NEVER_NULL and bool(column.null_count == len(column))

    def _widen(self, minimum: Mapping[str, str | int], maximum: Mapping[str, str | int]) -> None:
        for name, low in minimum.items():
            self._minimum[name] = min(self._minimum.get(name, low), low)
            high = maximum[name]
            self._maximum[name] = max(self._maximum.get(name, high), high)


def _without_nulls(rows: pa.Table) -> pa.Schema:
    """The columns, those marked that hold no null: that saves writers and readers a look at each row."""
    return pa.schema(
        [
            column.with_nullable(pa.types.is_list(column.type) or rows.column(column.name).null_count > 0)
            for column in rows.schema
        ]
    )


def _options(rows: pa.Table, tier: str | None) -> dict[str, Any]:
    """How the columns are encoded and compressed."""
    text = [
        column.name for column in rows.schema if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)
    ]
    # Partly null, it was seen to make Polars 1.30 to 1.42 panic; plain costs 1.4 % of the bytes.
    times = [name for name in _DELTA_ENCODED if name in rows.column_names and not rows.column(name).null_count]
    # The stamp's dictionary stays uncompressed and without statistics, so that restamp() can find and change it.
    leaves = [_TAGS_LEAF if name == _TAGS else name for name in rows.column_names]
    if _TAGS in rows.column_names:
        text.append(_TAGS_LEAF)
    compressed = [name for name in leaves if name != STAMP and rows.num_rows > _TINY_ROWS]
    codecs = {name: "zstd" if name in compressed else "none" for name in leaves}
    levels = dict.fromkeys(compressed, _COMPRESSION_LEVEL)
    if _VALUE in codecs:
        repeats = tier != "fresh" and _repeats(rows.column(_VALUE))
        if repeats:
            text.append(_VALUE)
        if repeats or tier in _READ_MOST:
            # Values are most of a file's bytes: LZ4 takes half the time of ZSTD, writing and reading.
            codecs[_VALUE] = "lz4" if _VALUE in compressed else "none"
            levels.pop(_VALUE, None)
    return {
        "compression": codecs,
        "compression_level": levels or None,
        "write_statistics": [name for name in _WITH_STATISTICS if name in rows.column_names],
        "use_dictionary": [*text, STAMP],
        "column_encoding": dict.fromkeys(times, "DELTA_BINARY_PACKED"),
        "write_batch_size": _WRITE_BATCH_ROWS,
        "write_page_checksum": True,
    }


def _repeats(values: pa.ChunkedArray) -> bool:
    """Whether the values are so few that a dictionary of them is worth its while, as far as a sample tells."""
    sample = values.slice(len(values) // 2, _SAMPLE_ROWS)
    return len(sample) > 0 and pc.count_distinct(sample).as_py() < _FEW_VALUES * len(sample)


def _bounds(table: pa.Table) -> tuple[dict[str, str | int], dict[str, str | int]]:
    minimum: dict[str, str | int] = {}
    maximum: dict[str, str | int] = {}
    for column in table.schema:
        values = table.column(column.name)
        if values.null_count == len(values):
            continue
        if column.name == "series_id":
            low, high = pc.min_max(pc.unique(values).cast(pa.string())).values()
            minimum[column.name], maximum[column.name] = low.as_py(), high.as_py()
        elif pa.types.is_timestamp(column.type):
            low, high = pc.min_max(values).values()  # `as_py` would make datetimes of them
            minimum[column.name], maximum[column.name] = floor_ms(low.value), ceil_ms(high.value)
    return minimum, maximum
