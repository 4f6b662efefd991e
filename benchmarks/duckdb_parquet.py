"""A peer: DuckDB inside this process over Parquet files, as its documentation advises to lay them out.

Rows are written as they come, one file an insert; then, as one would before reading them often, anew as one file a
month of valid_time in a Hive layout, sorted by series, valid_time and knowledge_time, so that row groups are skipped
by their statistics. Row groups have the default 122,880 rows and the codec is zstd (DuckDB: Parquet Tips, which name
Hive layouts and that size). Reads take ``arg_max`` over (knowledge_time, change_time), the order in which corrections
win; ``QUALIFY row_number()`` says the same and took five times as long.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.peers import CHANGED, Where

__all__ = ["DuckDB"]

OPTIONS = "(FORMAT parquet, COMPRESSION zstd)"
EVERYTHING = Where()


class DuckDB:
    """One folder of Parquet files a history.

    Args:
        folder: Where it keeps them.
    """

    name = "DuckDB over Parquet"
    how = (
        f"DuckDB {duckdb.__version__} inside the benchmark's process, so without a network. After the load one Parquet "
        "file a month of valid_time (Hive layout), sorted by series_id, valid_time, knowledge_time, row groups of the "
        "default 122,880 rows, zstd; reads by `arg_max` over (knowledge_time, change_time). By DuckDB's Parquet "
        "Tips, which name Hive layouts and that size"
    )

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "duckdb"
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """End the session."""
        self._database.close()

    def create(self, table: str) -> None:
        """An empty folder."""
        shutil.rmtree(self._folder / table, ignore_errors=True)
        (self._folder / table).mkdir(parents=True)

    def insert(self, table: str, rows: pa.Table) -> None:
        """One file, rows in the order in which they come."""
        month = self._folder / table / "month=0"
        month.mkdir(exist_ok=True)
        self._database.register("given", rows)
        self._database.execute(
            "COPY (SELECT series AS series_id, valid_time, known_time AS knowledge_time, "
            f"TIMESTAMPTZ '{CHANGED}+00' AS change_time, value FROM given) "
            f"TO '{month}/{len(list(month.iterdir()))}.parquet' {OPTIONS}"
        )
        self._database.unregister("given")

    def merge(self, table: str) -> None:
        """The files written anew: sorted, one a month."""
        folder = self._folder / table
        source = f"read_parquet('{folder}/month=0/*.parquet', hive_partitioning = false)"
        months = self._database.execute(
            f"SELECT DISTINCT strftime(valid_time, '%Y-%m') FROM {source} ORDER BY 1"
        ).fetchall()
        for (month,) in months:
            target, start = folder / f"month={month}", f"TIMESTAMPTZ '{month}-01 00:00:00+00'"
            target.mkdir()
            self._database.execute(
                f"COPY (SELECT * FROM {source} WHERE valid_time >= {start} AND valid_time < {start} + INTERVAL 1 MONTH "
                f"ORDER BY series_id, valid_time, knowledge_time) TO '{target}/0.parquet' {OPTIONS}"
            )
        shutil.rmtree(folder / "month=0")

    def bytes(self, table: str) -> int:
        """Bytes of the files."""
        return sum(path.stat().st_size for path in (self._folder / table).glob("*/*.parquet"))

    def flat(self, table: str, where: Where = EVERYTHING) -> pa.Table:
        """Per series and valid_time the value known last."""
        return self._table(
            "SELECT series_id AS series, valid_time, "
            "arg_max(value, {'known': knowledge_time, 'changed': change_time}) AS value "
            f"FROM {self._files(table)} WHERE {where.sql(_moment)} GROUP BY ALL"
        )

    def overlapping(self, table: str, where: Where = EVERYTHING) -> pa.Table:
        """Every revision."""
        return self._table(
            "SELECT series_id AS series, valid_time, knowledge_time AS known_time, "
            "arg_max(value, change_time) AS value "
            f"FROM {self._files(table)} WHERE {where.sql(_moment)} GROUP BY ALL"
        )

    def latest(self, table: str) -> pa.Table:
        """The last value of each series."""
        return self._table(
            "SELECT series_id AS series, max(valid_time) AS valid_time, "
            "arg_max(value, {'valid': valid_time, 'known': knowledge_time, 'changed': change_time}) AS value "
            f"FROM {self._files(table)} GROUP BY ALL"
        )

    def _files(self, table: str) -> str:
        return f"read_parquet('{self._folder / table}/*/*.parquet', hive_partitioning = false)"

    def _table(self, sql: str) -> pa.Table:
        return self._database.execute(sql).to_arrow_table()


def _moment(time: dt.datetime) -> str:
    return f"TIMESTAMPTZ '{time.astimezone(dt.UTC).strftime('%Y-%m-%d %H:%M:%S.%f')}+00'"
