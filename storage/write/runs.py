"""A complete upload on its way through the commit lane."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from timedb.contract.errors import Conflict, InvalidRequest
from timedb.contract.times import format_time, from_micros, now
from timedb.contract.wire import UploadFields, quoted
from timedb.storage.catalog.catalog import DEFAULT_UNIT, Catalog, Series, SeriesNeeds
from timedb.storage.catalog.resolve import ResolvedSeries
from timedb.storage.catalog.unit_changes import check_units
from timedb.storage.catalog.withdrawn import STANDING
from timedb.storage.commit.writes import Answer, CommitContext, Prepared
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.parquet import next_stamp
from timedb.storage.rows.rows import frame_of_rows
from timedb.storage.rows.stamping import StampedRun
from timedb.storage.tables.schemas import VALUES_DATA
from timedb.storage.write.staging import StagedFiles

__all__ = ["FREE_FIELDS", "FindWithdrawn", "Run", "RunRows", "SkipUnchanged", "Writer", "default_known_time"]

FREE_FIELDS = frozenset({"op", "run_id", "rows"})
"""Fields of an upload that may differ between a run and its retry."""
SkipUnchanged = Callable[[CommitContext, pl.DataFrame], Sequence[int]]
FindWithdrawn = Callable[[Snapshot, str], Mapping[str, Any]]


def default_known_time(received_time: datetime, newest: int) -> datetime:
    """The time of receipt, or where the clock is behind the last change_time (microseconds), that: later runs win."""
    return max(received_time, from_micros(newest))


@dataclass(frozen=True)
class Writer:
    """Who writes runs.

    Attributes:
        catalog: The series as the caller sees them.
        withdrawn: Tells what is withdrawn of a run that is in already, as far as the caller sees it.
        created_by: The key's e-mail.
    """

    catalog: Catalog
    withdrawn: FindWithdrawn
    created_by: str | None


@dataclass(frozen=True)
class RunRows:
    """The rows of a small run, kept in memory so that they can share a file with other runs.

    ``table`` has ``series`` (index into ``series_ids``) and the columns that clients send, sorted.
    """

    table: pa.Table
    series_ids: Sequence[str]

    def with_ids(self) -> pl.DataFrame:
        """The rows with their series_id as text."""
        frame = frame_of_rows(self.table)
        ids = pl.Series("series_id", self.series_ids, dtype=pl.String)
        return frame.with_columns(ids.gather(frame["series"]).alias("series_id"))

    def only(self, places: Sequence[int]) -> pa.Table:
        """The rows at some places."""
        return self.table.take(pa.array(places, pa.int64()))


@dataclass
class Run:
    """An upload that waits for its turn.

    Times are text as the runs table has them; ``digest`` is empty where the server chose the run_id.
    """

    command: UploadFields
    run_id: str
    run_start_time: str
    known_time: str
    content: RunRows | StagedFiles
    series: Sequence[ResolvedSeries]
    digest: str
    created_by: str | None
    skip_unchanged: SkipUnchanged | None
    withdrawn: FindWithdrawn
    """What is withdrawn of a run that is in already."""
    units_seen: int = 0
    """``KnownSeries.units`` when its series were found."""
    stored_units: Mapping[str, str] = field(default_factory=dict)
    """By series_id the unit that the values were converted to; empty where the upload states none."""
    unit_fault: InvalidRequest | None = None
    """Why the values could not be converted: that refuses a new run, but not the retry of an old one."""
    answered: bool = False
    """Whether the run was in already, so that its content is not needed."""

    @property
    def rows(self) -> int:
        """Rows that the lane has to encode."""
        return self.content.table.num_rows if isinstance(self.content, RunRows) else 0

    @property
    def stamps(self) -> int:
        """How many change_times it takes: one, of all its rows."""
        return 1

    @property
    def key(self) -> str:
        """The run_id: a retry that arrives beside the original waits for it."""
        return self.run_id

    @property
    def shareable(self) -> bool:
        """Whether it can be prepared without looking at stored rows."""
        return self.skip_unchanged is None

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The rows under this turn's stamp, or the answer of the first time.

        Raises:
            Conflict: the run_id stands for other content, or a series is retired, or has been converted meanwhile.
            Busy: a series has another unit than the values have been converted to.
            InvalidRequest: the values cannot be converted to the unit of a series.
        """
        if self.command.run_id is not None and (found := context.ledger.runs.known(self.run_id)) is not None:
            if found["digest"] != self.digest:
                raise Conflict(f"run_id: {quoted(self.run_id)} has been uploaded already, with other content")
            self.answered = True
            return Answer(self._receipt(json.loads(found["receipt"]), self.withdrawn(context.snapshot, self.run_id)))
        if self.unit_fault is not None:
            raise self.unit_fault
        series_ids = {one.series_id for one in self.series}
        stated = self.command.unit is not None
        check_units(context.ledger, context.snapshot, self.units_seen, series_ids, stated=stated)
        for one in self.series:
            if one.retired:
                raise Conflict(f"series_id: the series {quoted(one.name)} ({one.series_id}) is retired")
        if isinstance(self.content, StagedFiles):
            context = replace(context, stamp=next_stamp(context.stamp))
            self.content.restamp(context.stamp)
            return self._prepared(context, VALUES_DATA.empty_table(), self.content.files, self.content.rows, 0)
        table = self.content.table
        if self.skip_unchanged is not None:
            table = self.content.only(self.skip_unchanged(context, self.content.with_ids()))
        rows = StampedRun(table, self.content.series_ids, context.stamp, self.run_id, self.created_by)
        return self._prepared(context, rows, (), table.num_rows, self.content.table.num_rows - table.num_rows)

    def _prepared(
        self, context: CommitContext, rows: pa.Table | StampedRun, files: Sequence[DataFile], written: int, skipped: int
    ) -> Prepared:
        stored = {
            "rows": written,
            "skipped": skipped,
            "change_time": format_time(from_micros(context.stamp)),
            "table_version": context.version,
        }
        return Prepared(
            rows=rows,
            files=files,
            last_stamp=context.stamp,
            result=self._receipt(stored, STANDING),
            info={"uploads": self._record(stored)},
            series=self._needs(),
            new_keys=True,
        )

    def _needs(self) -> SeriesNeeds | None:
        """The series that it brings: without a unit they are ``dimensionless`` until they are created explicitly."""
        descriptions = self.command.series_descriptions or {}
        unit, moment = self.command.unit, now()
        new = [
            Series(
                series_id=one.series_id,
                name=one.name,
                labels=one.labels,
                unit=unit or DEFAULT_UNIT,
                description=descriptions.get(one.name),
                created_time=moment,
                created_by=self.created_by,
                auto_created=unit is None,
            )
            for one in self.series
            if one.new
        ]
        return SeriesNeeds(new, self.stored_units) if new or self.stored_units else None

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

    def _receipt(self, stored: Mapping[str, Any], withdrawn: Mapping[str, Any]) -> dict[str, Any]:
        series = sorted(self.series, key=lambda one: (one.name, one.labels))
        labels = {text: json.loads(text) for text in {one.labels for one in series}}  # many series share few
        return {
            "run_id": self.run_id,
            **stored,
            **withdrawn,
            "series_ids": {one.name: one.series_id for one in series},
            "series": [
                {"series_key": one.name, "labels": labels[one.labels], "series_id": one.series_id} for one in series
            ],
        }
