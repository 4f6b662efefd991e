"""What another store holds, as this one would: series, runs with their rows, corrections, each in order of writing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

__all__ = ["IN_ORDER", "ROWS", "ImportedRun", "ImportedSeries", "Origin", "corrections_sql", "rows_sql"]

ROWS = ("run", "series", "valid_time", "valid_time_end", "known_time", "value", "annotation", "tags")
"""The columns of rows; those of corrections have ``change_time`` and ``changed_by``, too."""
IN_ORDER = "run_at, run, series, valid_time, valid_time_end, known_time"
"""SQL: rows in the order of their runs, and within a run in one that hangs on the rows alone, as long runs are cut."""


@dataclass(frozen=True, slots=True)
class ImportedSeries:
    """A series.

    Attributes:
        key: What rows call it.
        name, labels, unit, description: As it will be made.
    """

    key: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run, or what becomes one.

    Attributes:
        key: What rows call it.
        at: When it was written, there.
        run_id: What names it; None: a digest of its rows.
        workflow_id, run_start_time, run_finish_time, known_time, params: As of an upload.
    """

    key: str
    at: datetime
    run_id: str | None = None
    workflow_id: str | None = None
    run_start_time: datetime | None = None
    run_finish_time: datetime | None = None
    known_time: datetime | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


class Origin(Protocol):
    """A store that data comes from; all of it is read in one state."""

    @property
    def name(self) -> str:
        """What it is called."""

    def series(self) -> list[ImportedSeries]:
        """Its series, in any order."""

    def runs(self) -> Iterator[ImportedRun]:
        """Its runs, in the order in which they were written."""

    def rows(self) -> Iterator[pa.RecordBatch]:
        """The first version of each row, columns :data:`ROWS`, in the order of the runs; the same order each time."""

    def corrections(self) -> Iterator[pa.RecordBatch]:
        """The later versions, in the order of their change times."""


_VERSIONS = """
WITH v AS ({values}), n AS (
  SELECT *, row_number() OVER w AS version, first_value(run) OVER w AS first_run
  FROM v WINDOW w AS (PARTITION BY {address} ORDER BY change_time, place))
"""


def rows_sql(values: str, address: str) -> str:
    """SQL for the first version of each row, in the order of the runs.

    Args:
        values: SQL for all versions: the columns of rows and corrections, ``run_at``, when the run was written, and
            ``place``, a number that tells versions of one change time apart.
        address: The columns that two versions of one row share.
    """
    columns, versions = ", ".join(ROWS), _VERSIONS.format(values=values, address=address)
    return f"{versions}SELECT {columns} FROM n WHERE version = 1 ORDER BY {IN_ORDER}"


def corrections_sql(values: str, address: str) -> str:
    """SQL for the later versions, in the order of their change times; arguments as of :func:`rows_sql`."""
    columns = ", ".join(("first_run AS run", *ROWS[1:], "change_time", "changed_by"))
    versions = _VERSIONS.format(values=values, address=address)
    return f"{versions}SELECT {columns} FROM n WHERE version > 1 ORDER BY change_time, place"
