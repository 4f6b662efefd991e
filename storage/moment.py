"""Several reads of one state of a tenant's tables: each sees the same snapshot, whatever is written meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from datetime import datetime

import polars as pl
import pyarrow as pa

from storage.boundary import errors_are_ours
from storage.catalog import Series
from storage.delta_log import Snapshot
from storage.lane import CHANGE_TIME
from storage.reading import ReadPlan
from storage.schemas import RUNS, SERIES
from timedb.times import from_micros
from timedb.wire import ReadTicket

__all__ = ["Moment"]


class Moment:
    """The tables of a tenant on one snapshot of its values.

    Attributes:
        series: The series that the caller may see, by id.
        table_version: Of the values table.
        as_of: The greatest change_time in it, UTC.

    Args:
        snapshot: Of the values table.
        series: As above, as of the snapshot or later.
        plan: Plans a read on the snapshot.
        runs: The runs that the caller may see, as of the snapshot or later.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        series: Mapping[str, Series],
        plan: Callable[[ReadTicket], ReadPlan],
        runs: Callable[[], pl.LazyFrame],
    ) -> None:
        self.series = series
        self.table_version = snapshot.version
        self.as_of: datetime = from_micros(snapshot.transactions.get(CHANGE_TIME, 0))
        self._plan = plan
        self._runs = runs

    @errors_are_ours()
    def read(self, ticket: ReadTicket) -> pa.RecordBatchReader:
        """The answer of a read, computed as it is taken.

        Raises:
            InvalidRequest, NotFound: see ``storage.reading.plan_read``.
        """
        return self._plan(ticket).reader()

    @errors_are_ours()
    def series_rows(self, columns: Collection[str]) -> pa.Table:
        """The series table, retired series included."""
        rows = [asdict(series) for series in self.series.values()]
        return pa.Table.from_pylist(rows, schema=pa.schema([SERIES.field(name) for name in columns]))

    @errors_are_ours()
    def run_rows(self, columns: Collection[str]) -> pa.Table:
        """The runs table."""
        runs = self._runs().filter(pl.col("change_time") <= self.as_of).select(columns).collect(engine="in-memory")
        return runs.to_arrow().cast(pa.schema([RUNS.field(name) for name in columns]))
