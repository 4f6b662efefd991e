"""Files of a bucket, or mixed ones, that others take the place of: planned beside the commit lane, checked in its turn.

In its turn a replacement is checked against the very snapshot that it is committed on: no other one in the bucket since
it was planned, and every input file still live; else it is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from timedb.storage.commit.writes import CommitContext, FileReplacement
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.tables.commit_marks import bucket_transaction

__all__ = ["BucketReplacement", "Inputs"]


@dataclass(frozen=True)
class Inputs:
    """The files of a bucket that are read and replaced, and how often its files had been replaced before."""

    bucket: str
    transaction: int
    fresh: Sequence[DataFile]
    settled: Sequence[DataFile] = ()

    @classmethod
    def at(cls, snapshot: Snapshot, bucket: str, fresh: Sequence[DataFile], settled: Sequence[DataFile] = ()) -> Inputs:
        """Files of a bucket as a snapshot has them."""
        return cls(bucket, snapshot.transactions.get(bucket_transaction(bucket), 0), fresh, settled)

    @property
    def all(self) -> list[DataFile]:
        """All of them, fresh ones first."""
        return [*self.fresh, *self.settled]


@dataclass
class BucketReplacement:
    """New files for old ones, waiting for their turn in the lane."""

    inputs: Inputs
    adds: Sequence[DataFile]

    rows: int = 0
    key: str | None = None
    shareable: bool = field(default=False)

    def prepare(self, context: CommitContext) -> FileReplacement | None:
        """The replacement, or None where the bucket is no longer as it was planned."""
        app_id = bucket_transaction(self.inputs.bucket)
        files = context.snapshot.files
        if context.snapshot.transactions.get(app_id, 0) != self.inputs.transaction:
            return None
        if any(file.path not in files for file in self.inputs.all):
            return None
        return FileReplacement(self.adds, self.inputs.all, {app_id: self.inputs.transaction + 1})
