"""Bulk ingestion of Flight SQL (``CommandStatementIngest``): rows appended to ``values``, which is an upload."""

from __future__ import annotations

from dataclasses import dataclass

from timedb.contract.errors import InvalidRequest, Unimplemented
from timedb.contract.wire import UploadCommand, parse_object, quoted
from timedb.flight_server.sql.messages import CommandStatementIngest
from timedb.flight_server.sql.protobuf import Message, single
from timedb.flight_server.sql.tables import CATALOG, SCHEMA

__all__ = ["upload_of_ingest"]

_TABLE = "values"
_APPEND = 2
_OPTIONS = ("run_id", "workflow_id", "run_start_time", "run_finish_time", "known_time", "unit")


@dataclass(frozen=True)
class TableDefinitionOptions(Message):
    """What is to be done where the table is there, and where it is not."""

    if_not_exist: int = single(1, "number", 0)
    if_exists: int = single(2, "number", 0)


@dataclass(frozen=True)
class IngestOption(Message):
    """An option by its name."""

    key: str = single(1, "text", "")
    value: str = single(2, "text", "")


def upload_of_ingest(command: CommandStatementIngest) -> UploadCommand:
    """The upload that an ingestion is.

    Its options are fields of the upload: ``run_id``, ``workflow_id``, ``run_start_time``, ``run_finish_time``,
    ``known_time``, ``unit``.

    Raises:
        Unimplemented: it is to make or replace a table, or to write into another one.
        InvalidRequest: an option is unknown, or its value is wrong.
    """
    if (command.table, command.schema or SCHEMA, command.catalog or CATALOG) != (_TABLE, SCHEMA, CATALOG):
        raise Unimplemented(f"table: {quoted(command.table)} takes no rows; append to {_TABLE}, of {CATALOG}.{SCHEMA}")
    how = TableDefinitionOptions.from_bytes(command.table_definition_options, what="table_definition_options")
    if how.if_exists != _APPEND or command.temporary:
        raise Unimplemented("table_definition_options: values is there already, and is never replaced; use mode append")
    if command.transaction_id:
        raise Unimplemented("transaction_id: transactions are not offered; an ingestion is whole or not at all")
    given: dict[str, str] = {}
    for each in command.options:
        option = IngestOption.from_bytes(each, what="options")
        if option.key not in _OPTIONS:
            raise InvalidRequest(f"options: {quoted(option.key)} is unknown; there are {', '.join(_OPTIONS)}")
        given[option.key] = option.value
    return parse_object(UploadCommand, {"op": "upload", "workflow_id": "flight-sql-ingest", **given})
