"""Small writes on their way from the mixed partition into their buckets: many files become one, then one a bucket.

Rows move as they are, all those of a file in one commit, so that a row is in one place whatever happens. What they are
worth (their tier) is left to compaction. The oldest move first: a correction never arrives before what it corrects.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from timedb.contract.digest import rows_checksum
from timedb.contract.errors import Internal
from timedb.storage.commit.lane import CommitLane
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import CORRECTION_PREFIX, UPLOAD_PREFIX, may_hold_corrections, write_file
from timedb.storage.delta.table import Table
from timedb.storage.maintain.replacement import BucketReplacement, Inputs
from timedb.storage.rows.rows import gathered, in_file_order, read_rows, split_buckets
from timedb.storage.rows.scan import is_mixed
from timedb.storage.rows.slices import Slice
from timedb.storage.tables.schemas import MIXED, MIXED_GROUP_ROWS

__all__ = ["Mover"]

_LOT_ROWS = (512, MIXED_GROUP_ROWS)
"""Files of fewer rows are gathered with their like: so each row is written three times on its way to its bucket."""


class Mover:
    """Moves mixed rows of a tenant.

    Args:
        table: The values table.
        lane: Where the replacements are committed.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        input_rows: Rows that are worked on at once, about.
    """

    def __init__(self, table: Table, lane: CommitLane, *, bucket_digits: int | None, input_rows: int) -> None:
        self._table = table
        self._lane = lane
        self._bucket_digits = bucket_digits
        self._input_rows = input_rows

    def move(self) -> tuple[int, int]:
        """Move the rows that are mixed now: how many files there were, and how many they have become.

        Raises:
            Internal: the rows that would be written are not those that were read; nothing was changed.
        """
        before = after = 0
        waiting = {file.path for file in _mixed(self._table.snapshot())}
        # What a busy writer adds meanwhile is left to the next call, else this one might never return.
        while True:
            snapshot = self._table.snapshot()
            mixed = [file for file in _mixed(snapshot) if file.path in waiting]
            if not mixed:
                return before, after
            inputs = Inputs.at(snapshot, MIXED, self._oldest(mixed))
            with NewFiles(self._table.store) as new:
                self._write(inputs.fresh, new)
                if self._lane.replace_files(BucketReplacement(inputs, new.files)):
                    before += len(inputs.fresh)
                    after += len(new.files)
                    new.keep()

    def gather(self, files: int) -> None:
        """Make one mixed file of each lot of small ones, of about the same size, that are at least so many.

        They are uploads; corrections are moved, so that no bucket has to be reduced for their sake for long.

        Raises:
            Internal: the rows that would be written are not those that were read; nothing was changed.
        """
        smallest = 0
        for rows in _LOT_ROWS:
            snapshot = self._table.snapshot()
            lot = [file for file in _mixed(snapshot) if smallest <= file.rows < rows and not may_hold_corrections(file)]
            smallest = rows
            if len(lot) < files:
                continue
            inputs = Inputs.at(snapshot, MIXED, self._oldest(lot))
            if len(inputs.fresh) < 2:
                continue  # a few rows are more than are worked on at once
            with NewFiles(self._table.store) as new:
                self._write_one(inputs.fresh, new)
                if self._lane.replace_files(BucketReplacement(inputs, new.files)):
                    new.keep()

    def _write_one(self, files: Sequence[DataFile], new: NewFiles) -> None:
        rows = gathered([read_rows(self._table.store, file, Slice()) for file in files])
        together = in_file_order(rows)
        partition = {"series_bucket": MIXED, "tier": "fresh"}
        new.files.append(write_file(self._table.store, together, partition, UPLOAD_PREFIX, group_rows=MIXED_GROUP_ROWS))
        _check_same(rows, files, together.num_rows, rows_checksum(together))

    def _oldest(self, mixed: Sequence[DataFile]) -> list[DataFile]:
        taken: list[DataFile] = []
        rows = 0
        for file in sorted(mixed, key=lambda file: (file.minimum.get("change_time", 0), file.path)):
            if taken and rows + file.rows > self._input_rows:
                break
            taken.append(file)
            rows += file.rows
        return taken

    def _write(self, files: Sequence[DataFile], new: NewFiles) -> None:
        """Write the rows bucket by bucket, corrections apart from uploads, which readers need not reduce."""
        for prefix, corrects in ((UPLOAD_PREFIX, False), (CORRECTION_PREFIX, True)):
            held = [file for file in files if may_hold_corrections(file) is corrects]
            if not held:
                continue
            rows = gathered([read_rows(self._table.store, file, Slice()) for file in held])
            written = checksum = 0
            for bucket, part in split_buckets(in_file_order(rows), self._bucket_digits):
                partition = {"series_bucket": bucket, "tier": "fresh"}
                new.files.append(write_file(self._table.store, part, partition, prefix))
                written += part.num_rows
                checksum += rows_checksum(part)
            _check_same(rows, held, written, checksum)


def _check_same(rows: pa.Table, files: Sequence[DataFile], written: int, checksum: int) -> None:
    """See that what was written are the rows of some files.

    Raises:
        Internal: it is not.
    """
    same = (checksum - rows_checksum(rows)) % (1 << 64) == 0
    if not written == rows.num_rows == sum(file.rows for file in files) or not same:
        raise Internal("moving rows of small writes would change them; nothing was changed")


def _mixed(snapshot: Snapshot) -> list[DataFile]:
    return [file for file in snapshot.files.values() if is_mixed(file)]
