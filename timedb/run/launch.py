"""Starts and stops a whole service in this process: lake, Flight server, REST gateway, each as far as it is wanted."""

from __future__ import annotations

import errno
import logging
import math
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from timedb.client import connect
from timedb.client.answering import describe_api, flight_instance
from timedb.contract.errors import Internal, InvalidRequest, TimeDBError
from timedb.contract.hosts import listens_on_loopback, reachable, url_of
from timedb.contract.settings import ServerSettings
from timedb.contract.waiting import wait_in_slices
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.call.tls import ServerTls
from timedb.rest_gateway import Connections, create_app
from timedb.storage import Lake, Memory, MemoryOfServer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Service", "refuse_another", "start_flight", "start_gateway", "start_service"]

_log = logging.getLogger("timedb.flight")

_STARTUP_SECONDS = 60.0
_FORCED_SECONDS = 2.0
_PROBE_SECONDS = 5.0
_MAX_HEAD_BYTES = 16 << 10
_KEEP_ALIVE_SECONDS = 5
# A proxy on this machine may say for whom it speaks; nobody else, whatever uvicorn's own environment variable says.
_TRUSTED_PROXIES = "127.0.0.1,::1"


class Service:
    """A running service, or a part of one. A context manager that stops it.

    Attributes:
        flight_url: Where clients on this machine find the Flight server.
        inner_url: Where this process finds it; the same, unless it speaks TLS.
        rest_url: Where they find the REST gateway; empty where there is none.
        rest_instance: By what the answer of ``GET /`` tells this gateway from every other one; empty where there is
            none.
        lake: Address of the lake; None for a gateway alone.
        lake_is_new: Whether the lake was made when the service was started.
        has_users: Whether calls needed a key when the service was started; None for a gateway alone.
        memory: What all calls of it share.
    """

    def __init__(
        self,
        parts: ExitStack,
        *,
        flight_url: str,
        inner_url: str | None = None,
        rest: _RestServer | None = None,
        address: str | None = None,
        lake: Lake | None = None,
        memory: Memory,
    ) -> None:
        self.memory = memory
        self.flight_url = flight_url
        self.inner_url = inner_url or flight_url
        self.rest_url = "" if rest is None else rest.url
        self.rest_instance = "" if rest is None else rest.instance
        self.lake = address
        self.lake_is_new = lake is not None and lake.is_new
        self.has_users = None if lake is None else lake.has_users
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
        wait_in_slices(self._stopped.wait)


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
        lake = Lake.open(settings.lake, settings)
        parts.callback(lake.close)
        flight = _start_flight(lake, settings, parts)
        memory = lake.memory.calls
        server = _start_rest(flight.inner_url, settings, listener, memory, parts) if listener else None
        return Service(
            parts.pop_all(),
            flight_url=flight.url,
            inner_url=flight.inner_url,
            rest=server,
            address=settings.lake,
            lake=lake,
            memory=memory,
        )


def start_gateway(settings: ServerSettings) -> Service:
    """Start a REST gateway for the Flight server of ``flight_url``, or for an embedded one where that is None.

    Raises:
        InvalidRequest: as :func:`start_service`.
    """
    if settings.flight_url is None:
        return start_service(settings)
    _refuse_open_lake(settings.flight_url, settings)
    with ExitStack() as parts:
        listener = _listen(settings.host, settings.rest_port, parts)
        memory = MemoryOfServer(settings).calls
        server = _start_rest(settings.flight_url, settings, listener, memory, parts)
        return Service(parts.pop_all(), flight_url=settings.flight_url, rest=server, memory=memory)


def start_flight(settings: ServerSettings) -> Service:
    """Start what a gateway of its own process needs: an embedded Flight server."""
    return start_service(settings, rest=False)


def _start_flight(lake: Lake, settings: ServerSettings, parts: ExitStack) -> FlightService:
    flight = start_flight_server(lake, settings)
    parts.callback(flight.stop)
    refuse_another("TIMEDB_FLIGHT_PORT", flight.url, flight_instance(flight.url), flight.instance)
    return flight


def _start_rest(
    flight_url: str, settings: ServerSettings, listener: socket.socket, memory: Memory, parts: ExitStack
) -> _RestServer:
    rest = _RestServer(create_app(flight_url, settings, memory), listener, settings)
    parts.callback(rest.stop)
    rest.wait_until_started()
    described = describe_api(rest.url)
    answered = None if described is None else str(described.get("instance", ""))
    refuse_another("TIMEDB_REST_PORT", rest.url, answered, rest.instance)
    return rest


def refuse_another(setting: str, url: str, answered: str | None, started: str) -> None:
    """See that who answers is who was started: an address can lead elsewhere although it could be listened on.

    Args:
        setting: Which setting has the port.
        url: The address.
        answered: The instance that answers there; "" for a service of another kind, None where nothing answers.
        started: The instance that was started.

    Raises:
        InvalidRequest: another service answers.
    """
    if answered is None:  # it wants a certificate, say; so does whoever would call by mistake
        _log.info("nothing answered at %s when it was tried out", url)
    elif answered != started:
        raise InvalidRequest(
            f"{setting}: another service answers at {url} in place of the one that was started; stop that one, or take "
            "another port (0 is any free one)"
        )


def _refuse_open_lake(flight_url: str, settings: ServerSettings) -> None:
    """As the Flight server does: not even to listen where other machines could call, if anybody may do anything.

    A Flight server that does not answer yet is no reason to stay away: as long as the lake is not known to ask for
    keys, the gateway refuses other machines call by call.

    Raises:
        InvalidRequest: says what to do about it.
    """
    if settings.insecure or listens_on_loopback(settings.host.strip("[]")):
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
        remedy = "; stop the other service, or take another port (--rest-port, --port, TIMEDB_REST_PORT; 0 is any)"
        raise InvalidRequest(
            f"TIMEDB_HOST, TIMEDB_REST_PORT: cannot listen on {host} port {port}: {error.strerror or error}"
            f"{remedy if error.errno == errno.EADDRINUSE else ''}"
        ) from None
    return listener


class _RestServer:
    """uvicorn in a thread; it leaves this process's signals and logging alone."""

    def __init__(self, app: Any, listener: socket.socket, settings: ServerSettings) -> None:
        self.instance: str = app.state.instance
        self.url = url_of(settings.http_scheme, reachable(settings.host), listener.getsockname()[1])
        self._shutdown_seconds = settings.shutdown_seconds
        self._let_go = app.state.wake_ups.stop  # of calls that wait for something to be written
        ServerTls.load(settings)  # says what is wrong with it, where uvicorn would not
        connections = Connections.under(settings)
        config = uvicorn.Config(
            app,
            loop="asyncio",  # whose listening socket is Python's own, which counts what it accepts
            http=connections.protocol,  # type: ignore[arg-type]  # a class to uvicorn's types, a callable to its code
            lifespan="on",
            ws="none",
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
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
        counted = connections.listener(listener)
        self._thread = threading.Thread(target=self._run, args=(counted,), name="timedb-rest", daemon=True)
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
        self._let_go()
        self._thread.join(self._shutdown_seconds + _FORCED_SECONDS)
        self._server.force_exit = True
        self._thread.join(_FORCED_SECONDS)
