"""The rows of a read, bucket by bucket: as they are stored where they are the answer, through Polars where not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa

from timedb.contract.times import to_micros
from timedb.contract.wire import ReadCommand
from timedb.storage.catalog.catalog import Series
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.measures.units import convert_frame
from timedb.storage.memory.server import ROW_BYTES
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.read.buckets import BucketRead
from timedb.storage.read.cursor import Place
from timedb.storage.read.filling import Grid
from timedb.storage.read.latest import LastRows, latest_over
from timedb.storage.read.one_end import last_of_series
from timedb.storage.read.resample import resample
from timedb.storage.read.slicing import rows_by_series, sliced
from timedb.storage.read.streaming import stream_rows
from timedb.storage.read.winners import DECISIVE, BoundingBox, winners_of
from timedb.storage.read.written_out import BATCH_ROWS
from timedb.storage.rows.ranking import last_points
from timedb.storage.rows.rows import gathered, rows_of_frame
from timedb.storage.rows.text_bytes import rows_of_bytes
from timedb.storage.rows.texts_aside import TextsAside
from timedb.storage.tables.schemas import READ_HELD, VALUES_DATA

__all__ = ["Answers"]

_LARGE_SHARE = 0.2
_FEW_ROWS = 1 << 17
"""So many are decoded in less time than the engine takes to begin."""
_TEXT_BYTES = 64 << 20
_STREAMED_ROWS = 2 * BATCH_ROWS


class Answers:
    """The rows of the answers of buckets, with stored columns, their texts as dictionaries.

    Attributes:
        hold: Called with bytes before so much more is taken at once.
        slice_rows: Rows that are worked on at once, about.

    Args:
        read: What is read.
        columns: The stored columns that are wanted, in the order of the values table.
        store: The folder of the values table.
        series: All series by id.
        last_rows: The last rows of settled files.
        cache: Rows that are read often; None: none is kept.
        slice_rows: Rows that are worked on at once, about.
        place: The rows up to it are left out, of those that it is about; None: none are.
        max_fill_rows: Rows that may be added for periods without a value.
    """

    def __init__(
        self,
        read: ReadCommand,
        columns: Sequence[str],
        *,
        store: Store,
        series: Mapping[str, Series],
        last_rows: LastRows,
        cache: BatchCache | None,
        slice_rows: int,
        max_fill_rows: int,
        place: Place | None = None,
    ) -> None:
        self._read = read
        self._columns = columns
        self._store = store
        self._series = series
        self._last_rows = last_rows
        self._cache = cache
        self.slice_rows = slice_rows
        self._place = place
        self.hold: Callable[[int], object] = lambda _: None
        self._kept_rows = 0
        self._by_bucket: defaultdict[str, list[str]] | None = None
        flat = read.view != "overlapping"  # whose periods are those of the read; a run has its own
        start, end = (bound if flat and bound else None for bound in (read.start_valid, read.end_valid))
        self._grid = Grid(
            None if start is None else to_micros(start),
            None if end is None else to_micros(end),
            max_fill_rows,
            lambda rows: self.hold(rows * ROW_BYTES),
        )

    def batches(self, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        """The rows of a bucket's answer, in no particular order."""
        if self._read.last is not None:
            for rows in self._last(bucket, self._read.last):
                yield from rows.to_batches(max_chunksize=BATCH_ROWS)
            return
        for piece in self._pieces(bucket):
            self._hold(piece)
            yield from self._batches(piece)

    def _last(self, bucket: BucketRead, count: int) -> Iterator[pa.Table]:
        """The rows at the last so many points of each series, some series at a time, in their order."""
        if not self._read.is_by_point:
            yield from (last_points(rows, count) for rows in self._gathered(self._sliced(bucket)))
            return

        def rows(piece: BucketRead) -> pa.Table:
            return gathered(
                [self._empty(), *(last_points(each, count) for each in self._gathered(self._pieces(piece)))]
            )

        every = self._series_by_bucket(len(bucket.bucket))[bucket.bucket]
        asked = every if bucket.selection.series_ids is None else sorted(bucket.selection.series_ids)
        together = max(1, self.slice_rows // count)
        kept = min(count * min(together, len(asked)), sum(max(file.rows, 0) for file in bucket.files))
        if kept > self._kept_rows:
            self.hold((kept - self._kept_rows) * ROW_BYTES)
            self._kept_rows = kept
        for first in range(0, len(asked), together):
            some = asked[first : first + together]
            found = last_of_series(bucket, count, some, rows, of_series=len(every), slice_rows=self.slice_rows)
            if found is not None:
                yield found

    def _series_by_bucket(self, digits: int) -> Mapping[str, Sequence[str]]:
        """The ids of all series by the first digits, in order."""
        if self._by_bucket is None:
            self._by_bucket = defaultdict(list)
            for series_id in sorted(self._series):
                self._by_bucket[series_id[:digits]].append(series_id)
        return self._by_bucket

    def _empty(self) -> pa.Table:
        return pa.schema([READ_HELD.field(name) for name in self._columns]).empty_table()

    def _batches(self, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        found = self._rows(bucket)
        return found if self._place is None else self._beyond(found, self._place)

    def _beyond(self, batches: Iterator[pa.RecordBatch], place: Place) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from place.beyond(pa.Table.from_batches([batch])).to_batches()

    def _rows(self, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        if self._needs_no_engine(bucket):
            if bucket.is_stored:
                return self._as_stored(bucket)
            if bucket.is_of_uploads:
                return self._winners(bucket)
        return iter(self._computed(bucket).to_batches())

    def _pieces(self, bucket: BucketRead) -> list[BucketRead]:
        """The read in slices, where it has many rows and does not just stream them."""
        streams = bucket.is_stored and self._needs_no_engine(bucket)
        if streams or (self._read.view == "latest" and bucket.is_last_of_settled):
            return [bucket]
        return self._sliced(bucket)

    def _sliced(self, bucket: BucketRead) -> list[BucketRead]:
        read = self._read
        most = rows_of_bytes(self._store, bucket.files, self.slice_rows, _TEXT_BYTES, self._columns)
        return sliced(self._store, bucket, most, whole_series=not read.is_by_point, descending=read.descending)

    def _hold(self, piece: BucketRead) -> None:
        """Ask for the memory of a slice that could not be cut as small as others are."""
        if piece.slice_rows > self.slice_rows:
            self.hold((piece.slice_rows - self.slice_rows) * ROW_BYTES)

    def rows_at_once(self, buckets: Sequence[BucketRead]) -> int:
        """Rows of the answer of some buckets that are worked on at once, at most, where they can be cut."""
        streams = all(bucket.is_stored and self._needs_no_engine(bucket) for bucket in buckets)
        return _STREAMED_ROWS if streams else self.slice_rows

    def rows_by_series(self, buckets: Sequence[BucketRead]) -> Counter[str]:
        """How many stored rows that pass the filters each series has."""
        return sum((rows_by_series(self._store, bucket) for bucket in buckets), Counter())

    def tables(self, bucket: BucketRead) -> Iterator[pa.Table]:
        """The same as tables of one chunk."""
        for batch in self.batches(bucket):
            yield pa.Table.from_batches([batch]).select(self._columns)

    def gathered(self, bucket: BucketRead) -> Iterator[pa.Table]:
        """The same as ``timedb.storage.rows.rows.gathered`` tables, one after the other by series and valid_time."""
        if self._read.last is not None:
            return self._last(bucket, self._read.last)
        return self._gathered(self._sliced(bucket))

    def _gathered(self, pieces: Iterable[BucketRead]) -> Iterator[pa.Table]:
        for piece in pieces:
            self._hold(piece)
            batches = (pa.Table.from_batches([batch]).select(self._columns) for batch in self._batches(piece))
            yield gathered([self._empty(), *batches])

    def _needs_no_engine(self, bucket: BucketRead) -> bool:
        """Whether stored rows can go out as they are; a few of many are picked out faster by the engine."""
        if self._read.unit is not None or self._read.resample is not None:
            return False
        if bucket.slice_rows:
            return True
        if bucket.selection.series_ids is None or bucket.selection.selectivity(bucket.files) >= _LARGE_SHARE:
            return True
        rows = [file.rows for file in bucket.files]  # of a file of another writer it may be unknown
        return min(rows, default=0) >= 0 and sum(rows) <= _FEW_ROWS

    def _stored(self, bucket: BucketRead, file: DataFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        cache = None if bucket.slice_rows else self._cache  # a long read would drive out what is read often
        return stream_rows(self._store, [file], bucket.selection, columns, BATCH_ROWS, cache)

    def _as_stored(self, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        for file in bucket.files:
            yield from self._stored(bucket, file, self._columns)

    def _winners(self, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        """The winners of a bucket: settled ones as they are stored where no fresh row is near."""
        columns = self._columns
        deciding = [name for name in VALUES_DATA.names if name in columns or name in DECISIVE]
        settled = bucket.files_of(bucket.recipe.settled)
        competing = bucket.files_of(("fresh",)) if bucket.recipe.settled else bucket.files
        rivals: list[pa.Table] = []
        fresh = winners_of(competing, lambda file: self._stored(bucket, file, deciding), deciding)
        for file in settled:
            rows = self._stored(bucket, file, deciding if fresh.num_rows else columns)
            yield from BoundingBox.around(fresh).split(rows, columns, rivals) if fresh.num_rows else rows
        if rivals:
            found = [one for part in (*rivals, fresh) for one in part.to_batches()]
            fresh = winners_of(bucket.files[:1], lambda _: found, deciding)
        yield from fresh.select(columns).to_batches(max_chunksize=BATCH_ROWS) if fresh.num_rows else ()

    def _computed(self, bucket: BucketRead) -> pa.Table:
        if self._read.view == "latest" and bucket.is_last_of_settled:
            return rows_of_frame(self._finished(self._last_of_settled(bucket)), self._columns)
        wanted = [
            name
            for name in VALUES_DATA.names
            if name in self._columns or (not bucket.is_stored and name in (*DECISIVE, "retracted"))
        ]
        texts = TextsAside()

        def rows(tiers: Collection[str]) -> pl.DataFrame:
            return texts.take_out(bucket.scan(self._store, tiers).select(wanted).collect(engine="in-memory"))

        found = self._finished(bucket.answer(rows, wanted))
        return texts.put_back(found, found.columns)

    def _finished(self, rows: pl.DataFrame) -> pl.DataFrame:
        return self._resampled(self._converted(rows.select(self._columns)))

    def _last_of_settled(self, bucket: BucketRead) -> pl.DataFrame:
        settled, found = self._last_rows.read(bucket.files_of(("current",))), bucket.files_of(("fresh",))
        rows = int(sum(max(file.rows, 0) for file in found) * bucket.selection.selectivity(found))
        if rows > self.slice_rows:
            self.hold((rows - self.slice_rows) * ROW_BYTES)
        fresh = [bucket.scan(self._store, ("fresh",)).collect(engine="in-memory")] if found or not settled else []
        return latest_over(fresh, settled, bucket.selection)

    def _converted(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._read.unit is None or "value" not in rows.columns:
            return rows
        units = {series_id: series.unit for series_id, series in self._series.items()}
        return convert_frame(rows, units, self._read.unit, field="unit")

    def _resampled(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._read.resample is None:
            return rows
        revision = ("series_id", "known_time", "run_id")
        by = revision if self._read.view == "overlapping" else revision[:1]
        return resample(rows, self._read.resample, by, grid=self._grid)
