"""The peer: ClickHouse inside this process (``chdb``), with the table and the queries of TimeDB on ClickHouse.

The table is that of its release 0.7: MergeTree ordered by series, valid_time, knowledge_time and change_time, a
partition a month of valid_time, its codecs column by column. Its reads take ``argMax`` over (knowledge_time,
change_time), or ``LIMIT 1 BY`` for every revision. As ClickHouse's documentation advises, rows come in large blocks and
``OPTIMIZE TABLE … FINAL`` merges them before reads. Being in this process it pays for no network.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

__all__ = ["ClickHouse"]

NAME = "ClickHouse"
NO_END = "toDateTime64('2200-01-01 00:00:00', 6, 'UTC')"
TABLE = """
    CREATE TABLE peer.{name} (
        series_id UInt64 CODEC(Delta, ZSTD(1)),
        valid_time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        knowledge_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
        change_time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        value Float64 CODEC(Gorilla, ZSTD(1)),
        valid_time_end DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        run_id UInt64 CODEC(ZSTD(1)),
        changed_by LowCardinality(String),
        annotation String CODEC(ZSTD(3))
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(valid_time)
    ORDER BY (series_id, valid_time, knowledge_time, change_time)
"""


class ClickHouse:
    """One table a history.

    Args:
        folder: Where it keeps its data.
    """

    def __init__(self, folder: Path) -> None:
        session: Any = importlib.import_module("chdb.session")  # it has no types
        self._session = session.Session(str(folder))
        self._session.query("CREATE DATABASE peer ENGINE = Atomic")

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def create(self, name: str) -> None:
        """Make a table anew."""
        self._session.query(f"DROP TABLE IF EXISTS peer.{name} SYNC")
        self._session.query(TABLE.format(name=name))

    def insert(self, name: str, rows: pa.Table) -> None:
        """Insert rows with ``series`` (a number), valid_time, known_time, value, from memory."""
        given = rows  # chdb finds the table by the name of this variable
        self._session.query(
            f"INSERT INTO peer.{name} SELECT series, valid_time, known_time, "
            f"toDateTime64('2026-01-01 00:00:00', 6, 'UTC'), value, {NO_END}, 1, '', '' FROM Python(given)"
        )
        del given

    def merge(self, name: str) -> None:
        """Merge all parts."""
        self._session.query(f"OPTIMIZE TABLE peer.{name} FINAL")

    def bytes(self, name: str) -> int:
        """Bytes on disk of the live parts."""
        found = self._table(f"SELECT sum(bytes_on_disk) AS n FROM system.parts WHERE active AND table = '{name}'")
        return int(found.column("n")[0].as_py())

    def flat(self, name: str, where: str = "1") -> pa.Table:
        """Per series and valid_time the value known last."""
        return self._table(
            "SELECT series_id AS series, valid_time, argMax(value, (knowledge_time, change_time)) AS value "
            f"FROM peer.{name} WHERE {where} GROUP BY series_id, valid_time"
        )

    def overlapping(self, name: str, where: str = "1") -> pa.Table:
        """Every revision."""
        return self._table(
            "SELECT series_id AS series, valid_time, knowledge_time AS known_time, value "
            f"FROM peer.{name} WHERE {where} ORDER BY series_id, valid_time, knowledge_time, change_time DESC "
            "LIMIT 1 BY series_id, valid_time, knowledge_time"
        )

    def latest(self, name: str) -> pa.Table:
        """The last value of each series."""
        return self._table(
            "SELECT series_id AS series, max(h.valid_time) AS valid_time, "
            "argMax(h.value, (h.valid_time, h.knowledge_time, h.change_time)) AS value "
            f"FROM peer.{name} AS h GROUP BY series_id"
        )

    def _table(self, sql: str) -> pa.Table:
        found: Any = self._session.query(sql, "ArrowTable")
        return found


def numbered(frame: pl.DataFrame) -> pa.Table:
    """A frame with its series as numbers, as the peer stores them."""
    numbers = frame["series_key"].cast(pl.String).str.extract(r"(\d+)$").cast(pl.UInt64).alias("series")
    return frame.select(numbers, "valid_time", "known_time", "value").to_arrow()
