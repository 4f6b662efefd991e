"""The one module that calls deltalake: table state at a checkpoint, new checkpoints, schema text.

A handle is opened, used and dropped inside each call, never shared between threads: deltalake holds one lock a
handle, some of it under the interpreter lock. The log after a checkpoint is read and written by ``delta_log``.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from timedb.errors import Internal

__all__ = ["DeltaError", "create_checkpoint", "read_files", "schema_text"]


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as the ``schemaString`` of the Delta protocol."""
    return Schema.from_arrow(schema).to_json()


def read_files(url: str, version: int) -> pa.Table:
    """The live files of a table at a version, one row each with flattened statistics.

    Raises:
        Internal: the checkpoint or the log cannot be read.
    """
    try:
        files: Any = DeltaTable(url, version=version).get_add_actions(flatten=True)
    except DeltaError as error:
        raise Internal(f"the table's log cannot be read at version {version}; run timedb doctor") from error
    return pa.table(files)


def create_checkpoint(url: str) -> int:
    """Write a checkpoint of the latest version of a table, hint included, and return that version.

    Raises:
        Internal: it could not be written.
    """
    try:
        table = DeltaTable(url)
        table.create_checkpoint()
        return table.version()
    except DeltaError as error:
        raise Internal("a checkpoint could not be written") from error
