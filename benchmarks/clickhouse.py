"""A peer: ClickHouse inside this process (``chdb``), with the table and the queries of TimeDB on ClickHouse.

The table is that of its release 0.7: MergeTree ordered by series, valid_time, knowledge_time and change_time, a
partition a month of valid_time, its codecs column by column. Its reads take ``argMax`` over (knowledge_time,
change_time), or ``LIMIT 1 BY`` for every revision. As ClickHouse's documentation advises, rows come in large blocks.
``OPTIMIZE TABLE … FINAL`` merges them before reads: its documentation advises against that in daily work, for what it
costs; here it is timed apart and gives ClickHouse its best reads. Being in this process it pays for no network.
"""

from __future__ import annotations

import datetime as dt
import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.peers import CHANGED, Missing, Where

__all__ = ["ClickHouse"]

NO_END = "toDateTime64('2200-01-01 00:00:00', 6, 'UTC')"
TABLE = """
    CREATE TABLE peer.{name} (
        series_id UInt64 CODEC(Delta, ZSTD(1)),
        valid_time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        knowledge_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
        change_time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        value Float64 CODEC(Gorilla, ZSTD(1)),
        valid_time_end DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        run_id {run_ids} CODEC(ZSTD(1)),
        changed_by LowCardinality(String),
        annotation String CODEC(ZSTD(3))
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(valid_time)
    ORDER BY (series_id, valid_time, knowledge_time, change_time)
"""
EVERYTHING = Where()


class ClickHouse:
    """One table a history.

    Args:
        folder: Where it keeps its data.

    Raises:
        Missing: ``chdb`` is not installed.
    """

    name = "ClickHouse"

    def __init__(self, folder: Path) -> None:
        try:
            session: Any = importlib.import_module("chdb.session")  # it has no types
        except ImportError:
            raise Missing("chdb is not installed") from None
        self._session = session.Session(str(folder / "clickhouse"))
        self._session.query("CREATE DATABASE peer ENGINE = Atomic")
        version = str(self._session.query("SELECT version()", "TabSeparated")).strip()
        self.how = (
            f"ClickHouse {version} inside the benchmark's process (`chdb`), so without a network. The table of TimeDB "
            "0.7: MergeTree ordered by (series_id, valid_time, knowledge_time, change_time), a partition a month, its "
            "codecs; its queries: `argMax` over (knowledge_time, change_time), `LIMIT 1 BY` for all revisions. Rows "
            "come in large blocks, as its documentation advises (Bulk Inserts); `OPTIMIZE … FINAL` then merges them "
            "all, which it advises against in daily work, but which is timed apart here and gives it its best reads"
        )

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def create(self, table: str, run_ids: str = "UInt64") -> None:
        """Make a table anew; ``run_ids`` is the type of theirs."""
        self._session.query(f"DROP TABLE IF EXISTS peer.{table} SYNC")
        self._session.query(TABLE.format(name=table, run_ids=run_ids))

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows with ``series`` (a number), valid_time, known_time, value, and perhaps run_id, from memory."""
        given = rows  # chdb finds the table by the name of this variable
        run_id = "run_id" if "run_id" in rows.column_names else "1"
        self._session.query(
            f"INSERT INTO peer.{table} SELECT series, valid_time, known_time, "
            f"toDateTime64('{CHANGED}', 6, 'UTC'), value, {NO_END}, {run_id}, '', '' FROM Python(given)"
        )
        del given

    def merge(self, table: str) -> None:
        """Merge all parts."""
        self._session.query(f"OPTIMIZE TABLE peer.{table} FINAL")

    def bytes(self, table: str) -> int:
        """Bytes on disk of the live parts."""
        found = self._table(f"SELECT sum(bytes_on_disk) AS n FROM system.parts WHERE active AND table = '{table}'")
        return int(found.column("n")[0].as_py())

    def flat(self, table: str, where: Where = EVERYTHING) -> pa.Table:
        """Per series and valid_time the value known last."""
        return self._table(
            "SELECT series_id AS series, valid_time, argMax(value, (knowledge_time, change_time)) AS value "
            f"FROM peer.{table} WHERE {where.sql(_moment)} GROUP BY series_id, valid_time"
        )

    def overlapping(self, table: str, where: Where = EVERYTHING) -> pa.Table:
        """Every revision."""
        return self._table(
            "SELECT series_id AS series, valid_time, knowledge_time AS known_time, value "
            f"FROM peer.{table} WHERE {where.sql(_moment)} "
            "ORDER BY series_id, valid_time, knowledge_time, change_time DESC "
            "LIMIT 1 BY series_id, valid_time, knowledge_time"
        )

    def latest(self, table: str) -> pa.Table:
        """The last value of each series."""
        return self._table(
            "SELECT series_id AS series, max(h.valid_time) AS valid_time, "
            "argMax(h.value, (h.valid_time, h.knowledge_time, h.change_time)) AS value "
            f"FROM peer.{table} AS h GROUP BY series_id"
        )

    def _table(self, sql: str) -> pa.Table:
        found: Any = self._session.query(sql, "ArrowTable")
        return found


def _moment(time: dt.datetime) -> str:
    return f"toDateTime64('{time.strftime('%Y-%m-%d %H:%M:%S.%f')}', 6, 'UTC')"
