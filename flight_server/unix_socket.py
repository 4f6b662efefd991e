"""A second address of a Flight server that speaks TLS: for a gateway of its own process, without TLS.

The gateway could not check the certificate of a server that it reaches under another name than its clients do, and with
mutual TLS it would need a certificate of its own. So it comes through a Unix socket in a folder that only this user can
open. Keys, limits and all else are the same behind both doors.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from pyarrow import flight

from timedb.flight_server.call.boundary import MIDDLEWARE_KEY
from timedb.flight_server.call.context import RequestIds
from timedb.flight_server.rpc.server import FlightServer

__all__ = ["UnixSocketServer"]

_MAX_FOLDER_CHARS = 80  # the address of a Unix socket has 107 bytes at most


class UnixSocketServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """Hands each call to another Flight server of this process.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, server: FlightServer) -> None:
        self._server = server
        self._folder = tempfile.mkdtemp(prefix="timedb-")
        if len(self._folder) > _MAX_FOLDER_CHARS:
            shutil.rmtree(self._folder)
            self._folder = tempfile.mkdtemp(prefix="timedb-", dir="/tmp")
        self.url = f"grpc+unix://{self._folder}/flight.sock"
        super().__init__(self.url, middleware={MIDDLEWARE_KEY: RequestIds(opening=server.open_stream)})

    def shutdown(self) -> None:
        """Stop to listen; blocks as long as calls hang."""
        shutil.rmtree(self._folder, ignore_errors=True)
        super().shutdown()

    def do_put(self, *call: Any) -> Any:
        return self._server.do_put(*call)

    def do_get(self, *call: Any) -> Any:
        return self._server.do_get(*call)

    def do_exchange(self, *call: Any) -> Any:
        return self._server.do_exchange(*call)

    def do_action(self, *call: Any) -> Any:
        return self._server.do_action(*call)

    def list_actions(self, *call: Any) -> Any:
        return self._server.list_actions(*call)

    def list_flights(self, *call: Any) -> Any:
        return self._server.list_flights(*call)

    def get_flight_info(self, *call: Any) -> Any:
        return self._server.get_flight_info(*call)

    def get_schema(self, *call: Any) -> Any:
        return self._server.get_schema(*call)
