"""A query of SQL on the service, over Flight SQL."""

from __future__ import annotations

from pyarrow import flight

from timedb.client.connection import Connection
from timedb.client.flight_errors import flight_errors
from timedb.client.read_stream import ReadStream

__all__ = ["stream_sql"]

_STATEMENT = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
_FIRST, _SECOND = b"\x0a", b"\x12"  # protobuf: fields 1 and 2, of bytes


def stream_sql(connection: Connection, query: str) -> ReadStream:
    """Run a query and get its rows as they arrive.

    Args:
        connection: To the service.
        query: One ``SELECT``, over the tables of docs/flight-sql.md.

    Raises:
        TimeDBError: what is wrong with it, or what became of the connection.
    """
    statement = _FIRST + _bytes(query.encode())
    command = _FIRST + _bytes(_STATEMENT) + _SECOND + _bytes(statement)
    descriptor = flight.FlightDescriptor.for_command(command)
    with flight_errors(connection.url):
        info = connection.flight_client.get_flight_info(descriptor, connection.options(long=False))
    return connection.stream_of(info.endpoints[0].ticket.ticket)


def _bytes(content: bytes) -> bytes:
    """Bytes behind their length, a varint."""
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + content
