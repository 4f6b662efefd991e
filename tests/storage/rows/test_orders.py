"""Each kernel, and the SQL, picks the row that a plain loop over the rows picks: of every order, and of its reverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from timedb.storage.direct.sql_views import place
from timedb.storage.rows.orders import LAST, VERSION, WINNER, Order
from timedb.storage.rows.ranking import drop_beaten, picked
from timedb.storage.rows.rows import ROWS, gathered
from timedb.storage.rows.views import picked as picked_of_frames

ORDERS = {"version": VERSION, "winner": WINNER, "last": LAST}
MICROS = pl.Datetime("us", "UTC")


def rows(count: int, seed: int, *, in_file_order: bool) -> pl.DataFrame:
    """Rows that differ in little, each point with an end and without one, none alike in all columns of the orders."""
    source = np.random.default_rng(seed)

    def some(low: int, high: int) -> pl.Series:
        return pl.Series(source.integers(low, high, count))

    found = pl.DataFrame(
        {
            "series_id": some(0, 3).replace_strict({0: "b", 1: "a", 2: "ä"}, return_dtype=pl.String),
            "valid_time": some(-2, 3).cast(MICROS),
            "valid_time_end": some(3, 6).replace({3: None}).cast(MICROS),
            "known_time": some(-9, 9).cast(MICROS),
            "change_time": some(-4, 4).cast(MICROS),
            "run_id": some(0, 4).replace_strict({0: "r", 1: "q", 2: "Q", 3: ""}, return_dtype=pl.String),
            "value": pl.Series(source.random(count)),
        }
    ).unique(VERSION.columns, maintain_order=True)
    return found.sort("series_id", "valid_time", "known_time", "change_time") if in_file_order else found


def by_a_loop(rows: pl.DataFrame, order: Order) -> set[Any]:
    """The values of the rows that are to stand; a null is less than every value."""
    best: dict[Any, dict[str, Any]] = {}

    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        for name in order.by:
            own, rival = one[name], other[name]
            if own != rival:
                return (rival is None or (own is not None and own > rival)) != order.least
        return False

    for row in rows.iter_rows(named=True):
        key = tuple(row[name] for name in order.key)
        if key not in best or beats(row, best[key]):
            best[key] = row
    return {row["value"] for row in best.values()}


def by_frames(rows: pl.DataFrame, order: Order) -> set[Any]:
    """The kernel of data frames."""
    return set(picked_of_frames(rows, order)["value"])


def by_queries(rows: pl.DataFrame, order: Order) -> set[Any]:
    """The kernel of lazy queries, run piece by piece."""
    return set(picked_of_frames(rows.lazy(), order).collect(engine="streaming")["value"])


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """Rows as compaction has them."""
    return rows.to_arrow().cast(pa.schema([ROWS.field(name) for name in rows.columns])).combine_chunks()


def by_arrow(rows: pl.DataFrame, order: Order) -> set[Any]:
    """The kernel of Arrow columns, after batches have dropped what a neighbour beats."""
    table = to_arrow(rows)
    parts = [pa.Table.from_batches([drop_beaten(batch, order)]) for batch in table.to_batches(max_chunksize=97)]
    table = gathered([table.slice(0, 0), *parts])
    return set(picked(table, order, ["value"]).column("value").to_pylist())


def by_sql(rows: pl.DataFrame, order: Order) -> set[Any]:
    """The text of the macros."""
    found = duckdb.sql(f"SELECT value FROM (SELECT *, {place(order)} AS place FROM rows) WHERE place = 1")
    return {value for (value,) in found.fetchall()}


@pytest.mark.parametrize("in_file_order", [True, False])
@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kernel", [by_frames, by_queries, by_arrow, by_sql])
def test_the_row_that_stands_is_the_one_of_a_loop(
    kernel: Callable[[pl.DataFrame, Order], set[Any]], name: str, least: bool, in_file_order: bool
) -> None:
    for count in (0, 1, 7, 600, 20_000):
        given, order = rows(count, count, in_file_order=in_file_order), replace(ORDERS[name], least=least)
        assert kernel(given, order) == by_a_loop(given, order), count


@pytest.mark.parametrize("least", [False, True])
def test_in_rows_of_one_run_in_file_order_neighbours_leave_nothing_to_be_sorted(least: bool) -> None:
    given = rows(12_000, 1, in_file_order=True).filter(pl.col("valid_time_end").is_null(), run_id="r")
    (batch,) = to_arrow(given).to_batches()
    assert drop_beaten(batch, replace(WINNER, least=least)).num_rows == 15  # points
