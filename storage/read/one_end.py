"""A bucket read from one end of its valid_times, stretch by stretch, until there is enough: the last values of series,
or a page, without the rest of a long history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import chain

import pyarrow as pa

from timedb.contract.times import from_micros, to_micros
from timedb.storage.read.buckets import BucketRead
from timedb.storage.rows.ranking import last_points, points_by_series
from timedb.storage.rows.rows import gathered

__all__ = ["from_one_end", "last_of_series"]

_LEAST_ROWS = 1 << 16
"""Files of fewer rows are read at once: it costs no more than a part of them."""

_MORE = 2  # than there would be if rows lay evenly
_GROWTH = 4


def from_one_end(
    bucket: BucketRead, rows: int, *, descending: bool, slice_rows: int
) -> Iterator[tuple[BucketRead, int | None]]:
    """Reads of stretches of valid_time that together are the read of a bucket.

    The first is as long as about so many rows take, each that follows is four times as long.

    Args:
        bucket: The read, of which no row depends on another point.
        rows: How many rows of its files may be enough.
        descending: From the last valid_time on.
        slice_rows: Rows that are worked on at once, about.

    Returns:
        Reads, each with the valid_time (microseconds since 1970) that ends it: what follows is not before it, or
        ``descending`` before it; None: nothing follows.
    """
    before: int | None = None
    least = min(_LEAST_ROWS, slice_rows)
    for cut in chain(_cuts(bucket, max(rows, least // _GROWTH), least, descending), [None]):
        start, end = (cut, before) if descending else (before, cut)
        selection = bucket.selection
        if start is not None:
            selection = replace(selection, start_valid=from_micros(start))
        if end is not None:
            selection = replace(selection, end_valid=from_micros(end))
        stretch = bucket.narrowed(selection)
        if stretch is not None:
            yield stretch, cut
        before = cut


def _cuts(bucket: BucketRead, rows: int, least: int, descending: bool) -> Iterator[int]:
    """Where the stretches end, in the order in which they are read."""
    spans = [(file.minimum.get("valid_time"), file.maximum.get("valid_time"), file.rows) for file in bucket.files]
    known = [(low, high, held) for low, high, held in spans if isinstance(low, int) and isinstance(high, int)]
    total = sum(held for _, _, held in known)
    if len(known) < len(spans) or total <= max(least, _MORE * rows):
        return
    start, end = min(low for low, _, _ in known), max(high for _, high, _ in known) + 1
    if bucket.selection.start_valid is not None:
        start = max(start, to_micros(bucket.selection.start_valid))
    if bucket.selection.end_valid is not None:
        end = min(end, to_micros(bucket.selection.end_valid))
    reach = max(1, (end - start) * _MORE * rows // total)
    while reach < end - start:
        yield end - reach if descending else start + reach
        reach *= _GROWTH


def last_of_series(
    bucket: BucketRead,
    count: int,
    series_ids: Collection[str],
    rows: Callable[[BucketRead], pa.Table],
    *,
    of_series: int,
    slice_rows: int,
) -> pa.Table | None:
    """The rows of a read at the last points of some of its series: no more of their history is read than it takes.

    Args:
        bucket: The read, of which no row depends on another point.
        count: How many points of each series.
        series_ids: The series, all of that bucket.
        rows: Gives the answer of a read, one table with the columns of a point.
        of_series: How many series the bucket has.
        slice_rows: See :func:`from_one_end`.

    Returns:
        None where there is no row.
    """
    wanting, found, points = list(series_ids), list[pa.Table](), Counter[str]()
    wanted = count * max(of_series, len(wanting))
    for stretch, _ in from_one_end(bucket, wanted, descending=True, slice_rows=slice_rows):
        piece = stretch.narrowed(replace(stretch.selection, series_ids=wanting))
        if piece is None:
            continue
        found.append(last_points(rows(piece), count))
        points.update(points_by_series(found[-1]))
        wanting = [series_id for series_id in wanting if points[series_id] < count]
        if not wanting:
            break
    return last_points(gathered(found), count) if found else None
