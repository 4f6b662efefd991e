"""Rows that are an answer as they stand, streamed from their files without passing through a query engine.

pyarrow decodes text columns straight into dictionaries and reads a row group at a time, so memory does not grow with
the answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.storage.delta.damage import damage_named
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import as_type, read_batches, used_entries
from timedb.storage.delta.store import Store
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.rows.scan import RowSelection
from timedb.storage.tables.schemas import VALUES_HELD

__all__ = ["stream_rows"]

_SMALL_ROWS = 65_536
_MICROSECOND = timedelta(microseconds=1)
_BOUNDED = ("valid_time", "known_time", "change_time")


def stream_rows(
    store: Store,
    files: Iterable[DataFile],
    selection: RowSelection,
    columns: Sequence[str],
    batch_rows: int,
    cache: BatchCache | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of some files that pass a selection, in batches of at most ``batch_rows``.

    Args:
        store: The Delta table's folder.
        files: Data files.
        selection: Which rows; of settled files, which are sorted by series, only the row groups of its series are read.
            Of mixed files only the rows of its bucket pass.
        columns: Stored columns, in the order wanted; text comes as dictionaries.
        batch_rows: Rows of a batch.
        cache: Where rows of settled winners and of small uploads are kept for the next time; None: nowhere.
    """
    tests = _tests(selection)
    for file in files:
        series, bucket = _series_to_pick(selection, file), selection.bucket_to_pick(file)
        asked = [*tests, *(["series_id"] if series or bucket is not None else [])]
        wanted = [*columns, *(name for name in (*_BOUNDED, "series_id") if name in asked and name not in columns)]
        for batch in _batches(store, file, wanted, batch_rows, series, cache):
            if bucket is not None:
                batch = _of_bucket(batch, bucket)
            for name, bounds in tests.items():
                batch = batch.filter(_mask(batch.column(name), bounds))
            if series:
                batch = batch.filter(_of_series(batch.column("series_id"), series))
            if batch.num_rows:
                batch = batch.select(list(columns))
                # Whoever asked for some series is not told the names of others.
                yield used_entries(batch) if series or bucket is not None else batch


def _series_to_pick(selection: RowSelection, file: DataFile) -> list[str]:
    """The series of a selection in order, where the file may hold others; none where each of its rows passes."""
    if selection.series_ids is None:
        return []
    low, high = file.minimum.get("series_id"), file.maximum.get("series_id")
    return [] if low == high and low in selection.series_ids else sorted(selection.series_ids)


def _of_series(column: pa.DictionaryArray, series: Sequence[str]) -> pa.Array:
    picked = pc.is_in(column.dictionary, value_set=pa.array(series, column.dictionary.type))
    return picked.take(column.indices)


def _of_bucket(batch: pa.RecordBatch, bucket: str) -> pa.RecordBatch:
    """The rows of a bucket; where a file is sorted by series, as it should be, they follow each other."""
    column = batch.column("series_id")
    inside = np.array([series_id.startswith(bucket) for series_id in column.dictionary.to_pylist()], dtype=np.bool_)
    places = np.flatnonzero(inside[column.indices.to_numpy()])
    if not len(places) or places[-1] - places[0] + 1 == len(places):
        return batch.slice(places[0] if len(places) else 0, len(places))
    return batch.take(pa.array(places))


def _batches(
    store: Store,
    file: DataFile,
    columns: Sequence[str],
    batch_rows: int,
    series: Sequence[str],
    cache: BatchCache | None,
) -> Iterable[pa.RecordBatch]:
    if cache is None or not _read_often(file):
        return _decoded(store, file, columns, batch_rows, series)
    key = (file.path, *columns)
    kept = cache.get(key)
    if kept is not None:
        return kept
    if series and file.rows > _SMALL_ROWS:
        return _decoded(store, file, columns, batch_rows, series)  # only whole files are kept
    return cache.keep(key, _decoded(store, file, columns, batch_rows))


def _read_often(file: DataFile) -> bool:
    """Whether reads of the flat view open the file again and again, and it is no bulk upload."""
    return file.partition["tier"] == "current" or (file.partition["tier"] == "fresh" and file.rows <= _SMALL_ROWS)


def _decoded(
    store: Store, file: DataFile, columns: Sequence[str], batch_rows: int, series: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    with damage_named(store, file.path):
        source = store.open(file.path)
        metadata = pq.read_metadata(source)
        there = [name for name in columns if metadata.schema.to_arrow_schema().get_field_index(name) >= 0]
        groups = _row_groups(metadata, series) if series else None
        if groups == []:
            return
        for batch in read_batches(source, metadata, there, batch_rows, groups):
            yield _complete(batch, columns)


def _row_groups(metadata: pq.FileMetaData, series: Sequence[str]) -> list[int]:
    """The row groups that may hold some of the series, as far as their statistics tell.

    Args:
        metadata: Of the file.
        series: In ascending order.
    """
    column = metadata.schema.to_arrow_schema().get_field_index("series_id")
    found = []
    for group in range(metadata.num_row_groups):
        bounds = metadata.row_group(group).column(column).statistics
        if bounds is not None and bounds.has_min_max:
            first = bisect_left(series, bounds.min)
            if first == len(series) or series[first] > bounds.max:
                continue
        found.append(group)
    return found


def _complete(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """The batch with the columns that its file leaves out, which are null throughout; none marked as without nulls."""
    there = {
        name: as_type(batch.column(name), VALUES_HELD.field(name).type)
        if name in batch.schema.names
        else pa.nulls(batch.num_rows, VALUES_HELD.field(name).type)
        for name in columns
    }
    return pa.RecordBatch.from_pydict(there)


def _tests(selection: RowSelection) -> dict[str, tuple[datetime | None, datetime | None, datetime | None]]:
    """Column -> (from, before, up to) for the columns that have a bound."""
    changed_from = None if selection.changed_after is None else selection.changed_after + _MICROSECOND
    bounds = {
        "valid_time": (selection.start_valid, selection.end_valid, None),
        "known_time": (selection.start_known, selection.end_known, None),
        "change_time": (changed_from, None, selection.as_of),
    }
    return {name: bound for name, bound in bounds.items() if any(one is not None for one in bound)}


def _mask(column: pa.Array, bounds: tuple[datetime | None, datetime | None, datetime | None]) -> pa.Array:
    start, before, up_to = (None if one is None else pa.scalar(one, column.type) for one in bounds)
    mask = pa.scalar(True)
    for test, bound in ((pc.greater_equal, start), (pc.less, before), (pc.less_equal, up_to)):
        if bound is not None:
            mask = pc.and_(mask, test(column, bound))
    return mask
