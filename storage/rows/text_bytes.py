"""How many rows are worked on at once where their texts are long: a row may have a few bytes, or a MiB."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pyarrow.parquet as pq

from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store

__all__ = ["rows_of_bytes", "text_bytes"]

_TEXTS = ("annotation", "tags")
_FEWEST_ROWS = 256


def text_bytes(metadata: pq.FileMetaData, columns: Collection[str] = _TEXTS) -> int:
    """Bytes that the annotations and tags of a file take as they are held in memory, a shared text once a row group."""
    places = [
        index
        for index in range(metadata.num_columns)
        if (name := metadata.schema.column(index).path.split(".")[0]) in columns and name in _TEXTS
    ]
    return sum(
        metadata.row_group(group).column(index).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for index in places
    )


def rows_of_bytes(
    store: Store, files: Iterable[DataFile], most_rows: int, most_bytes: int, columns: Collection[str] = _TEXTS
) -> int:
    """So many rows of some files, at most, that their texts are within a number of bytes, about.

    Args:
        store: The Delta table's folder.
        files: Data files of the values table.
        most_rows: The most.
        most_bytes: Of annotations and tags.
        columns: The columns that are read.
    """
    if not set(columns) & set(_TEXTS):
        return most_rows
    rows = size = 0
    for file in files:
        metadata = pq.read_metadata(store.open(file.path))
        rows += metadata.num_rows
        size += text_bytes(metadata, columns)
    return most_rows if size <= most_bytes else max(_FEWEST_ROWS, min(most_rows, rows * most_bytes // size))
