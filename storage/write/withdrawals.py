"""Withdrawals and restorations of runs: retractions, and what they took, as new versions of their rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from timedb.contract.errors import NotFound
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import RestoreRun, WithdrawRun, quoted
from timedb.storage.catalog.catalog import Catalog
from timedb.storage.catalog.withdrawn import (
    RowsOfRuns,
    WithdrawnRuns,
    record_key,
    with_withdrawals,
    withdrawals_without_record,
)
from timedb.storage.commit.writes import Answer, CommitContext, Prepared
from timedb.storage.rows import views
from timedb.storage.rows.scan import VALUES_POLARS
from timedb.storage.tables.schemas import VALUES_DATA
from timedb.storage.write.corrections import FindRuns

__all__ = ["Restoration", "Withdrawal"]


@dataclass
class Withdrawal:
    """A run, or some of its series, to be withdrawn: every row of it that is not retracted yet gets a retraction."""

    message: WithdrawRun
    changed_by: str | None
    catalog: Catalog
    stored: RowsOfRuns
    find_runs: FindRuns

    rows = 0
    stamps = 1
    key: str | None = None
    shareable = False

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The retractions under this turn's stamp.

        Raises:
            NotFound: there is no such run or series.
        """
        series_ids = _series_of(self.message, self.catalog, self.find_runs(context.snapshot, [self.message.run_id]))
        versions = self.stored.versions(context.snapshot, [self.message.run_id], series_ids)
        rows = views.overlapping(versions.collect(engine="in-memory"))
        answer = {"withdrawn": rows.height}
        if not rows.height:
            return Answer(answer)
        reason = _reason(self.message)
        who = self.changed_by or self.message.changed_by
        new = rows.with_columns(
            annotation=pl.col("annotation") if reason is None else pl.lit(reason), retracted=pl.lit(True)
        )
        said = {"withdraw_run": self.message.run_id, "reason": reason, **answer}
        record = {
            "update_id": record_key(context.stamp),
            "rows": rows.height,
            "change_time": format_time(from_micros(context.stamp)),
            "created_by": who,
            "digest": "",
            "receipt": json.dumps(said, separators=(",", ":")),
        }
        return _prepared(new, context, who, answer, {"updates": record})


@dataclass
class Restoration:
    """A run, or some of its series, to be restored: every row that a withdrawal took stands again.

    Rows that were retracted one by one stay so. Values, annotation and tags are those from before the withdrawal, or
    what corrections have made of them since.
    """

    message: RestoreRun
    changed_by: str | None
    catalog: Catalog
    stored: RowsOfRuns
    withdrawn: WithdrawnRuns
    find_runs: FindRuns

    rows = 0
    stamps = 1
    key: str | None = None
    shareable = False

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The versions that stand again, under this turn's stamp.

        Raises:
            NotFound: there is no such run or series.
        """
        series_ids = _series_of(self.message, self.catalog, self.find_runs(context.snapshot, [self.message.run_id]))
        # Of all series: the rows tell withdrawals without a record from single retractions together.
        versions = self.stored.versions(context.snapshot, [self.message.run_id]).collect(engine="in-memory")
        gone = with_withdrawals(versions).filter("retracted")
        if series_ids is not None:
            gone = gone.filter(pl.col("series_id").is_in(series_ids))
        times = self.withdrawn.recorded(gone["gone_time"].unique()) | withdrawals_without_record(versions)
        back = gone.filter(
            pl.col("gone_time").is_in(pl.Series(sorted(times), dtype=gone.schema["gone_time"]).implode())
        )
        answer = {"restored": back.height, "left_retracted": gone.height - back.height}
        if not back.height:
            return Answer(answer)
        reason = _reason(self.message)
        unchanged = pl.col("annotation").eq_missing(pl.col("gone_annotation"))
        annotation = pl.when(unchanged).then("annotation_before").otherwise("annotation")
        new = back.with_columns(
            annotation=annotation if reason is None else pl.lit(reason), retracted=pl.lit(None, dtype=pl.Boolean)
        )
        return _prepared(new, context, self.changed_by or self.message.changed_by, answer, {})


def _series_of(message: WithdrawRun | RestoreRun, catalog: Catalog, runs: Collection[str]) -> Sequence[str] | None:
    """The series that it is about; None: all."""
    if message.run_id not in runs:
        raise NotFound(f"run_id: there is no run {quoted(message.run_id)}")
    if message.series_ids is None and not catalog.limited:
        return None
    known = catalog.known()
    for series_id in message.series_ids or ():
        known.get(series_id)
    return list(known.by_id) if message.series_ids is None else message.series_ids


def _prepared(
    rows: pl.DataFrame, context: CommitContext, who: str | None, answer: dict[str, Any], info: dict[str, dict[str, Any]]
) -> Prepared:
    new = rows.sort("series_id", "valid_time", "known_time").with_columns(
        change_time=pl.lit(from_micros(context.stamp)).cast(VALUES_POLARS["change_time"]),
        changed_by=pl.lit(who, dtype=pl.String),
    )
    return Prepared(new.select(VALUES_DATA.names).to_arrow().cast(VALUES_DATA), context.stamp, answer, info=info)


def _reason(message: WithdrawRun | RestoreRun) -> str | None:
    return message.reason if message.reason and message.reason.strip() else None
