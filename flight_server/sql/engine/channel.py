"""Messages between a server and the process of one query: a byte that says what it is, a length, and so many bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

__all__ = [
    "BATCH",
    "DESCRIPTION",
    "END",
    "ERROR",
    "FAILED",
    "JOB",
    "MAX_FRAME_BYTES",
    "NEXT",
    "PARAMETERS",
    "RESULT",
    "SCAN",
    "Channel",
    "Hangup",
]

# From the server.
JOB = b"J"
"""JSON: what to do."""
PARAMETERS = b"P"
"""An Arrow stream of the values that are bound, of one row."""
BATCH = b"B"
"""The next bytes of the Arrow stream of a table; none are the end."""
FAILED = b"F"
"""The table could not be read; the server knows why."""

# From the query.
SCAN = b"S"
"""JSON: a table that is going to be read, under a number."""
NEXT = b"N"
"""The number of a scan, of which the next bytes are wanted."""
DESCRIPTION = b"D"
"""JSON: the columns of the answer, and the parameters."""

RESULT = b"R"
"""The next bytes of the Arrow stream of the answer."""
END = b"Z"
"""That was all of the answer."""
ERROR = b"E"
"""JSON: why there is no answer, or no more of it."""

MAX_FRAME_BYTES = 128 << 20
_HEAD = struct.Struct("!cQ")
_IDLE_SECONDS = 0.05


class Hangup(Exception):
    """The other side is gone, or talks nonsense."""


class Channel:
    """One end of a connection.

    Args:
        connection: A stream socket.
        idle: Called now and then while there is nothing to read or no room to write; what it raises comes through.
    """

    def __init__(self, connection: socket.socket, idle: Callable[[], None] | None = None) -> None:
        self.connection = connection
        self._idle = idle
        connection.settimeout(None if idle is None else _IDLE_SECONDS)

    def send(self, kind: bytes, body: bytes | memoryview = b"") -> None:
        """Send a message.

        Raises:
            Hangup: nobody is there to read it.
        """
        self._send(_HEAD.pack(kind, len(body)))
        self._send(body)

    def receive(self) -> tuple[bytes, bytearray]:
        """The next message.

        Raises:
            Hangup: there is none, or one that is too large.
        """
        kind, length = _HEAD.unpack(self._receive(_HEAD.size))
        if length > MAX_FRAME_BYTES:
            raise Hangup(f"a message of {length} bytes")
        return kind, self._receive(length)

    def close(self) -> None:
        """Close this end; the other one reads an end of file."""
        self.connection.close()

    def _send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while len(rest):
            try:
                rest = rest[self.connection.send(rest) :]
            except TimeoutError:
                self._wait()
            except OSError as error:
                raise Hangup(error) from error

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        room = memoryview(data)
        while len(room):
            try:
                read = self.connection.recv_into(room)
            except TimeoutError:
                self._wait()
                continue
            except OSError as error:
                raise Hangup(error) from error
            if read == 0:
                raise Hangup("the connection was closed")
            room = room[read:]
        return data

    def _wait(self) -> None:
        if self._idle is not None:
            self._idle()
