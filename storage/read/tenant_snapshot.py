"""Several reads of one state of a tenant's tables: each sees the same snapshot, whatever is written meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from timedb.contract.times import from_micros, parse_time
from timedb.contract.wire import ReadTicket
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Series
from timedb.storage.catalog.withdrawn import STANDING
from timedb.storage.delta.log import Snapshot
from timedb.storage.read.reading import ReadPlan
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.schemas import RUNS, SERIES, WITHDRAWN

__all__ = ["TenantSnapshot"]


class TenantSnapshot:
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
        withdrawn: What is withdrawn of runs on the snapshot, by run_id; see ``WithdrawnRuns``.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        series: Mapping[str, Series],
        plan: Callable[[ReadTicket], ReadPlan],
        runs: Callable[[], pl.LazyFrame],
        withdrawn: Callable[[], Mapping[str, Mapping[str, Any]]],
    ) -> None:
        self.series = series
        self.table_version = snapshot.version
        self.as_of: datetime = from_micros(snapshot.transactions.get(CHANGE_TIME, 0))
        self._plan = plan
        self._runs = runs
        self._withdrawn = withdrawn

    @translating_errors()
    def read(self, ticket: ReadTicket) -> pa.RecordBatchReader:
        """The answer of a read, computed as it is taken.

        Raises:
            InvalidRequest, NotFound: see ``timedb.storage.read.planning.plan_read``.
        """
        return self._plan(ticket).reader()

    @translating_errors()
    def series_rows(self, columns: Collection[str]) -> pa.Table:
        """The series table, retired series included."""
        rows = [asdict(series) for series in self.series.values()]
        return pa.Table.from_pylist(rows, schema=pa.schema([SERIES.field(name) for name in columns]))

    @translating_errors()
    def run_rows(self, columns: Collection[str]) -> pa.Table:
        """The runs table, and the columns of :data:`WITHDRAWN`."""
        stored = {name for name in columns if name in RUNS.names}
        told = [name for name in columns if name in WITHDRAWN.names]
        runs = self._runs().filter(pl.col("change_time") <= self.as_of)
        frame = runs.select(stored | ({"run_id"} if told else set())).collect(engine="in-memory")
        found: dict[str, Any] = {name: frame[name].to_arrow().cast(RUNS.field(name).type) for name in stored}
        if told:
            withdrawn = self._withdrawn()
            said = [_told(withdrawn.get(run_id, STANDING)) for run_id in frame["run_id"]]
            found |= {name: pa.array([each[name] for each in said], WITHDRAWN.field(name).type) for name in told}
        return pa.table({name: found[name] for name in columns})


def _told(withdrawn: Mapping[str, Any]) -> dict[str, Any]:
    note = withdrawn["withdrawn"] or {"time": None, "changed_by": None, "reason": None}
    return {
        "withdrawn_rows": withdrawn["withdrawn_rows"],
        "withdrawn_time": None if note["time"] is None else parse_time(note["time"]),
        "withdrawn_by": note["changed_by"],
        "withdrawn_reason": note["reason"],
    }
