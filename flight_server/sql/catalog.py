"""What there is: catalogs, schemas, tables, their columns and keys. It is the same for every tenant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.flight_server.sql.info import sql_info, type_info
from timedb.flight_server.sql.messages import (
    CommandGetCatalogs,
    CommandGetCrossReference,
    CommandGetDbSchemas,
    CommandGetExportedKeys,
    CommandGetImportedKeys,
    CommandGetPrimaryKeys,
    CommandGetSqlInfo,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetXdbcTypeInfo,
)
from timedb.flight_server.sql.protobuf import Message
from timedb.flight_server.sql.tables import CATALOG, SCHEMA, SCHEMAS, VIEWS

__all__ = ["catalog_table"]

_MAX_PATTERN_CHARS = 1000
_KEYS = {"runs": ["run_id"], "series": ["series_id"]}


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_CATALOGS = pa.schema([_required("catalog_name", pa.string())])
_DB_SCHEMAS = pa.schema([("catalog_name", pa.string()), _required("db_schema_name", pa.string())])
_TABLE_TYPES = pa.schema([_required("table_type", pa.string())])
_TABLES = pa.schema(
    [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        _required("table_name", pa.string()),
        _required("table_type", pa.string()),
    ]
)
_TABLES_WITH_SCHEMA = _TABLES.append(_required("table_schema", pa.binary()))
_PRIMARY_KEYS = pa.schema(
    [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        _required("table_name", pa.string()),
        _required("column_name", pa.string()),
        ("key_name", pa.string()),
        _required("key_sequence", pa.int32()),
    ]
)
_REFERENCES = pa.schema(
    [
        *(
            field
            for side in ("pk", "fk")
            for field in (
                pa.field(f"{side}_catalog_name", pa.string()),
                pa.field(f"{side}_db_schema_name", pa.string()),
                _required(f"{side}_table_name", pa.string()),
                _required(f"{side}_column_name", pa.string()),
            )
        ),
        _required("key_sequence", pa.int32()),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        _required("update_rule", pa.uint8()),
        _required("delete_rule", pa.uint8()),
    ]
)


def catalog_table(command: Message) -> pa.Table:
    """The answer of a command about what there is."""
    return _ANSWERS[type(command)](command)


def _catalogs(command: CommandGetCatalogs) -> pa.Table:
    return pa.table([[CATALOG]], schema=_CATALOGS)


def _db_schemas(command: CommandGetDbSchemas) -> pa.Table:
    found = command.catalog in (None, CATALOG) and _like(SCHEMA, command.db_schema_filter_pattern)
    return pa.table([[CATALOG], [SCHEMA]] if found else [[], []], schema=_DB_SCHEMAS)


def _table_types(command: CommandGetTableTypes) -> pa.Table:
    return pa.table([["TABLE", "VIEW"]], schema=_TABLE_TYPES)


def _tables(command: CommandGetTables) -> pa.Table:
    schema = _TABLES_WITH_SCHEMA if command.include_schema else _TABLES
    rows: list[dict[str, Any]] = []
    if command.catalog in (None, CATALOG) and _like(SCHEMA, command.db_schema_filter_pattern):
        for name in sorted(SCHEMAS):
            kind = "VIEW" if name in VIEWS else "TABLE"
            if _like(name, command.table_name_filter_pattern) and kind in (command.table_types or (kind,)):
                row = {"catalog_name": CATALOG, "db_schema_name": SCHEMA, "table_name": name, "table_type": kind}
                rows.append({**row, "table_schema": _shown_schema(name).serialize().to_pybytes()})
    return pa.Table.from_pylist(rows, schema=schema)


def _primary_keys(command: CommandGetPrimaryKeys) -> pa.Table:
    here = command.catalog in (None, CATALOG) and command.db_schema in (None, SCHEMA)
    address = {"catalog_name": CATALOG, "db_schema_name": SCHEMA, "table_name": command.table}
    keys = _KEYS.get(command.table, []) if here else []
    rows = [{**address, "column_name": name, "key_sequence": place} for place, name in enumerate(keys, 1)]
    return pa.Table.from_pylist(rows, schema=_PRIMARY_KEYS)


def _no_references(command: Message) -> pa.Table:
    return _REFERENCES.empty_table()


def _shown_schema(name: str) -> pa.Schema:
    """The columns of a table as a query returns them: text is plain."""
    columns = []
    for column in SCHEMAS[name]:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        about = {"ARROW:FLIGHT:SQL:TABLE_NAME": name, "ARROW:FLIGHT:SQL:TYPE_NAME": _type_name(kind)}
        columns.append(pa.field(column.name, kind, metadata=about | {"ARROW:FLIGHT:SQL:IS_READ_ONLY": "1"}))
    return pa.schema(columns)


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_type_name(kind.value_type)}[]"
    names = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", pa.int64(): "BIGINT", pa.bool_(): "BOOLEAN"}
    return names.get(kind, "TIMESTAMP WITH TIME ZONE")


def _like(text: str, pattern: str | None) -> bool:
    """Whether a name fits a pattern: ``%`` is any text, ``_`` any character, a backslash takes the next as it is.

    The places of the text that the pattern can have reached are moved on together, part by part: no pattern makes it go
    back, as a regular expression would, for ever (``%`` sixty times).

    Raises:
        InvalidRequest: the pattern is longer than any name.
    """
    if pattern is None:
        return True
    if len(pattern) > _MAX_PATTERN_CHARS:
        raise InvalidRequest(f"filter pattern: {len(pattern)} characters are over the limit of {_MAX_PATTERN_CHARS}")
    text, reached = text.casefold(), {0}
    for part in re.findall(r"\\.|.", pattern.casefold(), re.DOTALL):
        if part == "%":
            reached = set(range(min(reached), len(text) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(text) and part in ("_", text[at], "\\" + text[at])}
        if not reached:
            return False
    return len(text) in reached


_ANSWERS: dict[type[Message], Callable[[Any], pa.Table]] = {
    CommandGetSqlInfo: lambda command: sql_info(command.info),
    CommandGetXdbcTypeInfo: lambda command: type_info(command.data_type),
    CommandGetCatalogs: _catalogs,
    CommandGetDbSchemas: _db_schemas,
    CommandGetTables: _tables,
    CommandGetTableTypes: _table_types,
    CommandGetPrimaryKeys: _primary_keys,
    CommandGetExportedKeys: _no_references,
    CommandGetImportedKeys: _no_references,
    CommandGetCrossReference: _no_references,
}
