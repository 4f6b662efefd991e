"""Data files: Parquet written durably, with the statistics that the Delta log promises about them."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import IO, Any, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.contract.columns import is_text
from timedb.contract.errors import Internal
from timedb.storage.delta.log import DataFile, ceil_ms, floor_ms
from timedb.storage.delta.pages import crc_varint, first_page, has_long_crc
from timedb.storage.delta.privacy import opener_as_folder
from timedb.storage.delta.store import Store

__all__ = [
    "CORRECTION_PREFIX",
    "UPLOAD_PREFIX",
    "StagedFile",
    "as_type",
    "may_hold_corrections",
    "next_stamp",
    "read_batches",
    "restamp",
    "stage_file",
    "used_entries",
    "write_file",
]

UPLOAD_PREFIX = "upload-"
CORRECTION_PREFIX = "correction-"
_ROW_GROUP_ROWS = 131_072
_COMPRESSION_LEVEL = 1
_WRITE_BATCH_ROWS = 65_536
_BUFFER_BYTES = 1 << 20
_NEVER_NULL = ("series_id", "valid_time", "known_time", "change_time", "run_id")
_WITH_STATISTICS = ("series_id", "valid_time", "known_time", "run_id")
_READ_MOST = ("fresh", "current")  # the others are most of a long history's bytes
_SAMPLE_ROWS = 8192
_FEW_VALUES = 0.6
_DELTA_ENCODED = ("valid_time", "valid_time_end")  # a known_time repeats: ZSTD does that faster
_STAMP = "change_time"
_STAMP_BYTES = 8
_VALUE = "value"
_TAGS, _TAGS_LEAF = "tags", "tags.list.element"
R = TypeVar("R", pa.Table, pa.RecordBatch)


def as_type(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A column as it was read in the type that it shall have; text that becomes a dictionary is held once each.

    Other writers keep a type of their own beside the Parquet one, such as views of text, which few functions take.
    """
    if column.type == wanted:
        return column
    if pa.types.is_list(wanted) and not pa.types.is_null(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        items = as_type(pc.list_flatten(column), wanted.value_type)
        return pa.ListArray.from_arrays(offsets, items, type=wanted, mask=pc.is_null(column))
    if not pa.types.is_dictionary(wanted):
        return column.cast(wanted)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode() if is_text(column.type) else column.cast(wanted.value_type)
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    dictionary = column.dictionary.cast(wanted.value_type)
    return pa.DictionaryArray.from_arrays(column.indices.cast(wanted.index_type), dictionary)


def _text_leaves(metadata: pq.FileMetaData, names: Collection[str]) -> list[str]:
    """The columns of a Parquet file that hold the text of some columns: what ``read_dictionary`` wants to be told."""
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    return [leaf.path for leaf in leaves if leaf.path.split(".")[0] in names and leaf.physical_type == "BYTE_ARRAY"]


def read_batches(
    source: pa.NativeFile,
    metadata: pq.FileMetaData,
    names: Sequence[str],
    batch_rows: int,
    groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Columns of a Parquet file in batches: text as dictionaries, the checksum of each page looked at.

    Args:
        source: The file.
        metadata: Its footer.
        names: The columns, all of which it has.
        batch_rows: Of a batch, at most.
        groups: Row groups; left out: all.

    Raises:
        pa.ArrowException, OSError: the file is not what was written.
    """
    leaves = _text_leaves(metadata, names)
    chosen = list(range(metadata.num_row_groups)) if groups is None else list(groups)
    # Arrow cannot make one batch of lists whose items lie in the dictionaries of two row groups.
    parts = [[group] for group in chosen] if any("." in leaf for leaf in leaves) else [chosen]
    with pq.ParquetFile(source, metadata=metadata, read_dictionary=leaves, page_checksum_verification=True) as parquet:
        for part in parts:
            yield from parquet.iter_batches(batch_rows, row_groups=part, columns=names)


def used_entries(rows: R) -> R:
    """The same rows; what their columns' dictionaries hold beside the texts of the rows is left out of them."""
    for index, column in enumerate(rows.columns):
        kind = column.type.value_type if pa.types.is_list(column.type) else column.type
        if pa.types.is_dictionary(kind):
            if isinstance(column, pa.ChunkedArray):
                used = pa.chunked_array([_used_entries(chunk) for chunk in column.chunks], column.type)
            else:
                used = _used_entries(column)
            rows = rows.set_column(index, rows.schema.field(index), used)
    return rows


def _used_entries(column: pa.Array) -> pa.Array:
    if pa.types.is_list(column.type):
        if column.null_count == len(column):
            return column
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(
            offsets, _used_entries(pc.list_flatten(column)), type=column.type, mask=column.is_null()
        )
    entries = len(column.dictionary)
    if entries <= 1 < len(column):
        return column
    codes = column.indices.fill_null(0).to_numpy()
    if not column.null_count and len(codes) and (only := codes.min()) == codes.max():  # one series of many, say
        return pa.DictionaryArray.from_arrays(np.zeros_like(codes), column.dictionary.slice(only, 1))
    used = np.zeros(entries, dtype=np.bool_)
    used[codes if not column.null_count else codes[column.is_valid().to_numpy(zero_copy_only=False)]] = True
    if used.all():
        return column
    places = (np.cumsum(used) - 1).astype(np.int32)
    nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    indices = pa.array(places[codes], column.type.index_type, mask=nulls)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.filter(pa.array(used)))


def may_hold_corrections(file: DataFile) -> bool:
    """Whether a file may hold a second version of a revision: its name says so, or it is of another writer."""
    return not file.path.rpartition("/")[2].startswith(UPLOAD_PREFIX)


def write_file(
    store: Store,
    table: pa.Table,
    partition: Mapping[str, str],
    prefix: str = "part-",
    *,
    group_rows: int = _ROW_GROUP_ROWS,
) -> DataFile:
    """Write a new data file of a Delta table and fsync it; nothing refers to it until a commit does.

    Args:
        store: The Delta table's folder.
        table: The rows in the order they shall have, without partition columns.
        partition: The partition values, in the order of the partition columns.
        prefix: How the file's name begins; :data:`UPLOAD_PREFIX` says that its rows are of uploads alone.
        group_rows: Rows of a row group, which readers take or leave as a whole.

    Raises:
        OSError: the file could not be written; what there is of it has been removed.
    """
    file = stage_file(store, table, partition, prefix, group_rows=group_rows)
    try:
        store.publish(file.path)
        store.release(file.path)
    except BaseException:
        store.delete(file.path)
        raise
    return file


def stage_file(
    store: Store, table: pa.Table, partition: Mapping[str, str], prefix: str, *, group_rows: int = _ROW_GROUP_ROWS
) -> DataFile:
    """Write a data file as :func:`write_file` does, but leave it to the caller to publish it."""
    file = StagedFile(store, table, partition, prefix, group_rows=group_rows)
    file.add(table)
    return file.finish()


class StagedFile:
    """A data file that is written piece by piece, and not published yet.

    Columns that are null throughout are left out of it, as the Delta protocol allows: readers fill them in.

    Args:
        store: The Delta table's folder.
        first: Rows that are typical of it; its columns without a value are those that the file does not have.
        partition: The partition values, in the order of the partition columns.
        prefix: How its name begins.
        group_rows: Rows of a row group.

    Raises:
        OSError: it could not be made.
    """

    def __init__(
        self,
        store: Store,
        first: pa.Table,
        partition: Mapping[str, str],
        prefix: str,
        *,
        group_rows: int = _ROW_GROUP_ROWS,
    ) -> None:
        folder = "/".join(f"{name}={value}" for name, value in partition.items())
        name = f"{prefix}{uuid4().hex}.parquet"
        self.path = f"{folder}/{name}" if folder else name
        self.rows = 0
        self._store = store
        self._partition = dict(partition)
        self._group_rows = group_rows
        self._minimum: dict[str, str | int] = {}
        self._maximum: dict[str, str | int] = {}
        self._null_count = dict.fromkeys(first.column_names, 0)
        self._target = store.stage(self.path)
        self._columns = [name for name in first.column_names if not self._may_lack(name, first.column(name))]
        data = first.select(self._columns)
        self._schema = _without_nulls(data) if partition else data.schema
        options = _options(data, partition.get("tier"))
        try:
            handle = open(self._target, "xb", opener=opener_as_folder)  # noqa: SIM115  # finish() and delete() close it
            self._sink = pa.BufferedOutputStream(pa.PythonFile(handle, "w"), _BUFFER_BYTES)
            self._writer = pq.ParquetWriter(self._sink, self._schema, store_schema=False, **options)
        except BaseException:
            store.delete(self.path)  # it may be there, whatever the error says
            raise

    def has_place_for(self, table: pa.Table) -> bool:
        """Whether the file has all columns in which some rows have values, and takes the nulls that are in them."""
        return all(
            self._schema.field(name).nullable or not table.column(name).null_count
            if name in self._columns
            else self._may_lack(name, table.column(name))
            for name in table.column_names
        )

    def add(self, table: pa.Table) -> None:
        """Write further rows, in the order they shall have.

        Raises:
            OSError: they could not be written; what there is of the file has been removed.
        """
        data = table.select(self._columns)
        try:
            for start in range(0, data.num_rows, self._group_rows):
                self._writer.write_table(used_entries(self._typed(data.slice(start, self._group_rows))))
        except BaseException:
            self.delete()
            raise
        self.rows += table.num_rows
        self._widen(*_bounds(table))
        for name in self._null_count:
            self._null_count[name] += table.column(name).null_count

    def finish(self) -> DataFile:
        """End the file.

        Raises:
            OSError: it could not be written; what there is of it has been removed.
        """
        try:
            self._writer.close()
            self._sink.close()
            size = self._target.stat().st_size
        except BaseException:
            self.delete()
            raise
        return DataFile(
            path=self.path,
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

    def delete(self) -> None:
        """Remove what there is of the file."""
        with contextlib.suppress(OSError):
            self._writer.close()
        self._writer.is_open = False
        with contextlib.suppress(OSError):
            self._sink.close()
        self._store.delete(self.path)

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
    compressed = [name for name in leaves if name != _STAMP]
    codecs = {name: "none" if name == _STAMP else "zstd" for name in leaves}
    levels = dict.fromkeys(compressed, _COMPRESSION_LEVEL)
    if _VALUE in codecs:
        repeats = tier != "fresh" and _repeats(rows.column(_VALUE))
        if repeats:
            text.append(_VALUE)
        if repeats or tier in _READ_MOST:
            # Values are most of a file's bytes: LZ4 takes half the time of ZSTD, writing and reading.
            codecs[_VALUE] = "lz4"
            del levels[_VALUE]
    return {
        "compression": codecs,
        "compression_level": levels,
        "write_statistics": [name for name in _WITH_STATISTICS if name in rows.column_names],
        "use_dictionary": [*text, _STAMP],
        "column_encoding": dict.fromkeys(times, "DELTA_BINARY_PACKED"),
        "write_batch_size": _WRITE_BATCH_ROWS,
        "write_page_checksum": True,
    }


def _repeats(values: pa.ChunkedArray) -> bool:
    """Whether the values are so few that a dictionary of them is worth its while, as far as a sample tells."""
    sample = values.slice(len(values) // 2, _SAMPLE_ROWS)
    return len(sample) > 0 and pc.count_distinct(sample).as_py() < _FEW_VALUES * len(sample)


def next_stamp(first: int) -> int:
    """The first change_time from one on that :func:`restamp` can give and take away: 15 of 16 are.

    Args:
        first: Microseconds since 1970.
    """
    return next(stamp for stamp in count(first) if has_long_crc(_stamp_page(stamp)))


def restamp(store: Store, file: DataFile, old: int, new: int) -> DataFile:
    """Change the change_time of a staged file whose rows all have the same one, and publish it.

    The column is one dictionary entry a row group, a page of eight bytes, so a bulk upload can be encoded before its
    turn and stamped in it. The page's checksum in its header is changed along.

    Args:
        store: The Delta table's folder.
        file: A file that no commit refers to yet.
        old: The change_time that it has, microseconds since 1970.
        new: The change_time that it shall have; both are of :func:`next_stamp`.

    Raises:
        Internal: the file does not look as expected; it is unchanged.
        OSError: it could not be written.
    """
    target = store.stage(file.path)
    groups = pq.read_metadata(target)
    index = groups.schema.to_arrow_schema().get_field_index(_STAMP)
    columns = [groups.row_group(number).column(index) for number in range(groups.num_row_groups)]
    with open(target, "r+b") as handle:
        changes = [change for column in columns for change in _stamp_changes(handle, column, old, new)]
        for place, data in changes:
            handle.seek(place)
            handle.write(data)
    store.publish(file.path)
    bounds = {_STAMP: floor_ms(new)}, {_STAMP: ceil_ms(new)}
    return replace(file, minimum={**file.minimum, **bounds[0]}, maximum={**file.maximum, **bounds[1]})


def _stamp_changes(handle: IO[bytes], column: pq.ColumnChunkMetaData, old: int, new: int) -> list[tuple[int, bytes]]:
    """What is to be written where, so that a row group has another stamp."""
    start = column.dictionary_page_offset
    handle.seek(start)
    held = handle.read(column.data_page_offset - start)
    page = first_page(held, 0)
    crcs = [crc_varint(zlib.crc32(_stamp_page(stamp))) for stamp in (old, new)]
    expected = crcs[0] + held[page.crc_at + len(crcs[0]) : page.start] + _stamp_page(old)
    if held[page.crc_at :] != expected or len(crcs[0]) != len(crcs[1]):
        raise Internal("a staged file does not hold the stamp that it was written with")
    return [(start + page.crc_at, crcs[1]), (start + page.start, _stamp_page(new))]


def _stamp_page(stamp: int) -> bytes:
    """The page that is the dictionary of a column of one stamp."""
    return stamp.to_bytes(_STAMP_BYTES, "little", signed=True)


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
                maximum[column.name] = ceil_ms(high.as_py())
    return minimum, maximum
