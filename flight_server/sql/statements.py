"""Handles of statements. A handle is the statement itself with the values that are bound to it: the server keeps
nothing, so any server on the lake can go on where another began, and nobody has to close anything.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge, Unimplemented
from timedb.contract.wire import WireModel, parse
from timedb.flight_server.sql.process import Statement

__all__ = ["check_text", "handle_of", "parameters_from", "statement_of"]


class _Handle(WireModel):
    """A statement, the Arrow stream of its parameters, base64, and in a ticket the id of the run."""

    sql: str
    parameters: str | None = None
    query_id: str | None = None


def check_text(sql: str, transaction_id: bytes | None, *, max_bytes: int) -> Statement:
    """A statement as a client sends it.

    Raises:
        TooLarge: it is too long.
        Unimplemented: it belongs to a transaction.
    """
    if transaction_id:
        raise Unimplemented("transaction_id: transactions are not offered; each query sees one state of the tables")
    size = len(sql.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise TooLarge(f"query: {size} bytes are over the limit of {max_bytes}")
    return Statement(sql)


def handle_of(statement: Statement) -> bytes:
    """The handle of a statement."""
    if statement.values is None:
        return _Handle(sql=statement.sql, query_id=statement.query_id).to_bytes()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, statement.values.schema) as writer:
        writer.write_table(statement.values)
    parameters = base64.b64encode(sink.getvalue().to_pybytes()).decode()
    return _Handle(sql=statement.sql, parameters=parameters, query_id=statement.query_id).to_bytes()


def statement_of(handle: bytes, *, max_sql_bytes: int, max_bytes: int) -> Statement:
    """The statement of a handle.

    Raises:
        InvalidRequest: it is none of ours.
        TooLarge: it is too long.
    """
    found = parse(_Handle, handle, what="statement handle", max_bytes=max_bytes)
    statement = check_text(found.sql, None, max_bytes=max_sql_bytes)
    statement = replace(statement, query_id=found.query_id)
    if found.parameters is None:
        return statement
    try:
        table = pa.ipc.open_stream(base64.b64decode(found.parameters, validate=True)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, binascii.Error, ValueError):
        raise InvalidRequest("statement handle: its parameters are not valid Arrow data") from None
    return replace(statement, values=parameters_from(table))


def parameters_from(table: pa.Table) -> pa.Table | None:
    """The values that a client binds: one row, its times in microseconds; None where there is no column.

    Raises:
        Unimplemented: there are several rows.
        InvalidRequest: there is none, or a time is finer than a microsecond.
    """
    if not table.num_columns:
        return None
    if table.num_rows > 1:
        raise Unimplemented(
            "parameters: several rows at once are not offered; ask with IN, or look up over do_exchange (lookup), "
            "which gives each row what was known by its own cut-off"
        )
    if table.num_rows == 0:
        raise InvalidRequest("parameters: there is no row of values")
    if len(set(table.column_names)) < table.num_columns:
        table = table.rename_columns([str(place) for place in range(1, table.num_columns + 1)])
    kinds = [_in_micros(kind) for kind in table.schema.types]
    try:
        return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))
    except pa.ArrowInvalid:
        raise InvalidRequest("parameters: a time is finer than a microsecond") from None


def _in_micros(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind
