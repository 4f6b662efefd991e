"""Starts and stops a whole service in this process: lake, Flight server, REST gateway, each as far as it is wanted."""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from flight_server import FlightService, start_flight_server
from flight_server.service import is_loopback_host
from flight_server.tls import ServerTls
from rest_gateway import create_app
from storage import Lake
from timedb.client import connect
from timedb.errors import Internal, InvalidRequest, TimeDBError
from timedb.settings import ServerSettings

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Service", "start_flight", "start_gateway", "start_service"]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_STARTUP_SECONDS = 60.0
_FORCED_SECONDS = 2.0
_SIGNAL_SECONDS = 0.5
_PROBE_SECONDS = 5.0
# A proxy on this machine may say for whom it speaks; nobody else, whatever uvicorn's own environment variable says.
_TRUSTED_PROXIES = "127.0.0.1,::1"


class Service:
    """A running service, or a part of one. A context manager that stops it.

    Attributes:
        flight_url: Where clients on this machine find the Flight server.
        inner_url: Where this process finds it; the same, unless it speaks TLS.
        rest_url: Where they find the REST gateway; empty where there is none.
        lake: Address of the lake; None for a gateway alone.
    """

    def __init__(
        self, flight_url: str, rest_url: str, lake: str | None, parts: ExitStack, *, inner_url: str | None = None
    ) -> None:
        self.flight_url = flight_url
        self.inner_url = inner_url or flight_url
        self.rest_url = rest_url
        self.lake = lake
        self._parts = parts
        self._stopping = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more calls, let those in flight end, close the lake; a second time does nothing.

        Each of the servers gives its calls ``shutdown_seconds`` and then leaves them behind, so this returns whatever
        the peers do. A stalled reader of the Flight server may still keep the process from a normal exit.
        """
        with self._stopping:
            try:
                self._parts.close()
            finally:
                self._stopped.set()

    def wait(self) -> None:
        """Block until the service has been stopped; signals are handled meanwhile."""
        # With a timeout: Polars' handler for SIGINT restarts a wait without one, and Ctrl+C would never come through.
        while not self._stopped.wait(_SIGNAL_SECONDS):
            pass


def start_service(settings: ServerSettings, *, rest: bool = True) -> Service:
    """Open the lake (make it, where there is none) and serve it.

    Args:
        settings: Where the lake is and where to listen; ``flight_url`` is ignored.
        rest: Whether a REST gateway is part of it.

    Raises:
        InvalidRequest: an address cannot be listened on, or the lake's folder holds something else.
    """
    with ExitStack() as parts:
        listener = _listen(settings.host, settings.rest_port, parts) if rest else None
        flight = _start_flight(settings, parts)
        rest_url = _start_rest(flight.inner_url, settings, listener, parts) if listener else ""
        return Service(flight.url, rest_url, settings.lake, parts.pop_all(), inner_url=flight.inner_url)


def start_gateway(settings: ServerSettings) -> Service:
    """Start a REST gateway for the Flight server of ``flight_url``, or for an embedded one where that is None.

    The embedded one takes ``flight_port`` if it is free, else any.

    Raises:
        InvalidRequest: as :func:`start_service`.
    """
    if settings.flight_url is None:
        return start_service(_with_free_flight_port(settings))
    _refuse_open_lake(settings.flight_url, settings)
    with ExitStack() as parts:
        listener = _listen(settings.host, settings.rest_port, parts)
        rest_url = _start_rest(settings.flight_url, settings, listener, parts)
        return Service(settings.flight_url, rest_url, None, parts.pop_all())


def start_flight(settings: ServerSettings) -> Service:
    """Start what a gateway of its own process needs: an embedded Flight server, on ``flight_port`` or any free port."""
    return start_service(_with_free_flight_port(settings), rest=False)


def _with_free_flight_port(settings: ServerSettings) -> ServerSettings:
    try:
        with ExitStack() as probe:
            _listen(settings.host, settings.flight_port, probe)
    except InvalidRequest:
        return settings.model_copy(update={"flight_port": 0})
    return settings


def _start_flight(settings: ServerSettings, parts: ExitStack) -> FlightService:
    lake = Lake.open(settings.lake, settings)
    parts.callback(lake.close)
    flight = start_flight_server(lake, settings)
    parts.callback(flight.stop)
    return flight


def _start_rest(flight_url: str, settings: ServerSettings, listener: socket.socket, parts: ExitStack) -> str:
    rest = _RestServer(create_app(flight_url, settings), listener, settings)
    parts.callback(rest.stop)
    rest.wait_until_started()
    host = settings.host.strip("[]")
    host, port = _WILDCARDS.get(host, host), listener.getsockname()[1]
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _refuse_open_lake(flight_url: str, settings: ServerSettings) -> None:
    """As the Flight server does: not even to listen where other machines could call, if anybody may do anything.

    A Flight server that does not answer yet is no reason to stay away: as long as the lake is not known to ask for
    keys, the gateway refuses other machines call by call.

    Raises:
        InvalidRequest: says what to do about it.
    """
    if settings.insecure or is_loopback_host(settings.host.strip("[]")):
        return
    with connect(flight_url, api_key="", timeout=_PROBE_SECONDS) as client:
        try:
            client.list_runs(limit=1)
        except TimeDBError:
            return
    raise InvalidRequest(
        f"TIMEDB_HOST: other machines could call {settings.host}, and the lake behind {flight_url} has no users; make "
        "users with timedb users create, or set TIMEDB_INSECURE=1 where something else keeps strangers out"
    )


def _listen(host: str, port: int, parts: ExitStack) -> socket.socket:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio switches Nagle's algorithm off only where it sees that this is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    parts.callback(listener.close)
    # Else a port stays taken for a minute after the service that had it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        raise InvalidRequest(
            f"TIMEDB_HOST, TIMEDB_REST_PORT: cannot listen on {host} port {port}: {error.strerror or error}"
        ) from None
    return listener


class _RestServer:
    """uvicorn in a thread; it leaves this process's signals and logging alone."""

    def __init__(self, app: Any, listener: socket.socket, settings: ServerSettings) -> None:
        self._shutdown_seconds = settings.shutdown_seconds
        ServerTls.load(settings)  # says what is wrong with it, where uvicorn would not
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            log_level=settings.log_level,
            access_log=False,  # the gateway writes its own
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            ssl_ca_certs=settings.tls_client_ca,
            ssl_cert_reqs=ssl.CERT_NONE if settings.tls_client_ca is None else ssl.CERT_REQUIRED,
            forwarded_allow_ips=_TRUSTED_PROXIES,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="timedb-rest", daemon=True)
        self._thread.start()

    def _run(self, listener: socket.socket) -> None:
        # uvicorn leaves with SystemExit where it cannot start; what went wrong is in its log.
        with suppress(SystemExit):
            self._server.run(sockets=[listener])

    def wait_until_started(self) -> None:
        """Block until it answers.

        Raises:
            Internal: it does not start.
        """
        deadline = time.monotonic() + _STARTUP_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._server.started:
                return
            self._thread.join(0.005)
        raise Internal("the REST gateway did not start; its log says why")

    def stop(self) -> None:
        """Let calls in flight end within ``shutdown_seconds``; returns soon after that at the latest."""
        self._server.should_exit = True
        self._thread.join(self._shutdown_seconds + _FORCED_SECONDS)
        self._server.force_exit = True
        self._thread.join(_FORCED_SECONDS)
