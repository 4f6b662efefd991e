"""TimeDB 0.8: its table ``series_values`` of ClickHouse, written as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.imports.origin import ImportedRun, ImportedSeries, corrections_sql, rows_sql

__all__ = ["TimeDB08"]

_NEEDED = ("series_id", "valid_time", "knowledge_time", "change_time", "value", "run_id")
_NO_END = "TIMESTAMPTZ '2200-01-01 00:00:00+00'"
_ADDRESS = "series, valid_time, valid_time_end, known_time"
_BATCH_ROWS = 1 << 16
_MEMORY = "512MB"


class TimeDB08:
    """What such files hold; a context manager.

    Rows of one series, valid time and knowledge time are versions of one value, by their change time, as its own reads
    have it; a correction counts as one of the run that wrote the first.

    Args:
        paths: Parquet files of ``SELECT * FROM series_values``.
        catalog: A CSV or Parquet file with a row for each series: ``series_id``, ``name``, and maybe ``unit``,
            ``labels`` (a JSON object) and ``description``; None: series are called by their number.

    Raises:
        InvalidRequest: a file is none of these, or a series of the values is not in the catalog.
    """

    name = "timedb-0.8"

    def __init__(self, paths: Sequence[Path], catalog: Path | None = None) -> None:
        import duckdb

        self._error: Any = duckdb.Error
        self._catalog = catalog
        self._folder = TemporaryDirectory(prefix="timedb-import-")
        settings: dict[str, Any] = {"memory_limit": _MEMORY, "temp_directory": self._folder.name, "threads": "2"}
        self._engine = duckdb.connect(config=settings)
        try:
            self._open(paths)
        except BaseException:
            self._close()
            raise

    def _open(self, paths: Sequence[Path]) -> None:
        self._engine.execute("SET TimeZone = 'UTC'")
        files = f"read_parquet([{', '.join(_text(str(path)) for path in paths)}], union_by_name = true)"
        self._kinds = self._described(files, "FILE")
        if missing := [name for name in _NEEDED if name not in self._kinds]:
            raise InvalidRequest(
                f"FILE: there is no column {missing[0]}, as the table series_values of TimeDB 0.8 has it"
            )
        self._engine.execute(f"CREATE VIEW written AS SELECT {', '.join(self._columns())} FROM {files}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        self._engine.close()
        self._folder.cleanup()

    def _described(self, table: str, option: str) -> dict[str, str]:
        try:
            rows = self._engine.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
        except self._error as error:
            raise InvalidRequest(f"{option}: cannot be read: {str(error).splitlines()[0]}") from None
        return {row[0]: row[1] for row in rows}

    def _columns(self) -> Iterator[str]:
        def texts(name: str) -> str:
            if name not in self._kinds:
                return "NULL::VARCHAR"
            return f"nullif({'decode(' + name + ')' if self._kinds[name] == 'BLOB' else name}::VARCHAR, '')"

        def time(name: str) -> str:
            return f"{name}::TIMESTAMPTZ" if "TIME ZONE" in self._kinds[name] else f"{name} AT TIME ZONE 'UTC'"

        yield "run_id::VARCHAR AS run"
        yield "series_id::VARCHAR AS series"
        yield f"{time('valid_time')} AS valid_time"
        end = time("valid_time_end") if "valid_time_end" in self._kinds else "NULL::TIMESTAMPTZ"
        yield f"nullif({end}, {_NO_END}) AS valid_time_end"
        yield f"{time('knowledge_time')} AS known_time"
        yield f"{time('change_time')} AS change_time"
        yield "value::DOUBLE AS value"
        yield f"{texts('annotation')} AS annotation"
        yield "NULL::VARCHAR[] AS tags"
        yield f"{texts('changed_by')} AS changed_by"
        yield "0 AS place"

    def series(self) -> list[ImportedSeries]:
        """Its series, as the catalog says them."""
        numbers = [row[0] for row in self._engine.execute("SELECT DISTINCT series FROM written ORDER BY 1").fetchall()]
        if self._catalog is None:
            return [ImportedSeries(number, f"series-{number}") for number in numbers]
        said = self._read_catalog(self._catalog)
        if missing := [number for number in numbers if number not in said]:
            raise InvalidRequest(f"catalog: there is no series_id {missing[0]}, which the values have", field="catalog")
        return [said[number] for number in numbers]

    def _read_catalog(self, path: Path) -> dict[str, ImportedSeries]:
        table = f"read_csv({_text(str(path))}, all_varchar = true, header = true)"
        if path.suffix.lower() in (".parquet", ".pq"):
            table = f"read_parquet({_text(str(path))})"
        columns = self._described(table, "--catalog")
        if missing := [name for name in ("series_id", "name") if name not in columns]:
            raise InvalidRequest(f"catalog: there is no column {missing[0]}", field="catalog")
        more = [f"{name if name in columns else 'NULL'}::VARCHAR" for name in ("unit", "labels", "description")]
        rows = self._engine.execute(
            f"SELECT series_id::VARCHAR, name::VARCHAR, {', '.join(more)} FROM {table}"
        ).fetchall()
        return {row[0]: ImportedSeries(row[0], row[1], _labels(row[3]), row[2] or None, row[4]) for row in rows}

    def runs(self) -> Iterator[ImportedRun]:
        """Its runs, by when they first wrote something."""
        for batch in self._stream(
            "SELECT run, min(change_time) AS run_at FROM written GROUP BY run ORDER BY run_at, run"
        ):
            for row in batch.to_pylist():
                yield ImportedRun(row["run"], row["run_at"], row["run"], self.name, row["run_at"])

    def rows(self) -> Iterator[pa.RecordBatch]:
        """The first version of each row."""
        return self._stream(rows_sql(self._in_order(), _ADDRESS))

    def corrections(self) -> Iterator[pa.RecordBatch]:
        """The later versions of its rows."""
        return self._stream(corrections_sql(self._in_order(), _ADDRESS))

    def _in_order(self) -> str:
        return (
            "SELECT written.*, first.run_at FROM written "
            "JOIN (SELECT run, min(change_time) AS run_at FROM written GROUP BY run) AS first USING (run)"
        )

    def _stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        cursor = self._engine.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        try:
            yield from cursor.execute(sql).to_arrow_reader(_BATCH_ROWS)
        finally:
            cursor.close()


def _labels(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"catalog: {quoted(str(text))} is not a JSON object of labels", field="catalog")
    return {key: str(value) for key, value in found.items()}


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
