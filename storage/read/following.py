"""One reader's way through what is written: every version once, in an order that no compaction changes.

What was written between two change_times is a set of rows that stays as it is, wherever upkeep moves them. Each such
passage is read by series, and a token says in which one, and behind which of its rows, a reader stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from timedb.contract.columns import result_schema
from timedb.contract.wire import FollowTicket, ReadTicket
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog, KnownSeries
from timedb.storage.delta.log import Snapshot
from timedb.storage.read.cursor import Place
from timedb.storage.read.log_watch import LogWatch
from timedb.storage.read.planning import select_series
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.token import Token

__all__ = ["AT_ONCE_ROWS", "Followed", "Follower", "Passage"]

AT_ONCE_ROWS = 65_536
"""What was written of so few rows is read in one go, whatever their buckets."""

NOW = "now"
_BATCH_ROWS = 10_000
_FILTERS = ("series_ids", "labels", "start_valid", "end_valid", "start_known", "end_known", "run_ids", "workflow_id")


class Planning(Protocol):
    """Plans a read on a snapshot, with the series that were known then."""

    def __call__(self, ticket: ReadTicket, snapshot: Snapshot, series: KnownSeries) -> ReadPlan:
        """The plan of a read."""


@dataclass(frozen=True)
class Followed:
    """Rows of a passage, in its order.

    Attributes:
        rows: The columns that are followed, and those of the order.
    """

    rows: pa.RecordBatch
    _start: Token
    _end: Token
    _is_last: bool

    def token(self, count: int) -> str:
        """Where a reader stands that has so many of the rows, and all before them."""
        if self._is_last and count == self.rows.num_rows:
            return self._end.to_text()
        place = Place.after(self.rows, count - 1, self._end.as_of)
        return Token(self._start.as_of, self._end.table_version, place).to_text()


class Passage:
    """What was written between two change_times, as far as it passes the filters and is yet to be read.

    Args:
        plan: Reads it.
        start, end: Where a reader stands before and after it.
        read: Called when all of it has been read.
    """

    def __init__(self, plan: ReadPlan, start: Token, end: Token, read: Callable[[], None]) -> None:
        self._plan = plan
        self._start = start
        self._end = end
        self._read = read
        self.memory_bytes = plan.memory_bytes
        self.hold = plan.hold

    def __iter__(self) -> Iterator[Followed | None]:
        """Its rows; None where some time has gone by without any.

        Raises:
            TimeDBError: the lake cannot be read.
        """
        with translating_errors():
            yield from self._parts()

    def _parts(self) -> Iterator[Followed | None]:
        held: pa.RecordBatch | None = None  # only with the next one it is known that this one is not the last
        for batch in self._plan.steps():
            if batch is None:
                yield None
                continue
            for first in range(0, batch.num_rows, _BATCH_ROWS):
                if held is not None:
                    yield Followed(held, self._start, self._end, _is_last=False)
                held = batch.slice(first, _BATCH_ROWS)
        self._read()
        if held is not None:
            yield Followed(held, self._start, self._end, _is_last=True)


class Follower:
    """Where one reader stands, and what is new there. For one thread; to be left when it ends.

    Attributes:
        schema: Of the rows that it asked for; texts are dictionaries.
        leave: Ends it; to be called once.

    Args:
        ticket: What it follows.
        watch: Tells of commits.
        catalog: The series that it may see.
        plan: Plans its reads.

    Raises:
        InvalidRequest: a column does not exist, or ``since`` is no token of this lake.
        NotFound: a series that it names does not exist.
        Busy: the service is stopping.
    """

    def __init__(self, ticket: FollowTicket, watch: LogWatch, catalog: Catalog, plan: Planning) -> None:
        self._ticket = ticket
        self._watch = watch
        self._catalog = catalog
        self._plan = plan
        asked = ReadTicket(view="changes", columns=ticket.columns)
        self.schema = result_schema(asked)
        self._columns = [*self.schema.names, *(name for name in Place.ORDER if name not in self.schema.names)]
        self.leave = watch.join()
        try:
            self._state = watch.look()
            self._named = self._ids_of_names()
            self._token = self._begin(ticket.since)
        except BaseException:
            self.leave()
            raise

    @property
    def token(self) -> str:
        """Where it stands, as text for whoever goes on from there."""
        return self._token.to_text()

    @property
    def is_behind(self) -> bool:
        """Whether something has been committed that it has not read."""
        return self._token.place is not None or self._token.as_of < self._state.newest

    @translating_errors()
    def wait(self, seconds: float) -> bool:
        """Wait until something has been committed; whether something was in that time.

        Raises:
            Busy: the service is stopping.
            TimeDBError: the lake cannot be read.
        """
        self._state = self._watch.wait(self._state, seconds)
        return self.is_behind

    def skip(self) -> None:
        """Leave out all that has been committed."""
        self._token = self._at(self._state.newest)

    @translating_errors()
    def passage(self) -> Passage:
        """What it reads next.

        Raises:
            InvalidRequest: retention has taken rows of it.
        """
        start = self._token
        end = self._at(self._state.newest if start.place is None else start.place.until)
        ticket = ReadTicket(
            view="changes",
            columns=self._columns,
            ordered=True,
            since=start.to_text(),
            as_of=end.as_of,
            **self._filters(),
        )
        series = self._catalog.of(self._state.series)
        plan = self._plan(ticket, self._state.written_after(start.as_of), series)

        def read() -> None:
            self._token = end

        return Passage(plan, start, end, read)

    def _filters(self) -> dict[str, Any]:
        """Those of the ticket. Names mean what they meant at first; with labels they take in what is made later."""
        fields: dict[str, Any] = {name: getattr(self._ticket, name) for name in _FILTERS}
        if self._named is None:
            return fields
        if self._ticket.labels is not None:
            self._named |= self._named_now()
        return fields | {"series_ids": sorted(self._named), "labels": None}

    def _named_now(self) -> set[str]:
        """The series of the names and labels that there are."""
        series = self._catalog.of(self._state.series)
        named = (series.by_id[each] for name in self._ticket.series_keys or () for each in series.by_name.get(name, ()))
        return {each.series_id for each in named if each.matches(self._ticket.labels)}

    def _ids_of_names(self) -> set[str] | None:
        """The series that the ticket names; None: it names none."""
        fields = {name: getattr(self._ticket, name) for name in (*_FILTERS, "series_keys")}
        series = self._catalog.of(self._state.series)
        found = select_series(ReadTicket(**fields), self._catalog, series)
        return None if self._ticket.series_keys is None or found is None else set(found)

    def _begin(self, since: str | None) -> Token:
        if since is None:
            return Token.beginning()
        if since == NOW:
            return self._at(self._state.newest)
        return Token.from_text(since, field="since", newest=self._state.newest)

    def _at(self, change_time: datetime) -> Token:
        return Token(change_time, self._state.snapshot.version)
