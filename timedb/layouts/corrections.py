"""Tables of corrections: each row says which row of the lake it is about, and what becomes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pyarrow as pa

from timedb.contract.columns import CORRECTION_COLUMNS
from timedb.contract.digest import row_words
from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.files.table_files import Reading, TableFile

__all__ = ["corrections_in", "digest_of"]


def corrections_in(
    table: TableFile, how: Reading, *, ignored: Collection[str] = (), advice: str = ""
) -> pa.RecordBatchReader:
    """The rows as ``correct`` takes them, read as they are taken.

    Args:
        table: The table.
        how: How its cells are read.
        ignored: Columns that are left out.
        advice: What to do about a column that nothing takes: the end of an error.

    Raises:
        InvalidRequest: a column is none of a correction's, or a cell does not fit.
    """
    for name in ignored:
        if name not in table.names:
            raise InvalidRequest(f"ignore: there is no column {quoted(name)}{did_you_mean(name, table.names)}")
    names = [name for name in table.names if name not in ignored]
    for name in names:
        if name not in CORRECTION_COLUMNS:
            meant = did_you_mean(name, CORRECTION_COLUMNS)
            raise InvalidRequest(f"{quoted(name)[1:-1]}: unknown column{meant}{advice}")
    return table.read({name: name for name in names}, how)


def digest_of(rows: pa.Table, *, create: bool) -> str:
    """A name for a batch of corrections: the same for the same rows in the same order."""
    columns = [column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column for column in rows.columns]
    columns = [column.cast(pa.float64()) if pa.types.is_integer(column.type) else column for column in columns]
    words = row_words(columns) if rows.num_rows else np.zeros(0, dtype=np.uint64)
    said = repr((rows.column_names, create)).encode()
    return f"table-{hashlib.blake2b(said + words.tobytes(), digest_size=16).hexdigest()}"
