"""Withdrawals and restorations of runs: retractions, and what they took, as new versions of their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from timedb.contract.errors import NotFound
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import WithdrawRun, quoted
from timedb.storage.catalog.catalog import Catalog
from timedb.storage.catalog.withdrawn import (
    RowsOfRuns,
    WithdrawnRuns,
    record_key,
    with_withdrawals,
    withdrawals_without_record,
)
from timedb.storage.commit.writes import Answer, CommitContext, Prepared
from timedb.storage.delta.log import Snapshot
from timedb.storage.rows import views
from timedb.storage.rows.scan import VALUES_POLARS
from timedb.storage.rows.texts_aside import TextsAside
from timedb.storage.tables.schemas import VALUES_DATA
from timedb.storage.write.corrections import FindRuns

__all__ = ["Restoration", "Withdrawal"]


@dataclass
class _OfARun:
    """New versions of rows of one run, or of some of its series."""

    message: WithdrawRun
    changed_by: str | None
    catalog: Catalog
    stored: RowsOfRuns
    find_runs: FindRuns

    rows = 0
    stamps = 1
    key: str | None = field(default=None, init=False)
    shareable = False

    def series_of(self, snapshot: Snapshot) -> Sequence[str] | None:
        """The series that it is about; None: all.

        Raises:
            NotFound: there is no such run or series.
        """
        run_id, series_ids = self.message.run_id, self.message.series_ids
        if run_id not in self.find_runs(snapshot, [run_id]):
            raise NotFound(f"run_id: there is no run {quoted(run_id)}")
        if series_ids is None and not self.catalog.limited:
            return None
        known = self.catalog.known()
        for series_id in series_ids or ():
            known.get(series_id)
        return list(known.by_id) if series_ids is None else series_ids

    @property
    def reason(self) -> str | None:
        """Why, unless nothing is said."""
        return self.message.reason if self.message.reason and self.message.reason.strip() else None

    @property
    def who(self) -> str | None:
        """Who changes it."""
        return self.changed_by or self.message.changed_by

    def prepared(
        self,
        rows: pl.DataFrame,
        texts: TextsAside,
        context: CommitContext,
        answer: dict[str, Any],
        info: dict[str, dict[str, Any]],
    ) -> Prepared:
        """The rows as new versions; ``texts`` has those that their numbers stand for."""
        new = rows.sort("series_id", "valid_time", "known_time").with_columns(
            change_time=pl.lit(from_micros(context.stamp)).cast(VALUES_POLARS["change_time"]),
            changed_by=pl.lit(self.who, dtype=pl.String),
        )
        return Prepared(texts.put_back(new, VALUES_DATA.names), context.stamp, answer, info=info)


class Withdrawal(_OfARun):
    """A run, or some of its series, to be withdrawn: every row of it that is not retracted yet gets a retraction."""

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The retractions under this turn's stamp.

        Raises:
            NotFound: there is no such run or series.
        """
        series_ids = self.series_of(context.snapshot)
        versions = self.stored.versions(context.snapshot, [self.message.run_id], series_ids)
        texts = TextsAside()
        rows = views.overlapping(texts.take_out(versions.collect(engine="in-memory")))
        answer = {"withdrawn": rows.height}
        if not rows.height:
            return Answer(answer)
        annotation = pl.col("annotation") if self.reason is None else pl.lit(texts.number_of(self.reason))
        new = rows.with_columns(annotation=annotation, retracted=pl.lit(True))
        said = {"withdraw_run": self.message.run_id, "reason": self.reason, **answer}
        record = {
            "update_id": record_key(context.stamp),
            "rows": rows.height,
            "change_time": format_time(from_micros(context.stamp)),
            "created_by": self.who,
            "digest": "",
            "receipt": json.dumps(said, separators=(",", ":")),
        }
        return self.prepared(new, texts, context, answer, {"updates": record})


@dataclass
class Restoration(_OfARun):
    """A run, or some of its series, to be restored: every row that a withdrawal took stands again.

    Rows that were retracted one by one stay so. Values, annotation and tags are those from before the withdrawal, or
    what corrections have made of them since.
    """

    withdrawn: WithdrawnRuns

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The versions that stand again, under this turn's stamp.

        Raises:
            NotFound: there is no such run or series.
        """
        series_ids = self.series_of(context.snapshot)
        # Of all series: the rows tell withdrawals without a record from single retractions together.
        texts, stored = TextsAside(), self.stored.versions(context.snapshot, [self.message.run_id])
        versions = texts.take_out(stored.collect(engine="in-memory"))
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
        unchanged = pl.col("annotation").eq_missing(pl.col("gone_annotation"))
        annotation = pl.when(unchanged).then("annotation_before").otherwise("annotation")
        new = back.with_columns(
            annotation=annotation if self.reason is None else pl.lit(texts.number_of(self.reason)),
            retracted=pl.lit(None, dtype=pl.Boolean),
        )
        return self.prepared(new, texts, context, answer, {})
