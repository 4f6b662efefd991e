"""One call: who makes it, under which id, and what is to be given back when it ends."""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyarrow import flight

from flight_server.errors import as_timedb_error
from timedb.errors import Forbidden, Internal, Unauthenticated
from timedb.identity import OPEN_TENANT_ID

__all__ = [
    "CANCELLED",
    "REQUEST_ID_HEADER",
    "CallContext",
    "Caller",
    "RequestIds",
    "authenticate",
    "is_loopback",
    "refuse_strangers",
]

if TYPE_CHECKING:
    from storage import Lake

logger = logging.getLogger("timedb.flight")

REQUEST_ID_HEADER = "x-request-id"
CANCELLED = "cancelled"
"""The code in the log of a call whose client went away."""

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow ships no types
    """The id of one call; the answer's headers carry it too."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id

    def sending_headers(self) -> dict[str, str]:
        """Called by pyarrow."""
        return {REQUEST_ID_HEADER: self.request_id}


class RequestIds(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    """Takes each call's id from its headers, or makes one. Must not fail: pyarrow would show the client why."""

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> RequestId:
        """Called by pyarrow."""
        sent = headers.get(REQUEST_ID_HEADER, [""])[0]
        return RequestId(sent if _SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call runs.

    Attributes:
        tenant_id: UUID text.
        principal: The e-mail of the key; None while the lake is open.
    """

    tenant_id: str
    principal: str | None


class _RequestLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        message, kwargs = super().process(msg, kwargs)
        return f"{message} request_id={kwargs['extra']['request_id']}", kwargs


class CallContext:
    """One call, from its first line to the end of its stream.

    Attributes:
        method: The RPC, and of an action its name.
        request_id: Under which the log and the errors know it.
        peer: The address as gRPC gives it.
        caller: Set by authentication; None before.
        log: A logger that names the request.
    """

    def __init__(self, method: str, request_id: str, peer: str) -> None:
        self.method = method
        self.request_id = request_id
        self.peer = peer
        self.caller: Caller | None = None
        self.log = _RequestLog(logger, {"request_id": request_id})
        self._started = time.monotonic()
        self._releases: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._ended = False

    def hold(self, release: Callable[[], None]) -> None:
        """Have ``release`` called when the call ends."""
        self._releases.append(release)

    def end(self, error: BaseException | None = None, *, code: str = "ok") -> None:
        """Write the access line and give back what is held; only the first time counts.

        Args:
            error: What the call failed with.
            code: The code in the log where there is no error.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        try:
            self._write_lines(error, code)
        finally:
            for release in reversed(self._releases):
                release()

    def _write_lines(self, error: BaseException | None, code: str) -> None:
        if error is not None:
            shown = as_timedb_error(error)
            code = shown.code
            if code == Internal.code:
                self.log.error("%s failed", self.method, exc_info=error)
            else:
                self.log.debug("%s: %s", self.method, ascii(shown.detail))
        tenant = "-" if self.caller is None else self.caller.tenant_id
        self.log.info(
            "%s tenant=%s code=%s ms=%.1f", self.method, tenant, code, (time.monotonic() - self._started) * 1e3
        )


def refuse_strangers(lake: Lake, peer: str, *, insecure: bool) -> None:
    """Serve an open lake to its own machine only.

    Args:
        lake: The lake.
        peer: Who calls, as :func:`is_loopback` takes it.
        insecure: Serve other machines all the same.

    Raises:
        Forbidden: the lake has no users and the peer is another machine.
    """
    if not (lake.has_users or insecure or is_loopback(peer)):
        raise Forbidden("the lake has no users, so only callers on the server's own machine are served")


def authenticate(lake: Lake) -> Caller:
    """Who calls. While the lake has no users everybody is the open tenant, and a key that is sent is ignored.

    Raises:
        Unauthenticated: the lake has users; no key opens it here.
    """
    if lake.has_users:
        raise Unauthenticated()
    return Caller(OPEN_TENANT_ID, None)


def is_loopback(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this machine.

    Args:
        peer: ``ipv4:127.0.0.1:4711``, ``ipv6:[::1]:4711`` (the brackets perhaps percent-encoded), ``unix:PATH`` or
            ``unix-abstract:NAME``.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme in ("unix", "unix-abstract")
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
