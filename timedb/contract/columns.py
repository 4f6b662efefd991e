"""Names and Arrow types of the columns that go over the wire, in and out."""

from __future__ import annotations

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import ReadCommand, quoted

__all__ = [
    "AUDIT_COLUMNS",
    "COLUMN_TYPES",
    "CORRECTION_COLUMNS",
    "IDENTIFIER",
    "LOOKED_UP",
    "LOOKUP_COLUMNS",
    "META_AS_OF",
    "META_CURSOR",
    "META_HEARTBEAT",
    "META_SERIES_VERSION",
    "META_TABLE_VERSION",
    "META_TOKEN",
    "UPLOAD_COLUMNS",
    "constant",
    "decoded",
    "is_text",
    "result_columns",
    "result_schema",
]

META_TABLE_VERSION = b"table_version"
META_AS_OF = b"as_of"
META_SERIES_VERSION = b"series_version"
"""Another one where names, units or labels of series, or which of them the caller sees, have changed."""
META_CURSOR = b"cursor"
META_TOKEN = b"token"
META_HEARTBEAT = b"heartbeat_seconds"
"""After how long without rows a follower hears from its server."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
IDENTIFIER = pa.dictionary(pa.int32(), pa.string())

COLUMN_TYPES: dict[str, pa.DataType] = {
    "series_id": IDENTIFIER,
    "series_key": IDENTIFIER,
    "series_unit": IDENTIFIER,
    "valid_time": TIMESTAMP,
    "valid_time_end": TIMESTAMP,
    "known_time": TIMESTAMP,
    "change_time": TIMESTAMP,
    "value": pa.float64(),
    "run_id": IDENTIFIER,
    "annotation": pa.string(),
    "tags": pa.list_(pa.string()),
    "changed_by": IDENTIFIER,
    "retracted": pa.bool_(),
    "value_id": pa.string(),
    "revision": pa.int32(),
}
"""Every column that a read can return, with its type."""

CORRECTION_COLUMNS = (
    "series_id",
    "series_key",
    "labels",
    "valid_time",
    "valid_time_end",
    "known_time",
    "run_id",
    "value_id",
    "changed_by",
    "value",
    "annotation",
    "tags",
    "retracted",
)
"""What a table of corrections may have: the last four say what becomes of a row, the others which row."""

AUDIT_COLUMNS = ("known_time", "change_time", "changed_by", "annotation", "tags", "run_id", "value_id", "retracted")
"""What ``all_versions`` adds."""

RESAMPLED_COLUMNS = ("series_id", "series_key", "series_unit", "valid_time", "valid_time_end", "value")
"""What a resampled flat read can return; an overlapping one also knows ``known_time`` and ``run_id``."""

UPLOAD_COLUMNS = (
    "series_id",
    "series_key",
    "labels",
    "valid_time",
    "valid_time_end",
    "known_time",
    "value",
    "annotation",
    "tags",
)
"""Every column that an upload may have."""

LOOKUP_COLUMNS = ("series_id", "series_key", "labels", "valid_time", "valid_time_end", "known_by")
"""Every column that a lookup may have."""

LOOKED_UP = pa.schema([("value", pa.float64()), ("known_time", TIMESTAMP), ("found", pa.bool_())])
"""What a lookup's answer adds to its columns."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, as they are or as a dictionary's."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def decoded(column: pa.Array) -> pa.Array:
    """A column, an array or a chunked one, without its dictionary, if it has one."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def constant(text: str, rows: int) -> pa.Array:
    """A column of :data:`IDENTIFIER` that says the same in all rows."""
    zeros = pa.repeat(pa.scalar(0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(zeros, pa.array([text]))


def result_columns(read: ReadCommand) -> list[str]:
    """The columns of a read's answer, in order; of one with ``pivot`` those that it is made of.

    Raises:
        InvalidRequest: ``columns`` names one that does not exist, or not in this read, or one twice.
    """
    if read.pivot is not None:
        run = ["known_time", "run_id"] if read.view == "overlapping" else []
        return ["series_id", "valid_time", "valid_time_end", *run, "value"]
    if read.columns is None:
        return _usual_columns(read)
    resampled = (*RESAMPLED_COLUMNS, *(("known_time", "run_id") if read.view == "overlapping" else ()))
    for name in read.columns:
        if name not in COLUMN_TYPES:
            raise InvalidRequest(f"columns: unknown column {quoted(name)}{did_you_mean(name, COLUMN_TYPES)}")
        if read.columns.count(name) > 1:
            raise InvalidRequest(f"columns: {name!r} is named twice")
        if read.resample is not None and name not in resampled:
            raise InvalidRequest(f"columns: a resampled value has no {name}; there are {', '.join(resampled)}")
    if not read.columns:
        raise InvalidRequest("columns: [] names no column")
    return read.columns


def _usual_columns(read: ReadCommand) -> list[str]:
    series = ["series_id", "series_key"] if read.names else ["series_id"]
    if read.view == "changes":
        return [*series, "valid_time", "valid_time_end", "value", *AUDIT_COLUMNS]
    if read.all_versions:
        return [*series, "valid_time", "value", *AUDIT_COLUMNS]
    return [*series, "valid_time", *(["known_time"] if read.view == "overlapping" else []), "value"]


def result_schema(read: ReadCommand, metadata: dict[bytes, bytes] | None = None) -> pa.Schema:
    """The Arrow schema of a read's answer."""
    return pa.schema([(name, COLUMN_TYPES[name]) for name in result_columns(read)], metadata=metadata)
