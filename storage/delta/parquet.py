"""Data files: Parquet written durably, with the statistics that the Delta log promises about them."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import IO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from timedb.contract.errors import Internal
from timedb.storage.delta.encoding import STAMP, Encoding
from timedb.storage.delta.log import DataFile, ceil_ms, floor_ms
from timedb.storage.delta.pages import crc_varint, first_page, has_long_crc
from timedb.storage.delta.privacy import opener_as_folder
from timedb.storage.delta.store import Store

__all__ = [
    "CORRECTION_PREFIX",
    "UPLOAD_PREFIX",
    "StagedFile",
    "may_hold_corrections",
    "next_stamp",
    "read_batches",
    "restamp",
    "stage_file",
    "write_file",
]

UPLOAD_PREFIX = "upload-"
CORRECTION_PREFIX = "correction-"
_ROW_GROUP_ROWS = 131_072
_SMALL_ROWS = 1 << 14
_BUFFER_BYTES = 1 << 20
_STAMP_BYTES = 8


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
    if table.num_rows <= _SMALL_ROWS:
        return _write_at_once(store, table, partition, prefix, group_rows)
    file = stage_file(store, table, partition, prefix, group_rows=group_rows)
    try:
        store.publish(file.path)
        store.release(file.path)
    except BaseException:
        store.delete(file.path)
        raise
    return file


def _write_at_once(
    store: Store, table: pa.Table, partition: Mapping[str, str], prefix: str, group_rows: int
) -> DataFile:
    """A small file, encoded in memory: a few calls of the disk in place of a few dozen."""
    sink = pa.BufferOutputStream()
    encoding = Encoding(sink, table, partition, group_rows)
    encoding.add(table)
    encoding.close()
    data, path = sink.getvalue(), _new_path(partition, prefix)
    try:
        store.put_new(path, data)
    except BaseException:
        store.delete(path)
        raise
    return encoding.file(path, data.size)


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
        self.path = _new_path(partition, prefix)
        self._store = store
        self._target = store.stage(self.path)
        try:
            handle = open(self._target, "xb", opener=opener_as_folder)  # noqa: SIM115  # finish() and delete() close it
            self._sink = pa.BufferedOutputStream(pa.PythonFile(handle, "w"), _BUFFER_BYTES)
            self._encoding = Encoding(self._sink, first, partition, group_rows)
        except BaseException:
            store.delete(self.path)  # it may be there, whatever the error says
            raise

    @property
    def rows(self) -> int:
        """How many have been written."""
        return self._encoding.rows

    def has_place_for(self, table: pa.Table) -> bool:
        """Whether the file has all columns in which some rows have values, and takes the nulls that are in them."""
        return self._encoding.has_place_for(table)

    def add(self, table: pa.Table) -> None:
        """Write further rows, in the order they shall have.

        Raises:
            OSError: they could not be written; what there is of the file has been removed.
        """
        try:
            self._encoding.add(table)
        except BaseException:
            self.delete()
            raise

    def finish(self) -> DataFile:
        """End the file.

        Raises:
            OSError: it could not be written; what there is of it has been removed.
        """
        try:
            self._encoding.close()
            self._sink.close()
            size = self._target.stat().st_size
        except BaseException:
            self.delete()
            raise
        return self._encoding.file(self.path, size)

    def delete(self) -> None:
        """Remove what there is of the file."""
        self._encoding.give_up()
        with contextlib.suppress(OSError):
            self._sink.close()
        self._store.delete(self.path)


def _new_path(partition: Mapping[str, str], prefix: str) -> str:
    """Where a new file lies: in the folder of its partition, under a name that no other file has."""
    return "/".join([*(f"{name}={value}" for name, value in partition.items()), f"{prefix}{uuid4().hex}.parquet"])


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
    index = groups.schema.to_arrow_schema().get_field_index(STAMP)
    columns = [groups.row_group(number).column(index) for number in range(groups.num_row_groups)]
    with open(target, "r+b") as handle:
        changes = [change for column in columns for change in _stamp_changes(handle, column, old, new)]
        for place, data in changes:
            handle.seek(place)
            handle.write(data)
    store.publish(file.path)
    bounds = {STAMP: floor_ms(new)}, {STAMP: ceil_ms(new)}
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
