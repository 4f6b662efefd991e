"""A Flight server that starts and stops."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.hosts import listens_on_loopback, reachable, url_of
from timedb.contract.settings import ServerSettings
from timedb.contract.waiting import wait_in_slices
from timedb.flight_server.call.slots import Slots
from timedb.flight_server.call.tls import ServerTls
from timedb.flight_server.rpc.server import FlightServer
from timedb.flight_server.unix_socket import UnixSocketServer

if TYPE_CHECKING:
    from timedb.storage import Lake

__all__ = ["FlightService", "start_flight_server"]

logger = logging.getLogger("timedb.flight")

_MIN_JOIN_SECONDS = 0.5


def start_flight_server(lake: Lake, settings: ServerSettings) -> FlightService:
    """Serve a lake.

    Args:
        lake: Stays the caller's: it is to be closed after the service has stopped.
        settings: Where to listen (``host``, ``flight_port``; 0 takes a free port), with which certificate, and the
            limits.

    Raises:
        InvalidRequest: nothing can listen there, or a certificate does not fit; other machines could call, although
            the lake has no users.
    """
    return FlightService(lake, settings)


class FlightService:
    """A running Flight server.

    Attributes:
        port: Where it listens.
        url: Where clients on the same machine find it, ``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT``.
        inner_url: Where this process finds it; needs no certificate.
        metrics_url: Where Prometheus finds the figures of all tenants; None where the settings name no port.
    """

    def __init__(self, lake: Lake, settings: ServerSettings) -> None:
        self._shutdown_seconds = settings.shutdown_seconds
        host = settings.host.strip("[]")
        _refuse_open_lake(lake, host, insecure=settings.insecure)
        tls = ServerTls.load(settings)
        if tls is None and lake.has_users and not listens_on_loopback(host):
            logger.warning("keys cross the network in the clear; set TIMEDB_TLS_CERTIFICATE, or let a proxy speak TLS")
        scheme = "grpc" if tls is None else "grpc+tls"
        lake.look()
        try:
            self._server = FlightServer(lake, settings, url_of(scheme, host, settings.flight_port), tls)
        except (pa.ArrowException, OSError) as error:
            logger.debug("cannot listen", exc_info=error)
            raise InvalidRequest(
                f"TIMEDB_HOST, TIMEDB_FLIGHT_PORT: cannot listen on {host} port {settings.flight_port}; if another "
                "service does, stop it, or take another port (--flight-port, TIMEDB_FLIGHT_PORT; 0 is any free one)"
            ) from None
        self.port: int = self._server.port
        self.url = url_of(scheme, reachable(host), self.port)
        self.metrics_url: str | None = None
        self._stop_metrics: Callable[[], None] | None = None
        if settings.metrics_port is not None:
            self._serve_metrics(settings.metrics_host, settings.metrics_port)
        self._unix_socket = None if tls is None else UnixSocketServer(self._server)
        self.inner_url = self.url if self._unix_socket is None else self._unix_socket.url
        self._stopped = threading.Event()
        self._stopping = threading.Lock()
        lake.announce(self.url)

    def _serve_metrics(self, host: str, port: int) -> None:
        try:
            self.metrics_url, self._stop_metrics = self._server.metrics.serve(host.strip("[]"), port)
        except InvalidRequest:
            self._server.shutdown()
            raise

    @property
    def instance(self) -> str:
        """What tells this running server from every other one; in the header ``x-timedb-instance`` of its answers."""
        return self._server.instance

    @property
    def slots(self) -> dict[str, Slots]:
        """The slots of ``reads``, ``uploads``, ``calls`` and ``followers``, and of open ``streams``."""
        server = self._server
        kinds = {each.what: each for each in (server.reads, server.uploads, server.calls, server.followers)}
        return {**kinds, "streams": self._server.streams}

    @property
    def calls_in_flight(self) -> int:
        """How many calls have begun and not ended, streams included."""
        return self._server.gate.inside

    def wait(self) -> None:
        """Block until :meth:`stop` is done, whoever calls it; signals are handled meanwhile."""
        # Not the server's own wait: that blocks in C++, and Python's signal handlers would never run.
        wait_in_slices(self._stopped.wait)

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
            self._server.sql.close()
            # Blocks for as long as a peer stalls, hence a thread that the interpreter does not wait for.
            shutdown = threading.Thread(target=self._shut_down, name="timedb-flight-shutdown", daemon=True)
            shutdown.start()
            shutdown.join(max(deadline - time.monotonic(), _MIN_JOIN_SECONDS))
            if self._stop_metrics is not None:
                self._stop_metrics()
            self._stopped.set()

    def _shut_down(self) -> None:
        if self._unix_socket is not None:
            self._unix_socket.shutdown()
        self._server.shutdown()


def _refuse_open_lake(lake: Lake, host: str, *, insecure: bool) -> None:
    """Do not even listen where other machines could call, if whoever calls may do anything.

    Raises:
        InvalidRequest: says what to do about it.
    """
    if not (lake.has_users or insecure or listens_on_loopback(host)):
        raise InvalidRequest(
            f"TIMEDB_HOST: other machines could call {host}, and the lake has no users; make users with timedb users "
            "create, or say --insecure (TIMEDB_INSECURE=1) where something else keeps strangers out"
        )
