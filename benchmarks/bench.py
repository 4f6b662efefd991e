"""What every operation of a run shares: the data, the service, the peers, the report, and how answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.arctic import ArcticDB
from benchmarks.history import History
from benchmarks.measuring import Report, measure_in_turn
from benchmarks.peers import Peer, series_numbers
from benchmarks.postgres import PostgreSQL
from benchmarks.servers import Served
from timedb.client import Client
from timedb.contract.wire import ReadCommand, parse_object

__all__ = ["US", "Bench", "fingerprint", "is_as"]

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
        peers: Who answers the same reads.
        arctic: ArcticDB, which only writes and reads frames; None where it is left out.
        postgres: PostgreSQL, which only takes small uploads; None where it is left out.
        rounds: How often reads are timed.
        report: What was measured.
    """

    history: History
    frame: pl.DataFrame
    folder: Path
    served: Served
    client: Client
    peers: list[Peer] = field(default_factory=list)
    arctic: ArcticDB | None = None
    postgres: PostgreSQL | None = None
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
        theirs: Callable[[Peer], pa.Table] | None = None,
        **how: Any,
    ) -> None:
        """Time a read of ours and the peers' in turn; every answer must be the truth."""
        contestants: dict[str, Callable[[], pa.Table]] = {US: ours}
        if theirs is not None:
            contestants |= {peer.name: partial(theirs, peer) for peer in self.peers}
        wanted = fingerprint(truth)
        checks = dict.fromkeys(contestants, partial(is_as, wanted))
        how = {"times": self.rounds, "rows": truth.height, "server": self.served.pid, **how}
        for measurement in measure_in_turn(target, work, contestants, checks=checks, **how).values():
            self.report.add(measurement)


def is_as(wanted: tuple[int, int], answer: pa.Table | pl.DataFrame) -> bool:
    """Whether an answer has a fingerprint."""
    return fingerprint(pl.DataFrame(answer)) == wanted


def fingerprint(frame: pl.DataFrame) -> tuple[int, int]:
    """The number of a frame's rows and a checksum of them in whatever order.

    A series may go by its name or its number; other columns than series, times and value are left aside.
    """
    series = frame["series"].cast(pl.UInt64) if "series" in frame.columns else series_numbers(frame)
    times = [name for name in ("valid_time", "known_time") if name in frame.columns]
    rows = frame.select(
        series.alias("series"),
        *(pl.col(name).cast(pl.Datetime("us", "UTC")).to_physical() for name in times),
        pl.col("value").cast(pl.Float64),
    )
    return rows.height, int(rows.hash_rows(seed=1).to_numpy().sum())
