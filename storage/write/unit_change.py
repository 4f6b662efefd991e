"""A series gets another unit: by declaration, or with all its stored numbers converted, in one commit.

A conversion writes every version of every row of the series anew, under its own change_time: it is no revision of the
values, but the same quantities in another unit, at every as_of. The files are rewritten beside the commit lane; what
has come in meanwhile is converted in the turn, once it is little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from timedb.contract.errors import Busy, InvalidRequest, TooLarge
from timedb.contract.wire import UpdateSeries, quoted
from timedb.storage.catalog.catalog import Catalog, Series
from timedb.storage.catalog.unit_changes import ChangeOfUnit, in_step
from timedb.storage.commit.lane import CommitLane
from timedb.storage.commit.writes import CommitContext, FileReplacement
from timedb.storage.delta.damage import damage_named
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import StagedFile
from timedb.storage.delta.table import Table
from timedb.storage.measures.units import check_unit, convert_column, converter
from timedb.storage.memory.budget import Memory
from timedb.storage.memory.server import ROW_BYTES
from timedb.storage.rows.rows import ROWS, batches_of
from timedb.storage.rows.scan import RowSelection, is_mixed, live_files, scan
from timedb.storage.tables.commit_marks import UNITS, bucket_transaction, converted_transaction
from timedb.storage.tables.schemas import MIXED_GROUP_ROWS

__all__ = ["UnitChanger"]

_ATTEMPTS = 20
_IN_TURN_FILES, _IN_TURN_ROWS = 64, 100_000  # of what may be rewritten while others wait
_GROUP_ROWS = 131_072
_COPIES = 4  # a row group as it was read, its numbers, the rows that are written, and what is encoded


class _ConvertedFiles(NewFiles):
    """Files with the numbers of a series in another unit, in place of those that hold them.

    Args:
        table: The values table.
        series: Which series.
        unit: What its numbers shall be of.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
    """

    def __init__(self, table: Table, series: Series, unit: str, bucket_digits: int | None) -> None:
        super().__init__(table.store)
        self._series = series
        self._unit = unit
        self._bucket_digits = bucket_digits
        self._made: dict[str, list[DataFile]] = {}

    def missing(self, snapshot: Snapshot) -> list[DataFile]:
        """The files of a snapshot that may hold numbers of the series and have not been looked at."""
        files = live_files(snapshot, RowSelection(series_ids=[self._series.series_id]), self._bucket_digits)
        return [file for file in files if file.path not in self._made]

    def convert(self, file: DataFile) -> None:
        """Write a file anew, if it holds numbers of the series.

        Raises:
            InvalidRequest: a number would become an infinity.
        """
        mine = pl.col("series_id") == self._series.series_id
        held = scan(self.store, [file], [mine]).select(pl.len()).collect(engine="in-memory").item()
        self._made[file.path] = list(self._rewritten(file)) if held else []

    def swap(self, snapshot: Snapshot) -> tuple[list[DataFile], list[DataFile]]:
        """What is added and what is removed of a snapshot of which nothing is missing."""
        removes = [snapshot.files[path] for path, new in self._made.items() if new and path in snapshot.files]
        return [new for file in removes for new in self._made[file.path]], removes

    def keep_used(self, used: list[DataFile]) -> None:
        """Leave those files to the table that a commit refers to."""
        unused = [file for file in self.files if file not in used]
        self.files = used
        self.keep()
        self.files = unused

    def _rewritten(self, file: DataFile) -> Iterator[DataFile]:
        staged: StagedFile | None = None
        prefix = file.path.rpartition("/")[2].partition("-")[0] + "-"  # which says whether it may hold corrections
        group_rows = MIXED_GROUP_ROWS if is_mixed(file) else _GROUP_ROWS
        for rows in self._groups(file):
            if staged is None or not staged.has_place_for(rows):
                if staged is not None:
                    yield self._published(staged)
                staged = StagedFile(self.store, rows, file.partition, prefix, group_rows=group_rows)
            staged.add(rows)
        if staged is not None:
            yield self._published(staged)

    def _published(self, staged: StagedFile) -> DataFile:
        file = staged.finish()
        self.files.append(file)
        self.store.publish(file.path)
        return file

    def _groups(self, file: DataFile) -> Iterator[pa.Table]:
        """The rows of a file, a row group at a time, with the numbers of the series converted."""
        with damage_named(self.store, file.path):
            source = self.store.open(file.path)
            groups = pq.read_metadata(source).num_row_groups
        for group in range(groups):
            yield self._converted(pa.Table.from_batches(list(batches_of(self.store, file, [group])), ROWS))

    def _converted(self, rows: pa.Table) -> pa.Table:
        column = pl.Series("value", rows.column("value"))
        codes = pl.repeat(0, rows.num_rows, dtype=pl.Int32, eager=True)
        old, name = [self._series.unit], [self._series.name]
        new = convert_column(column, codes, old, [self._unit], series=name, field="unit")
        mine = pl.Series(rows.column("series_id").cast(pa.string())) == self._series.series_id
        if (new.is_infinite() & column.is_finite() & mine).any():
            raise InvalidRequest(
                f"unit: a value of the series {quoted(self._series.name)} is too large a number in {quoted(self._unit)}"
            )
        values = new.zip_with(mine, column).to_arrow().cast(ROWS.field("value").type)
        return rows.set_column(rows.column_names.index("value"), ROWS.field("value"), values)


@dataclass
class _Change:
    """A change of a unit that waits for its turn in the lane; ``files`` are None where the numbers stay."""

    series: Series
    unit: str
    seen: int
    who: str | None
    files: _ConvertedFiles | None
    used: list[DataFile] = field(default_factory=list)

    def prepare(self, context: CommitContext) -> FileReplacement | None:
        """The change, or None where another one was faster, or too much has come in meanwhile."""
        snapshot = context.snapshot
        if snapshot.transactions.get(UNITS, 0) != self.seen:
            return None
        change = ChangeOfUnit(self.series.series_id, self.series.unit, self.unit, self.files is not None, self.seen)
        info = {"updates": [change.record(snapshot, self.who)]}
        marks = {UNITS: context.version}
        if self.files is None:
            return FileReplacement([], [], marks, operation="SET UNIT", info=info)
        missing = self.files.missing(snapshot)
        if len(missing) > _IN_TURN_FILES or sum(file.rows for file in missing) > _IN_TURN_ROWS:
            return None
        for file in missing:
            self.files.convert(file)
        self.used, removes = self.files.swap(snapshot)
        marks[converted_transaction(self.series.series_id)] = context.version
        for guard in {bucket_transaction(file.partition["series_bucket"]) for file in removes}:
            marks[guard] = snapshot.transactions.get(guard, 0) + 1
        return FileReplacement(self.used, removes, marks, operation="UPDATE", data_change=True, info=info)


@dataclass(frozen=True)
class UnitChanger:
    """Changes units of series of a tenant.

    Attributes:
        table: The values table.
        lane: Where the changes are committed.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        max_rows: Of the files that a conversion rewrites, at most.
        memory: Of which a conversion takes a share.
    """

    table: Table
    lane: CommitLane
    bucket_digits: int | None
    max_rows: int
    memory: Memory

    def update(self, catalog: Catalog, message: UpdateSeries, who: str | None) -> dict[str, Any]:
        """Change what a series says of itself, and its unit; the series as it is then.

        Raises:
            NotFound: there is no such series.
            Conflict: another series has the name and the same labels.
            InvalidRequest: nobody knows the unit, or the values do not convert to it.
            TooLarge: there is too much to be converted.
            Busy: others have kept on changing what there is of the series.
        """
        if message.unit is not None:
            check_unit(message.unit, field="unit")
        told = catalog.update(message)
        if message.unit is None:
            return told
        change = self._convert if message.unit_change == "convert" else self._declare
        change(catalog, message.series_id, message.unit, who)
        return {**told, "unit": message.unit}

    def _declare(self, catalog: Catalog, series_id: str, unit: str, who: str | None) -> None:
        """Say that the numbers of a series have been of a unit all along."""
        for _ in range(_ATTEMPTS):
            _, known = in_step(self.table, catalog)
            series = known.get(series_id)
            if series.unit == unit and not series.auto_created:
                return
            if self._commit(catalog, _Change(series, unit, known.units, who, None)):
                return
        raise Busy("unit: others have kept on changing units; retry")

    def _convert(self, catalog: Catalog, series_id: str, unit: str, who: str | None) -> None:
        """Convert all stored numbers of a series. Where it has that unit already, nothing is done."""
        for _ in range(_ATTEMPTS):
            snapshot, known = in_step(self.table, catalog)
            series = known.get(series_id)
            if series.unit == unit:
                return
            if self._converts(series, unit):
                with _ConvertedFiles(self.table, series, unit, self.bucket_digits) as files:
                    if self._commit_converted(catalog, _Change(series, unit, known.units, who, files), files, snapshot):
                        return
            elif self._commit(catalog, _Change(series, unit, known.units, who, None)):
                return
        raise Busy("unit: others have kept on changing what there is of the series; retry")

    def _converts(self, series: Series, unit: str) -> bool:
        """Whether another number stands for the same quantity in the new unit."""
        if series.auto_created:
            raise InvalidRequest(
                f"unit: nobody has said of which unit the values of {quoted(series.name)} are; declare that first"
            )
        return converter(series.unit, unit, field="unit") is not None

    def _commit_converted(self, catalog: Catalog, change: _Change, files: _ConvertedFiles, snapshot: Snapshot) -> bool:
        """Rewrite files until a turn finds little that is missing; False where another change of a unit was faster."""
        size = _COPIES * _GROUP_ROWS * ROW_BYTES
        with self.memory.share("unit", min(size, self.memory.for_calls)):
            for _ in range(_ATTEMPTS):
                missing = files.missing(snapshot)
                if (rows := sum(file.rows for file in missing)) > self.max_rows:
                    raise TooLarge(
                        f"unit: the files that hold the series have {rows} rows, more than the {self.max_rows} that a "
                        "conversion writes anew (TIMEDB_MAX_CONVERTED_ROWS); make a series of the other unit, and "
                        "upload to it what a read with unit gives"
                    )
                for file in missing:
                    files.convert(file)
                if self._commit(catalog, change):
                    return True
                snapshot = self.table.snapshot()
                if snapshot.transactions.get(UNITS, 0) != change.seen:
                    return False
        raise Busy("unit: more has come in than could be converted meanwhile; retry")

    def _commit(self, catalog: Catalog, change: _Change) -> bool:
        if not self.lane.replace_files(change):
            return False
        if change.files is not None:
            change.files.keep_used(change.used)  # before anything can fail that comes after the commit
        catalog.follow(self.table.snapshot())
        return True
