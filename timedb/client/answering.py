"""Who answers at an address: the server that is meant, another one, something else, or nobody."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import flight

from timedb.contract.hosts import is_loopback_url
from timedb.contract.settings import ClientSettings, load_settings
from timedb.contract.wire import INSTANCE_HEADER

__all__ = ["API_NAME", "describe_api", "flight_instance", "nobody_at", "wrong_scheme"]

API_NAME = "TimeDB API"
_PROBE_SECONDS = 3.0
_KNOCK_SECONDS = 1.0
_TLS_RECORDS = (0x15, 0x16)  # alert and handshake
_NO_PROXY = [("grpc.enable_http_proxy", 0)]


class _Headers(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    """Keeps the headers of answers."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def start_call(self, info: flight.CallInfo) -> flight.ClientMiddleware:
        return _Answer(self)


class _Answer(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow ships no types
    def __init__(self, headers: _Headers) -> None:
        self._headers = headers

    def received_headers(self, headers: dict[str, list[str]]) -> None:
        self._headers.found.update(headers)


def flight_instance(url: str) -> str | None:
    """Which running Flight server answers; "" for one of another kind, None where none does.

    Args:
        url: ``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT``, whose certificate plays no part.
    """
    headers = _Headers()
    certificates = {"disable_server_verification": True} if url.startswith("grpc+tls") else {}
    try:
        with flight.FlightClient(url, middleware=[headers], generic_options=_NO_PROXY, **certificates) as client:
            list(client.do_action(flight.Action("health", b"{}"), flight.FlightCallOptions(timeout=_PROBE_SECONDS)))
    except (flight.FlightUnavailableError, flight.FlightTimedOutError):
        return None
    except (pa.ArrowException, OSError):
        pass
    return next(iter(headers.found.get(INSTANCE_HEADER, [])), "")


def describe_api(base_url: str) -> dict[str, Any] | None:
    """What ``GET /`` says, if it is a REST gateway of ours that answers."""
    proxies = urllib.request.ProxyHandler({} if is_loopback_url(base_url) else None)
    try:
        secure = urllib.request.HTTPSHandler(context=_probe_context(base_url))
        opener = urllib.request.build_opener(proxies, secure)
        with opener.open(f"{base_url.rstrip('/')}/", timeout=_PROBE_SECONDS) as answer:
            described = json.load(answer)
    except (OSError, ValueError):
        return None
    return described if isinstance(described, dict) and described.get("name") == API_NAME else None


def _probe_context(base_url: str) -> ssl.SSLContext | None:
    """How the question what runs there is asked over TLS; it carries no secret."""
    if urlsplit(base_url).scheme != "https":
        return None
    settings = load_settings(ClientSettings)
    context = ssl.create_default_context(cafile=settings.tls_root_certificates)
    if is_loopback_url(base_url):
        # A certificate names the machine as others call it.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if settings.tls_client_certificate is not None:
        context.load_cert_chain(settings.tls_client_certificate, settings.tls_client_key)
    return context


def nobody_at(url: str) -> str | None:
    """That nothing listens at the address of a Flight server, and what to do about it; None where something does."""
    start = "start a server there (timedb serve), or name another (--flight-url, TIMEDB_FLIGHT_URL, td.connect(URL))"
    try:
        _knock(url).close()
    except ConnectionRefusedError:
        return f"nothing listens at {url}; {start}"
    except socket.gaierror:
        return f"there is no such host as {url} names; {start}"
    except OSError:
        pass
    return None


def wrong_scheme(url: str) -> str | None:
    """That a Flight server's address says TLS where none is spoken, or the other way round; None where it does not."""
    scheme, _, place = url.partition("://")
    try:
        with _knock(url) as connection:
            speaks_tls = _speaks_tls(connection)
    except OSError:
        return None
    if speaks_tls and scheme != "grpc+tls":
        return f"the server at {url} speaks TLS; its address is grpc+tls://{place}"
    if speaks_tls is False and scheme == "grpc+tls":
        return f"what answers at {url} speaks no TLS; without, its address is grpc://{place}"
    return None


def _knock(url: str) -> socket.socket:
    try:
        where = urlsplit(url)
        host, port = where.hostname, where.port
    except ValueError as error:
        raise OSError from error
    if host is None or port is None:
        raise OSError
    return socket.create_connection((host, port), _KNOCK_SECONDS)


def _speaks_tls(connection: socket.socket) -> bool | None:
    """Whether the peer answers the first message of TLS in kind; None where it does not answer."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    try:
        connection.settimeout(_KNOCK_SECONDS)
        connection.sendall(outgoing.read())
        first = connection.recv(1)
    except TimeoutError:
        return None
    except OSError:
        return False
    return bool(first) and first[0] in _TLS_RECORDS
