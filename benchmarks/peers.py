"""What a peer is: somebody else's store that holds a history and answers the reads of TimeDB; each has a file.

A peer whose package or program is missing is left out, and the report says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa

__all__ = ["CHANGED", "Missing", "Peer", "Where", "numbered"]

CHANGED = "2026-01-01 00:00:00"  # the change_time of all rows of a peer


class Missing(Exception):
    """The peer's package or program is not here."""


@dataclass(frozen=True)
class Where:
    """Rows of a read; None leaves a bound open. ``before_known`` is exclusive, as ``end_known`` is."""

    series: int | None = None
    start_valid: dt.datetime | None = None
    end_valid: dt.datetime | None = None
    before_known: dt.datetime | None = None

    def sql(self, moment: Callable[[dt.datetime], str]) -> str:
        """A condition on ``series_id``, ``valid_time`` and ``knowledge_time``; ``moment`` writes a time."""
        bounds = {
            "valid_time >=": self.start_valid,
            "valid_time <": self.end_valid,
            "knowledge_time <": self.before_known,
        }
        parts = [f"{bound} {moment(time)}" for bound, time in bounds.items() if time is not None]
        if self.series is not None:
            parts.insert(0, f"series_id = {self.series}")
        return " AND ".join(parts) or "1 = 1"


class Peer(Protocol):
    """One table a history. Rows go in as ``series`` (a number), ``valid_time``, ``known_time``, ``value``.

    Attributes:
        name: Its name in the report.
        how: Its version, how it is configured, and by which documentation.
    """

    name: str
    how: str

    def create(self, table: str) -> None:
        """Make a table anew."""

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows from memory; durable by the peer's own rules when it returns."""

    def merge(self, table: str) -> None:
        """Bring the table into the shape in which its documentation wants it to be read."""

    def bytes(self, table: str) -> int:
        """Bytes on disk of what a read would open."""

    def flat(self, table: str, where: Where = ...) -> pa.Table:
        """``series, valid_time, value``: what is known last."""

    def overlapping(self, table: str, where: Where = ...) -> pa.Table:
        """``series, valid_time, known_time, value``: every revision."""

    def latest(self, table: str) -> pa.Table:
        """``series, valid_time, value``: the last value of each series."""

    def close(self) -> None:
        """End it."""


Opener = Callable[[Path], Peer]


def numbered(frame: pl.DataFrame) -> pa.Table:
    """A frame with its series as numbers, as the peers store them."""
    return frame.select(series_numbers(frame), "valid_time", "known_time", "value").to_arrow()


def series_numbers(frame: pl.DataFrame) -> pl.Series:
    """The number at the end of each row's ``series_key``; worked out once a name, not once a row."""
    keys = frame["series_key"].cast(pl.Categorical)
    names = keys.unique()
    codes = names.to_physical().to_numpy()
    table = np.zeros(int(codes.max()) + 1 if len(codes) else 1, np.uint64)
    table[codes] = names.cast(pl.String).str.extract(r"(\d+)$").cast(pl.UInt64).to_numpy()
    return pl.Series("series", table[keys.to_physical().to_numpy()])
