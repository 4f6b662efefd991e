"""Compaction: settles the tier of fresh rows, bucket by bucket, and replaces old files by new in one commit.

The heavy work is done beside the commit lane, in slices that fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.digest import rows_checksum
from timedb.contract.errors import Internal
from timedb.contract.times import MAX_MICROS
from timedb.storage.commit.lane import CommitLane
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import may_hold_corrections, write_file
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Table
from timedb.storage.maintain.moving import Mover
from timedb.storage.maintain.replacement import BucketReplacement, Inputs
from timedb.storage.memory.budget import Memory
from timedb.storage.memory.server import ROW_BYTES
from timedb.storage.rows.orders import POINT
from timedb.storage.rows.rows import ROWS, flags, gathered, in_file_order, pieces_by_valid_time, read_rows
from timedb.storage.rows.scan import is_mixed, ranges_meet, scan
from timedb.storage.rows.settling import Tiers, assign_tiers
from timedb.storage.rows.slices import Slice, cut_slices
from timedb.storage.rows.text_bytes import rows_of_bytes
from timedb.storage.tables.schemas import TIERS

__all__ = ["Compactor"]

# A pass takes so many slices of fresh rows, so that a large backlog is settled step by step.
_PASS_SLICES = 4
_TEXT_BYTES = 64 << 20
_WAITING_BYTES = 256 << 20
_WAITING_ROW_BYTES = 100
_POINT_RANGES = ("series_id", "valid_time")
_POINT = list(POINT)


class Compactor:
    """Compacts the values table of a tenant; its ``mover`` brings mixed rows into their buckets.

    Args:
        table: The values table.
        lane: Where the replacements are committed.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        file_rows: Rows of a file, about; a settled file of less than a quarter of it is merged with others.
        input_rows: Rows that are worked on at once, about.
        memory: What it shares with calls; None: it has its own.
    """

    def __init__(
        self,
        table: Table,
        lane: CommitLane,
        *,
        bucket_digits: int | None,
        file_rows: int,
        input_rows: int,
        memory: Memory | None = None,
    ) -> None:
        self._table = table
        self._lane = lane
        self.mover = Mover(table, lane, bucket_digits=bucket_digits, input_rows=input_rows)
        self._file_rows = file_rows
        self._input_rows = input_rows
        self._memory = memory

    def compact(self, bucket: str) -> dict[str, int]:
        """Settle the rows of a bucket that are fresh now: ``{files_before, files_after, rows}``; zeros where none is.

        Raises:
            Internal: the rows that would be written are not those that were read; nothing was changed.
            Busy: calls hold the memory that it takes.
        """
        self.mover.move()
        return self.settle(bucket)

    def settle(self, bucket: str) -> dict[str, int]:
        """As :meth:`compact`, for the rows that are in the bucket's own files; mixed ones are left to be gathered.

        Raises:
            Internal, Busy: as there.
        """
        if any(map(may_hold_corrections, _fresh_files(self._table.snapshot(), bucket))):
            self.mover.move()  # what they correct may be among the mixed rows
        totals = {"files_before": 0, "files_after": 0, "rows": 0}
        waiting = _fresh_paths(self._table.snapshot(), bucket)
        # What a busy writer adds meanwhile is left to the next call, else this one might never return.
        while waiting & _fresh_paths(snapshot := self._table.snapshot(), bucket):
            if (inputs := self._plan(snapshot, bucket)) is None:
                break
            with self._share(inputs), _SettledFiles(self._table.store, inputs.bucket, self._file_rows) as new:
                self._rewrite(inputs, new)
                if self._lane.replace_files(BucketReplacement(inputs, new.files)):
                    totals["files_before"] += len(inputs.all)
                    totals["files_after"] += len(new.files)
                    totals["rows"] += sum(file.rows for file in inputs.fresh)
                    new.keep()
        return totals

    def _share(self, inputs: Inputs) -> AbstractContextManager[object]:
        """The memory for a slice, and for the rows that wait for a full file."""
        if self._memory is None:
            return nullcontext()
        rows = sum(file.rows for file in inputs.all)
        size = min(rows, self._input_rows) * ROW_BYTES + min(rows, self._file_rows) * _WAITING_ROW_BYTES
        return self._memory.share("compaction", min(size, self._memory.for_calls))

    def _plan(self, snapshot: Snapshot, bucket: str) -> Inputs | None:
        tiers: dict[str, list[DataFile]] = {"fresh": [], "current": [], "revised": [], "corrected": []}
        for file in snapshot.files.values():
            if file.partition["series_bucket"] == bucket:
                tiers[file.partition["tier"]].append(file)
        fresh = self._take(_before_mixed(tiers["fresh"], [file for file in snapshot.files.values() if is_mixed(file)]))
        if not fresh:
            return None
        settled = [file for file in tiers["current"] if any(ranges_meet(file, other, _POINT_RANGES) for other in fresh)]
        corrections = [file for file in fresh if may_hold_corrections(file)]
        if corrections:
            settled += self._holding_points_of(corrections, tiers["revised"])
        for tier in ("current", "revised", "corrected"):
            rest = [file for file in tiers[tier] if file not in settled]
            settled += self._small(rest)
        return Inputs.at(snapshot, bucket, fresh, settled)

    def _take(self, fresh: list[DataFile]) -> list[DataFile]:
        # A correction and the row that it corrects must not end up on two sides of a pass.
        if any(map(may_hold_corrections, fresh)):
            return fresh
        taken: list[DataFile] = []
        rows = 0
        for file in sorted(fresh, key=lambda file: (file.minimum.get("valid_time", 0), file.path)):
            if taken and rows + file.rows > self._input_rows * _PASS_SLICES:
                break
            taken.append(file)
            rows += file.rows
        return taken

    def _small(self, files: list[DataFile]) -> list[DataFile]:
        """Settled files that are worth merging: the small ones, once there are several."""
        small = [file for file in files if file.rows < self._file_rows // 4]
        return small if len(small) >= 4 else []

    def _holding_points_of(self, corrections: Sequence[DataFile], revised: Sequence[DataFile]) -> list[DataFile]:
        found: list[DataFile] = []
        for group in self._groups(corrections):
            points = scan(self._table.store, group).select(_POINT).unique().collect(engine="in-memory").lazy()
            for file in revised:
                if file in found or not any(ranges_meet(file, other, _POINT_RANGES) for other in group):
                    continue
                hits = (
                    scan(self._table.store, [file]).select(_POINT).join(points, on=_POINT, how="semi", nulls_equal=True)
                )
                if hits.select(pl.len()).collect(engine="in-memory").item():
                    found.append(file)
        return found

    def _groups(self, files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
        """Files whose rows can be held together."""
        group: list[DataFile] = []
        for file in files:
            if group and sum(one.rows for one in group) + file.rows > self._input_rows:
                yield group
                group = []
            group.append(file)
        yield group

    def _rewrite(self, inputs: Inputs, new: _SettledFiles) -> None:
        rows = checksum = 0
        most = rows_of_bytes(self._table.store, inputs.all, self._input_rows, _TEXT_BYTES)
        for piece in cut_slices(self._table.store, inputs.all, most):
            before, tiers = self._read(inputs, piece)
            rows += before.num_rows
            checksum += rows_checksum(before)
            new.add(before, assign_tiers(before, tiers))
        new.finish()
        promised = sum(file.rows for file in inputs.all)
        same = (checksum - new.checksum) % (1 << 64) == 0
        if not rows == promised == sum(file.rows for file in new.files) or not same:
            raise Internal(f"compaction of bucket {inputs.bucket} would change its rows; nothing was changed")

    def _read(self, inputs: Inputs, piece: Slice) -> tuple[pa.Table, Tiers]:
        """The rows of a slice, with their tiers."""
        parts, tiers = [ROWS.empty_table()], []
        for file in inputs.all:
            if piece.may_hold(file):
                parts.append(read_rows(self._table.store, file, piece))
                tiers.append(np.full(parts[-1].num_rows, TIERS.index(file.partition["tier"]), dtype=np.int8))
        return gathered(parts), np.concatenate(tiers)


class _SettledFiles(NewFiles):
    """Settled rows on their way into files, slice by slice in the order of valid_time.

    Args:
        store: The values table's folder.
        bucket: Whose rows they are.
        file_rows: Rows of a file, about.
    """

    def __init__(self, store: Store, bucket: str, file_rows: int) -> None:
        super().__init__(store)
        self.checksum = 0
        self._bucket = bucket
        self._file_rows = file_rows
        self._waiting: dict[str, list[pa.Table]] = {}

    def add(self, rows: pa.Table, tiers: Tiers) -> None:
        """Take the rows of a slice; those that are less than a file wait for the next one."""
        for number, tier in enumerate(TIERS):
            mine = tiers == number
            if mine.any():
                waiting = self._waiting.setdefault(tier, [])
                waiting.append(rows if mine.all() else rows.filter(flags(mine)))
                if (
                    sum(part.num_rows for part in waiting) >= self._file_rows
                    or sum(part.nbytes for part in waiting) >= _WAITING_BYTES
                ):
                    self._write(tier)

    def finish(self) -> None:
        """Write the rows that wait for a fuller file."""
        for tier in list(self._waiting):
            self._write(tier)

    def _write(self, tier: str) -> None:
        for piece in self._pieces(gathered(self._waiting.pop(tier))):
            rows = in_file_order(piece)
            for start in range(0, rows.num_rows, self._limit(rows)):
                data = rows.slice(start, self._limit(rows))
                self.checksum += rows_checksum(data)
                partition = {"series_bucket": self._bucket, "tier": tier}
                self.files.append(write_file(self.store, data, partition, prefix="settled-"))

    def _pieces(self, rows: pa.Table) -> Iterable[pa.Table]:
        """Cut by valid_time, so that new values about new times leave most files alone."""
        count = -(-rows.num_rows // self._file_rows)
        if rows.num_rows <= self._file_rows * 3 // 2 or count < 2:
            return [rows]
        return pieces_by_valid_time(rows, count)

    def _limit(self, rows: pa.Table) -> int:
        """Rows of a file of some that are sorted: what has too many of one valid_time is cut by series_id."""
        return rows.num_rows if rows.num_rows <= self._file_rows * 2 else self._file_rows


def _before_mixed(fresh: list[DataFile], mixed: Sequence[DataFile]) -> list[DataFile]:
    """The fresh files of a bucket that may be settled while some rows are still mixed.

    A correction must not be settled before the row that it corrects, and that may be among them. Commits have their
    change_times in order, so that nothing older than all mixed rows corrects one of them.
    """
    if not mixed or not any(map(may_hold_corrections, fresh)):
        return fresh
    oldest = min(_time(file.minimum, "change_time", 0) for file in mixed)
    return [file for file in fresh if _time(file.maximum, "change_time", MAX_MICROS) < oldest]


def _time(bounds: Mapping[str, str | int], name: str, unknown: int) -> int:
    found = bounds.get(name)
    return found if isinstance(found, int) else unknown


def _fresh_paths(snapshot: Snapshot, bucket: str) -> set[str]:
    return {file.path for file in _fresh_files(snapshot, bucket)}


def _fresh_files(snapshot: Snapshot, bucket: str) -> list[DataFile]:
    return [
        file
        for file in snapshot.files.values()
        if file.partition["tier"] == "fresh" and file.partition["series_bucket"] == bucket
    ]
