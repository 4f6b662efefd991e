"""A relay between a client and a server, that counts the bytes which the server sends."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Relay:
    """Stands before a server on this machine, for one connection after the other. A context manager.

    Attributes:
        url: Where clients find it.
        received: Bytes that the server has sent.
    """

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url).port or 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"grpc://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = 0
        self._silenced: list[socket.socket] = []

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):  # closed by its peer
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """End the connections that there are; others may be made."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Stay connected and pass nothing on, as a balancer that has lost its server; others may be made."""
        self._silenced = list(self._sockets)

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += [client, server]
            self._start(self._copy, client, server, False)
            self._start(self._copy, server, client, True)

    def _copy(self, source: socket.socket, target: socket.socket, count: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.received += len(data) if count else 0
                if source not in self._silenced:
                    target.sendall(data)
        except OSError:
            return
