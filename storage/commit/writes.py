"""What may want a turn in the commit lane, and what it is asked for in its turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from timedb.contract.errors import TimeDBError
from timedb.storage.catalog.catalog import SeriesNeeds
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.rows.stamping import StampedRun

__all__ = ["Answer", "Arrival", "CommitContext", "FileReplacement", "Prepared", "ReplacementWrite", "Write"]


@dataclass(frozen=True)
class CommitContext:
    """What a write may look at when it is prepared: the snapshot that it will be committed on."""

    snapshot: Snapshot
    ledger: Ledger
    """Runs and updates; in the turn of a write all those of the snapshot are known."""
    stamp: int
    """The change_time that the write's first row gets, as microseconds since 1970."""

    @property
    def version(self) -> int:
        """The version that the commit will have."""
        return self.snapshot.version + 1


@dataclass(frozen=True)
class Answer:
    """A write that has nothing to add: it is in already, or changes nothing."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """Rows that are ready to be committed."""

    rows: pa.Table | StampedRun
    """:data:`VALUES_DATA` columns, text as it is or as a dictionary, sorted by series_id; or what a run has of them."""
    last_stamp: int
    result: dict[str, Any]
    files: Sequence[DataFile] = ()
    """Files of the table that are written already."""
    info: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records for the commit info: register key -> record."""
    series: SeriesNeeds | None = None
    """What has to be true of the tenant's series before the rows are committed."""
    new_keys: bool = False
    """Whether every row is the first version of its revision, as an upload's are."""


@dataclass(frozen=True)
class FileReplacement:
    """Files that take the place of others; by default they hold the same rows."""

    adds: Sequence[DataFile]
    removes: Sequence[DataFile]
    transactions: Mapping[str, int]
    operation: str = "OPTIMIZE"
    data_change: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


class ReplacementWrite(Protocol):
    """A replacement of files that wants a turn."""

    def prepare(self, context: CommitContext) -> FileReplacement | None:
        """Called in the lane, again after a lost race; None gives it up."""


class Write(Protocol):
    """Something that wants a turn."""

    @property
    def rows(self) -> int:
        """About how many rows it adds."""

    @property
    def stamps(self) -> int:
        """How many change_times it takes at most."""

    @property
    def key(self) -> str | None:
        """Two writes of the same key do not share a commit."""

    @property
    def shareable(self) -> bool:
        """Whether other writes may share its commit; not where it looks at stored rows."""

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """Called in the lane, again after a lost race.

        Raises:
            TimeDBError: the write is refused.
        """


class Arrival(ABC):
    """A write that is yet to be checked. That is done in its turn, for all of its kind that share the commit at once:
    most of what it costs are calls that take as long for one as for many.
    """

    stamps = 1

    @property
    @abstractmethod
    def rows(self) -> int:
        """About how many rows it adds."""

    @property
    @abstractmethod
    def key(self) -> str | None:
        """Two writes of the same key do not share a commit."""

    @property
    @abstractmethod
    def shareable(self) -> bool:
        """Whether other writes may share its commit; not where it looks at stored rows."""

    @staticmethod
    @abstractmethod
    def check_all(group: Sequence[Any], newest: int) -> Sequence[Write | TimeDBError]:
        """What takes the place of each of some arrivals of one class, or what is wrong with it.

        Args:
            group: The arrivals.
            newest: The greatest change_time that the values have, microseconds since 1970.
        """
