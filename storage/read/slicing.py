"""A read of a bucket cut into reads of so few rows that each fits in memory, with all rows of its points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from timedb.contract.times import from_micros
from timedb.storage.delta.store import Store
from timedb.storage.read.buckets import BucketRead
from timedb.storage.read.streaming import stream_rows
from timedb.storage.rows.rows import integers
from timedb.storage.rows.scan import RowSelection
from timedb.storage.rows.sorting import Integers

__all__ = ["rows_by_series", "sliced"]

_BATCH_ROWS = 65_536
_STEP = 512  # of so many times in order one is looked at

Stretch = tuple[datetime | None, datetime | None]


def rows_by_series(store: Store, bucket: BucketRead) -> Counter[str]:
    """How many rows each series has among those that pass the filters."""
    counts: Counter[str] = Counter()
    for batch in stream_rows(store, bucket.files, bucket.selection, ["series_id"], _BATCH_ROWS):
        coded = batch.column("series_id")
        found = np.bincount(coded.indices.to_numpy(), minlength=len(coded.dictionary)).tolist()
        for series_id, count in zip(coded.dictionary.to_pylist(), found, strict=True):
            if count:
                counts[series_id] += count
    return counts


def sliced(
    store: Store, bucket: BucketRead, most_rows: int, *, whole_series: bool = False, descending: bool = False
) -> list[BucketRead]:
    """Reads that together are the read of a bucket, by series and then by valid_time.

    Args:
        store: The folder of the values table.
        bucket: The read.
        most_rows: Rows of a slice, about; one of a single valid_time may have more.
        whole_series: Cut no series in two, however many rows it has.
        descending: Of a series the later valid_times first.
    """
    if sum(max(file.rows, 0) for file in bucket.files) <= most_rows:
        return [bucket]
    pieces: list[tuple[RowSelection, int]] = []
    together: list[str] = []
    rows = 0
    for series_id, count in sorted(rows_by_series(store, bucket).items()):
        if together and rows + count > most_rows:
            pieces.append((replace(bucket.selection, series_ids=together), rows))
            together, rows = [], 0
        if count > most_rows and not whole_series:
            one = replace(bucket.selection, series_ids=[series_id])
            stretches = _stretches(store, bucket, one, -(-count // most_rows))
            cut = [(replace(one, start_valid=start, end_valid=end), most_rows) for start, end in stretches]
            pieces += cut[::-1] if descending else cut
        else:
            together.append(series_id)
            rows += count
    if together:
        pieces.append((replace(bucket.selection, series_ids=together), rows))
    found = [bucket.narrowed(piece, count) for piece, count in pieces]
    return [piece for piece in found if piece is not None]


def _stretches(store: Store, bucket: BucketRead, selection: RowSelection, count: int) -> list[Stretch]:
    """Stretches of valid_time with about as many rows each: cut between samples of the times."""
    rows = stream_rows(store, bucket.files, selection, ["valid_time"], _BATCH_ROWS)
    samples = np.sort(np.concatenate([np.sort(times)[_STEP // 2 :: _STEP] for times in _together(rows)]))
    places = [len(samples) * number // count for number in range(1, count)]
    cuts = [from_micros(int(micros)) for micros in np.unique(samples[places])] if len(samples) else []
    return list(zip([selection.start_valid, *cuts], [*cuts, selection.end_valid], strict=True))


def _together(batches: Iterator[pa.RecordBatch]) -> Iterator[Integers]:
    """The times of batches, of so many that a sample of them is one."""
    held: list[Integers] = []
    for batch in batches:
        held.append(integers(batch, "valid_time"))
        if sum(map(len, held)) >= _BATCH_ROWS:
            yield np.concatenate(held)
            held = []
    yield np.concatenate([np.zeros(0, dtype=np.int64), *held])
