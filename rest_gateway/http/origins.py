"""Who may have sent a request to a lake that asks nobody for a key: this machine's programs and the service's own page.

A page of a stranger, opened in a browser of this machine, is on this machine, too. It can send requests that ask no
leave (forms, images, bodyless POSTs), and with a name of its own that it lets point here (DNS rebinding) it may even
read the answers. What tells such requests from others is what browsers say of them and pages cannot forge: ``Host``,
``Origin``, ``Sec-Fetch-Site``. docs/decisions/0055 has the whole reasoning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from timedb.contract.errors import Forbidden
from timedb.contract.hosts import is_loopback
from timedb.contract.wire import quoted
from timedb.rest_gateway.http.errors import error_response

__all__ = ["OPEN_LAKE_HEADER", "OwnOrigins", "Senders"]

OPEN_LAKE_HEADER = "X-Requested-With"
"""What a page sends with its calls, whatever its value: no form can, and no script elsewhere without asking first."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKED_BEFORE = (OPEN_LAKE_HEADER, "X-API-Key", "Authorization")
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_USERS = "or make users, with whose keys the lake asks nothing of this"


class Senders:
    """Which hosts and origins an open lake answers to.

    Args:
        hosts: Further names and addresses by which it may be called; ``*``: any.
        origins: Origins whose pages may call it; ``*``: any.
        elsewhere: Whether other machines are served: then it may also be called by any IP address, and by names without
            a dot, as containers and machines of one network call each other. Nobody can register those.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = (), *, elsewhere: bool = False) -> None:
        self._hosts = {host.lower().strip("[]").rstrip(".") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._elsewhere = elsewhere

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Why an open lake does not answer a request with such headers; None: it does."""
        hosts = [host.lower() for host in headers.getlist("host")]
        for host in hosts:
            if not self._is_ours(_name_of(host)):
                return (
                    f"Host: {quoted(host)} is no name of this machine, and the lake has no users; name it in "
                    f"TIMEDB_ALLOWED_HOSTS, {_USERS}"
                )
        site = headers.get("sec-fetch-site", "").lower()
        origins = [origin.lower() for origin in headers.getlist("origin")]
        if site in ("same-origin", "none") or (origins and all(_authority(origin) in hosts for origin in origins)):
            return None
        if origins and all(self._is_listed(origin) for origin in origins):
            return None
        return _strange_page(method, headers, site, origins) or _maybe_a_form(method, headers)

    def _is_ours(self, host: str) -> bool:
        if host in self._hosts or "*" in self._hosts or _is_local(host):
            return True
        return self._elsewhere and host != "" and ("." not in host or _is_address(host))

    def _is_listed(self, origin: str) -> bool:
        return origin in self._origins or "*" in self._origins


def _strange_page(method: str, headers: Headers, site: str, origins: Collection[str]) -> str | None:
    strange = [origin for origin in origins if not _is_local(_name_of(_authority(origin)))]
    if strange:
        return (
            f"Origin: {quoted(strange[0])} is not of this machine, and the lake has no users; name it in "
            f"TIMEDB_CORS_ORIGINS, {_USERS}"
        )
    is_link = method in _SAFE and headers.get("sec-fetch-mode", "navigate").lower() == "navigate"
    if site == "cross-site" and not origins and not is_link:
        return (
            f"Sec-Fetch-Site: a page of another site sent this, and the lake has no users; call it yourself, {_USERS}"
        )
    return None


def _maybe_a_form(method: str, headers: Headers) -> str | None:
    """A write that shows signs of a browser and no header that only a page with leave could send."""
    if method in _SAFE or any(name in headers for name in _ASKED_BEFORE):
        return None
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in _FORM_TYPES:
        return None
    if not (
        any(name in headers for name in ("origin", "sec-fetch-site", "referer"))
        or headers.get("user-agent", "").lower().startswith("mozilla/")
    ):
        return None
    return (
        f"{OPEN_LAKE_HEADER}: is missing; a write from a page to a lake without users needs it, with any value, or a "
        "Content-Type that no form sends, such as application/json"
    )


def _authority(origin: str) -> str:
    return origin.partition("://")[2]


def _name_of(authority: str) -> str:
    """The host of ``host:port``, without the brackets of an IPv6 address."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].rstrip(".")


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or is_loopback(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class OwnOrigins:
    """Refuses what :class:`Senders` refuses, as long as the lake is open.

    Keys travel in headers, which no browser adds by itself: a lake with users needs none of this.
    """

    def __init__(self, app: ASGIApp, senders: Senders, lake_is_open: Callable[[], Awaitable[bool]]) -> None:
        self.app = app
        self.senders = senders
        self.lake_is_open = lake_is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self.senders.refusal(scope["method"], Headers(scope=scope))
            if refusal is not None and await self.lake_is_open():
                error = Forbidden(refusal)
                await error_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self.app(scope, receive, send)
