"""What is withdrawn of runs, read from their rows, which know it however it came about.

A withdrawal appends to each standing row of a run a version that is retracted. The batch's record in the ``updates``
table, under its change_time, tells it from corrections that retract single rows; older lakes have withdrawals without a
record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from timedb.contract.times import format_time, to_micros
from timedb.storage.catalog.ledger import Ledger, public_record
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.delta.table import Table
from timedb.storage.rows.orders import VERSION
from timedb.storage.rows.scan import RowSelection, live_files, scan
from timedb.storage.rows.texts_aside import TextsAside

__all__ = [
    "STANDING",
    "RowsOfRuns",
    "WithdrawnRuns",
    "public_run",
    "record_key",
    "with_withdrawals",
    "withdrawals_without_record",
]

STANDING: Mapping[str, Any] = {"withdrawn": None, "withdrawn_rows": 0}
"""What a run says of itself of which every row stands."""


_NOTES = (*VERSION.columns, "annotation", "changed_by", "retracted")


_REVISION = list(VERSION.key)


_ROWS_AT_ONCE = 500_000  # retractions of the runs that are looked at together, so that a long list takes little memory


@dataclass(frozen=True)
class RowsOfRuns:
    """Looks the rows of runs up, all versions of them."""

    table: Table
    bucket_digits: int | None

    def versions(
        self, snapshot: Snapshot, run_ids: Collection[str], series_ids: Collection[str] | None = None
    ) -> pl.LazyFrame:
        """Every version of every row of some runs, of some series or all, in no order."""
        selection = RowSelection(series_ids=series_ids)
        files = live_files(snapshot, selection, self.bucket_digits)
        wanted = pl.Series(sorted(run_ids), dtype=pl.String)
        named = pl.col("run_id") == wanted[0] if len(wanted) == 1 else pl.col("run_id").is_in(wanted.implode())
        return scan(self.table.store, files, [*selection.predicates(), named])

    def with_rows(self, snapshot: Snapshot, run_ids: Collection[str], series_ids: Collection[str]) -> set[str]:
        """Those of some runs that have a row of one of these series."""
        rows = self.versions(snapshot, run_ids, series_ids)
        return set(rows.select(pl.col("run_id").unique()).collect(engine="in-memory")["run_id"])


class WithdrawnRuns:
    """Finds out what is withdrawn of runs."""

    def __init__(self, rows: RowsOfRuns, ledger: Ledger) -> None:
        self._rows = rows
        self._ledger = ledger
        self._known: dict[str, dict[str, int]] = {}

    def of(
        self, snapshot: Snapshot, run_ids: Iterable[str] | None, series_ids: Collection[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What is withdrawn of runs; those that have no withdrawn row are not in the answer.

        Args:
            snapshot: The values table.
            run_ids: The runs; None: all.
            series_ids: Only rows of these series count; None: all.

        Returns:
            By run_id ``{withdrawn, withdrawn_rows}``: how many rows are withdrawn, and, where none is left that
            stands, ``{time, changed_by, reason}`` of what took the last ones, else None.
        """
        touched = self._touched(snapshot)
        wanted = touched.keys() if run_ids is None else touched.keys() & set(run_ids)
        found: dict[str, dict[str, Any]] = {}
        some: list[str] = []
        for run_id in sorted(wanted):
            some.append(run_id)
            if sum(touched[each] for each in some) >= _ROWS_AT_ONCE:
                found |= self._states(snapshot, some, series_ids)
                some = []
        return found | self._states(snapshot, some, series_ids) if some else found

    def _states(
        self, snapshot: Snapshot, run_ids: Sequence[str], series_ids: Collection[str] | None
    ) -> dict[str, dict[str, Any]]:
        texts, versions = TextsAside(), self._rows.versions(snapshot, run_ids, series_ids).select(_NOTES)
        latest = with_withdrawals(texts.take_out(versions.collect(engine="in-memory")))
        standing = set(latest.filter(~pl.col("retracted"))["run_id"])
        gone = latest.filter("retracted").partition_by("run_id", as_dict=True)
        # What took the last rows of each, where none is left that stands.
        last = {
            run_id: rows.filter(pl.col("gone_time") == pl.col("gone_time").max())
            for (run_id,), rows in gone.items()
            if run_id not in standing
        }
        records = self._records(rows["gone_time"][0] for rows in last.values())
        notes = {run_id: _note(rows, records, texts) for run_id, rows in last.items()}
        return {
            run_id: {"withdrawn": notes.get(run_id), "withdrawn_rows": rows.height} for (run_id,), rows in gone.items()
        }

    def recorded(self, times: Iterable[datetime]) -> set[datetime]:
        """Those of some change_times at which a withdrawal was written, and a record of it."""
        return set(self._records(times))

    def _records(self, times: Iterable[datetime]) -> dict[datetime, dict[str, Any]]:
        """The records of withdrawals, by their change_times."""
        keys = {record_key(to_micros(time)): time for time in times}
        return {keys[key]: record for key, record in self._ledger.updates.find_all(keys).items()}

    def _touched(self, snapshot: Snapshot) -> dict[str, int]:
        """The runs that a retraction has ever been written about, and how many; by file, as a file never changes."""
        files = [file for file in snapshot.files.values() if _may_hold_retractions(file)]
        for file in files:
            if file.path not in self._known:
                rows = scan(self._rows.table.store, [file], [pl.col("retracted")]).group_by("run_id").len()
                self._known[file.path] = dict(rows.collect(engine="in-memory").iter_rows())
        self._known = live = {file.path: self._known[file.path] for file in files}
        touched: Counter[str] = Counter()
        for counts in live.values():
            touched.update(counts)
        return touched


def _note(last: pl.DataFrame, records: Mapping[datetime, Mapping[str, Any]], texts: TextsAside) -> dict[str, Any]:
    """When, by whom and why the last rows of a run went."""
    time: datetime = last["gone_time"][0]
    if time in records:
        reason = json.loads(records[time]["receipt"])["reason"]
    else:
        # Without a record a reason is an annotation that came with the retraction.
        said = last.filter(pl.col("gone_annotation").ne_missing(pl.col("annotation_before")))["gone_annotation"]
        reason = texts.text(said[0]) if len(said) else None
    return {"time": format_time(time), "changed_by": last["gone_by"][0], "reason": reason}


def with_withdrawals(versions: pl.DataFrame) -> pl.DataFrame:
    """The latest version of each row, and what retracted it.

    Args:
        versions: All versions of some rows.

    Returns:
        Beside the columns that came: ``gone_time``, ``gone_by`` and ``gone_annotation`` of the first version since
        which the row has been retracted, and ``annotation_before`` of the one before that; nulls where it stands.
        ``retracted`` is never null.
    """
    retracted = pl.col("retracted").fill_null(False)
    ordered = versions.sort(*VERSION.columns).with_columns(retracted)
    ordered = ordered.with_columns(
        annotation_before=pl.col("annotation").shift(1).over(_REVISION),
        stretch=(~pl.col("retracted")).cast(pl.Int64).cum_sum().over(_REVISION),
    )
    latest = ordered.unique(_REVISION, keep="last", maintain_order=True)
    gone = ordered.filter("retracted").unique([*_REVISION, "stretch"], keep="first", maintain_order=True)
    gone = gone.select(
        *_REVISION,
        "stretch",
        "annotation_before",
        gone_time="change_time",
        gone_by="changed_by",
        gone_annotation="annotation",
    )
    # A row that stands ends a stretch of its own, in which nothing is retracted after it.
    return latest.drop("annotation_before").join(
        gone, on=[*_REVISION, "stretch"], how="left", nulls_equal=True, maintain_order="left"
    )


def withdrawals_without_record(versions: pl.DataFrame) -> set[datetime]:
    """The change_times of the versions of one run that look like a withdrawal's.

    Corrections get a change_time each, so that several retractions of one change_time are a withdrawal's; and
    retracting the only row of a run is withdrawing it.
    """
    retractions = versions.filter(pl.col("retracted"))
    alone = versions.select(_REVISION).unique().height == 1
    together = retractions.filter(pl.len().over("change_time") > 1)
    return set((retractions if alone else together)["change_time"])


def record_key(stamp: int) -> str:
    """The key in ``updates`` of the record of a withdrawal; no client's update_id has a control character."""
    return f"withdraw_run\x1f{stamp}"


def _may_hold_retractions(file: DataFile) -> bool:
    return may_hold_corrections(file) and file.null_count.get("retracted", -1) != file.rows


def public_run(record: Mapping[str, Any], withdrawn: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A row of the runs table as clients get it, with what is withdrawn of it."""
    run = {**public_record(record), **withdrawn.get(record["run_id"], STANDING)}
    for name in ("run_params", "receipt"):
        if run[name] is not None:
            run[name] = json.loads(run[name])
    return run
