"""Which versions of a revision count, where a read leaves corrections out: a filter of versions, before all else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import polars as pl

from timedb.contract.times import to_micros
from timedb.contract.wire import ReadCommand
from timedb.storage.measures.relative import within_cut_off
from timedb.storage.rows.orders import REVISION

__all__ = ["Uploaded", "counted"]

Uploaded = Callable[[], pl.DataFrame]
"""Gives the change_time of every run's upload: columns ``run_id`` and ``uploaded``."""

_TIME = pl.Datetime("us", "UTC")


def counted(rows: pl.LazyFrame, read: ReadCommand, end_known: datetime | None, uploaded: Uploaded) -> pl.LazyFrame:
    """The versions that count under the read's ``corrections``.

    Args:
        rows: All versions of their revisions that other filters leave.
        read: The read.
        end_known: Its cut-off, exclusive, where it has one.
        uploaded: A version that was written with its run is the first; any other is a correction's, that of a row which
            a correction created, too.
    """
    if read.corrections == "all":
        return rows
    if read.corrections == "none":
        return rows.filter(pl.col("change_time") == pl.col("change_time").min().over(REVISION))
    within = within_cut_off(read, "change_time")
    if end_known is not None:
        within.append(pl.col("change_time") < pl.lit(to_micros(end_known)).cast(_TIME))
    first = (pl.col("change_time") == pl.col("uploaded")).fill_null(value=False)
    joined = rows.join(uploaded().lazy(), on="run_id", how="left")
    return joined.filter(first | pl.all_horizontal(within)).drop("uploaded")
