"""The messages of Flight SQL that this service knows (``FlightSql.proto`` of Apache Arrow), and their envelope.

A command or ticket is a ``google.protobuf.Any``: the name of a message and its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from timedb.contract.errors import InvalidRequest, Unimplemented
from timedb.contract.wire import quoted
from timedb.flight_server.sql.protobuf import Message, repeated, single

__all__ = [
    "CATALOG_COMMANDS",
    "ActionCancelQueryRequest",
    "ActionCancelQueryResult",
    "ActionClosePreparedStatementRequest",
    "ActionCreatePreparedStatementRequest",
    "ActionCreatePreparedStatementResult",
    "CancelFlightInfoRequest",
    "CancelFlightInfoResult",
    "CommandGetCatalogs",
    "CommandGetCrossReference",
    "CommandGetDbSchemas",
    "CommandGetExportedKeys",
    "CommandGetImportedKeys",
    "CommandGetPrimaryKeys",
    "CommandGetSqlInfo",
    "CommandGetTableTypes",
    "CommandGetTables",
    "CommandGetXdbcTypeInfo",
    "CommandPreparedStatementQuery",
    "CommandStatementIngest",
    "CommandStatementQuery",
    "DoPutPreparedStatementResult",
    "DoPutUpdateResult",
    "TicketStatementQuery",
    "pack",
    "unpack",
]

_TYPE_PREFIX = "type.googleapis.com/"
_PACKAGE = "arrow.flight.protocol.sql."


@dataclass(frozen=True)
class Envelope(Message):
    """``google.protobuf.Any``: a message with the name of its type."""

    type_url: str = single(1, "text", "")
    value: bytes = single(2, "bytes", b"")


@dataclass(frozen=True)
class CommandGetSqlInfo(Message):
    """What the service can do; ``info`` selects, and none selects all."""

    info: tuple[int, ...] = repeated(1, "number")


@dataclass(frozen=True)
class CommandGetXdbcTypeInfo(Message):
    """Asks which types columns can have."""

    data_type: int | None = single(1, "number")


@dataclass(frozen=True)
class CommandGetCatalogs(Message):
    """Asks which catalogs there are."""


@dataclass(frozen=True)
class CommandGetDbSchemas(Message):
    """Asks which schemas there are."""

    catalog: str | None = single(1, "text")
    db_schema_filter_pattern: str | None = single(2, "text")


@dataclass(frozen=True)
class CommandGetTables(Message):
    """Asks which tables there are."""

    catalog: str | None = single(1, "text")
    db_schema_filter_pattern: str | None = single(2, "text")
    table_name_filter_pattern: str | None = single(3, "text")
    table_types: tuple[str, ...] = repeated(4, "text")
    include_schema: bool = single(5, "flag", False)


@dataclass(frozen=True)
class CommandGetTableTypes(Message):
    """Asks which types of tables there are."""


@dataclass(frozen=True)
class KeysOfTable(Message):
    """Keys of one table."""

    catalog: str | None = single(1, "text")
    db_schema: str | None = single(2, "text")
    table: str = single(3, "text", "")


@dataclass(frozen=True)
class CommandGetPrimaryKeys(KeysOfTable):
    """What identifies the rows of a table."""


@dataclass(frozen=True)
class CommandGetExportedKeys(KeysOfTable):
    """What refers to a table."""


@dataclass(frozen=True)
class CommandGetImportedKeys(KeysOfTable):
    """What a table refers to."""


@dataclass(frozen=True)
class CommandGetCrossReference(Message):
    """What of one table refers to another."""

    pk_catalog: str | None = single(1, "text")
    pk_db_schema: str | None = single(2, "text")
    pk_table: str = single(3, "text", "")
    fk_catalog: str | None = single(4, "text")
    fk_db_schema: str | None = single(5, "text")
    fk_table: str = single(6, "text", "")


@dataclass(frozen=True)
class CommandStatementQuery(Message):
    """Runs the text of a query."""

    query: str = single(1, "text", "")
    transaction_id: bytes | None = single(2, "bytes")


@dataclass(frozen=True)
class TicketStatementQuery(Message):
    """What fetches the answer of a query."""

    statement_handle: bytes = single(1, "bytes", b"")


@dataclass(frozen=True)
class CommandPreparedStatementQuery(Message):
    """Runs a query that was prepared."""

    prepared_statement_handle: bytes = single(1, "bytes", b"")


@dataclass(frozen=True)
class DoPutPreparedStatementResult(Message):
    """The handle that stands for a query with its parameters bound."""

    prepared_statement_handle: bytes | None = single(1, "bytes")


@dataclass(frozen=True)
class CommandStatementIngest(Message):
    """Appends the rows that follow to a table."""

    table_definition_options: bytes = single(1, "bytes", b"")
    table: str = single(2, "text", "")
    schema: str | None = single(3, "text")
    catalog: str | None = single(4, "text")
    temporary: bool = single(5, "flag", False)
    transaction_id: bytes | None = single(6, "bytes")
    options: tuple[bytes, ...] = repeated(1000, "bytes")


@dataclass(frozen=True)
class DoPutUpdateResult(Message):
    """How many rows were written."""

    record_count: int = single(1, "number", 0)


@dataclass(frozen=True)
class ActionCreatePreparedStatementRequest(Message):
    """Prepares the text of a query."""

    query: str = single(1, "text", "")
    transaction_id: bytes | None = single(2, "bytes")


@dataclass(frozen=True)
class ActionCreatePreparedStatementResult(Message):
    """A prepared query: its handle, its columns and its parameters, the latter two as IPC messages."""

    prepared_statement_handle: bytes = single(1, "bytes", b"")
    dataset_schema: bytes = single(2, "bytes", b"")
    parameter_schema: bytes = single(3, "bytes", b"")


@dataclass(frozen=True)
class ActionClosePreparedStatementRequest(Message):
    """Forget a prepared query."""

    prepared_statement_handle: bytes = single(1, "bytes", b"")


@dataclass(frozen=True)
class ActionCancelQueryRequest(Message):
    """Cancel the query of a ``FlightInfo``."""

    info: bytes = single(1, "bytes", b"")


@dataclass(frozen=True)
class ActionCancelQueryResult(Message):
    """What became of a query that was to be cancelled: 2 it ends soon, 3 it does not run here."""

    result: int = single(1, "number", 0)


@dataclass(frozen=True)
class CancelFlightInfoRequest(Message):
    """The same in ``Flight.proto``, where messages come without an envelope."""

    info: bytes = single(1, "bytes", b"")


@dataclass(frozen=True)
class CancelFlightInfoResult(Message):
    """What became of it, in the numbers of :class:`ActionCancelQueryResult`."""

    status: int = single(1, "number", 0)


CATALOG_COMMANDS: tuple[type[Message], ...] = (
    CommandGetSqlInfo,
    CommandGetXdbcTypeInfo,
    CommandGetCatalogs,
    CommandGetDbSchemas,
    CommandGetTables,
    CommandGetTableTypes,
    CommandGetPrimaryKeys,
    CommandGetExportedKeys,
    CommandGetImportedKeys,
    CommandGetCrossReference,
)
"""Commands whose ticket is the command itself."""

_KNOWN: dict[str, type[Message]] = {
    cls.__name__: cls
    for cls in (
        *CATALOG_COMMANDS,
        CommandStatementIngest,
        CommandStatementQuery,
        CommandPreparedStatementQuery,
        TicketStatementQuery,
        ActionCancelQueryRequest,
        ActionCreatePreparedStatementRequest,
        ActionClosePreparedStatementRequest,
    )
}


def pack(message: Message) -> bytes:
    """A message in its envelope."""
    return Envelope(f"{_TYPE_PREFIX}{_PACKAGE}{type(message).__name__}", message.to_bytes()).to_bytes()


def unpack(data: bytes, *, what: str) -> Message:
    """The message in an envelope.

    Raises:
        Unimplemented: it is one of Flight SQL that this service does not know.
        InvalidRequest: it is none of Flight SQL.
    """
    envelope = Envelope.from_bytes(data, what=what)
    prefix, separator, name = envelope.type_url.partition(_PACKAGE)
    if not separator or not prefix.endswith("/"):
        raise InvalidRequest(f"{what}: is neither a JSON object nor a message of Flight SQL")
    if name not in _KNOWN:
        raise Unimplemented(f"{what}: {quoted(name)[1:-1]} of Flight SQL is not offered")
    return _KNOWN[name].from_bytes(envelope.value, what=what)
