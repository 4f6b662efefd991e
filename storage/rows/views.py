"""What the views mean (docs/wire.md) as Polars queries over rows of the values table, tiers or no tiers.

Every function takes and gives a DataFrame or a LazyFrame; the filters have been applied before a winner is picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import polars as pl

from timedb.contract.times import MIN_MICROS
from timedb.storage.rows.orders import CONTENT, FIRST, LAST, NEWEST, NULLABLE, POINT, REVISION, VERSION, WINNER, Order
from timedb.storage.rows.sorting import sort_rows

__all__ = [
    "first",
    "flat",
    "flat_chains",
    "last",
    "last_points",
    "latest_versions",
    "numbered",
    "of_newest_run",
    "overlapping",
    "picked",
    "points",
    "repeats_last",
    "same_as_next",
    "standing",
    "value_id",
    "winners",
]

F = TypeVar("F", pl.LazyFrame, pl.DataFrame)
_FEW_ROWS = 10_000  # below, expressions cost more than they save


def latest_versions(rows: F) -> F:
    """Per revision the version that was written last, retracted ones included."""
    return picked(rows, VERSION)


def standing(versions: F) -> F:
    """Of the latest versions those that are not retracted."""
    return versions.filter(pl.col("retracted").ne_missing(True))


def overlapping(rows: F) -> F:
    """Per revision the version that was written last, withdrawn revisions left out."""
    return standing(latest_versions(rows))


def winners(rows: F) -> F:
    """The flat view of rows that are each the only version of their revision, none of them retracted."""
    return picked(rows, WINNER)


def flat(rows: F) -> F:
    """Per point the winner of the revisions that stand."""
    return winners(overlapping(rows))


def first(rows: F) -> F:
    """Per point the first release of the revisions that stand; of rows with all versions of each."""
    return picked(_published(rows), FIRST).drop("published")


def numbered(rows: F) -> F:
    """The rows, with all versions of each revision, and ``revision``: which one of its point it is, in the order of
    :data:`FIRST`, from 1; null where it does not stand.
    """
    standing = _published(rows).select(*REVISION, "published")
    standing = standing.sort(*FIRST.columns)
    place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32)
    first = pl.when(~_same_as(POINT, 1)).then(place).forward_fill()
    numbers: F = standing.select(*REVISION, revision=place - first + 1)
    return rows.join(numbers, on=list(REVISION), how="left", nulls_equal=True)


def _published(rows: F) -> F:
    """Per revision that stands its version, and when the first one was written; of rows with all versions of each."""
    published = rows.group_by(REVISION).agg(published=pl.col("change_time").min())
    standing: F = overlapping(rows).join(published, on=list(REVISION), how="left", nulls_equal=True)
    return standing


def of_newest_run(rows: F, window: pl.Expr | None = None) -> F:
    """Of revisions that stand those of the newest run of their series.

    Args:
        rows: Such revisions.
        window: What says which window a row lies in, each of which has a newest run of its own; None: there is one.
    """
    placed = rows.with_columns(window=pl.lit(0) if window is None else window)
    by_window = replace(NEWEST, key=(*NEWEST.key, "window"))
    newest = picked(placed.select(*by_window.columns), by_window).select(*by_window.key, "known_time", "run_id")
    kept: F = placed.join(newest, on=newest.collect_schema().names(), how="semi").drop("window")
    return kept


def flat_chains(rows: F) -> F:
    """The whole correction chain of each flat winner."""
    return rows.join(flat(rows).select(REVISION), on=list(REVISION), how="semi", nulls_equal=True)


def last(rows: F) -> F:
    """The last value of each series, of rows of the flat view or of rows that compete for it as :func:`winners`."""
    return picked(rows, LAST)


def last_points(rows: F, count: int) -> F:
    """Of each series the rows at the last so many points."""
    last = points(rows).sort(*POINT).group_by("series_id", maintain_order=True).tail(count)
    kept: F = rows.join(last, on=list(POINT), how="semi", nulls_equal=True)
    return kept


def picked(rows: F, order: Order) -> F:
    """Per key of an order the row that stands for it.

    A lazy query has no order of rows, and the columns of the key first: the streaming engine runs it piece by piece,
    and filters on the key reach the files through it.
    """
    if isinstance(rows, pl.LazyFrame):
        others, by = pl.exclude(*order.key), _as_one(order.by)
        return rows.group_by(order.key).agg(others.min_by(by) if order.least else others.max_by(by))
    if rows.height < _FEW_ROWS:
        ranked = rows.sort(*order.columns)
        return ranked.unique(order.key, keep="first" if order.least else "last", maintain_order=True)
    ranked = sort_rows(_drop_beaten(rows, order), order.columns)
    return ranked.filter(~_same_as(order.key, 1 if order.least else -1))


def _as_one(names: Sequence[str]) -> pl.Expr:
    """Columns that are compared one after the other as one expression."""
    parts = [
        pl.col(name).to_physical().fill_null(MIN_MICROS - 1) if name in NULLABLE else pl.col(name) for name in names
    ]
    return parts[0] if len(parts) == 1 else pl.struct(parts)


def _drop_beaten(rows: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Drop rows that a neighbour beats: most of them, where files are sorted; none wrongly, where they are not."""
    step = 1 if order.least else -1
    beaten, same = pl.lit(False), pl.lit(True)
    for name in order.by:
        own, other = pl.col(name), pl.col(name).shift(step)
        beaten = beaten | (same & (own > other if order.least else own < other))
        same = same & (own == other)
    return rows.filter((_same_as(order.key, step) & beaten).not_().fill_null(True))


def same_as_next(names: Sequence[str]) -> pl.Expr:
    """Whether the row that follows agrees in the named columns, null with null; false for the last row."""
    return _same_as(names, -1)


def repeats_last() -> pl.Expr:
    """Whether a revision says what the one before it says of the same point: value, annotation and tags; null equals
    null, NaN equals NaN and -0.0 equals 0.0. Of revisions in the order of :data:`WINNER`.
    """
    return _same_as((*POINT, *CONTENT), 1)


def _same_as(names: Sequence[str], step: int) -> pl.Expr:
    """Whether the row before (1) or behind (-1) agrees in the named columns, null with null; false where none is."""
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(step)) for name in names)
    return same & ((pl.int_range(pl.len()) > 0) if step > 0 else (pl.int_range(pl.len()) < pl.len() - 1))


def points(rows: F) -> F:
    """The distinct points of some rows."""
    if isinstance(rows, pl.LazyFrame):
        return rows.select(POINT).unique()
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
