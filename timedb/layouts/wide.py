"""Wide tables, which have a column for each series: a batch of an upload for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from timedb.contract.columns import IDENTIFIER, constant, is_text

__all__ = ["named_batch", "side_by_side"]


def side_by_side(
    rows: int, shared: Mapping[str, pa.Array], series: Iterable[tuple[str, pa.Array]]
) -> Iterator[pa.RecordBatch]:
    """A batch for each series of a wide table.

    Args:
        rows: How many rows the table has.
        shared: Columns that all series have: their times, and what else is said of a row.
        series: The name of each series, and its values.
    """
    for name, values in series:
        yield named_batch({"series_key": constant(name, rows), **shared, "value": values})


def named_batch(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """The columns as a batch, what names series as dictionaries."""
    for name in ("series_key", "series_id", "labels"):
        if name in columns and is_text(columns[name].type):
            column = columns[name]
            columns[name] = (
                column.cast(IDENTIFIER)
                if pa.types.is_dictionary(column.type)
                else column.dictionary_encode().cast(IDENTIFIER)
            )
    return pa.RecordBatch.from_pydict(columns)
