"""An upload from its first batch to its receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa

from storage.boundary import errors_are_ours
from storage.catalog import Catalog
from storage.delta_log import DataFile
from storage.digest import RowsDigest, fields_digest
from storage.lane import Write, split_buckets
from storage.normalise import BATCH, SeriesCodes, check_batch, check_columns, normalise
from storage.parquet import UPLOAD_PREFIX, stage_file
from storage.resolve import ResolvedSeries, resolve
from storage.runs import Run, RunRows, SkipUnchanged, StagedFiles, run_table
from storage.scan import ranges_meet, scan_staged
from storage.sorting import sort_rows
from storage.store import Store
from timedb.errors import IncompleteUpload, InvalidRequest, OutcomeUnknown, TimeDBError, TooLarge
from timedb.settings import ServerSettings
from timedb.times import format_time, now, to_micros
from timedb.wire import UploadCommand

__all__ = ["Upload"]

ROW_KEY = ("valid_time", "valid_time_end", "known_time")
_KEY_RANGES = ("series_id", "valid_time", "known_time")
_FREE_FIELDS = {"op", "run_id", "rows"}


class Upload:
    """One run on its way in. Nothing is visible before :meth:`commit` returns, nothing is left after :meth:`abort`.

    Up to ``upload_chunk_rows`` rows wait in memory; of a larger upload each chunk is sorted and written out while the
    stream goes on, so that memory stays bounded whatever its length.

    Args:
        command: What the client said of the run.
        schema: The columns of its stream.
        catalog: The tenant's series.
        store: The folder of the values table.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        submit: Gives a write its turn in the commit lane.
        skip_unchanged: Drops the rows that only repeat their predecessor; used where the command asks for it.
        settings: Limits.
        created_by: The key's e-mail.

    Raises:
        InvalidRequest: a column is missing, unknown or of a type that does not fit.
    """

    def __init__(
        self,
        command: UploadCommand,
        schema: pa.Schema,
        *,
        catalog: Catalog,
        store: Store,
        bucket_digits: int | None,
        submit: Callable[[Write], dict[str, Any]],
        skip_unchanged: SkipUnchanged,
        settings: ServerSettings,
        created_by: str | None,
    ) -> None:
        check_columns(schema)
        self._command = command
        self._catalog = catalog
        self._bucket_digits = bucket_digits
        self._submit = submit
        self._skip_unchanged = skip_unchanged if command.skip_unchanged else None
        self._settings = settings
        self._created_by = created_by
        self._received_time = now()
        self._known_time = command.known_time or self._received_time
        self._run_id = command.run_id or str(uuid4())
        self._codes = SeriesCodes()
        self._series: list[ResolvedSeries] = []
        self._stored_units: dict[str, str] = {}
        self._unit_fault: InvalidRequest | None = None
        self._digest = RowsDigest()
        self._batches: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._bytes = 0
        self._staged = StagedFiles(store, to_micros(self._received_time))
        self.received = 0

    @errors_are_ours()
    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch.

        Raises:
            InvalidRequest: names the column, row and value at fault.
            TooLarge: the upload is over a limit.
            NotFound: a series does not exist and may not be made.
        """
        check_batch(batch, self.received)
        self._bytes += batch.nbytes
        if self.received + batch.num_rows > self._settings.max_upload_rows:
            raise TooLarge(f"rows: the upload has more than {self._settings.max_upload_rows}, the limit of one upload")
        if self._bytes > self._settings.max_upload_bytes:
            raise TooLarge(
                f"batch: the upload has over {self._settings.max_upload_bytes} bytes, the limit of one upload"
            )
        if batch.num_rows:
            self._batches.append(normalise(batch, self._codes, self.received))
        self.received += batch.num_rows
        self._waiting_rows += batch.num_rows
        # What repeats stored values is found out in the lane, so such an upload stays in memory.
        if self._waiting_rows >= self._settings.upload_chunk_rows and self._skip_unchanged is None:
            self._stage(self._take_waiting())

    @errors_are_ours()
    def commit(self, confirmed_rows: int | None) -> dict[str, Any]:
        """Write the run.

        Args:
            confirmed_rows: How many rows the client says it sent; None if it did not say that it is done.

        Returns:
            The receipt of design section 4.

        Raises:
            IncompleteUpload: the client did not confirm what arrived.
            InvalidRequest, NotFound, Conflict: the run is refused.
        """
        for confirmed in (confirmed_rows, self._command.rows):
            if confirmed is not None and confirmed != self.received:
                raise IncompleteUpload(
                    f"rows: {confirmed} were announced, {self.received} arrived; nothing was written"
                )
        if confirmed_rows is None and self._command.rows is None:
            raise IncompleteUpload(
                "the stream ended without rows in the command or a commit marker; nothing was written"
            )
        waiting = self._take_waiting()
        bulk = waiting.frame.height >= self._settings.bulk_rows and self._skip_unchanged is None
        if self._staged.files or bulk:
            self._stage(waiting)
            self._refuse_duplicates_between_chunks()
        run = self._run(self._staged if self._staged.files else waiting)
        try:
            receipt = self._submit(run)
        except TimeDBError as error:
            if isinstance(error, OutcomeUnknown):
                self._staged.forget()  # a commit may refer to the files
            self._staged.delete()
            raise
        if run.answered:
            self._staged.delete()
        self._staged.forget()
        return receipt

    @errors_are_ours()
    def abort(self) -> None:
        """Forget what has arrived, files included."""
        self._batches.clear()
        self._staged.delete()

    def _take_waiting(self) -> RunRows:
        """The rows in memory, checked, sorted, and counted into the digest."""
        known = self._catalog.all()
        for identity in self._codes.identities[len(self._series) :]:
            self._series.append(resolve(identity, self._catalog, known, create=self._command.create_series))
        ids = sorted({one.series_id for one in self._series})
        rank = {series_id: index for index, series_id in enumerate(ids)}
        ranks = np.array([rank[one.series_id] for one in self._series], dtype=np.int32)
        frame = pl.DataFrame(pa.Table.from_batches(self._batches, BATCH))
        self._batches.clear()
        self._waiting_rows = 0
        frame = frame.with_columns(series=pl.Series(ranks[frame["series"].to_numpy()], dtype=pl.Int32))
        if self._command.run_id is not None:
            self._digest.add(frame, ids)  # of what was sent: a retry stays one whatever the series' units have become
        frame = self._in_stored_units(frame, ids)
        frame = frame.with_columns(pl.col("known_time").fill_null(self._known_time))
        frame = sort_rows(frame, ("series", *ROW_KEY))
        _refuse_duplicates(frame, "series", ids)
        return RunRows(frame, ids)

    def _in_stored_units(self, frame: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
        """Values in the unit of their series: of each that exists its own, of a new one that of the upload."""
        unit = self._command.unit
        if unit is None or self._unit_fault is not None:
            return frame
        from storage.units import convert_column

        for one in self._series:
            self._stored_units.setdefault(one.series_id, one.unit or unit)
        names = {one.series_id: one.name for one in self._series}
        old, new = [unit] * len(ids), [self._stored_units[series_id] for series_id in ids]
        try:
            values = convert_column(
                frame["value"], frame["series"], old, new, series=[names[series_id] for series_id in ids], field="unit"
            )
        except InvalidRequest as error:
            if self._command.run_id is None:
                raise
            self._unit_fault = error
            return frame
        return frame.with_columns(values)

    def _stage(self, rows: RunRows) -> None:
        if not rows.frame.height:
            return
        table = run_table(rows.frame, rows.series_ids, self._staged.stamp, self._run_id, self._created_by)
        for bucket, part in split_buckets(table, self._bucket_digits):
            partition = {"series_bucket": bucket, "tier": "fresh"}
            file = stage_file(self._staged.store, part, partition, UPLOAD_PREFIX)
            self._staged.files.append(file)
            self._staged.store.persist(file.path)

    def _refuse_duplicates_between_chunks(self) -> None:
        buckets: dict[str, list[DataFile]] = {}
        for file in self._staged.files:
            buckets.setdefault(file.partition["series_bucket"], []).append(file)
        for files in buckets.values():
            pairs = [pair for pair in combinations(files, 2) if ranges_meet(*pair, _KEY_RANGES)]
            if len(pairs) > len(files):
                self._refuse_duplicates_in(files, None)
                continue
            for pair in pairs:
                # Runs that follow each other share at most the known_times at the border of two chunks.
                low = max(file.minimum["known_time"] for file in pair)
                high = min(file.maximum["known_time"] for file in pair)
                border = pl.col("known_time").to_physical().is_between(low, high)
                self._refuse_duplicates_in(pair, border)

    def _refuse_duplicates_in(self, files: Sequence[DataFile], where: pl.Expr | None) -> None:
        rows = scan_staged(self._staged.store, files, [] if where is None else [where])
        keys = rows.select("series_id", *ROW_KEY).collect(engine="in-memory")
        _refuse_duplicates(sort_rows(keys, ("series_id", *ROW_KEY)), "series_id", None)

    def _run(self, content: RunRows | StagedFiles) -> Run:
        fields = self._command.model_dump(mode="json", include=self._command.model_fields_set - _FREE_FIELDS)
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
            stored_units=self._stored_units,
            unit_fault=self._unit_fault,
        )


def _refuse_duplicates(sorted_rows: pl.DataFrame, series: str, ids: Sequence[str] | None) -> None:
    names = (series, *ROW_KEY)
    if sorted_rows.height < 2:
        return
    same = sorted_rows.select(
        pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in names)
        & (pl.int_range(pl.len()) > 0)
    ).to_series()
    if same.any():
        row = sorted_rows.row(int(same.arg_max() or 0), named=True)
        series_id = row[series] if ids is None else ids[row[series]]
        end = "" if row["valid_time_end"] is None else f", valid_time_end {format_time(row['valid_time_end'])}"
        raise InvalidRequest(
            f"valid_time: {format_time(row['valid_time'])}{end} of series {series_id} "
            f"at known_time {format_time(row['known_time'])} is there twice in one upload"
        )
