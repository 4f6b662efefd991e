"""Columns whose texts are dictionaries: made of what was read, and cut to what their rows use."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import is_text

__all__ = ["as_type", "used_entries"]

R = TypeVar("R", pa.Table, pa.RecordBatch)


def as_type(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A column as it was read in the type that it shall have; text that becomes a dictionary is held once each.

    Other writers keep a type of their own beside the Parquet one, such as views of text, which few functions take.
    """
    if column.type == wanted:
        return column
    if pa.types.is_list(wanted) and not pa.types.is_null(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        items = as_type(pc.list_flatten(column), wanted.value_type)
        return pa.ListArray.from_arrays(offsets, items, type=wanted, mask=pc.is_null(column))
    if not pa.types.is_dictionary(wanted):
        return column.cast(wanted)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode() if is_text(column.type) else column.cast(wanted.value_type)
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    dictionary = column.dictionary.cast(wanted.value_type)
    return pa.DictionaryArray.from_arrays(column.indices.cast(wanted.index_type), dictionary)


def used_entries(rows: R) -> R:
    """The same rows; what their columns' dictionaries hold beside the texts of the rows is left out of them."""
    for index, column in enumerate(rows.columns):
        kind = column.type.value_type if pa.types.is_list(column.type) else column.type
        if pa.types.is_dictionary(kind):
            if isinstance(column, pa.ChunkedArray):
                used = pa.chunked_array([_used_entries(chunk) for chunk in column.chunks], column.type)
            else:
                used = _used_entries(column)
            rows = rows.set_column(index, rows.schema.field(index), used)
    return rows


def _used_entries(column: pa.Array) -> pa.Array:
    if pa.types.is_list(column.type):
        if column.null_count == len(column):
            return column
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(
            offsets, _used_entries(pc.list_flatten(column)), type=column.type, mask=column.is_null()
        )
    entries = len(column.dictionary)
    if entries <= 1 < len(column):
        return column
    codes = column.indices.fill_null(0).to_numpy()
    if not column.null_count and len(codes) and (only := codes.min()) == codes.max():  # one series of many, say
        return pa.DictionaryArray.from_arrays(np.zeros_like(codes), column.dictionary.slice(only, 1))
    used = np.zeros(entries, dtype=np.bool_)
    used[codes if not column.null_count else codes[column.is_valid().to_numpy(zero_copy_only=False)]] = True
    if used.all():
        return column
    places = (np.cumsum(used) - 1).astype(np.int32)
    nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    indices = pa.array(places[codes], column.type.index_type, mask=nulls)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.filter(pa.array(used)))
