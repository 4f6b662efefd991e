"""Rows that are an answer as they stand, streamed from their files without passing through a query engine.

pyarrow decodes text columns straight into dictionaries and reads a row group at a time, so memory does not grow with
the answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.contract.times import to_micros
from timedb.storage.delta.damage import damage_named
from timedb.storage.delta.dictionaries import as_type, used_entries
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import read_batches
from timedb.storage.delta.store import Store
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.rows.scan import RowSelection
from timedb.storage.rows.text_bytes import text_bytes
from timedb.storage.tables.schemas import VALUES_HELD

__all__ = ["stream_rows"]

_SMALL_ROWS = 65_536
_TEXT_BYTES = 16 << 20
_MICROSECOND = timedelta(microseconds=1)
Bounds = tuple[datetime | None, datetime | None, datetime | None]
"""From, before, and up to."""

_NO_TESTS: Mapping[str, Bounds] = {}
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
        picked = {"series_id": bool(series) or bucket is not None, "run_id": selection.run_ids is not None}
        asked = [*tests, *(name for name, is_picked in picked.items() if is_picked)]
        wanted = [*columns, *(name for name in (*_BOUNDED, *picked) if name in asked and name not in columns)]
        for batch in _batches(store, file, wanted, batch_rows, series, tests, cache):
            if bucket is not None:
                batch = _of_series(batch, pc.starts_with(_names(batch), bucket))
            if series:
                batch = _of_series(batch, pc.is_in(_names(batch), value_set=pa.array(series, pa.string())))
            for name, bounds in tests.items():
                batch = batch.filter(_mask(batch.column(name), bounds))
            if selection.run_ids is not None:
                batch = batch.filter(_is_one_of(batch.column("run_id"), list(selection.run_ids)))
            if batch.num_rows:
                batch = batch.select(list(columns))
                # Whoever asked for some series or runs is not told the names of others.
                yield used_entries(batch) if any(picked.values()) else batch


def _series_to_pick(selection: RowSelection, file: DataFile) -> list[str]:
    """The series of a selection in order, where the file may hold others; none where each of its rows passes."""
    if selection.series_ids is None:
        return []
    low, high = file.minimum.get("series_id"), file.maximum.get("series_id")
    return [] if low == high and low in selection.series_ids else sorted(selection.series_ids)


def _is_one_of(column: pa.DictionaryArray, texts: Sequence[str]) -> pa.Array:
    picked = pc.is_in(column.dictionary, value_set=pa.array(texts, column.dictionary.type))
    return picked.take(column.indices)


def _names(batch: pa.RecordBatch) -> pa.Array:
    return batch.column("series_id").dictionary


def _of_series(batch: pa.RecordBatch, wanted: pa.BooleanArray) -> pa.RecordBatch:
    """The rows of those series of the dictionary; one slice where a file is sorted, as it should be."""
    codes = batch.column("series_id").indices.to_numpy()
    places = np.flatnonzero(wanted.to_numpy(zero_copy_only=False)[codes])
    if not len(places) or places[-1] - places[0] + 1 == len(places):
        return batch.slice(places[0] if len(places) else 0, len(places))
    return batch.take(pa.array(places))


def _batches(
    store: Store,
    file: DataFile,
    columns: Sequence[str],
    batch_rows: int,
    series: Sequence[str],
    tests: Mapping[str, Bounds],
    cache: BatchCache | None,
) -> Iterable[pa.RecordBatch]:
    if cache is None or not _read_often(file):
        return _decoded(store, file, columns, batch_rows, series, tests)
    kept = cache.get(file.path, columns)
    if kept is not None:
        return kept
    if series and file.rows > _SMALL_ROWS:
        return _decoded(store, file, columns, batch_rows, series, tests)  # only whole files are kept
    return cache.keep(file.path, columns, _decoded(store, file, columns, batch_rows))


def _read_often(file: DataFile) -> bool:
    """Whether reads of the flat view open the file again and again, and it is no bulk upload."""
    return file.partition["tier"] == "current" or (file.partition["tier"] == "fresh" and file.rows <= _SMALL_ROWS)


def _decoded(
    store: Store,
    file: DataFile,
    columns: Sequence[str],
    batch_rows: int,
    series: Sequence[str] = (),
    tests: Mapping[str, Bounds] = _NO_TESTS,
) -> Iterator[pa.RecordBatch]:
    with damage_named(store, file.path):
        source = store.open(file.path)
        metadata = pq.read_metadata(source)
        there = [name for name in columns if metadata.schema.to_arrow_schema().get_field_index(name) >= 0]
        groups = _row_groups(metadata, series, tests) if series or tests else None
        if groups == []:
            return
        if (size := text_bytes(metadata, there)) > _TEXT_BYTES:
            batch_rows = max(1, min(batch_rows, metadata.num_rows * _TEXT_BYTES // size))
        for batch in read_batches(source, metadata, there, batch_rows, groups):
            yield _complete(batch, columns)


def _row_groups(metadata: pq.FileMetaData, series: Sequence[str], tests: Mapping[str, Bounds]) -> list[int]:
    """The row groups that may hold rows that are wanted, as far as their statistics tell.

    Args:
        metadata: Of the file.
        series: In ascending order; none: all.
        tests: The bounds of times.
    """
    places = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}
    schema = metadata.schema.to_arrow_schema()
    timed = [name for name in tests if name in places and schema.field(name).type == VALUES_HELD.field(name).type]
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if series and not _may_hold(group.column(places["series_id"]).statistics, series):
            continue
        if all(_may_reach(group.column(places[name]).statistics, tests[name]) for name in timed):
            found.append(number)
    return found


def _may_hold(bounds: pq.Statistics | None, series: Sequence[str]) -> bool:
    if bounds is None or not bounds.has_min_max:
        return True
    first = bisect_left(series, bounds.min)
    return first < len(series) and bool(series[first] <= bounds.max)


def _may_reach(bounds: pq.Statistics | None, wanted: Bounds) -> bool:
    if bounds is None or not bounds.has_min_max or bounds.physical_type != "INT64":
        return True
    start, before, up_to = (None if time is None else to_micros(time) for time in wanted)
    low, high = bounds.min_raw, bounds.max_raw
    return not (
        (start is not None and high < start)
        or (before is not None and low >= before)
        or (up_to is not None and low > up_to)
    )


def _complete(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """The batch with the columns that its file leaves out, which are null throughout; none marked as without nulls."""
    there = {
        name: as_type(batch.column(name), VALUES_HELD.field(name).type)
        if name in batch.schema.names
        else pa.nulls(batch.num_rows, VALUES_HELD.field(name).type)
        for name in columns
    }
    return pa.RecordBatch.from_pydict(there)


def _tests(selection: RowSelection) -> dict[str, Bounds]:
    """Column -> (from, before, up to) for the columns that have a bound."""
    changed_from = None if selection.changed_after is None else selection.changed_after + _MICROSECOND
    bounds = {
        "valid_time": (selection.start_valid, selection.end_valid, None),
        "known_time": (selection.start_known, selection.end_known, None),
        "change_time": (changed_from, None, selection.as_of),
    }
    return {name: bound for name, bound in bounds.items() if any(one is not None for one in bound)}


def _mask(column: pa.Array, bounds: Bounds) -> pa.Array:
    start, before, up_to = (None if one is None else pa.scalar(one, column.type) for one in bounds)
    mask = pa.scalar(True)
    for test, bound in ((pc.greater_equal, start), (pc.less, before), (pc.less_equal, up_to)):
        if bound is not None:
            mask = pc.and_(mask, test(column, bound))
    return mask
