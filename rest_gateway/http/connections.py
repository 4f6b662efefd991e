"""The connections of the REST door: how many there are, how long each may let the server wait, which has to go.

A connection costs a descriptor, and the process has few: without a cap, peers that connect and say no more keep
everybody else out, at the Flight door, too. At the cap the newest comes in, and of the connections that the server
waits for, the one goes that it has waited for longest, of the address that has the most.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, cast
from uuid import uuid4

import orjson
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from timedb.contract.errors import Timeout
from timedb.contract.settings import ServerSettings
from timedb.rest_gateway.http.errors import error_body

__all__ = ["Connections", "most_connections"]

_log = logging.getLogger("timedb.rest")
_SWEEP_SECONDS = 0.5
# So many at most have been told to go and are not gone: each still has its descriptor.
_MOST_LEAVING = 16
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
# Of what a process may open at once one half at most is for the REST door.
_SHARE_OF_FILES = 2


class _Phase(Enum):
    """What a connection is at."""

    HEAD = "the client has yet to send the head of its first or next call, or of TLS"
    IDLE = "no call has begun; uvicorn closes it before long"
    CLIENT = "the client has yet to send a body, or to take an answer"
    WORK = "the server has yet to answer"


class _Connection(socket.socket):
    """One accepted connection; it is counted until it is closed.

    Attributes:
        address: The peer's, without its port.
        phase: What it is at.
        since: Since when, by the monotonic clock.
        on_late: Says goodbye to a client that has not sent a head in time; None while TLS is still being spoken of.
    """

    def __init__(self, accepted: socket.socket, address: str, forget: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.address = address
        self.phase = _Phase.HEAD
        self.since = time.monotonic()
        self.leaving = False
        self.on_late: Callable[[], None] | None = None
        self._forget = forget

    def enter(self, phase: _Phase) -> None:
        """From now on it is at something else."""
        self.phase, self.since = phase, time.monotonic()

    def leave(self) -> None:
        """End it from outside: whoever reads from it or writes to it finds it closed."""
        self.leaving = True
        with suppress(OSError):  # the peer has gone already
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._forget()
        super().close()


class Connections:
    """All open connections of one listener. For the event loop's thread alone.

    Args:
        most: How many there may be.
        head_seconds: In which the head of a call has to arrive, from its first byte or from the connection on.
        stalled_seconds: After which a client is given up that neither sends its body nor takes its answer.
    """

    def __init__(self, most: int, *, head_seconds: float, stalled_seconds: float) -> None:
        self.most = most
        self.head_seconds = head_seconds
        self._stalled_seconds = stalled_seconds
        self._open: dict[Any, _Connection] = {}
        self._sweeping = False

    @classmethod
    def under(cls, settings: ServerSettings) -> Connections:
        """With the limits of settings; fewer than they say where the process may not open twice as many files."""
        most = most_connections(settings)
        if most < settings.max_rest_connections:
            _log.warning(
                "this process may open %d files, so TIMEDB_MAX_REST_CONNECTIONS is %d, not %d; raise its limit (ulimit "
                "-n, LimitNOFILE)",
                _open_files(),
                most,
                settings.max_rest_connections,
            )
        return cls(most, head_seconds=settings.max_head_seconds, stalled_seconds=settings.max_idle_seconds)

    def listener(self, listener: socket.socket) -> socket.socket:
        """A listening socket as one whose connections are counted."""
        return _Listener(listener, self)

    def protocol(self, **of_uvicorn: Any) -> asyncio.Protocol:
        """What uvicorn is to speak on a connection; its ``http`` setting."""
        return _Protocol(self, **of_uvicorn)

    def __len__(self) -> int:
        return len(self._open)

    def of(self, peer: Any) -> _Connection | None:
        """The connection of a peer."""
        return self._open.get(peer)

    @property
    def may_accept(self) -> bool:
        """Whether another may come in before those have gone that were told to."""
        return sum(each.leaving for each in self._open.values()) < _MOST_LEAVING

    def admit(self, accepted: socket.socket, peer: Any) -> socket.socket:
        """Count a new connection.

        Raises:
            ConnectionAbortedError: there are as many as there may be, and all are being worked for.
        """
        if self._staying() >= self.most and not self.shed():
            accepted.close()
            raise ConnectionAbortedError
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        connection = _Connection(accepted, address, partial(self._forget, peer))
        self._open[peer] = connection
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        return connection

    def _forget(self, peer: Any) -> None:
        self._open.pop(peer, None)

    def _staying(self) -> int:
        return sum(not each.leaving for each in self._open.values())

    def shed(self) -> bool:
        """Tell one connection to go; whether there is one that the server waits for."""
        waiting = [each for each in self._open.values() if each.phase is not _Phase.WORK and not each.leaving]
        if not waiting:
            return False
        by_address = Counter(each.address for each in self._open.values() if not each.leaving)
        max(waiting, key=lambda each: (by_address[each.address], -each.since)).leave()
        return True

    def _sweep(self) -> None:
        now = time.monotonic()
        for each in list(self._open.values()):
            waited = now - each.since
            if each.phase is _Phase.HEAD and waited >= self.head_seconds and each.on_late is not None:
                each.on_late()
                each.enter(_Phase.CLIENT)
            elif (each.phase is _Phase.HEAD and waited >= self.head_seconds) or (
                each.phase is not _Phase.WORK and waited >= self._stalled_seconds
            ):
                each.leave()
        self._sweeping = bool(self._open)
        if self._sweeping:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)


def most_connections(settings: ServerSettings) -> int:
    """How many connections there may be: as settings say, and not more than half the files of the process."""
    return min(settings.max_rest_connections, _open_files() // _SHARE_OF_FILES)


def _open_files() -> int:
    """How many files the process may have open at once."""
    try:
        import resource
    except ImportError:  # of Unix alone
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class _Listener(socket.socket):
    def __init__(self, listener: socket.socket, connections: Connections) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        # What is raised here asyncio takes for "no more for now": it comes again once it has seen to the others.
        if not self._connections.may_accept:
            raise BlockingIOError
        try:
            accepted, peer = super().accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self._connections.shed()
            raise
        return self._connections.admit(accepted, peer), peer


class _Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, on a connection that is told what it is at."""

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._connections = connections
        self._connection: _Connection | None = None
        self._began = False
        self._whole_app = self.app
        self.app = cast("Any", self._call)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = self._connections.of(transport.get_extra_info("peername"))
        if self._connection is not None:
            self._connection.on_late = self._too_late
        super().connection_made(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._began = True
        if self._connection is not None and self._connection.phase is _Phase.IDLE:
            self._connection.enter(_Phase.HEAD)
        super().data_received(data)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection, app = self._connection, cast("Any", self._whole_app)
        if connection is None or scope["type"] != "http":
            await app(scope, receive, send)
            return
        whole = False

        async def receive_and_say_so() -> Message:
            nonlocal whole
            if whole:  # whoever asks now wants to know whether the client is still there, and works meanwhile
                return await receive()
            connection.enter(_Phase.CLIENT)
            message = await receive()
            connection.enter(_Phase.WORK)
            whole = not message.get("more_body", False)
            return message

        async def send_and_say_so(message: Message) -> None:
            connection.enter(_Phase.CLIENT)
            await send(message)
            connection.enter(_Phase.WORK)

        connection.enter(_Phase.WORK)
        try:
            await app(scope, receive_and_say_so, send_and_say_so)
        finally:
            connection.enter(_Phase.IDLE)
            self._began = False

    def _too_late(self) -> None:
        """Answer a head that did not come in time, if any of it came, and close."""
        if self._began and not self.transport.is_closing():
            error = Timeout(f"head: did not arrive within {self._connections.head_seconds:g} seconds")
            body = orjson.dumps(error_body(error, uuid4().hex))
            head = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()
