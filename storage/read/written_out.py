"""Texts written out row by row for the wire: so few rows at a time that it takes little memory.

Rows that share a text hold it once, in files and in memory, and the wire has it once a row: a file of a few KiB may be
gigabytes on their way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.storage.delta.dictionaries import as_type
from timedb.storage.rows.sorting import Integers

__all__ = ["BATCH_ROWS", "written_out"]

BATCH_ROWS = 65_536
_TEXT_BYTES = 2 << 20


def written_out(rows: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in the types of the wire, in batches of at most :data:`BATCH_ROWS` and about two MiB of such texts.

    Args:
        rows: The columns of the schema, texts as dictionaries.
        schema: Of the answer.
    """
    packed = [field.name for field in schema if rows.schema.field(field.name).type != field.type]
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        for piece in _pieces(batch, packed) if packed else [batch]:
            columns = [
                as_type(column, field.type) for field, column in ((field, piece.column(field.name)) for field in schema)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _pieces(batch: pa.RecordBatch, names: list[str]) -> Iterator[pa.RecordBatch]:
    sums = np.cumsum(sum(_text_bytes(batch.column(name)) for name in names))
    start = 0
    while start < batch.num_rows:
        most = (sums[start - 1] if start else 0) + _TEXT_BYTES
        end = max(int(np.searchsorted(sums, most, side="right")), start + 1)
        yield batch.slice(start, end - start)
        start = end


def _text_bytes(column: pa.Array) -> Integers:
    """How many bytes of text each row has when it is written out."""
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=np.int64)
    if pa.types.is_list(column.type):
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy())
        sums = np.concatenate([[0], np.cumsum(_text_bytes(pc.list_flatten(column)))])
        of_lists: Integers = np.diff(sums[np.concatenate([[0], ends])])
        return of_lists
    lengths = pc.fill_null(pc.binary_length(column.dictionary), 0)
    found: Integers = pc.fill_null(lengths.take(column.indices), 0).cast(pa.int64()).to_numpy()
    return found
