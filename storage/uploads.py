"""An upload from its first batch to its receipt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa

from storage.catalog import Catalog
from storage.digest import fields_digest, rows_digest
from storage.lane import Answer, Prepared, Turn, Write
from storage.normalise import BATCH, Identity, SeriesCodes, check_columns, normalise
from storage.schemas import VALUES_DATA
from timedb.errors import Conflict, IncompleteUpload, InvalidRequest, NotFound, TooLarge
from timedb.times import format_time, from_micros, now
from timedb.wire import UploadCommand, shown

__all__ = ["Run", "Upload"]

ROW_KEY = ("series", "valid_time", "valid_time_end", "known_time")
SkipUnchanged = Callable[["Turn", pl.DataFrame], pl.DataFrame]
_FREE_FIELDS = {"op", "run_id", "rows"}


class Upload:
    """One run on its way in. Nothing is visible before :meth:`commit` returns.

    Args:
        command: What the client said of the run.
        schema: The columns of its stream.
        catalog: The tenant's series.
        submit: Gives a write its turn in the commit lane.
        skip_unchanged: Drops the rows that only repeat their predecessor; used where the command asks for it.
        max_rows: Rows that an upload may have.
        max_bytes: Arrow bytes that it may have.
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
        submit: Callable[[Write], dict[str, Any]],
        skip_unchanged: SkipUnchanged,
        max_rows: int,
        max_bytes: int,
        created_by: str | None,
    ) -> None:
        check_columns(schema)
        self._command = command
        self._schema = schema
        self._catalog = catalog
        self._submit = submit
        self._skip_unchanged = skip_unchanged
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._created_by = created_by
        self._received_time = now()
        self._codes = SeriesCodes()
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self.received = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch.

        Raises:
            InvalidRequest: names the column, row and value at fault.
            TooLarge: the upload is over a limit.
        """
        self._bytes += batch.nbytes
        if self.received + batch.num_rows > self._max_rows:
            raise TooLarge(f"rows: the upload has more than {self._max_rows}, the limit of one upload")
        if self._bytes > self._max_bytes:
            raise TooLarge(f"batch: the upload has more than {self._max_bytes} bytes, the limit of one upload")
        if batch.num_rows:
            self._batches.append(normalise(batch, self._codes, self.received))
        self.received += batch.num_rows

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
        return self._submit(self._run())

    def abort(self) -> None:
        """Forget what has arrived."""
        self._batches.clear()

    def _run(self) -> Run:
        known_time = self._command.known_time or self._received_time
        series = _resolve(self._codes.identities, self._catalog, create=self._command.create_series)
        frame = pl.DataFrame(pa.Table.from_batches(self._batches, BATCH))
        self._batches.clear()
        ids = sorted({one.series_id for one in series})
        rank = {series_id: index for index, series_id in enumerate(ids)}
        ranks = np.array([rank[one.series_id] for one in series], dtype=np.int32)
        frame = frame.with_columns(series=pl.Series(ranks[frame["series"].to_numpy()], dtype=pl.Int32))
        fields = self._command.model_dump(mode="json", include=self._command.model_fields_set - _FREE_FIELDS)
        digest = fields_digest(fields, rows_digest(frame, ids)) if self._command.run_id else ""
        frame = frame.with_columns(pl.col("known_time").fill_null(known_time)).sort(*ROW_KEY)
        _refuse_duplicates(frame, ids)
        descriptions = self._command.series_descriptions or {}
        return Run(
            command=self._command,
            run_id=self._command.run_id or str(uuid4()),
            run_start_time=format_time(self._command.run_start_time or self._received_time),
            known_time=format_time(known_time),
            frame=frame,
            series_ids=ids,
            series=list({one.series_id: one for one in series}.values()),
            descriptions=descriptions,
            digest=digest,
            created_by=self._created_by,
            skip_unchanged=self._skip_unchanged if self._command.skip_unchanged else None,
        )


@dataclass(frozen=True, slots=True)
class ResolvedSeries:
    """A series that an upload names; ``new`` if the upload has to create it."""

    series_id: str
    name: str
    labels: str
    new: bool


def _resolve(identities: list[Identity], catalog: Catalog, *, create: bool) -> list[ResolvedSeries]:
    known = catalog.all()
    return [_resolve_one(identity, catalog, known, create=create) for identity in identities]


def _resolve_one(identity: Identity, catalog: Catalog, known: Mapping[str, Any], *, create: bool) -> ResolvedSeries:
    if identity.series_id is not None:
        series = known.get(identity.series_id)
        if series is None:
            raise NotFound(f"series_id: there is no series {shown(identity.series_id)}")
    else:
        name = identity.name or ""
        labels = "{}" if identity.labels is None else identity.labels
        series = known.get(catalog.id_for(name, json.loads(labels)))
        if series is None and identity.labels is None:
            try:
                series = catalog.find(name)[0]
            except NotFound:
                if not create:
                    raise
        if series is None:
            if not create:
                raise NotFound(f"series_key: there is no series {shown(name)} with labels {shown(labels)}")
            return ResolvedSeries(catalog.id_for(name, json.loads(labels)), name, labels, new=True)
    if series.retired:
        raise Conflict(f"series_id: the series {shown(series.name)} ({series.series_id}) is retired")
    return ResolvedSeries(series.series_id, series.name, series.labels, new=False)


def _refuse_duplicates(frame: pl.DataFrame, ids: list[str]) -> None:
    if frame.height < 2:
        return
    same = frame.select(
        pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ROW_KEY)
    ).to_series()
    same = same.set(pl.Series([True] + [False] * (len(same) - 1)), False)
    if same.any():
        row = frame.row(int(same.arg_max() or 0), named=True)
        end = "" if row["valid_time_end"] is None else f", valid_time_end {format_time(row['valid_time_end'])}"
        raise InvalidRequest(
            f"valid_time: {format_time(row['valid_time'])}{end} of series {ids[row['series']]} "
            f"at known_time {format_time(row['known_time'])} is there twice in one upload"
        )


@dataclass
class Run:
    """A complete upload that waits for its turn."""

    command: UploadCommand
    run_id: str
    run_start_time: str
    known_time: str
    frame: pl.DataFrame
    series_ids: list[str]
    series: list[ResolvedSeries]
    descriptions: Mapping[str, str]
    digest: str
    created_by: str | None
    skip_unchanged: SkipUnchanged | None

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self.frame.height

    @property
    def key(self) -> str:
        """The run_id: a retry that arrives beside the original waits for it."""
        return self.run_id

    @property
    def shareable(self) -> bool:
        """Whether it can be prepared without looking at stored rows."""
        return self.skip_unchanged is None

    def prepare(self, turn: Turn) -> Prepared | Answer:
        """The rows under this turn's stamp, or the answer of the first time.

        Raises:
            Conflict: the run_id stands for other content.
        """
        if self.command.run_id is not None and (found := turn.ledger.runs.find(self.run_id)) is not None:
            if found["digest"] != self.digest:
                raise Conflict(f"run_id: {shown(self.run_id)} has been uploaded already, with other content")
            return Answer(self._receipt(json.loads(found["receipt"])))
        turn.catalog.ensure(
            [(one.name, one.labels, self.descriptions.get(one.name)) for one in self.series if one.new],
            created_by=self.created_by,
        )
        frame = self.frame if self.skip_unchanged is None else self.skip_unchanged(turn, self.with_ids())
        stored = {
            "rows": frame.height,
            "skipped": self.frame.height - frame.height,
            "change_time": format_time(from_micros(turn.stamp)),
            "table_version": turn.version,
        }
        return Prepared(
            rows=self._to_rows(frame, turn.stamp),
            last_stamp=turn.stamp,
            result=self._receipt(stored),
            info={"uploads": self._record(stored)},
            new_keys=True,
        )

    def with_ids(self) -> pl.DataFrame:
        """The rows with their series_id as text."""
        ids = pl.Series("series_id", self.series_ids, dtype=pl.String)
        return self.frame.with_columns(ids.gather(self.frame["series"]).alias("series_id"))

    def _to_rows(self, frame: pl.DataFrame, stamp: int) -> pa.Table:
        count = frame.height
        data = frame.select("valid_time", "valid_time_end", "known_time", "value", "annotation", "tags").to_arrow()
        series = pa.DictionaryArray.from_arrays(
            pa.array(frame["series"].to_numpy(), pa.int32()), pa.array(self.series_ids, pa.string())
        )
        columns = {
            **{name: data.column(name).cast(VALUES_DATA.field(name).type) for name in data.column_names},
            "series_id": series,
            "change_time": pa.repeat(pa.scalar(stamp, pa.timestamp("us", tz="UTC")), count),
            "run_id": _constant(self.run_id, count),
            "changed_by": _constant(self.created_by, count),
            "retracted": pa.nulls(count, pa.bool_()),
        }
        return pa.table({name: columns[name] for name in VALUES_DATA.names})

    def _record(self, stored: dict[str, Any]) -> dict[str, Any]:
        command = self.command
        return {
            "run_id": self.run_id,
            "workflow_id": command.workflow_id,
            "run_start_time": self.run_start_time,
            "run_finish_time": None if command.run_finish_time is None else format_time(command.run_finish_time),
            "known_time": self.known_time,
            "run_params": None if command.run_params is None else json.dumps(command.run_params, sort_keys=True),
            "rows": stored["rows"],
            "change_time": stored["change_time"],
            "created_by": self.created_by,
            "digest": self.digest,
            "receipt": json.dumps(stored, separators=(",", ":")),
        }

    def _receipt(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        series = sorted(self.series, key=lambda one: (one.name, one.labels))
        return {
            "run_id": self.run_id,
            **stored,
            "series_ids": {one.name: one.series_id for one in series},
            "series": [
                {"series_key": one.name, "labels": json.loads(one.labels), "series_id": one.series_id} for one in series
            ],
        }


def _constant(text: str | None, count: int) -> pa.Array:
    if text is None:
        return pa.nulls(count, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))
