"""A large upload: sorted, and written to files of its own, while its stream goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.digest import RowsDigest, fields_digest
from timedb.contract.identity import series_bucket
from timedb.contract.settings import ServerSettings
from timedb.contract.times import format_time, to_micros
from timedb.contract.wire import UploadFields
from timedb.storage.catalog.resolve import ResolvedSeries, resolve
from timedb.storage.commit.writes import Write
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.memory.budget import Memory, MemoryShare
from timedb.storage.rows.normalise import BATCH, SeriesCodes, normalise
from timedb.storage.rows.probability import with_labels
from timedb.storage.rows.rows import split_buckets
from timedb.storage.rows.scan import scan_staged
from timedb.storage.rows.sorting import Integers
from timedb.storage.rows.stamping import StampedRun, stamped
from timedb.storage.write.ordering import Extent, extent, refuse_duplicates, sorted_by_series
from timedb.storage.write.runs import FREE_FIELDS, Run, RunRows, SkipUnchanged, Writer, default_known_time
from timedb.storage.write.staging import StagedFiles
from timedb.storage.write.stated_unit import StatedUnit

__all__ = ["LargeUpload"]

_CHUNK_BYTES = 64 << 20  # rows that wait in memory
_CHUNK_SHARE = 16  # of the memory for calls
_CHUNKS_HELD = 4  # one that arrives, one that is put in order, its copy, and what is encoded
_SMALL_PART = 8


class LargeUpload:
    """A run that is too large to wait in memory as it came, on its way in.

    Up to ``upload_chunk_rows`` rows wait in memory; of a larger upload each chunk is sorted and written out while the
    stream goes on, so that memory stays bounded whatever its length.

    Args:
        command: What the client said of the run.
        run_id: The run.
        received_time: When it began to come.
        writer: Who uploads.
        store: The folder of the values table.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        submit: Gives a write its turn in the commit lane.
        skip_unchanged: Drops the rows that only repeat their predecessor; None: all rows are written.
        newest: The greatest change_time that the values have, microseconds since 1970.
        settings: Limits.
        memory: Of which it takes a share.
    """

    def __init__(
        self,
        command: UploadFields,
        *,
        run_id: str,
        received_time: datetime,
        writer: Writer,
        store: Store,
        bucket_digits: int | None,
        submit: Callable[[Write], dict[str, Any]],
        skip_unchanged: SkipUnchanged | None,
        newest: int,
        settings: ServerSettings,
        memory: Memory,
    ) -> None:
        self._command = command
        self._catalog = writer.catalog
        self._bucket_digits = bucket_digits
        self._submit = submit
        self._skip_unchanged = skip_unchanged
        self._settings = settings
        self._withdrawn = writer.withdrawn
        self._created_by = writer.created_by
        self._received_time = received_time
        self._known_time = command.known_time or default_known_time(received_time, newest)
        self._run_id = run_id
        self._codes = SeriesCodes()
        self._series: list[ResolvedSeries] = []
        self._units_seen: int | None = None
        self._unit = StatedUnit(command.unit, named=command.run_id is not None)
        self._digest = RowsDigest()
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._waiting_rows = self._waiting_bytes = 0
        self._memory = memory
        self._share: MemoryShare | None = None
        self._chunk_bytes = min(_CHUNK_BYTES, memory.for_calls // _CHUNK_SHARE)
        self._staged = StagedFiles(store, to_micros(self._received_time), file_rows=settings.compact_file_rows)
        self._numbers: dict[str, int] = {}
        self._extents: list[Extent] = []
        self._aside: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch, which is sound and within the limits.

        Raises:
            InvalidRequest: names the column, row and value at fault.
            NotFound: a series does not exist and may not be made.
            Busy, TooLarge: there is no memory for it.
        """
        if batch.num_rows:
            self._batches.append(normalise(with_labels(batch, self._rows), self._codes, self._rows))
            self._waiting_bytes += self._batches[-1].nbytes
        self._rows += batch.num_rows
        self._waiting_rows += batch.num_rows
        self._ask_for_memory()
        # What repeats stored values is found out in the lane, so such an upload stays in memory.
        full = self._waiting_rows >= self._settings.upload_chunk_rows or self._waiting_bytes >= self._chunk_bytes
        if full and self._skip_unchanged is None:
            self._stage_aside(self._take_waiting())

    def _ask_for_memory(self) -> None:
        """Take a share once that is worth asking for: all that it will need, so that no two wait for each other.

        Raises:
            Busy, TooLarge: there is none.
        """
        if self._skip_unchanged is not None and self._share is not None:
            if (more := _CHUNKS_HELD * self._waiting_bytes - self._share.size) > 0:
                self._share.grow(more)
        elif self._share is None and self._waiting_bytes > self._chunk_bytes // _SMALL_PART:
            self._share = self._memory.share("batch", _CHUNKS_HELD * self._chunk_bytes)

    def _give_back(self) -> None:
        if self._share is not None:
            self._share.release()

    def commit(self) -> dict[str, Any]:
        """Write the run, which is whole; its receipt.

        Raises:
            InvalidRequest, NotFound, Conflict: the run is refused.
        """
        waiting = self._take_waiting()
        bulk = waiting.table.num_rows >= self._settings.bulk_rows and self._skip_unchanged is None
        if self._aside is not None or bulk:
            self._finish_staging(waiting)
            run = self._run(self._staged)
        else:
            run = self._run(self._in_order(waiting)[0])
        with self._staged:
            receipt = self._submit(run)
            if not run.answered:
                self._staged.keep()
        self._give_back()
        return receipt

    def abort(self) -> None:
        """Forget what has arrived, files included."""
        self._batches = []
        self._give_back()
        with contextlib.suppress(Exception):  # why the upload failed is known by now
            self._wait()
        self._end_thread()
        self._staged.delete()

    def _take_waiting(self) -> RunRows:
        """The rows in memory as they came, with their series found."""
        if fresh := self._codes.identities[len(self._series) :]:
            known, create = self._catalog.known(), self._command.create_series
            self._units_seen = known.units if self._units_seen is None else self._units_seen
            self._series += [resolve(identity, self._catalog, known, create=create) for identity in fresh]
        ids = sorted({one.series_id for one in self._series})
        rank = {series_id: index for index, series_id in enumerate(ids)}
        ranks = np.array([rank[one.series_id] for one in self._series], dtype=np.int32)
        table = pa.Table.from_batches(self._batches, BATCH).combine_chunks()
        self._batches = []
        self._waiting_rows = self._waiting_bytes = 0
        series = pa.array(ranks[table.column("series").to_numpy()], pa.int32())
        return RunRows(table.set_column(0, BATCH.field("series"), series), ids)

    def _in_order(self, rows: RunRows) -> tuple[RunRows, Integers]:
        """Rows checked, sorted, and counted into the digest; where each series begins among them."""
        table, ids = rows.table, rows.series_ids
        if self._command.run_id is not None:
            # Of what was sent: a retry stays one whatever the series' units have become.
            self._digest.add(table, ids)
        table = _set(table, "value", self._unit.converted(table, ids, self._series))
        known_times = table.column("known_time")
        if known_times.null_count:
            known_time = pa.scalar(self._known_time, known_times.type)
            table = _set(table, "known_time", known_times.fill_null(known_time))
        table, starts = sorted_by_series(table, ids)
        return RunRows(table, ids), starts

    def _stage_aside(self, rows: RunRows) -> None:
        """Sort and write rows in a thread of the upload's own, one chunk at a time, while the next one arrives."""
        self._wait()
        if rows.table.num_rows:
            self._aside = self._aside or ThreadPoolExecutor(1, "timedb-upload")
            self._pending = self._aside.submit(self._stage, rows)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _stage(self, rows: RunRows) -> None:
        rows, starts = self._in_order(rows)
        for series_id in rows.series_ids:
            self._numbers.setdefault(series_id, len(self._numbers))
        numbers = np.array([self._numbers[series_id] for series_id in rows.series_ids])
        self._extents.append(extent(rows.table, starts, numbers))
        table = stamped([StampedRun(rows.table, rows.series_ids, self._staged.stamp, self._run_id, self._created_by)])
        self._staged.add(split_buckets(table, self._bucket_digits))

    def _finish_staging(self, last: RunRows) -> None:
        """Write the last rows, end all files, and see that no row is there twice."""
        try:
            self._stage_aside(last)
            self._wait()
            files = self._staged.finish()
            meetings = [found for one, two in combinations(self._extents, 2) if (found := one.meeting(two)) is not None]
            if meetings:
                low, high = min(low for _, low, _ in meetings), max(high for _, _, high in meetings)
                numbers = np.unique(np.concatenate([series for series, _, _ in meetings]))
                ids = list(self._numbers)
                self._refuse_duplicates_of([ids[number] for number in numbers], low, high, files)
        except BaseException:
            self.abort()
            raise
        finally:
            self._end_thread()

    def _refuse_duplicates_of(self, series_ids: Sequence[str], low: int, high: int, files: Sequence[DataFile]) -> None:
        """Look for keys that two chunks share: in some series, from one known_time to another (microseconds)."""
        buckets: dict[str, list[str]] = {}
        for series_id in series_ids:
            buckets.setdefault(series_bucket(series_id, self._bucket_digits), []).append(series_id)
        for bucket, mine in buckets.items():
            mine = sorted(mine)
            held = [file for file in files if file.partition["series_bucket"] == bucket]
            where = pl.col("series_id").is_in(mine), pl.col("known_time").to_physical().is_between(low, high)
            codes = pl.col("series_id").cast(pl.Enum(mine)).to_physical().cast(pl.Int32).alias("series")
            found = scan_staged(self._staged.store, held, where).select(
                codes, "valid_time", "valid_time_end", "known_time"
            )
            refuse_duplicates(found.collect(engine="in-memory").to_arrow(), mine)

    def _end_thread(self) -> None:
        if self._aside is not None:
            self._aside.shutdown()
            self._aside = None

    def _run(self, content: RunRows | StagedFiles) -> Run:
        fields = self._command.model_dump(mode="json", include=self._command.model_fields_set - FREE_FIELDS)
        return Run(
            command=self._command,
            run_id=self._run_id,
            run_start_time=format_time(self._command.run_start_time or self._received_time),
            known_time=format_time(self._known_time),
            content=content,
            series=list({one.series_id: one for one in self._series}.values()),
            digest=fields_digest(fields, self._digest.text()) if self._command.run_id is not None else "",
            created_by=self._created_by,
            skip_unchanged=self._skip_unchanged,
            withdrawn=self._withdrawn,
            units_seen=self._units_seen or 0,
            stored_units=self._unit.stored,
            unit_fault=self._unit.fault,
        )


def _set(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    index = table.column_names.index(name)
    return table if column is table.column(name) else table.set_column(index, table.field(index), column)
