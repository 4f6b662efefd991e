"""What the views mean (docs/wire.md) as Polars queries over rows of the values table, tiers or no tiers.

Every function takes and gives a DataFrame or a LazyFrame; the filters have been applied before a winner is picked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import polars as pl

from timedb.storage.rows.sorting import sort_rows

__all__ = [
    "CHAIN_ORDER",
    "POINT",
    "REVISION",
    "View",
    "flat",
    "flat_chains",
    "latest_versions",
    "overlapping",
    "points",
    "same_as_next",
    "value_id",
    "winners",
]

F = TypeVar("F", pl.LazyFrame, pl.DataFrame)
View = Callable[[pl.DataFrame], pl.DataFrame]

POINT = ("series_id", "valid_time", "valid_time_end")
"""What a value is about."""

REVISION = (*POINT, "known_time", "run_id")
"""The revision key."""

CHAIN_ORDER = (*REVISION, "change_time")


def latest_versions(rows: F) -> F:
    """Per revision key the row with the greatest change_time, retracted ones included."""
    return _last(rows, REVISION, ("change_time",))


def overlapping(rows: F) -> F:
    """Per revision key the row with the greatest change_time, withdrawn revisions left out."""
    return latest_versions(rows).filter(pl.col("retracted").ne_missing(True))


def winners(rows: F) -> F:
    """The flat view of rows that are each the only version of their revision, none of them retracted."""
    return _last(rows, POINT, ("known_time", "change_time", "run_id"))


def flat(rows: F) -> F:
    """Per (series_id, valid_time, valid_time_end) the winner: the greatest (known_time, change_time, run_id)."""
    return winners(overlapping(rows))


def flat_chains(rows: F) -> F:
    """The whole correction chain of each flat winner."""
    return rows.join(flat(rows).select(REVISION), on=list(REVISION), how="semi", nulls_equal=True)


def _last(rows: F, key: tuple[str, ...], order: tuple[str, ...]) -> F:
    """Per key the greatest row by ``order``."""
    rows = _drop_beaten(rows, key, order)
    if isinstance(rows, pl.DataFrame):
        return sort_rows(rows, (*key, *order)).filter(~same_as_next(key))
    return rows.sort(*key, *order).unique(subset=list(key), keep="last", maintain_order=True)


def _drop_beaten(rows: F, key: tuple[str, ...], order: tuple[str, ...]) -> F:
    """Drop rows that the next row beats: most of them, where files are sorted; none wrongly, where they are not."""
    later, same = pl.lit(False), pl.lit(True)
    for name in order:
        later = later | (same & (pl.col(name) < pl.col(name).shift(-1)))
        same = same & (pl.col(name) == pl.col(name).shift(-1))
    return rows.filter((same_as_next(key) & later).not_().fill_null(True))


def same_as_next(names: Sequence[str]) -> pl.Expr:
    """Whether the row that follows agrees in the named columns, null with null; false for the last row."""
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in names)
    return same & (pl.int_range(pl.len()) < pl.len() - 1)


def points(rows: pl.DataFrame) -> pl.DataFrame:
    """The distinct points of some rows."""
    return sort_rows(rows.select(POINT), POINT).filter(~same_as_next(POINT))


def value_id() -> pl.Expr:
    """The ``value_id`` of a row: the text form of its revision key (``timedb.contract.identity.RevisionKey``)."""

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
