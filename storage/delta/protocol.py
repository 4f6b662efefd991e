"""What a Delta table may ask of its readers and writers, and how much of it we know; the rest is refused by name.

The service makes tables of reader version 1 and writer version 2. Another writer can lift a table beyond them, or
change its columns; whoever then went on as before would bring back deleted rows, or write what others cannot read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from timedb.contract.errors import Unimplemented

__all__ = ["check_action", "check_metadata", "check_protocol"]

READER_VERSION, WRITER_VERSION = 1, 2
_BY_FEATURES = (3, 7)
_KNOWN_FEATURES = {"appendOnly", "invariants"}  # those that writer version 2 implies
_KNOWN_ACTIONS = {"add", "remove", "txn", "commitInfo", "cdc", "protocol", "metaData"}
_REMEDY = "undo it with the writer that did it, or restore a backup"


def check_action(action: Mapping[str, Any]) -> None:
    """Look at one line of a commit.

    Raises:
        Unimplemented: it is of a kind that we do not know, or says that rows of a file are deleted.
    """
    unknown = sorted(action.keys() - _KNOWN_ACTIONS)
    if unknown:
        raise Unimplemented(
            f"the table's log holds an action {unknown[0]}, which this service does not know; {_REMEDY}"
        )
    if "protocol" in action:
        check_protocol(action["protocol"])
    if (action.get("add") or {}).get("deletionVector"):
        path = action["add"]["path"]
        raise Unimplemented(f"a deletion vector, which this service does not know, deletes rows of {path}; {_REMEDY}")


def check_protocol(protocol: Mapping[str, Any]) -> None:
    """Look at what a table asks of whoever reads and writes it.

    Raises:
        Unimplemented: it asks for more than we know.
    """
    reader, writer = protocol["minReaderVersion"], protocol["minWriterVersion"]
    features = {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}
    unknown = sorted(features - _KNOWN_FEATURES)
    by_features = (reader in (READER_VERSION, _BY_FEATURES[0])) and writer == _BY_FEATURES[1]
    if unknown or not ((reader <= READER_VERSION and writer <= WRITER_VERSION) or by_features):
        named = f" with {', '.join(unknown)}" if unknown else ""
        raise Unimplemented(
            f"the table asks for version {reader} of the Delta protocol's readers and {writer} of its writers{named}; "
            f"this service knows {READER_VERSION} and {WRITER_VERSION}: {_REMEDY}"
        )


def check_metadata(metadata: Mapping[str, Any], schema_text: str, partitions: Sequence[str]) -> None:
    """Look at a table's columns and properties. Columns that are not ours are let be: they are null in our files.

    Args:
        metadata: The ``metaData`` action.
        schema_text: The columns that there have to be, as the ``schemaString`` of the protocol.
        partitions: The partition columns.

    Raises:
        Unimplemented: a column of ours is missing or another one, or others cannot be null, or nothing may be removed.
    """
    found = {column["name"]: column for column in json.loads(metadata["schemaString"])["fields"]}
    for wanted in json.loads(schema_text)["fields"]:
        column = found.pop(wanted["name"], None)
        if column is None or _shape(column) != _shape(wanted):
            is_now = "is missing" if column is None else f"is {json.dumps(_shape(column))}"
            raise Unimplemented(f"the table's column {wanted['name']} {is_now}: another writer changed it; {_REMEDY}")
    for name, column in found.items():
        if not column.get("nullable", True):
            raise Unimplemented(f"another writer added a column {name} that may not be null; {_REMEDY}")
    if list(metadata.get("partitionColumns") or ()) != list(partitions):
        raise Unimplemented(f"the table's partition columns are {metadata.get('partitionColumns')}; {_REMEDY}")
    if str((metadata.get("configuration") or {}).get("delta.appendOnly")).lower() == "true":
        raise Unimplemented(f"the table's property delta.appendOnly forbids compaction; {_REMEDY}")


def _shape(column: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: value for name, value in (column.get("metadata") or {}).items() if name != "comment"}
    return {"type": column["type"], "nullable": column.get("nullable", True), "metadata": about}
