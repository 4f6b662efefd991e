"""Seeded data: a history of forecasts in which every run revises the runs before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa

__all__ = ["History", "flat", "last_values", "many_series", "small_upload"]

HORIZON = 48
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class History:
    """So many series and runs of 48 hourly values; a run is issued every two hours, so most are revised 23 times."""

    series: int
    runs: int

    @property
    def rows(self) -> int:
        """Rows of the whole history."""
        return self.series * self.runs * HORIZON

    def frame(self) -> pl.DataFrame:
        """Upload columns ``series_key, valid_time, known_time, value``, in the order in which forecasts are made."""
        run = np.repeat(np.arange(self.runs), self.series * HORIZON)
        series = np.tile(np.repeat(np.arange(self.series), HORIZON), self.runs)
        hour = np.tile(np.arange(HORIZON), self.runs * self.series)
        names = pl.Series([f"series-{index:05}" for index in range(self.series)], dtype=pl.Categorical)
        known = pl.lit(START) + pl.duration(hours=pl.col("run") * 2)
        return (
            pl.DataFrame({"run": run, "hour": hour, "series_key": names[series]})
            .with_columns(
                known.dt.cast_time_unit("us").alias("known_time"),
                # Two decimals, as meters and markets publish them.
                pl.Series("value", np.random.default_rng(20240101).normal(100.0, 15.0, self.rows).round(2)),
            )
            .with_columns((pl.col("known_time") + pl.duration(hours="hour")).alias("valid_time"))
            .select("series_key", "valid_time", "known_time", "value")
        )

    def series_name(self) -> str:
        """A series in the middle."""
        return f"series-{self.series // 2:05}"

    def midway(self) -> datetime:
        """The issue time in the middle of the history."""
        return START + timedelta(hours=2 * (self.runs // 2))

    def last_week(self) -> tuple[datetime, datetime]:
        """Seven days of valid times at the end of the history."""
        end = START + timedelta(hours=2 * (self.runs - 1) + HORIZON)
        return end - timedelta(days=7), end


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The truth of a flat read: per series and valid_time the value with the greatest known_time."""
    if not frame["known_time"].is_sorted():
        frame = frame.sort("known_time")
    latest = frame.unique(["series_key", "valid_time"], keep="last")
    return latest.select("series_key", "valid_time", "value")


def small_upload(series: str, number: int) -> pa.Table:
    """24 rows of one series."""
    first = START + timedelta(days=number)
    times = [first + timedelta(hours=hour) for hour in range(24)]
    return pa.table(
        {
            "series_key": pa.array([series] * 24),
            "valid_time": pa.array(times, pa.timestamp("us", "UTC")),
            "value": pa.array([float(number)] * 24),
        }
    )


def many_series(series: int, values: int, revisions: int) -> pl.DataFrame:
    """Series that are revised as a whole: ``series_key, valid_time, known_time, value``, run after run."""
    run = np.repeat(np.arange(revisions), series * values)
    number = np.tile(np.repeat(np.arange(series), values), revisions)
    hour = np.tile(np.arange(values), series * revisions)
    names = pl.Series([f"last-{index:05}" for index in range(series)], dtype=pl.Categorical)
    return pl.DataFrame({"run": run, "hour": hour, "series_key": names[number]}).select(
        "series_key",
        (pl.lit(START) + pl.duration(hours="hour")).dt.cast_time_unit("us").alias("valid_time"),
        (pl.lit(START) + pl.duration(hours="run")).dt.cast_time_unit("us").alias("known_time"),
        pl.Series("value", np.random.default_rng(11).normal(5.0, 2.0, len(run)).round(2)),
    )


def last_values(frame: pl.DataFrame) -> pl.DataFrame:
    """The truth of a read of last values: per series the value known last of its last valid_time."""
    last = frame.filter(pl.col("valid_time") == pl.col("valid_time").max().over("series_key"))
    last = last.sort("known_time").unique("series_key", keep="last")
    return last.select("series_key", "valid_time", "value")
