"""Point-in-time lookups: the value of each (series, valid_time) as it was known by a moment of its own.

It is the join of a backtest. A lookup stays on the snapshot on which it began, and every batch is answered for itself:
bucket by bucket, the revisions that can matter are reduced to one a known_time, and each row finds the last of them
that is not after its ``known_by``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.columns import LOOKED_UP, LOOKUP_COLUMNS, META_AS_OF, META_TABLE_VERSION, META_TOKEN
from timedb.contract.errors import TooLarge
from timedb.contract.identity import series_bucket
from timedb.contract.times import MAX_MICROS, format_time, from_micros
from timedb.contract.wire import LookupCommand
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog
from timedb.storage.catalog.resolve import resolve
from timedb.storage.catalog.unit_changes import in_step
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.delta.table import Table
from timedb.storage.read.runs_seen import RunsSeen
from timedb.storage.read.token import Token
from timedb.storage.rows import views
from timedb.storage.rows.normalise import SeriesCodes, check_batch, check_columns, series_codes, time_column
from timedb.storage.rows.orders import POINT, VERSION, WINNER, Order
from timedb.storage.rows.scan import RowSelection, live_files, scan
from timedb.storage.rows.sorting import sort_rows
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.removed import refuse_removed
from timedb.storage.tables.schemas import TIERS

__all__ = ["Lookup"]

_POINT = list(POINT)
_VERSION, _WINNER = VERSION.numbered(), WINNER.numbered()
_AS_KNOWN = Order(_WINNER.columns[:2], _WINNER.columns[2:])  # of a point and a known_time the one that can win
_SETTLED = ("fresh", "current", "revised")  # every revision that stands is there
_END_OF_TIME = from_micros(MAX_MICROS)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1) // _MICROSECOND
_EVER = 20_000 * 366 * _DAY  # more than the years 1 to 9999


@dataclass(frozen=True)
class _Group:
    """Rows of a batch that are looked up together, and where their answers are.

    ``asked`` has ``row, series_id, valid_time, valid_time_end, known_by``.
    """

    asked: pl.DataFrame
    selection: RowSelection
    files: Sequence[DataFile]

    @property
    def stored_rows(self) -> int:
        """Rows of the files."""
        return sum(max(file.rows, 0) for file in self.files)


class Lookup:
    """A lookup on the newest snapshot. Batches are answered one at a time.

    Args:
        command: What the client asks for.
        schema: Of the batches that will come.
        table: The values table.
        catalog: The series that the caller may see.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        runs: The runs of the tenant.
        batch_rows: The most rows that a batch may have.
        stored_rows: Stored rows that are in memory at once, about.

    Raises:
        InvalidRequest: a column is missing, unknown, or of a type that does not fit.
    """

    def __init__(
        self,
        command: LookupCommand,
        schema: pa.Schema,
        *,
        table: Table,
        catalog: Catalog,
        bucket_digits: int | None,
        runs: RunsSeen,
        batch_rows: int,
        stored_rows: int,
    ) -> None:
        check_columns(schema, LOOKUP_COLUMNS, ("valid_time",))
        self._store = table.store
        self._snapshot, self._known = in_step(table, catalog)
        self._catalog = catalog
        self._bucket_digits = bucket_digits
        self._corrections = command.corrections
        self._uploaded = runs.uploaded(self._snapshot)
        age = command.max_age
        self._max_age = _EVER if age is None else age.days * _DAY + age.micros
        self._batch_rows = batch_rows
        self._stored_rows = stored_rows
        self._received = 0
        newest = from_micros(self._snapshot.transactions.get(CHANGE_TIME, 0))
        # Nothing is younger than the newest: no cut-off, so that the tiers can be used.
        self._as_of = command.as_of if command.as_of is not None and command.as_of < newest else None
        resolved = self._as_of or newest
        metadata = {
            META_TABLE_VERSION: str(self._snapshot.version).encode(),
            META_AS_OF: format_time(resolved).encode(),
            META_TOKEN: Token(resolved, self._snapshot.version).to_text().encode(),
        }
        self.schema: pa.Schema = pa.schema([*schema, *LOOKED_UP], metadata=metadata)

    @translating_errors()
    def answer(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch, in their order, with ``value``, ``known_time`` and ``found``; of :attr:`schema`.

        Raises:
            TooLarge: the batch has too many rows.
            InvalidRequest: names the column, the row and the value; or retention has removed rows that the answer
                would need.
            NotFound: there is no such series.
        """
        batch = check_batch(batch, self._received)
        if batch.num_rows > self._batch_rows:
            raise TooLarge(f"batch: {batch.num_rows} rows are over the limit of {self._batch_rows}; send smaller ones")
        found = _Found(batch.num_rows)
        for bucket, asked in self._by_bucket(batch):
            for group in self._groups(bucket, asked):
                points = group.asked.select(_POINT).unique().sort(_POINT).with_row_index("point")
                rows = group.asked.join(points, on=_POINT, nulls_equal=True)
                asked = rows.select("row", "point", "known_by", "oldest")
                if self._corrections == "by_cutoff":
                    self._add_by_cutoff(found, asked, self._versions(group, points))
                else:
                    found.add(asked, self._revisions(group, points))
        self._received += batch.num_rows
        return pa.RecordBatch.from_arrays([*batch.columns, *found.columns()], schema=self.schema)

    def _by_bucket(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pl.DataFrame]]:
        """The rows of a batch, bucket by bucket, sorted by what they are about."""
        codes, first_row = SeriesCodes(), self._received
        columns = {"series": series_codes(batch, codes, first_row)}
        for name in ("valid_time", "valid_time_end", "known_by"):
            columns[name] = time_column(batch, name, first_row)
        ids = [resolve(one, self._catalog, self._known, create=False).series_id for one in codes.identities]
        named = pl.DataFrame(
            {"series": range(len(ids)), "series_id": ids, "bucket": [self._bucket(one) for one in ids]},
            schema={"series": pl.Int32, "series_id": pl.String, "bucket": pl.String},
        )
        rows = pl.DataFrame(pa.table(columns)).with_row_index("row").join(named, on="series")
        rows = rows.with_columns(oldest=pl.col("known_by").to_physical() - self._max_age)
        rows = rows.with_columns(pl.col("known_by").fill_null(_END_OF_TIME), pl.col("oldest").fill_null(-_EVER))
        rows = rows.drop("series")
        for (bucket,), asked in rows.sort("series_id", "valid_time").group_by("bucket", maintain_order=True):
            yield bucket, asked.drop("bucket")

    def _bucket(self, series_id: str) -> str:
        return series_bucket(series_id, self._bucket_digits)

    def _groups(self, bucket: str, asked: pl.DataFrame) -> Iterator[_Group]:
        """Rows of one bucket, in pieces for which not too many stored rows are read as far as halving them helps."""
        group = self._group(bucket, asked)
        if self._as_of is not None:
            refuse_removed(self._snapshot, {bucket}, self._as_of, group.selection.start_valid)
        waiting = [group]
        while waiting:
            group = waiting.pop()
            if group.stored_rows > self._stored_rows and group.asked.height > 1:
                middle = group.asked.height // 2
                halves = [self._group(bucket, part) for part in (group.asked[:middle], group.asked[middle:])]
                if any(half.stored_rows < group.stored_rows for half in halves):
                    waiting += halves
                    continue
            yield group

    def _group(self, bucket: str, asked: pl.DataFrame) -> _Group:
        first, last, known_by = asked.select(
            first=pl.col("valid_time").min(), last=pl.col("valid_time").max(), known_by=pl.col("known_by").max()
        ).row(0)
        selection = RowSelection(
            series_ids=set(asked["series_id"].unique()),
            start_valid=first,
            end_valid=None if last == _END_OF_TIME else last + _MICROSECOND,
            end_known=None if known_by == _END_OF_TIME else known_by + _MICROSECOND,
            as_of=self._as_of,
        )
        superseded = self._as_of is not None or self._corrections != "all"
        tiers = TIERS if superseded else _SETTLED
        files = live_files(self._snapshot, selection, self._bucket_digits, tiers)
        return _Group(asked, selection, files)

    def _revisions(self, group: _Group, points: pl.DataFrame, *, by_run: bool = False) -> pl.DataFrame:
        """What can answer a group: ``point, known_time, value``, sorted by the first two, one row each.

        Args:
            group: What is looked up.
            points: ``point`` with the columns that it stands for, each once.
            by_run: Whether the run_id has to be looked at.
        """
        # Without corrections and cut-off every row is the only version of its revision.
        versions = (
            self._as_of is not None
            or self._corrections != "all"
            or any(may_hold_corrections(file) for file in group.files if file.partition["tier"] == "fresh")
        )
        if versions:
            stands = replace(_VERSION, least=self._corrections == "none")
            return _by_known_time(views.standing(views.picked(self._versions(group, points), stands)))
        ranked = _AS_KNOWN.columns if by_run else tuple(name for name in _AS_KNOWN.columns if name != "run_id")
        found = sort_rows(self._stored(group, points, ranked[1:]), ranked)
        if not by_run and found.select(views.same_as_next(ranked).any()).item():
            return self._revisions(group, points, by_run=True)
        return found.filter(~views.same_as_next(_AS_KNOWN.key)).select("point", "known_time", "value")

    def _versions(self, group: _Group, points: pl.DataFrame) -> pl.DataFrame:
        """Every version that the files of a group have of its points."""
        return self._stored(group, points, (*_AS_KNOWN.columns[1:], "retracted"))

    def _stored(self, group: _Group, points: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        rows = scan(self._store, group.files, group.selection.predicates()).select(*_POINT, *columns, "value")
        return _numbered(rows.collect(engine="in-memory"), points)

    def _add_by_cutoff(self, found: _Found, asked: pl.DataFrame, versions: pl.DataFrame) -> None:
        """Answer rows for each of which other corrections may count: those that were written by its ``known_by``."""
        versions = versions.join(self._uploaded(), on="run_id", how="left")
        later = pl.col("change_time").ne_missing(pl.col("uploaded"))
        versions = versions.with_columns(later=later).drop("uploaded")
        corrected = versions.filter("later").select("point").unique()
        # Where nothing was corrected, which is nearly everywhere, each version is a revision.
        plain = versions.join(corrected, on="point", how="anti")
        found.add(asked.join(corrected, on="point", how="anti"), _by_known_time(views.standing(plain)))
        disputed = versions.join(corrected, on="point", how="semi")
        counts = disputed.group_by("point").agg(versions=pl.len().cast(pl.Int64))
        rows = asked.join(counts, on="point").sort("row")
        turn = (rows["versions"].cum_sum() // self._stored_rows).alias("turn")
        for part in rows.drop("versions").with_columns(turn).partition_by("turn"):
            found.put(_standing_by(part.drop("turn"), disputed))


def _by_known_time(revisions: pl.DataFrame) -> pl.DataFrame:
    """``point, known_time, value`` of the revisions that stand: of each known_time the one that can win; sorted."""
    ranked = sort_rows(revisions, _AS_KNOWN.columns)
    return ranked.filter(~views.same_as_next(_AS_KNOWN.key)).select("point", "known_time", "value")


def _standing_by(asked: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """``row, value, known_time`` of each row that has a winner among the versions that count by its ``known_by``."""
    known_by = pl.col("known_by")
    pairs = asked.join(versions, on="point").filter(
        pl.col("known_time") <= known_by,
        pl.col("known_time").to_physical() >= pl.col("oldest"),
        ~pl.col("later") | (pl.col("change_time") <= known_by),
    )
    standing = views.standing(views.picked(pairs, Order(("row", "known_time", "run_id"), _VERSION.by)))
    return views.picked(standing, Order(("row",), _WINNER.by)).select("row", "value", "known_time")


def _numbered(rows: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """The rows that are about one of the points, with ``point`` in place of the columns that it stands for."""
    # Files are sorted, so that rows about one point follow each other: look each point up once a run of rows.
    last = rows.select(last=~views.same_as_next(_POINT))["last"]
    runs = rows.filter(last).select(_POINT)
    number = runs.join(points, on=_POINT, how="left", nulls_equal=True, maintain_order="left")["point"]
    begins = last.shift(1, fill_value=False).cast(pl.UInt32)
    rows = rows.drop(_POINT).with_columns(point=number.gather(begins.cum_sum()))
    return rows.filter(pl.col("point").is_not_null()) if number.null_count() else rows


class _Found:
    """The answers of one batch, put together from those of its groups."""

    def __init__(self, rows: int) -> None:
        self._place = np.full(rows, -1, dtype=np.int64)
        self._pieces = [pl.DataFrame(schema={"value": pl.Float64, "known_time": pl.Datetime("us", "UTC")})]
        self._height = 0

    def add(self, asked: pl.DataFrame, revisions: pl.DataFrame) -> None:
        """Find for each row of a group the last revision that was known by then.

        Args:
            asked: ``row, point, known_by``, and ``oldest``, before which it may not have been known, in microseconds.
            revisions: ``point, known_time, value``, sorted by the first two, one row each.
        """
        known, point = revisions["known_time"].to_physical().to_numpy(), _numbers(revisions["point"])
        asked_point, known_by = _numbers(asked["point"]), asked["known_by"].to_physical().to_numpy()
        # (point, known_time) as one number: of the latter its place on the ladder of all known_times is enough.
        ladder = np.unique(known)
        steps = len(ladder) + 1
        keys = point * steps + np.searchsorted(ladder, known, side="right")
        sought = asked_point * steps + np.searchsorted(ladder, known_by, side="right")
        places = np.searchsorted(keys, sought, side="right") - 1
        hit = places >= 0
        hit[hit] = point[places[hit]] == asked_point[hit]
        hit[hit] = known[places[hit]] >= _numbers(asked["oldest"])[hit]
        piece = revisions.select("value", "known_time")[places[hit]]
        self.put(piece.with_columns(row=asked["row"].filter(pl.Series(hit))))

    def put(self, answers: pl.DataFrame) -> None:
        """Take the answers of some rows: ``row, value, known_time``."""
        self._place[answers["row"].to_numpy()] = np.arange(self._height, self._height + answers.height)
        self._pieces.append(answers.select("value", "known_time"))
        self._height += answers.height

    def columns(self) -> list[pa.Array]:
        """The columns of :data:`~timedb.contract.columns.LOOKED_UP`."""
        answers = pl.concat(self._pieces).to_arrow().combine_chunks()
        missing = self._place < 0
        places = pa.array(self._place, mask=missing)
        value, known_time = (
            answers.column(name).cast(LOOKED_UP.field(name).type).take(places).combine_chunks()
            for name in ("value", "known_time")
        )
        return [value, known_time, pa.array(~missing)]


def _numbers(column: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return column.to_numpy().astype(np.int64)
