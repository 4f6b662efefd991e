"""TimeDB 0.1 in PostgreSQL: batches or runs, series, and its tables of values, whichever of its releases made them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.imports.origin import ImportedRun, ImportedSeries, corrections_sql, rows_sql
from timedb.imports.postgres import Database, first_of, literal

__all__ = ["TimeDB01"]

_RUNS, _RUN_IDS = ("batches_table", "runs_table", "runs"), ("batch_id", "run_id")
_SERIES = ("series_table", "series")
_TIERS = ("short", "medium", "long")
_VALUES = (
    *("values_table", "actuals", "flat"),
    *(f"{kind}_{tier}" for kind in ("projections", "overlapping") for tier in _TIERS),
)
_KNOWN = ("known_time", "knowledge_time")
_PLACES = ("value_id", "flat_id", "actual_id", "overlapping_id", "projection_id")
_ADDRESS = "run, series, valid_time, valid_time_end, known_time"
_DAY = "to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


class TimeDB01:
    """What such a database holds.

    Rows of tables without batches become a run for each day (UTC) on which they were written.

    Args:
        database: The database.
        tenant_id: Whose data; None: there is one tenant.
        ignore: ``metadata`` leaves that column out.

    Raises:
        InvalidRequest: it is another database, holds several tenants, or metadata that would be lost.
    """

    name = "timedb-0.1"

    def __init__(self, database: Database, tenant_id: str | None = None, ignore: Collection[str] = ()) -> None:
        self._database = database
        self._columns = database.columns()
        runs, series = first_of(_RUNS, self._columns), first_of(_SERIES, self._columns)
        self._tables = [each for each in _VALUES if "valid_time" in self._columns.get(each, ())]
        if runs is None or series is None or not self._tables:
            raise InvalidRequest("URL: the database has no tables of TimeDB 0.1 (batches_table, series_table, flat, …)")
        self._runs, self._series = runs, series
        self._run_id = first_of(_RUN_IDS, self._columns[runs]) or "batch_id"
        self._tenant = self._one_tenant(tenant_id)
        if "metadata" not in ignore:
            self._check_metadata()

    def _one_tenant(self, tenant_id: str | None) -> str | None:
        if tenant_id is not None and not re.fullmatch(r"[0-9a-fA-F-]{32,36}", tenant_id):
            raise InvalidRequest(f"tenant_id: {quoted(tenant_id)} is not a UUID", field="tenant_id")
        having = [each for each in self._tables if "tenant_id" in self._columns[each]]
        if not having:
            return None
        asked = " UNION ".join(f"SELECT DISTINCT tenant_id::text AS tenant FROM {each}" for each in having)
        tenants = sorted(row["tenant"] for row in self._database.query(asked))
        if tenant_id is None and len(tenants) > 1:
            listed = ", ".join(tenants[:5])
            raise InvalidRequest(f"tenant_id: say whose data of {len(tenants)} tenants: {listed}", field="tenant_id")
        return tenant_id or (tenants[0] if tenants else None)

    def _check_metadata(self) -> None:
        for table in self._tables:
            if "metadata" in self._columns[table]:
                counted = (
                    f"SELECT count(*) AS rows FROM {table} AS t WHERE metadata IS NOT NULL{self._of_tenant(table)}"
                )
                rows = self._database.query(counted)[0]["rows"]
                if rows:
                    raise InvalidRequest(
                        f"ignore: {rows} rows of {table} have metadata, which has no place here; --ignore metadata "
                        "leaves it out",
                        field="ignore",
                    )

    def _of_tenant(self, table: str) -> str:
        if self._tenant is None or "tenant_id" not in self._columns[table]:
            return ""
        return f" AND t.tenant_id = {literal(self._tenant)}"

    def series(self) -> list[ImportedSeries]:
        """Its series; their unit and labels are as they were."""
        columns = self._columns[self._series]
        name = first_of(("name", "series_key"), columns)
        labels = "labels::text" if "labels" in columns else "'{}'"
        rows = self._database.query(
            f"SELECT series_id::text AS key, {name} AS name, unit, {labels} AS labels, description FROM {self._series} "
            "ORDER BY 1"
        )
        return [
            ImportedSeries(
                row["key"],
                row["name"],
                {key: str(value) for key, value in json.loads(row["labels"]).items()},
                row["unit"],
                row["description"],
            )
            for row in rows
        ]

    def runs(self) -> Iterator[ImportedRun]:
        """Its batches, and a run for each day of what was written without one."""
        for batch in self._database.stream(f"{self._runs_sql()} ORDER BY run_at, run"):
            for row in batch.to_pylist():
                params = json.loads(row["params"]) if row["params"] else {}
                yield ImportedRun(
                    row["run"],
                    row["run_at"],
                    row["run_id"],
                    row["workflow_id"],
                    row["run_start_time"] or row["run_at"],
                    row["run_finish_time"],
                    row["known_time"],
                    params,
                )

    def rows(self) -> Iterator[pa.RecordBatch]:
        """The first version of each row."""
        return self._database.stream(rows_sql(self._values_sql(), _ADDRESS))

    def corrections(self) -> Iterator[pa.RecordBatch]:
        """The later versions of its rows."""
        return self._database.stream(corrections_sql(self._values_sql(), _ADDRESS))

    def _at(self) -> str:
        known = first_of(_KNOWN, self._columns[self._runs])
        return f"coalesce(b.inserted_at, b.{known})" if "inserted_at" in self._columns[self._runs] else f"b.{known}"

    def _runs_sql(self) -> str:
        columns, known = self._columns[self._runs], first_of(_KNOWN, self._columns[self._runs])

        def column(name: str, kind: str) -> str:
            found = first_of((f"batch_{name}", f"run_{name}"), columns)
            return f"NULL::{kind}" if found is None else f"b.{found}::{kind}"

        whose = f" WHERE b.tenant_id = {literal(self._tenant)}" if self._tenant and "tenant_id" in columns else ""
        found = [
            f"SELECT 'run:' || b.{self._run_id}::text AS run, {self._at()} AS run_at, "
            f"b.{self._run_id}::text AS run_id, b.workflow_id, "
            f"{column('start_time', 'timestamptz')} AS run_start_time, "
            f"{column('finish_time', 'timestamptz')} AS run_finish_time, b.{known} AS known_time, "
            f"{column('params', 'text')} AS params FROM {self._runs} AS b{whose}"
        ]
        for table in self._tables:
            if self._run_id not in self._columns[table]:
                day = _DAY.format(time="t.change_time")
                found.append(
                    f"SELECT DISTINCT 'day:' || {day}, date_trunc('day', t.change_time), NULL, NULL, "
                    f"NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL FROM {table} AS t "
                    f"WHERE TRUE{self._of_tenant(table)}"
                )
        return " UNION ".join(found)

    def _values_sql(self) -> str:
        return " UNION ALL ".join(self._values_of(table) for table in self._tables)

    def _values_of(self, table: str) -> str:
        columns = self._columns[table]
        has_run = self._run_id in columns
        known = first_of(_KNOWN, columns)
        if has_run:
            run, run_at = f"'run:' || t.{self._run_id}::text", self._at()
        else:
            run, run_at = f"'day:' || {_DAY.format(time='t.change_time')}", "date_trunc('day', t.change_time)"
        said: dict[str, Any] = {
            "run": run,
            "run_at": run_at,
            "series": "t.series_id::text",
            "valid_time": "t.valid_time",
            "valid_time_end": "t.valid_time_end" if "valid_time_end" in columns else "NULL::timestamptz",
            "known_time": f"t.{known}" if known else f"b.{first_of(_KNOWN, self._columns[self._runs])}",
            "value": "t.value",
            "annotation": "t.annotation",
            "tags": "t.tags",
            "change_time": "t.change_time",
            "changed_by": "t.changed_by",
            "place": f"t.{place}::bigint" if (place := first_of(_PLACES, columns)) else "0::bigint",
        }
        joined = f" JOIN {self._runs} AS b ON b.{self._run_id} = t.{self._run_id}" if has_run else ""
        listed = ", ".join(f"{expression} AS {name}" for name, expression in said.items())
        return f"SELECT {listed} FROM {table} AS t{joined} WHERE TRUE{self._of_tenant(table)}"
