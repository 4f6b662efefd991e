"""The views of design section 3 as Polars queries over rows of the values table, tiers or no tiers.

Every function takes and gives a LazyFrame; the filters have been applied before a winner is picked.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

__all__ = [
    "CHAIN_ORDER",
    "POINT",
    "REVISION",
    "View",
    "flat",
    "flat_chains",
    "latest_versions",
    "overlapping",
    "value_id",
    "winners",
]

View = Callable[[pl.LazyFrame], pl.LazyFrame]

POINT = ("series_id", "valid_time", "valid_time_end")
"""What a value is about."""

REVISION = (*POINT, "known_time", "run_id")
"""The revision key."""

CHAIN_ORDER = (*REVISION, "change_time")


def _last(rows: pl.LazyFrame, key: tuple[str, ...], order: tuple[str, ...]) -> pl.LazyFrame:
    return rows.sort(*key, *order).unique(subset=list(key), keep="last", maintain_order=True)


def _drop_beaten(rows: pl.LazyFrame, key: tuple[str, ...], order: tuple[str, ...]) -> pl.LazyFrame:
    """Drop rows that the next row beats: most of them, where files are sorted; none wrongly, where they are not."""
    rivals = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in key)
    later, same = pl.lit(False), pl.lit(True)
    for name in order:
        later = later | (same & (pl.col(name) < pl.col(name).shift(-1)))
        same = same & (pl.col(name) == pl.col(name).shift(-1))
    return rows.filter((rivals & later).not_().fill_null(True))


def latest_versions(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Per revision key the row with the greatest change_time, retracted ones included."""
    order = ("change_time",)
    return _last(_drop_beaten(rows, REVISION, order), REVISION, order)


def overlapping(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Per revision key the row with the greatest change_time, withdrawn revisions left out."""
    return latest_versions(rows).filter(pl.col("retracted").ne_missing(True))


def flat(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Per (series_id, valid_time, valid_time_end) the winner: the greatest (known_time, change_time, run_id)."""
    return winners(overlapping(rows))


def winners(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The flat view of rows that are each the only version of their revision, none of them retracted."""
    order = ("known_time", "change_time", "run_id")
    return _last(_drop_beaten(rows, POINT, order), POINT, order)


def flat_chains(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The whole correction chain of each flat winner."""
    return rows.join(flat(rows).select(REVISION), on=list(REVISION), how="semi", nulls_equal=True)


def value_id() -> pl.Expr:
    """The ``value_id`` of a row: the text form of its revision key (``timedb.identity.RevisionKey``)."""

    def micros(name: str) -> pl.Expr:
        return pl.col(name).to_physical().cast(pl.String)

    parts = (
        pl.col("series_id"),
        micros("valid_time"),
        micros("valid_time_end").fill_null(""),
        micros("known_time"),
        pl.col("run_id"),
    )
    text = pl.concat_str(parts, separator="~").str.encode("base64")
    return text.str.replace_all("+", "-", literal=True).str.replace_all("/", "_", literal=True).str.strip_chars_end("=")
