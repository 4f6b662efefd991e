"""A Flight server that starts and stops."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_server.server import FlightServer
from timedb.errors import InvalidRequest
from timedb.settings import ServerSettings

if TYPE_CHECKING:
    from storage import Lake

__all__ = ["FlightService", "start_flight_server"]

logger = logging.getLogger("timedb.flight")

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_MIN_JOIN_SECONDS = 0.5
_WAIT_SECONDS = 0.5


def start_flight_server(lake: Lake, settings: ServerSettings) -> FlightService:
    """Serve a lake.

    Args:
        lake: Stays the caller's: it is to be closed after the service has stopped.
        settings: Where to listen (``host``, ``flight_port``; 0 takes a free port) and the limits.

    Raises:
        InvalidRequest: nothing can listen there.
    """
    return FlightService(lake, settings)


class FlightService:
    """A running Flight server.

    Attributes:
        port: Where it listens.
        url: Where clients on the same machine find it, ``grpc://HOST:PORT``.
    """

    def __init__(self, lake: Lake, settings: ServerSettings) -> None:
        self._shutdown_seconds = settings.shutdown_seconds
        host = settings.host.strip("[]")
        try:
            self._server = FlightServer(lake, settings, _location(host, settings.flight_port))
        except (pa.ArrowException, OSError) as error:
            logger.debug("cannot listen", exc_info=error)
            raise InvalidRequest(
                f"TIMEDB_HOST, TIMEDB_FLIGHT_PORT: cannot listen on {host} port {settings.flight_port}; is it in use?"
            ) from None
        self.port: int = self._server.port
        self.url = _location(_WILDCARDS.get(host, host), self.port)
        self._stopped = threading.Event()
        self._stopping = threading.Lock()

    @property
    def calls_in_flight(self) -> int:
        """How many calls have begun and not ended, streams included."""
        return self._server.gate.inside

    def wait(self) -> None:
        """Block until :meth:`stop` is done, whoever calls it; signals are handled meanwhile."""
        # Not the server's own wait: that blocks in C++, and Python's signal handlers would never run.
        # In slices: the SIGINT handler of Polars restarts system calls, so a plain wait would sleep on.
        while not self._stopped.wait(_WAIT_SECONDS):
            pass

    def stop(self) -> None:
        """Refuse new calls, let those in flight end, and stop listening; a second time does nothing.

        Returns after about ``shutdown_seconds`` at the latest. Calls that still hang in a stalled peer are then left to
        themselves, and keep the process from a normal exit until that peer goes: pyarrow can neither end them nor leave
        them behind. A program that must end says ``os._exit``.
        """
        with self._stopping:
            if self._stopped.is_set():
                return
            deadline = time.monotonic() + self._shutdown_seconds
            if not self._server.gate.close(self._shutdown_seconds):
                logger.warning("calls still in flight after %g seconds are left behind", self._shutdown_seconds)
            # Blocks for as long as a peer stalls, hence a thread that the interpreter does not wait for.
            shutdown = threading.Thread(target=self._server.shutdown, name="timedb-flight-shutdown", daemon=True)
            shutdown.start()
            shutdown.join(max(deadline - time.monotonic(), _MIN_JOIN_SECONDS))
            self._stopped.set()


def _location(host: str, port: int) -> str:
    return f"grpc://[{host}]:{port}" if ":" in host else f"grpc://{host}:{port}"
