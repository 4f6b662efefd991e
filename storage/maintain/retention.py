"""Retention: takes out of a tenant's values what its rules no longer keep, bucket by bucket.

A bucket is compacted first, so its settled rows know their tiers, and the rules look at settled rows alone. Files that
lose rows are written anew without them beside the commit lane and replaced in one commit. In its turn that is
checked like a compaction's, and given up if a correction has come in for a row that goes. Fresh uploads need no check:
they bring revisions of their own, which can beat what goes but cannot make it count again. Where repeats are collapsed
they can, between a repeat and what it repeats, and are looked at as well.

Every commit takes a change_time of its own and leaves three marks in the log: that change_time, the last valid_time
that lost a row, and the greatest change_time of a row that went. A read ``as_of`` an earlier change_time that does not
begin after that valid_time is refused, and so is whoever follows from before a row that is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from timedb.contract.errors import Busy, Internal
from timedb.contract.identity import series_bucket
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import RetentionRule
from timedb.storage.catalog.catalog import Catalog, KnownSeries
from timedb.storage.commit.lane import CommitLane
from timedb.storage.commit.writes import CommitContext, FileReplacement
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import may_hold_corrections, write_file
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Table
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.maintain.thinning import KEY_COLUMNS, BoundRule, mark
from timedb.storage.rows.orders import CONTENT, VERSION
from timedb.storage.rows.rows import SORT_ORDER, rows_of_frame
from timedb.storage.rows.scan import VALUES_POLARS, RowSelection, live_files, scan, shares_bucket
from timedb.storage.rows.sorting import sort_rows
from timedb.storage.tables.commit_marks import CHANGE_TIME, bucket_transaction
from timedb.storage.tables.removed import REMOVED, REMOVED_CHANGED, REMOVED_VALID
from timedb.storage.tables.schemas import TIERS

__all__ = ["Retention"]

_SETTLED = tuple(tier for tier in TIERS if tier != "fresh")
_ATTEMPTS = 20
_IDENTITY = VERSION.columns
Positions = np.ndarray[Any, np.dtype[np.uint32]]


@dataclass(frozen=True)
class _Loss:
    """The rows that one rule removes of one series: how many, and the files that hold them."""

    rule: int
    series_id: str
    rows: int
    files: frozenset[str]


@dataclass(frozen=True)
class _Removal:
    """What the rules remove from one bucket at one snapshot.

    For each of the ``files`` that lose rows ``doomed`` has the positions of those that go, ``checksums`` the sum of
    their hashes.
    """

    bucket: str
    transaction: int
    files: Sequence[DataFile]
    doomed: Sequence[Positions]
    checksums: Sequence[int]
    losses: Sequence[_Loss]
    last_valid: int
    last_changed: int
    repeats: bool = False
    """Whether some of the rows go because they repeat what was known before them."""

    @property
    def rows(self) -> int:
        """How many rows go."""
        return sum(loss.rows for loss in self.losses)


@dataclass
class _RemovalReplacement:
    """Files without the rows that go, waiting for their turn in the lane."""

    table: Table
    removal: _Removal
    adds: Sequence[DataFile]
    info: Mapping[str, Any]
    stamp: int = 0

    def prepare(self, context: CommitContext) -> FileReplacement | None:
        """The replacement, or None where the bucket is no longer as it was looked at."""
        removal, known = self.removal, context.snapshot.transactions
        guard = bucket_transaction(removal.bucket)
        if known.get(guard, 0) != removal.transaction:
            return None
        if any(file.path not in context.snapshot.files for file in removal.files) or self._overtaken(context.snapshot):
            return None
        self.stamp = context.stamp
        # What release 0.1 removed, without the last mark, may have been written up to then.
        before = known.get(REMOVED_CHANGED + removal.bucket, known.get(REMOVED + removal.bucket, 0))
        marks = {
            REMOVED + removal.bucket: context.stamp,
            REMOVED_VALID + removal.bucket: max(removal.last_valid, known.get(REMOVED_VALID + removal.bucket, 0)),
            REMOVED_CHANGED + removal.bucket: max(removal.last_changed, before),
        }
        transactions = {CHANGE_TIME: context.stamp, guard: removal.transaction + 1, **marks}
        return FileReplacement(
            self.adds, removal.files, transactions, operation="DELETE", data_change=True, info=self.info
        )

    def _overtaken(self, snapshot: Snapshot) -> bool:
        """Whether fresh rows are about a point that loses some: corrections, and uploads where repeats go."""
        bucket = self.removal.bucket
        fresh = [
            file
            for file in snapshot.files.values()
            if file.partition["tier"] == "fresh"
            and shares_bucket(file, bucket)
            and (self.removal.repeats or may_hold_corrections(file))
        ]
        if not fresh:
            return False
        points = scan(self.table.store, fresh).select("series_id", "valid_time").unique()
        rows = _numbered(self.table.store, self.removal.files, RowSelection(), ("series_id", "valid_time"))
        hits = rows.join(points, on=["series_id", "valid_time"], how="semi").select("file", "row")
        found = hits.collect(engine="in-memory").iter_rows()
        return any(bool(np.isin(row, self.removal.doomed[file])) for file, row in found)


@dataclass
class _Report:
    """What a job has done, or would do."""

    rules: Sequence[BoundRule]
    losses: list[_Loss] = field(default_factory=list)
    files: int = 0
    files_after: int = 0
    stamp: int | None = None

    def add(self, removal: _Removal) -> None:
        self.losses += removal.losses
        self.files += len(removal.files)

    def to_dict(self, known: KnownSeries, *, dry_run: bool) -> dict[str, Any]:
        return {
            "dry_run": dry_run,
            "change_time": None if self.stamp is None else format_time(from_micros(self.stamp)),
            "rows": sum(loss.rows for loss in self.losses),
            "files": self.files,
            "files_after": None if dry_run else self.files_after,
            "rules": [self._rule(index, bound, known) for index, bound in enumerate(self.rules)],
        }

    def _rule(self, index: int, bound: BoundRule, known: KnownSeries) -> dict[str, Any]:
        losses = [loss for loss in self.losses if loss.rule == index]
        series = [
            {
                "series_id": loss.series_id,
                "name": known.by_id[loss.series_id].name,
                "labels": known.by_id[loss.series_id].label_map(),
                "rows": loss.rows,
                "files": len(loss.files),
            }
            for loss in losses
        ]
        return {
            "rule": bound.rule.model_dump(mode="json", exclude_unset=True),
            "before": format_time(bound.cut),
            "matched_series": len(bound.series_ids),
            "rows": sum(loss.rows for loss in losses),
            "files": len({path for loss in losses for path in loss.files}),
            "series": sorted(series, key=lambda one: (one["name"], one["series_id"])),
        }


class _Finder:
    """Gathers the rows that go, piece by piece."""

    def __init__(self) -> None:
        self._positions: dict[int, list[Positions]] = {}
        self._checksums: dict[int, int] = {}
        self._losses: dict[tuple[int, str], tuple[int, set[int]]] = {}
        self._last_valid = 0
        self._last_changed = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Take the rows of a piece that go: those of :func:`_numbered` with :data:`KEY_COLUMNS`, and ``rule``."""
        if not rows.height:
            return
        for (file,), part in rows.partition_by("file", as_dict=True).items():
            index = int(file)
            self._positions.setdefault(index, []).append(part["row"].to_numpy())
            self._checksums[index] = self._checksums.get(index, 0) + _checksum(part)
        tally = rows.group_by("rule", "series_id").agg(pl.len().alias("rows"), pl.col("file").unique())
        for rule, series_id, count, files in tally.iter_rows():
            before, held = self._losses.get((rule, series_id), (0, set()))
            self._losses[rule, series_id] = before + count, held.union(files)
        valid, changed = rows.select(pl.col("valid_time", "change_time").to_physical().max()).row(0)
        self._last_valid, self._last_changed = max(self._last_valid, valid), max(self._last_changed, changed)

    def removal(
        self, bucket: str, transaction: int, files: Sequence[DataFile], rules: Sequence[BoundRule]
    ) -> _Removal | None:
        """All that was found; None where it is nothing."""
        touched = sorted(self._positions)
        return (
            None
            if not touched
            else _Removal(
                bucket=bucket,
                transaction=transaction,
                files=[files[index] for index in touched],
                doomed=[np.concatenate(self._positions[index]) for index in touched],
                checksums=[self._checksums[index] for index in touched],
                losses=[
                    _Loss(rule, series_id, rows, frozenset(files[index].path for index in held))
                    for (rule, series_id), (rows, held) in self._losses.items()
                ],
                last_valid=self._last_valid,
                last_changed=self._last_changed,
                repeats=any(rules[rule].collapses for rule, _ in self._losses),
            )
        )


class Retention:
    """Applies retention rules to the values table of a tenant.

    Args:
        table: The values table.
        lane: Where the replacements are committed.
        compactor: Settles a bucket's fresh rows.
        catalog: The tenant's series.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        file_rows: Rows of a file, and of a piece of a bucket that is looked at at once, about.
    """

    def __init__(
        self,
        table: Table,
        lane: CommitLane,
        compactor: Compactor,
        catalog: Catalog,
        *,
        bucket_digits: int | None,
        file_rows: int,
    ) -> None:
        self._table = table
        self._lane = lane
        self._compactor = compactor
        self._catalog = catalog
        self._bucket_digits = bucket_digits
        self._file_rows = file_rows

    def apply(self, rules: Sequence[RetentionRule], *, moment: datetime, dry_run: bool) -> dict[str, Any]:
        """Remove what the rules do not keep, or tell what they would remove.

        Args:
            rules: They work one after the other, each on what those before it have left.
            moment: What ages are counted back from, UTC.
            dry_run: Only look. Nothing is compacted either, so files are counted as they lie now.

        Returns:
            ``{dry_run, change_time, rows, files, files_after, rules: [{rule, before, matched_series, rows, files,
            series: [{series_id, name, labels, rows, files}]}]}``: how many rows went, and the files that held them;
            only series that lost rows are listed. ``before`` is the moment that a rule's age reaches back to.

        Raises:
            InvalidRequest: a time zone does not exist.
            Busy: others have kept on changing a bucket; buckets before it are done, and the job may be run again.
        """
        known = self._catalog.known()
        bound = [BoundRule.bind(index, rule, _series_of(rule, known), moment) for index, rule in enumerate(rules)]
        report = _Report(bound)
        series_ids = {series_id for rule in bound for series_id in rule.series_ids}
        for bucket in sorted({series_bucket(series_id, self._bucket_digits) for series_id in series_ids}):
            if dry_run:
                removal = self._look(self._table.snapshot(), bucket, bound, TIERS)
                if removal is not None:
                    report.add(removal)
            else:
                self._remove(bucket, bound, report)
        return report.to_dict(known, dry_run=dry_run)

    def _remove(self, bucket: str, rules: Sequence[BoundRule], report: _Report) -> None:
        for _ in range(_ATTEMPTS):
            self._compactor.compact(bucket)
            removal = self._look(self._table.snapshot(), bucket, rules, _SETTLED)
            if removal is None:
                return
            self._check_tiers(removal, rules)
            info = {
                "retention": [{"rules": [rule.rule.model_dump(mode="json") for rule in rules], "rows": removal.rows}]
            }
            with NewFiles(self._table.store) as new:
                self._rewrite(removal, new)
                replacement = _RemovalReplacement(self._table, removal, new.files, info)
                if self._lane.replace_files(replacement):
                    report.add(removal)
                    report.files_after += len(new.files)
                    report.stamp = replacement.stamp
                    new.keep()
                    return
        raise Busy(f"rules: bucket {bucket} kept on changing; those before it are done, run the rules again")

    def _check_tiers(self, removal: _Removal, rules: Sequence[BoundRule]) -> None:
        current = {file.path for file in removal.files if file.partition["tier"] == "current"}
        if any(current & loss.files for loss in removal.losses if not rules[loss.rule].drops):
            raise Internal(f"thinning bucket {removal.bucket} would remove flat winners; nothing was changed")

    def _look(
        self, snapshot: Snapshot, bucket: str, rules: Sequence[BoundRule], tiers: Collection[str]
    ) -> _Removal | None:
        """What goes from a bucket, found in pieces of about ``file_rows`` rows."""
        held = {file.partition["tier"] for file in _of_bucket(snapshot, bucket) if file.partition["tier"] in tiers}
        # Where all rows are winners there is nothing to thin.
        active = [rule for rule in rules if rule.series_ids and (rule.drops or held - {"current"})]
        if not held or not active:
            return None
        chosen = {series_id for rule in active for series_id in rule.series_ids}
        own = {series_id for series_id in chosen if series_bucket(series_id, self._bucket_digits) == bucket}
        end = max(rule.cut for rule in active) if all(rule.drops for rule in active) else None
        files = live_files(snapshot, RowSelection(own, end_valid=end), self._bucket_digits, tiers)
        columns = (*KEY_COLUMNS, *CONTENT) if any(rule.collapses for rule in rules) else KEY_COLUMNS
        finder = _Finder()
        for start, stop in self._pieces(files, RowSelection(own, end_valid=end)):
            selection = RowSelection(own, start, stop)
            rows = _numbered(self._table.store, files, selection, columns).collect(engine="in-memory")
            finder.add(rows.with_columns(mark(rows, rules).alias("rule")).filter(pl.col("rule") >= 0))
        return finder.removal(bucket, snapshot.transactions.get(bucket_transaction(bucket), 0), files, rules)

    def _pieces(
        self, files: Iterable[DataFile], selection: RowSelection
    ) -> Iterator[tuple[datetime | None, datetime | None]]:
        """Ranges of valid_time that hold about ``file_rows`` rows of the selection each; none where it has no rows."""
        times = scan(self._table.store, files, selection.predicates()).select("valid_time").collect(engine="in-memory")
        count = -(-times.height // self._file_rows)
        ordered = times["valid_time"].sort()
        cuts = ordered.gather([times.height * index // count for index in range(1, count)]).unique().sort().to_list()
        if times.height:
            yield from zip([None, *cuts], [*cuts, selection.end_valid], strict=True)

    def _rewrite(self, removal: _Removal, new: NewFiles) -> None:
        """Write the rows that stay, tier by tier; neighbours in valid_time share a file."""
        order = sorted(range(len(removal.files)), key=lambda i: removal.files[i].minimum.get("valid_time", 0))
        for tier in TIERS:
            waiting: list[pl.DataFrame] = []
            for index in (i for i in order if removal.files[i].partition["tier"] == tier):
                waiting.append(self._staying(removal, index))
                if sum(rows.height for rows in waiting) >= self._file_rows:
                    new.files += self._write(waiting, removal.bucket, tier)
                    waiting = []
            new.files += self._write(waiting, removal.bucket, tier)

    def _staying(self, removal: _Removal, index: int) -> pl.DataFrame:
        """The rows of a file that stay; checked is that those which go are the ones that the rules were asked about."""
        file = removal.files[index]
        rows = scan(self._table.store, [file]).collect(engine="in-memory")
        goes = np.zeros(rows.height, dtype=np.bool_)
        goes[removal.doomed[index]] = True
        if rows.height != file.rows or _checksum(rows.filter(pl.Series(goes))) != removal.checksums[index]:
            raise Internal(f"retention in bucket {removal.bucket} would remove other rows; nothing was changed")
        return rows.filter(~pl.Series(goes))

    def _write(self, pieces: Sequence[pl.DataFrame], bucket: str, tier: str) -> list[DataFile]:
        if not any(piece.height for piece in pieces):
            return []
        rows = rows_of_frame(sort_rows(pl.concat(pieces), SORT_ORDER))
        return [write_file(self._table.store, rows, {"series_bucket": bucket, "tier": tier}, prefix="settled-")]


def _series_of(rule: RetentionRule, known: KnownSeries) -> set[str]:
    """The series of a rule, retired ones included."""
    named = known.by_id if rule.name is None else known.by_name.get(rule.name, ())
    return {series_id for series_id in named if known.by_id[series_id].matches(rule.labels or None)}


def _checksum(rows: pl.DataFrame) -> int:
    return int(rows.select(_IDENTITY).hash_rows(seed=0).cast(pl.UInt128).sum())


def _of_bucket(snapshot: Snapshot, bucket: str) -> list[DataFile]:
    return [file for file in snapshot.files.values() if shares_bucket(file, bucket)]


def _numbered(store: Store, files: Sequence[DataFile], selection: RowSelection, columns: Sequence[str]) -> pl.LazyFrame:
    """Some columns of a selection's rows, with ``file`` (index into ``files``) and ``row`` (position in it)."""
    schema = {"file": pl.UInt32(), "row": pl.UInt32(), **{name: VALUES_POLARS[name] for name in columns}}
    parts = [pl.LazyFrame(schema=schema)]
    for index, file in enumerate(files):
        if selection.may_hold(file):
            check_files(store, [file.path])
            rows = pl.scan_parquet(
                store.url(file.path),
                schema=VALUES_POLARS,
                missing_columns="insert",
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
                row_index_name="row",
            )
            rows = rows.filter(pl.lit(True), *selection.predicates())
            parts.append(rows.select(pl.lit(index, dtype=pl.UInt32).alias("file"), "row", *columns))
    return pl.concat(parts)
