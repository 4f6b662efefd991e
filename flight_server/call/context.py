"""One call: who makes it, under which id, and what is to be given back when it ends."""

from __future__ import annotations

import logging
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import Forbidden, Internal, InvalidRequest, Timeout
from timedb.contract.hosts import is_loopback
from timedb.contract.message_sizes import MESSAGE_BYTES, MESSAGE_BYTES_HEADER
from timedb.contract.wire import INSTANCE_HEADER, quoted
from timedb.flight_server.call.audit import write_line
from timedb.flight_server.call.authentication import AUTHORIZATION_HEADER, Access, Caller, Credentials
from timedb.flight_server.call.errors import as_timedb_error

__all__ = [
    "CANCELLED",
    "REQUEST_ID_HEADER",
    "CallContext",
    "RequestIds",
    "end_if_gone",
    "is_local",
    "refuse_strangers",
]

if TYPE_CHECKING:
    from timedb.storage import Lake

logger = logging.getLogger("timedb.flight")

REQUEST_ID_HEADER = "x-request-id"
CANCELLED = "cancelled"
"""The code in the log of a call whose client went away."""

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HANDSHAKE = "handshake"
_ON_THE_HEAD = {
    flight.FlightMethod.DO_PUT: "do_put",
    flight.FlightMethod.DO_EXCHANGE: "do_exchange",
    flight.FlightMethod.HANDSHAKE: _HANDSHAKE,
}
_NO_KEY = "open"
_LEAST_MESSAGE_BYTES, _MOST_MESSAGE_BYTES = 1 << 16, (1 << 31) - 1


class RequestId(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow ships no types
    """The id of one call, which the answer's headers carry too, the keys and the limit that came with the call."""

    def __init__(
        self,
        request_id: str,
        credentials: Credentials,
        message_bytes: str | None = None,
        instance: str = "",
        completed: Callable[[], None] = lambda: None,
        token: str | None = None,
    ) -> None:
        self.request_id = request_id
        self._completed = completed
        self._token = token
        self._instance = instance
        self.credentials = credentials
        self._message_bytes = message_bytes

    @property
    def message_bytes(self) -> int:
        """The most bytes of a message that the client takes.

        Raises:
            InvalidRequest: it says something else of it.
        """
        text = self._message_bytes
        if text is None:
            return MESSAGE_BYTES
        number = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else 0
        if not _LEAST_MESSAGE_BYTES <= number <= _MOST_MESSAGE_BYTES:
            raise InvalidRequest(
                f"{MESSAGE_BYTES_HEADER}: {quoted(text)} is not a number of bytes from {_LEAST_MESSAGE_BYTES} to "
                f"{_MOST_MESSAGE_BYTES}"
            )
        return number

    def call_completed(self, exception: Exception | None) -> None:
        self._completed()

    def sending_headers(self) -> dict[str, str]:
        headers = {REQUEST_ID_HEADER: self.request_id, INSTANCE_HEADER: self._instance}
        return headers if self._token is None else {**headers, AUTHORIZATION_HEADER: f"Bearer {self._token}"}


Opening = Callable[[str, str, Credentials], Callable[[], None]]


class RequestIds(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    """Takes each call's id and keys from its headers, and answers a handshake with a bearer token.

    It must not fail: pyarrow would show the client why.

    Args:
        instance: What answers tell the server by.
        opening: Called on the head of a handshake, and of a stream that the client sends, when no thread waits yet for
            its first message: takes the method, the request id and the keys, raises a Flight error of ours where the
            stream is refused, and gives what is to be called when the call has ended.
    """

    def __init__(self, instance: str = "", opening: Opening | None = None) -> None:
        self._instance = instance
        self._opening = opening

    def start_call(self, info: flight.CallInfo, headers: dict[str, list[Any]]) -> RequestId:
        sent = headers.get(REQUEST_ID_HEADER, [""])[0]
        request_id = sent if _SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        credentials, message_bytes = Credentials(headers), headers.get(MESSAGE_BYTES_HEADER, [None])[0]
        method = _ON_THE_HEAD.get(info.method)
        if self._opening is None or method is None:
            return RequestId(request_id, credentials, message_bytes, self._instance)
        completed = self._opening(method, request_id, credentials)
        # Nothing is kept of a handshake: the token is the key itself, and a lake without users takes any.
        token = (credentials.key() or _NO_KEY) if method == _HANDSHAKE else None
        return RequestId(request_id, credentials, message_bytes, self._instance, completed, token)


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
        credentials: The keys that came with it.
        message_bytes: The most that a message to the client may have.
        caller: Set by authentication; None before.
        access: What the call needs; set with the caller.
        facts: What the audit log says of the call beside who made it and when.
        rows: Rows that have come or gone over its stream.
        bytes: Their bytes, as Arrow has them in memory.
        code: How it ended: ``ok``, the code of an error, or :data:`CANCELLED`; None before.
        seconds: How long it took; 0 before it has ended.
        log: A logger that names the request.
    """

    def __init__(self, method: str, request_id: str, peer: str, credentials: Credentials | None = None) -> None:
        self.method = method
        self.request_id = request_id
        self.peer = peer
        self.credentials = credentials or Credentials({})
        self.message_bytes = MESSAGE_BYTES
        self.caller: Caller | None = None
        self.access: Access | None = None
        self.facts: dict[str, Any] = {}
        self.rows = 0
        self.bytes = 0
        self.code: str | None = None
        self.seconds = 0.0
        self.log = _RequestLog(logger, {"request_id": request_id})
        self._started = time.monotonic()
        self._releases: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._ended = False

    def count(self, batch: pa.RecordBatch) -> None:
        """A batch has come or gone. One that came must have been validated: even its size cannot be asked before."""
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

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
        self.seconds = time.monotonic() - self._started
        self.code = code if error is None else as_timedb_error(error).code
        try:
            self._write_lines(error, self.code)
        finally:
            # Nothing is held any more, so that nothing of it lives as long as whoever holds the call.
            releases, self._releases = self._releases, []
            for release in reversed(releases):
                release()

    def _write_lines(self, error: BaseException | None, code: str) -> None:
        if error is not None:
            shown = as_timedb_error(error)
            if code == Internal.code:
                self.log.error("%s failed", self.method, exc_info=error)
            else:
                self.log.debug("%s: %s", self.method, ascii(shown.detail))
        tenant = "-" if self.caller is None else self.caller.tenant_id
        self.log.info("%s tenant=%s code=%s ms=%.1f", self.method, tenant, code, self.seconds * 1e3)
        if self.caller is not None and self.access is not None and self.access.writes:
            write_line(
                principal=self.caller.principal,
                tenant_id=self.caller.tenant_id,
                method=self.method,
                code=code,
                request_id=self.request_id,
                peer=self.peer,
                facts=self.facts,
            )


def end_if_gone(call: CallContext, context: flight.ServerCallContext) -> None:
    """End a call whose client has gone; only the handler's own thread may ask.

    Raises:
        Timeout: it has.
    """
    if context.is_cancelled():
        call.end(code=CANCELLED)
        raise Timeout("the client gave up")


def refuse_strangers(lake: Lake, peer: str, *, insecure: bool) -> None:
    """Serve an open lake to its own machine only.

    Args:
        lake: The lake.
        peer: Who calls, as :func:`is_local` takes it.
        insecure: Serve other machines all the same.

    Raises:
        Forbidden: the lake has no users and the peer is another machine.
    """
    # The lake comes last: where another is in its place it says so by an error, and health has to answer all the same.
    if not (insecure or is_local(peer) or lake.has_users):
        raise Forbidden("the lake has no users, so only callers on the server's own machine are served")


def is_local(peer: str) -> bool:
    """Whether a peer, as gRPC names it, is on this machine.

    Args:
        peer: ``ipv4:127.0.0.1:4711``, ``ipv6:[::1]:4711`` (the brackets perhaps percent-encoded), ``unix:PATH`` or
            ``unix-abstract:NAME``.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme in ("unix", "unix-abstract")
    return is_loopback(urllib.parse.unquote(rest).rpartition(":")[0].strip("[]"))
