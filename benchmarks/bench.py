"""What every operation of a run shares: the data, the service, the peer, the report, and how answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.clickhouse import ClickHouse
from benchmarks.history import History
from benchmarks.measuring import Report, measure_in_turn
from benchmarks.servers import Served
from timedb.client import Client
from timedb.wire import ReadCommand, parse_object

__all__ = ["US", "Bench", "same"]

US = "TimeDB"


@dataclass
class Bench:
    """One run.

    Attributes:
        history: The data.
        frame: Its rows.
        folder: For files of the run.
        served: Our service, in a process of its own.
        client: A Flight client of it.
        peer: ClickHouse; None where it is left out.
        rounds: How often reads are timed.
        report: What was measured.
    """

    history: History
    frame: pl.DataFrame
    folder: Path
    served: Served
    client: Client
    peer: ClickHouse | None
    rounds: int = 5
    report: Report = field(default_factory=Report)

    def fetch(self, **fields: Any) -> pa.Table:
        """A read over Flight."""
        with self.client.stream(parse_object(ReadCommand, fields)) as stream:
            return stream.read_all()

    def compete(
        self,
        target: str,
        work: str,
        ours: Callable[[], pa.Table],
        truth: pl.DataFrame,
        theirs: Callable[[ClickHouse], pa.Table] | None = None,
        **how: Any,
    ) -> None:
        """Time a read of ours and the peer's in turn; both answers must be the truth."""
        contestants: dict[str, Callable[[], pa.Table]] = {US: ours}
        peer = self.peer
        if peer is not None and theirs is not None:
            contestants["ClickHouse"] = lambda: theirs(peer)
        checks = {name: lambda answer: same(pl.DataFrame(answer), truth) for name in contestants}
        how = {"times": self.rounds, "rows": truth.height, "server": self.served.pid, **how}
        for measurement in measure_in_turn(target, work, contestants, checks=checks, **how).values():
            self.report.add(measurement)


def same(answer: pl.DataFrame, truth: pl.DataFrame) -> bool:
    """Whether two frames hold the same rows in whatever order; a series may go by its name or its number."""
    one, other = (_comparable(frame) for frame in (answer, truth))
    columns = [name for name in other.columns if name != "value"]
    return one.select(other.columns).sort(columns).equals(other.sort(columns))


def _comparable(frame: pl.DataFrame) -> pl.DataFrame:
    if "series" in frame.columns:
        return frame.with_columns(pl.col("series").cast(pl.UInt64))
    number = pl.col("series_key").cast(pl.String).str.extract(r"(\d+)$").cast(pl.UInt64).alias("series")
    return frame.with_columns(number).drop("series_key")
