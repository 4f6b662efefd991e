"""The key is asked for on the head of a call, before anything of its body is read; calls have a number at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from timedb.contract.errors import Busy, TimeDBError
from timedb.rest_gateway.http.errors import error_response
from timedb.rest_gateway.http.exchange import has_body

__all__ = ["CallLimit", "KeyFirst"]

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_FREE = frozenset({"/", "/health", "/health/live", "/ui", "/docs", "/openapi.json"})
_FREE_BELOW = ("/ui/", "/docs/")
_FOLLOWED = "/changes"

Admit = Callable[[Headers, str], Awaitable[None]]


class KeyFirst:
    """Refuses callers without a valid key before their body is read; bodies of GET, HEAD and OPTIONS never are.

    Which key may do what the Flight server says at the call itself.

    Args:
        admit: Takes the headers and the id of a call; raises a TimeDBError where the Flight server does not know the
            key.
    """

    def __init__(self, app: ASGIApp, admit: Admit) -> None:
        self.app = app
        self.admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if scope["method"] not in _WITHOUT_BODY and has_body(headers):
                try:
                    await self.admit(headers, scope["state"]["request_id"])
                except TimeDBError as error:
                    await error_response(error, scope["state"]["request_id"])(scope, receive, send)
                    return
        await self.app(scope, receive, send)


class CallLimit:
    """Lets so many calls at once wait for the Flight server; one more is refused at once.

    Calls that need no Flight server are not counted, so that they are answered whatever the others hang in. Those that
    wait for something to be written have places of their own.

    Args:
        most: How many.
        most_followers: How many of those that wait for something to be written.
    """

    def __init__(self, app: ASGIApp, most: int, most_followers: int) -> None:
        self.app = app
        self._most = {False: most, True: most_followers}
        self._running = {False: 0, True: 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _FREE or scope["path"].startswith(_FREE_BELOW):
            await self.app(scope, receive, send)
            return
        follows = scope["path"] == _FOLLOWED
        if self._running[follows] >= self._most[follows]:
            error = Busy(f"{self._most[follows]} calls are under way at this gateway already; retry")
            await error_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        self._running[follows] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._running[follows] -= 1
