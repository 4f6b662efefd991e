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

__all__ = ["DeltaError", "create_checkpoint", "read_state", "schema_text"]


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as the ``schemaString`` of the Delta protocol."""
    return Schema.from_arrow(schema).to_json()


def read_state(url: str, version: int, app_ids: tuple[str, ...]) -> tuple[pa.Table, dict[str, int]]:
    """The live files of a table at a version, one row each with flattened statistics, and app transactions.

    Raises:
        Internal: the checkpoint or the log cannot be read.
    """
    try:
        table = DeltaTable(url, version=version)
        found = {app_id: table.transaction_version(app_id) for app_id in app_ids}
        files: Any = table.get_add_actions(flatten=True)
    except DeltaError as error:
        raise Internal(f"the table's log cannot be read at version {version}; run timedb doctor") from error
    return pa.table(files), {app_id: number for app_id, number in found.items() if number is not None}


def create_checkpoint(url: str) -> int:
    """Write a checkpoint of the latest version and return that version.

    Raises:
        Internal: it could not be written; the table is as before.
    """
    try:
        table = DeltaTable(url)
        table.create_checkpoint()
        return table.version()
    except DeltaError as error:
        raise Internal("a checkpoint could not be written") from error
