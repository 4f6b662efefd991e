"""What was acknowledged, and the answers that follow from it: the SQL of the behaviour suite's oracle over a table.

One writer owns the series of a ledger and keeps it locked from before each write until it knows the write's
change_time. So whoever reads while it writes, and takes the ledger afterwards, finds every row in it that the answer
could see; the answer's ``as_of`` says which ones it must hold.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import duckdb
import polars as pl

from tests.behaviour.oracle import HOUR, daily_window, query_of

COLUMNS = ["series_id", "valid_time", "valid_time_end", "known_time", "run_id", "change_rank", "value"]
"""What is compared; a rank is a change_time in microseconds."""

HISTORY = pl.Schema(
    {
        "series_id": pl.String,
        "valid_time": pl.Int64,
        "valid_time_end": pl.Int64,
        "known_time": pl.Int64,
        "run_id": pl.String,
        "change_rank": pl.Int64,
        "value": pl.Float64,
        "retracted": pl.Boolean,
    }
)
KEY = ["series_id", "valid_time", "valid_time_end", "known_time", "run_id"]
GATE: dict[str, Any] = {"days_ahead": 1, "time_of_day": "10:00", "time_zone": "Europe/Stockholm"}
LEAD_HOURS = 6


@lru_cache(100_000)
def gate(valid_time: int) -> int:
    """When the gate of a valid_time closed."""
    return daily_window(valid_time, **GATE)[1]


class Ledger:
    """The acknowledged rows of some series.

    Attributes:
        series: Their ids by name.
        lock: Held by the owner during each write.
        tokens: (token, as_of in microseconds) of some earlier answers.
        hours: Valid times lie below this hour.
    """

    def __init__(self, series: dict[str, str]) -> None:
        self.series = series
        self.lock = threading.Lock()
        self.tokens: list[tuple[str, int]] = []
        self.hours = 0
        self._rows = pl.DataFrame(schema=HISTORY)

    @property
    def ids(self) -> list[str]:
        """The ids of the series."""
        return sorted(self.series.values())

    def add(self, rows: pl.DataFrame) -> None:
        """Rows that were acknowledged; the lock is held."""
        self._rows = pl.concat([self._rows, rows.select(HISTORY.names()).cast(HISTORY)])
        if self._rows.n_chunks() > 200:
            self._rows = self._rows.rechunk()

    def rows(self) -> pl.DataFrame:
        """All rows, once no write is under way."""
        with self.lock:
            return self._rows


class Auditor:
    """Works answers out. One for each thread."""

    def __init__(self) -> None:
        self._duckdb = duckdb.connect(config={"threads": 1})

    def answer(
        self,
        rows: pl.DataFrame,
        series: Sequence[str],
        *,
        view: str = "flat",
        all_versions: bool = False,
        as_of: int | None,
        since: int | None = None,
        start_valid: int | None = None,
        end_valid: int | None = None,
        end_known: int | None = None,
        relative: bool = False,
        lead: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> pl.DataFrame:
        """The rows that a read must return, sorted by all columns."""
        # Both filters are applied before any winner is picked, so they may be applied here.
        wanted = pl.col("series_id").is_in(list(series))
        if start_valid is not None:
            wanted &= pl.col("valid_time") >= start_valid
        if end_valid is not None:
            wanted &= pl.col("valid_time") < end_valid
        history = rows.filter(wanted)
        cutoffs = [gate(time) for time in history["valid_time"]] if relative else [None] * history.height
        history = history.with_columns(pl.Series("cutoff", cutoffs, pl.Int64), change_time=pl.col("change_rank"))
        self._duckdb.register("history", history.to_arrow())
        found = self._duckdb.execute(
            query_of(view, f"SELECT {', '.join(columns)} FROM answer", all_versions=all_versions),
            {
                "series": list(series),
                "start_valid": start_valid,
                "end_valid": end_valid,
                "start_known": None,
                "end_known": end_known,
                "as_of": as_of,
                "lead": LEAD_HOURS * HOUR if lead else None,
                "since": since,
                "corrections": "all",
                "run_ids": None,
                "last": None,
            },
        ).to_arrow_table()
        return comparable(pl.DataFrame(found), columns)

    def standing(self, rows: pl.DataFrame, series: Sequence[str], view: str = "overlapping", **bounds: Any) -> Any:
        """The rows of a view as of now."""
        return self.answer(rows, series, view=view, as_of=None, **bounds)


def comparable(answer: pl.DataFrame, columns: Sequence[str] = COLUMNS) -> pl.DataFrame:
    """An answer with times in microseconds and identifiers as text, sorted."""
    named = answer.rename({"change_time": "change_rank"}) if "change_time" in answer.columns else answer
    kinds = {name: HISTORY[name] for name in columns}
    found = named.select(
        pl.col(name).dt.timestamp("us") if isinstance(named.schema[name], pl.Datetime) else pl.col(name).cast(kind)
        for name, kind in kinds.items()
    )
    return found.sort(list(columns), nulls_last=True)


def difference(found: pl.DataFrame, expected: pl.DataFrame) -> str | None:
    """What is wrong with an answer; None if it is right. Null equals null."""
    if found.equals(expected):
        return None
    extra = found.join(expected, on=found.columns, how="anti", nulls_equal=True)
    missing = expected.join(found, on=found.columns, how="anti", nulls_equal=True)
    return (
        f"{found.height} rows in place of {expected.height}; {extra.height} extra, first {extra.head(2).to_dicts()}; "
        f"{missing.height} missing, the first {missing.head(2).to_dicts()}"
    )
