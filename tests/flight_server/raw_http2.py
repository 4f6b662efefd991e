"""A client that breaks the rules that ``pyarrow.flight`` keeps: gRPC by hand, enough for one small call."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pyarrow as pa

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


def exchange(port: int, method: str, messages: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Make one call; everything that the server sends for it, headers still encoded."""
    with begin(port, method, messages, headers) as connection:
        connection.sendall(_frame(_DATA, _END_STREAM, 1, b""))
        return _answer(connection)


def begin(
    port: int, method: str, messages: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]] = (), *, cut: int = 0
) -> socket.socket:
    """Begin a call and go no further: the last ``cut`` bytes of its messages are not sent, nor their end."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/arrow.flight.protocol.FlightService/" + method.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *headers,
    ]
    body = b"".join(b"\0" + struct.pack(">I", len(message)) + message for message in messages)
    assert len(body) < 65_535, "more would need flow control"
    body = body[: len(body) - cut]
    chunks = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    connection = half_open(port)
    connection.sendall(_frame(_SETTINGS, 0, 0, b""))
    connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*field) for field in fields)))
    connection.sendall(b"".join(_frame(_DATA, 0, 1, chunk) for chunk in chunks))
    return connection


def half_open(port: int) -> socket.socket:
    """A connection on which nothing has been said but that it is HTTP/2."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(_PREFACE)
    return connection


def flight_data(header: bytes, body: bytes, command: bytes | None = None, metadata: bytes = b"") -> bytes:
    """A ``FlightData`` message."""
    descriptor = b"" if command is None else _field(1, b"\x08\x02" + _field(2, command))
    return (
        descriptor
        + (_field(2, header) if header else b"")
        + (_field(3, metadata) if metadata else b"")
        + _field(1000, body)
    )


def ipc_messages(table: pa.Table) -> list[tuple[bytes, bytes]]:
    """A table as (header, body) of each IPC message: the schema, then the batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [
        (message.metadata.to_pybytes(), b"" if message.body is None else message.body.to_pybytes())
        for message in reader
    ]


def _answer(connection: socket.socket) -> bytes:
    received = answer = b""
    while True:
        while len(received) >= 9:
            length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            if len(received) < 9 + length:
                break
            stream, payload = int.from_bytes(received[5:9], "big"), received[9 : 9 + length]
            received = received[9 + length :]
            if kind == _SETTINGS and not flags & _ACK:
                connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            if stream == 1:
                answer += payload
                if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                    return answer
        more = connection.recv(65_536)
        if not more:
            raise ConnectionError("the server hung up in the middle of the call")
        received += more


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + _varint(number >> 7) if number > 0x7F else low
