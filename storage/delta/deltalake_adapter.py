"""The one module that calls deltalake: new checkpoints, schema text.

A handle is opened, used and dropped inside each call, never shared between threads: deltalake holds one lock a
handle, some of it under the interpreter lock. The log and its checkpoints are read by ``delta_log``.
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from timedb.contract.errors import Internal

__all__ = ["DeltaError", "create_checkpoint", "schema_text"]


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as the ``schemaString`` of the Delta protocol."""
    return Schema.from_arrow(schema).to_json()


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
