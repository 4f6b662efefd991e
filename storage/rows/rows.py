"""Rows of the values table as Arrow tables whose texts are dictionaries: what compaction works on.

A dictionary's codes take a fraction of the memory of text, and sort and compare as integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.contract.identity import series_bucket
from timedb.storage.delta.damage import damage_named
from timedb.storage.delta.dictionaries import as_type
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import read_batches
from timedb.storage.delta.store import Store
from timedb.storage.rows.slices import Slice
from timedb.storage.rows.sorting import Integers, sorted_order
from timedb.storage.tables.schemas import READ_HELD, VALUES_HELD

__all__ = [
    "ROWS",
    "SORT_ORDER",
    "as_rows",
    "batches_of",
    "codes",
    "flags",
    "frame_of_rows",
    "gathered",
    "in_file_order",
    "in_order",
    "integers",
    "keys_of",
    "pieces_by_valid_time",
    "read_rows",
    "rows_of_frame",
    "split_buckets",
    "taken",
]

ROWS = VALUES_HELD
"""The columns of the values table, texts as dictionaries."""

SORT_ORDER = ("series_id", "valid_time", "known_time", "change_time")
_BATCH_ROWS = 131_072


def read_rows(store: Store, file: DataFile, piece: Slice) -> pa.Table:
    """The rows of a file that lie in a slice: :data:`ROWS`.

    Raises:
        Damaged: the file is missing, or is not what was written.
    """
    kept = (_within(batch, piece) for batch in batches_of(store, file))
    return pa.Table.from_batches([batch for batch in kept if batch.num_rows], ROWS)


def batches_of(store: Store, file: DataFile, groups: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file: :data:`ROWS`.

    Args:
        store: The folder of the values table.
        file: A file of it.
        groups: Its row groups; None: all.

    Raises:
        Damaged: the file is missing, or is not what was written.
    """
    with damage_named(store, file.path):
        source = store.open(file.path)
        metadata = pq.read_metadata(source)
        there = [name for name in ROWS.names if metadata.schema.to_arrow_schema().get_field_index(name) >= 0]
        for batch in read_batches(source, metadata, there, _BATCH_ROWS, groups):
            yield _complete(_typed(batch))


def _typed(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [as_type(batch.column(name), ROWS.field(name).type) for name in batch.schema.names]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        batch.column(column.name) if column.name in batch.schema.names else pa.nulls(batch.num_rows, column.type)
        for column in ROWS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def _within(batch: pa.RecordBatch, piece: Slice) -> pa.RecordBatch:
    start, end = piece.valid_time
    first, last = piece.series_id
    tests = []
    times = batch.column("valid_time")
    if start is not None:
        tests.append(pc.greater_equal(times, pa.scalar(start, times.type)))
    if end is not None:
        tests.append(pc.less(times, pa.scalar(end, times.type)))
    if first is not None or last is not None:
        series = batch.column("series_id")
        names = series.dictionary
        inside = np.ones(len(names), dtype=np.bool_)
        if first is not None:
            inside &= pc.greater_equal(names, first).to_numpy(zero_copy_only=False)
        if last is not None:
            inside &= pc.less(names, last).to_numpy(zero_copy_only=False)
        tests.append(flags(inside[series.indices.to_numpy()]))
    for test in tests[1:]:
        tests[0] = pc.and_(tests[0], test)
    return batch.filter(tests[0]) if tests else batch


def as_rows(table: pa.Table) -> pa.Table:
    """Rows with the columns of the values table, as :data:`ROWS`: text made dictionaries."""
    columns = [
        pa.chunked_array([as_type(chunk, kind) for chunk in table.column(name).chunks], kind)
        for name, kind in zip(ROWS.names, ROWS.types, strict=True)
    ]
    return pa.table(columns, schema=ROWS)


def frame_of_rows(rows: pa.Table) -> pl.DataFrame:
    """Rows whose texts are dictionaries as a frame; text that rows share stays one."""
    columns = {name: _as_views(rows.column(name).combine_chunks()) for name in rows.column_names}
    return pl.DataFrame(pa.table(columns))


def _as_views(column: pa.Array) -> pa.Array:
    """A column with views of its dictionary in place of codes."""
    if pa.types.is_dictionary(column.type):
        texts = pl.Series(column.dictionary, dtype=pl.String).gather(pl.Series(column.indices, dtype=pl.UInt32))
        return texts.to_arrow(compat_level=pl.CompatLevel.newest())
    if pa.types.is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, _as_views(pc.list_flatten(column)), mask=pc.is_null(column))
    return column


def rows_of_frame(frame: pl.DataFrame, names: Sequence[str] = ROWS.names) -> pa.Table:
    """Rows of a frame as :data:`ROWS`, or some columns of ``READ_HELD``; text that rows share stays one."""
    # Polars' own conversion to the types of before its views writes each row's text out.
    found = frame.select(names).rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    columns = [
        pa.chunked_array([as_type(chunk, READ_HELD.field(name).type) for chunk in found.column(name).chunks])
        if found.num_rows
        else pa.chunked_array([], READ_HELD.field(name).type)
        for name in names
    ]
    return pa.table(columns, schema=pa.schema([READ_HELD.field(name) for name in names]))


def gathered(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables as one, each column in one piece, each identifier with one dictionary."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def codes(rows: pa.Table, name: str) -> Integers:
    """An identifier as integers in the order of its texts, null first; of :func:`gathered` rows."""
    if not rows.num_rows:
        return np.zeros(0, dtype=np.int64)
    column = rows.column(name).chunk(0)
    rank = np.empty(len(column.dictionary) + 1, dtype=np.int64)
    rank[pc.sort_indices(column.dictionary).to_numpy()] = np.arange(1, len(rank))
    rank[-1] = 0
    ranked: Integers = rank[pc.fill_null(column.indices, len(rank) - 1).to_numpy()]
    return ranked


def integers(rows: pa.Table | pa.RecordBatch, name: str) -> Integers:
    """A column of times as microseconds since 1970; an absent valid_time_end is the valid_time, which none else is."""
    column = rows.column(name)
    if column.null_count:
        column = pc.coalesce(column, rows.column("valid_time"))
    found: Integers = column.cast(pa.int64()).to_numpy()
    return found


def keys_of(rows: pa.Table, names: Sequence[str], *, descending: bool = False) -> list[Integers]:
    """Columns of :func:`gathered` rows as integers in the same order: identifiers and times.

    ``descending``: the later time is the lesser number; identifiers stay as they are.
    """
    found = []
    for name in names:
        is_text = pa.types.is_dictionary(rows.schema.field(name).type)
        key = codes(rows, name) if is_text else integers(rows, name)
        found.append(-key if descending and not is_text else key)
    return found


def in_order(rows: pa.Table, names: Sequence[str], *, descending: bool = False) -> pa.Table:
    """:func:`gathered` rows in ascending order of some columns, nulls first; ``descending``: later times first."""
    if "valid_time" in names and "valid_time_end" in names and not _has_values(rows, "valid_time_end"):
        names = [name for name in names if name != "valid_time_end"]  # it would only repeat the valid_time
    order = sorted_order(keys_of(rows, names, descending=descending)) if rows.num_rows else None
    return rows if order is None else taken(rows, order)


def _has_values(rows: pa.Table, name: str) -> bool:
    return bool(rows.column(name).null_count < rows.num_rows)


def in_file_order(rows: pa.Table) -> pa.Table:
    """Rows in the order of :data:`SORT_ORDER`."""
    return in_order(rows, SORT_ORDER)


def taken(rows: pa.Table, places: Integers) -> pa.Table:
    """The rows at some places of :func:`gathered` rows."""
    indices = pa.array(places)
    return pa.table(
        [
            pa.nulls(len(places), column.type) if column.null_count == len(column) else column.chunk(0).take(indices)
            for column in rows.columns
        ],
        schema=rows.schema,
    )


def flags(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.BooleanArray:
    """A mask for ``filter``; ``pa.array`` would look at each flag by itself."""
    bits = np.packbits(chosen, bitorder="little")
    return pa.BooleanArray.from_buffers(pa.bool_(), len(chosen), [None, pa.py_buffer(bits)])


def pieces_by_valid_time(rows: pa.Table, count: int) -> Iterator[pa.Table]:
    """Rows cut by valid_time into about equal pieces, as many as there are different enough times for."""
    times = integers(rows, "valid_time")
    ranked = np.sort(times)
    cuts = np.unique(ranked[[rows.num_rows * index // count for index in range(1, count)]])
    piece = np.searchsorted(cuts, times, side="right")
    for number in np.unique(piece):
        yield rows.filter(flags(piece == number))


def split_buckets(rows: pa.Table, bucket_digits: int | None) -> list[tuple[str, pa.Table]]:
    """Cut rows that are sorted by series_id into (bucket, rows) pieces."""
    series = rows.column("series_id").combine_chunks()
    if not pa.types.is_dictionary(series.type):
        series = series.dictionary_encode()
    codes = series.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    pieces: list[tuple[str, int]] = []
    for start, series_id in zip(starts, series.dictionary.take(codes[starts]).to_pylist(), strict=True):
        bucket = series_bucket(series_id, bucket_digits)
        if not pieces or pieces[-1][0] != bucket:
            pieces.append((bucket, int(start)))
    ends = [start for _, start in pieces[1:]] + [rows.num_rows]
    return [(bucket, rows.slice(start, end - start)) for (bucket, start), end in zip(pieces, ends, strict=True)]
