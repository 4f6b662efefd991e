"""One tenant's series, runs and values: the surface that servers call."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa

from timedb.contract.errors import Forbidden, NotFound, TimeDBError
from timedb.contract.settings import ServerSettings
from timedb.contract.times import now
from timedb.contract.wire import (
    AccuracyTicket,
    CorrectCommand,
    CreateManySeries,
    CreateSeries,
    FollowTicket,
    GetRun,
    ListRuns,
    ListSeries,
    LookupCommand,
    ReadTicket,
    RestoreRun,
    RetentionRule,
    SeriesLabels,
    UpdateSeries,
    UpdateValues,
    UploadCommand,
    WithdrawRun,
    quoted,
)
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog, KnownSeries, StoredCatalog
from timedb.storage.catalog.key_labels import LimitedCatalog
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.catalog.series_lists import ListedSeries, page_of
from timedb.storage.catalog.unit_changes import follow_units, in_step
from timedb.storage.catalog.withdrawn import STANDING, RowsOfRuns, WithdrawnRuns, public_run
from timedb.storage.commit.lane import CommitLane
from timedb.storage.commit.write_behind import WriteBehind
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.standing import Standing
from timedb.storage.delta.store import Store
from timedb.storage.figures import figures
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.maintain.maintenance import Maintenance
from timedb.storage.maintain.retention import Retention
from timedb.storage.maintain.rounds import Rounds
from timedb.storage.memory.cache import CachedFiles
from timedb.storage.memory.server import MemoryOfServer
from timedb.storage.read.accuracy import AccuracyPlan, plan_accuracy
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.read.following import AT_ONCE_ROWS, Follower
from timedb.storage.read.latest import LastRows
from timedb.storage.read.log_watch import LogWatch
from timedb.storage.read.lookup import Lookup
from timedb.storage.read.planning import ReadLimits, plan_read
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.runs_seen import RunsSeen
from timedb.storage.read.tenant_snapshot import TenantSnapshot
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.layout import TenantTables
from timedb.storage.users.users import LabelLimits
from timedb.storage.write.appends import Appends
from timedb.storage.write.correction_tables import CorrectionTable
from timedb.storage.write.corrections import AskedCorrections, Corrections, StoredRows, asked_of_message
from timedb.storage.write.incoming import IncomingRuns
from timedb.storage.write.runs import Writer
from timedb.storage.write.unit_change import UnitChanger
from timedb.storage.write.uploads import Upload
from timedb.storage.write.withdrawals import Restoration, Withdrawal

__all__ = ["Tenant"]

_log = logging.getLogger("timedb.storage")

Plan: TypeAlias = ReadPlan | AccuracyPlan
"""What streams rows."""


class Tenant:
    """All that a server can do for one tenant. Thread-safe; a request at fault raises a class of ``TimeDBError``.

    Args:
        store: The tenant's folder in the lake.
        tenant_id: The tenant (UUID text).
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        settings: Limits.
        standing: Watches the lake.
        shared: The memory that it shares with other tenants; None: it has one of its own.
        clock, rounds: What stamps its writes, and the threads of upkeep, both shared; None: its own.
    """

    def __init__(
        self,
        store: Store,
        tenant_id: str,
        bucket_digits: int | None,
        settings: ServerSettings,
        standing: Standing | None = None,
        shared: MemoryOfServer | None = None,
        clock: Clock | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self.clock = Clock(settings.max_clock_skew_seconds) if clock is None else clock
        self.settings = settings
        self.bucket_digits = bucket_digits
        tables = TenantTables.below(store, standing)
        self.values = tables.values
        self.ledger = Ledger(tables.values, tables.runs, tables.updates)
        series = StoredCatalog(tables.series, tenant_id, lambda values: follow_units(series, self.ledger, values))
        self.catalog: Catalog = series
        self._limited_to: str | None = None
        self._limited_catalogs: dict[str, LimitedCatalog] = {}
        self._watch = LogWatch(tables.values, series, settings.follow_look_seconds)
        self._stored = StoredRows(self.values, bucket_digits)
        self._rows_of_runs = RowsOfRuns(self.values, bucket_digits)
        self._withdrawn_runs = WithdrawnRuns(self._rows_of_runs, self.ledger)
        self.memory = shared or MemoryOfServer(settings)
        cached = CachedFiles(self.memory.cache, tenant_id)
        self._cache = BatchCache(cached)
        self._last_rows = LastRows(tables.values.store, cached)
        self.values.tell_removed(cached.forget)
        for table in (tables.values, tables.series, tables.runs):
            table.create()  # at once, so that direct readers find it
        tables.check()
        self._tables = tables
        self.note_tables()
        self.records = WriteBehind(self.values, self.ledger, settings.records_seconds)
        self.records.soon()  # a server that was killed may have left some
        self.lane = CommitLane(
            self.values,
            series,
            self.ledger,
            bucket_digits=bucket_digits,
            max_queued=settings.max_queued_writes,
            group_rows=settings.group_rows,
            mixed_rows=settings.mixed_rows,
            clock=self.clock,
            recorded=self._recorded,
        )
        self._units = UnitChanger(self.values, self.lane, bucket_digits, settings.max_converted_rows, self.memory.calls)
        self._incoming = IncomingRuns(self.values, self.lane, bucket_digits, settings, self.memory.calls)
        compactor = Compactor(
            self.values,
            self.lane,
            bucket_digits=bucket_digits,
            file_rows=settings.compact_file_rows,
            input_rows=min(settings.compact_input_rows, self.memory.work_rows),
            memory=self.memory.calls,
        )
        self.upkeep = Maintenance(tables, self.ledger, compactor, settings, self.clock, rounds or Rounds())
        self._retention = Retention(
            self.values,
            self.lane,
            compactor,
            self.catalog,
            bucket_digits=bucket_digits,
            file_rows=settings.compact_file_rows,
        )

    def limited_to(self, limits: LabelLimits, principal: str) -> Tenant:
        """This tenant as a key sees it that is limited to series of some labels: no other series exist for it.

        Of the runs it can look up those that it wrote itself; corrections and withdrawals find every run that has rows
        of its series. What is about whole tables is refused.

        Args:
            limits: What the labels of its series must be.
            principal: The e-mail of the key.
        """
        text = json.dumps(limits, sort_keys=True)
        view = copy.copy(self)
        view.catalog = self._limited_catalogs.setdefault(text, LimitedCatalog(self.catalog, limits))
        view._limited_to = principal
        return view

    @translating_errors()
    def create_series(self, message: CreateSeries, *, created_by: str | None) -> dict[str, Any]:
        """Create a series, or find it: ``{series_id, created}``.

        Raises:
            Conflict: it exists with another unit, or is retired.
            Forbidden: the caller is limited to series of other labels.
        """
        ((series_id, created),) = self.catalog.create([message], created_by=created_by)
        return {"series_id": series_id, "created": created}

    @translating_errors()
    def create_many_series(self, message: CreateManySeries, *, created_by: str | None) -> dict[str, Any]:
        """Create series, all of them or none, in one commit, or find them: ``{series: [{series_id, created}]}``.

        Raises:
            Conflict: one exists with another unit, or is retired.
            Forbidden: the caller is limited to series of other labels.
        """
        created = self.catalog.create(message.series, created_by=created_by)
        return {"series": [{"series_id": series_id, "created": new} for series_id, new in created]}

    @translating_errors()
    def update_series(self, message: UpdateSeries, *, changed_by: str | None = None) -> dict[str, Any]:
        """Change name, unit or description of a series, or retire it; its id stays.

        Raises:
            NotFound, Conflict, InvalidRequest, TooLarge, Busy: see ``timedb.storage.write.unit_change.UnitChanger``
                and ``timedb.storage.catalog.catalog.Catalog.update``.
        """
        return self._units.update(self.catalog, message, changed_by)

    @translating_errors()
    def list_series(self, message: ListSeries) -> list[dict[str, Any]]:
        """The series that are not retired: ``series_id, name, labels, unit, description`` each."""
        return [series.to_dict() for series in page_of(self.catalog.known(), message).series]

    @translating_errors()
    def page_of_series(self, message: ListSeries) -> dict[str, Any]:
        """As :meth:`list_series`, as ``{series}``, and ``{cursor}`` where a limit has left others."""
        page = page_of(self.catalog.known(), message)
        cursor = {} if page.cursor is None else {"cursor": page.cursor}
        return {"series": ListedSeries(page.series), **cursor}

    @translating_errors()
    def series_labels(self, message: SeriesLabels) -> dict[str, list[str]]:
        """Each label key with its values."""
        return self.catalog.known().label_values(message.name)

    @translating_errors()
    def begin_upload(self, command: UploadCommand, schema: pa.Schema, *, created_by: str | None) -> Upload:
        """Begin to receive a run; InvalidRequest: the columns do not fit."""
        return self._incoming.upload(command, schema, self._writer(created_by))

    @translating_errors()
    def begin_appends(self, schema: pa.Schema, *, created_by: str | None, max_run_bytes: int) -> Appends:
        """Begin to receive runs, one after the other, that are committed together; as :meth:`begin_upload`."""
        return self._incoming.appends(schema, self._writer(created_by), max_run_bytes)

    def _writer(self, created_by: str | None) -> Writer:
        def withdrawn(snapshot: Snapshot, run_id: str) -> Mapping[str, Any]:
            return self._withdrawn(snapshot, [run_id]).get(run_id, STANDING)

        return Writer(self.catalog, withdrawn, created_by)

    def plan(self, ticket: ReadTicket | AccuracyTicket) -> Plan:
        """Resolve whatever streams rows against the newest snapshot; see the methods below."""
        return self.plan_read(ticket) if isinstance(ticket, ReadTicket) else self.plan_accuracy(ticket)

    @translating_errors()
    def plan_accuracy(self, ticket: AccuracyTicket) -> AccuracyPlan:
        """Resolve a comparison of forecasts with actual values.

        Raises:
            InvalidRequest, NotFound: see ``timedb.storage.read.accuracy.plan_accuracy``.
        """
        snapshot, known = in_step(self.values, self.catalog)
        return plan_accuracy(
            ticket,
            read=lambda read: self.plan_read(read, snapshot, known),
            catalog=self.catalog,
            known=known,
            max_held=self.settings.max_sorted_rows,
        )

    @translating_errors()
    def snapshot(self) -> TenantSnapshot:
        """The tables as they are now, for several reads of one state."""
        snapshot, known = in_step(self.values, self.catalog)
        series, runs = known.by_id, partial(self._visible_runs, snapshot)
        withdrawn = partial(self._withdrawn, snapshot, None)
        return TenantSnapshot(snapshot, series, lambda ticket: self.plan_read(ticket, snapshot), runs, withdrawn)

    @translating_errors()
    def follow(self, ticket: FollowTicket) -> Follower:
        """Begin to read what is written, from where the ticket says on.

        Raises:
            InvalidRequest, NotFound, Busy: see ``timedb.storage.read.following.Follower``.
        """
        return Follower(ticket, self._watch, self.catalog, partial(self.plan_read, at_once_rows=AT_ONCE_ROWS))

    @translating_errors()
    def plan_read(
        self,
        ticket: ReadTicket,
        snapshot: Snapshot | None = None,
        series: KnownSeries | None = None,
        at_once_rows: int = 0,
    ) -> ReadPlan:
        """Resolve a read against the newest snapshot, or against that one and the series that were known then.

        Raises:
            InvalidRequest, NotFound: see ``timedb.storage.read.planning.plan_read``.
        """
        return plan_read(
            ticket,
            table=self.values,
            catalog=self.catalog,
            bucket_digits=self.bucket_digits,
            runs=RunsSeen(self._all_runs, self._limited_to),
            last_rows=self._last_rows,
            cache=self._cache,
            slice_rows=self.memory.slice_rows,
            limits=ReadLimits.of(self.settings),
            snapshot=snapshot,
            known_series=series,
            at_once_rows=at_once_rows,
        )

    @translating_errors()
    def begin_lookup(self, command: LookupCommand, schema: pa.Schema) -> Lookup:
        """Begin to look values up on the newest snapshot.

        Raises:
            InvalidRequest: the columns do not fit.
        """
        return Lookup(
            command,
            schema,
            table=self.values,
            catalog=self.catalog,
            bucket_digits=self.bucket_digits,
            runs=RunsSeen(self._all_runs, self._limited_to),
            batch_rows=self.settings.max_lookup_batch_rows,
            stored_rows=self.settings.lookup_stored_rows,
        )

    @translating_errors()
    def update_values(self, message: UpdateValues, *, changed_by: str | None) -> dict[str, Any]:
        """Correct values: ``{updated, skipped_no_ops}``.

        Args:
            message: The corrections.
            changed_by: The key's e-mail; None on an open lake, where items may state it.

        Raises:
            Forbidden, NotFound, InvalidRequest, Conflict: see ``timedb.storage.write.corrections.Corrections``.
        """
        return self._correct(asked_of_message(message, changed_by, self.tenant_id, self.catalog.known()), changed_by)

    def _correct(self, asked: AskedCorrections, changed_by: str | None) -> dict[str, Any]:
        return self.lane.submit(Corrections(asked, changed_by, self.tenant_id, self._stored, self._known_runs))

    @translating_errors()
    def begin_corrections(self, command: CorrectCommand, schema: pa.Schema, changed_by: str | None) -> CorrectionTable:
        """Begin to receive corrections as a table; InvalidRequest: the columns do not fit."""
        submit = partial(self._correct, changed_by=changed_by)
        return CorrectionTable(command, schema, self.catalog, submit, self.settings, changed_by, self.memory.calls)

    @translating_errors()
    def withdraw_run(self, message: WithdrawRun, *, changed_by: str | None) -> dict[str, Any]:
        """Withdraw a run: ``{withdrawn: rows}``; NotFound: there is no such run or series."""
        return self.lane.submit(Withdrawal(message, changed_by, self.catalog, self._rows_of_runs, self._known_runs))

    @translating_errors()
    def restore_run(self, message: RestoreRun, *, changed_by: str | None) -> dict[str, Any]:
        """Undo the withdrawals of a run: ``{restored: rows, left_retracted: rows}``; as :meth:`withdraw_run`."""
        rows, withdrawn = self._rows_of_runs, self._withdrawn_runs
        return self.lane.submit(Restoration(message, changed_by, self.catalog, rows, self._known_runs, withdrawn))

    @translating_errors()
    def get_run(self, message: GetRun) -> dict[str, Any]:
        """One row of the runs table, times as text, and what is withdrawn of it; NotFound: there is no such run."""
        snapshot = self.values.snapshot()
        self._catch_up(snapshot)
        record = self.ledger.runs.find(message.run_id)
        if record is None or self._limited_to not in (None, record["created_by"]):
            raise NotFound(f"run_id: there is no run {quoted(message.run_id)}")
        return public_run(record, self._withdrawn(snapshot, [message.run_id]))

    @translating_errors()
    def list_runs(self, message: ListRuns) -> list[dict[str, Any]]:
        """Rows of the runs table, newest first, and what is withdrawn of each."""
        snapshot = self.values.snapshot()
        rows = self._visible_runs(snapshot)
        if message.workflow_id is not None:
            rows = rows.filter(pl.col("workflow_id") == message.workflow_id)
        if message.start is not None:
            rows = rows.filter(pl.col("run_start_time") >= message.start)
        if message.end is not None:
            rows = rows.filter(pl.col("run_start_time") < message.end)
        newest = rows.sort("change_time", "run_id", descending=True).head(message.limit).collect(engine="in-memory")
        withdrawn = self._withdrawn(snapshot, newest["run_id"])
        return [public_run(row, withdrawn) for row in newest.iter_rows(named=True)]

    @translating_errors()
    def status(self) -> dict[str, Any]:
        """Figures of the tenant: series, rows, files and bytes by tier, what upkeep has to do, what the disk holds."""
        self._refuse_limited()
        queued, snapshot = self.lane.queued + self._incoming.queued, self.values.snapshot()
        found = figures(snapshot, self.catalog.known(), self.ledger, self.upkeep, self.clock, queued)
        return {"tenant_id": self.tenant_id, **found}

    @translating_errors()
    def compact(self) -> dict[str, Any]:
        """Settle all fresh rows: ``{buckets, rows, files_before, files_after}``."""
        self._refuse_limited()
        return self.upkeep.compact()

    @translating_errors()
    def maintain(self) -> dict[str, Any]:
        """Compact, checkpoint and vacuum: what was done."""
        self._refuse_limited()
        return self.upkeep.maintain()

    @translating_errors()
    def apply_retention(self, rules: Sequence[RetentionRule], *, dry_run: bool) -> dict[str, Any]:
        """Remove what the rules do not keep, ages counted from now, or tell what they would remove.

        Returns:
            What went, by rule and series; see ``timedb.storage.maintain.retention.Retention.apply``.

        Raises:
            InvalidRequest: a rule does not fit.
            Busy: a bucket kept on changing; the job may be run again.
        """
        self._refuse_limited()
        self.clock.check_ages()  # which would take what is young for old
        return self._retention.apply(rules, moment=now(), dry_run=dry_run)

    def note_tables(self) -> None:
        """Write down how far the tables have come, so that it is known of a log that ends before."""
        try:
            self._tables.note()
        except (TimeDBError, OSError) as error:
            _log.warning("what is known of the tables could not be written down: %s", error)

    def close(self) -> None:
        """Finish the writes that wait and the maintenance that is under way; nobody follows any longer."""
        self._watch.close()
        self.upkeep.close()
        self._incoming.close()
        self.lane.close()
        self.records.close()
        if not self.values.is_lost:
            self.note_tables()

    def _recorded(self) -> None:
        self.records.soon()
        self.upkeep.wake()
        self._watch.wake()

    def _catch_up(self, snapshot: Snapshot) -> None:
        """Know all runs and updates of a snapshot, those of other servers, too, which may not live to write them."""
        self.ledger.catch_up(snapshot)
        if self.ledger.is_behind:
            self.records.soon()

    def _all_runs(self, snapshot: Snapshot) -> pl.LazyFrame:
        self._catch_up(snapshot)
        return self.ledger.runs.scan()

    def _visible_runs(self, snapshot: Snapshot) -> pl.LazyFrame:
        rows = self._all_runs(snapshot)
        return rows if self._limited_to is None else rows.filter(pl.col("created_by") == self._limited_to)

    def _withdrawn(self, snapshot: Snapshot, run_ids: Iterable[str] | None) -> dict[str, dict[str, Any]]:
        self._catch_up(snapshot)
        series_ids = self.catalog.known().by_id.keys() if self.catalog.limited else None
        return self._withdrawn_runs.of(snapshot, run_ids, series_ids)

    def _refuse_limited(self) -> None:
        if self._limited_to is not None:
            raise Forbidden("the key is limited to series of some labels, and this is about all of them")

    def _known_runs(self, snapshot: Snapshot, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records of runs that the caller may write to, in a turn on a snapshot of the values."""
        found = self.ledger.runs.known_all(run_ids)
        if self._limited_to is None:
            return found
        others = {run_id for run_id, record in found.items() if record["created_by"] != self._limited_to}
        if others:
            others -= self._rows_of_runs.with_rows(snapshot, others, self.catalog.known().by_id.keys())
        return {run_id: record for run_id, record in found.items() if run_id not in others}
