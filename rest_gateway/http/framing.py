"""Where a request ends, said once: a request that says it twice may end elsewhere for a proxy than for this server.

What follows it on the connection would then be somebody else's request (smuggling). The HTTP parser refuses most of it;
h11 takes ``Content-Length`` beside ``Transfer-Encoding``, goes by the latter, and keeps the connection.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from timedb.contract.errors import InvalidRequest
from timedb.rest_gateway.http.errors import error_response

__all__ = ["OneLength"]

_CLOSING = {"Connection": "close"}


class OneLength:
    """Answers a request of two lengths with 400 and closes the connection, whatever follows on it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if "transfer-encoding" in headers and "content-length" in headers:
                error = InvalidRequest("Content-Length: stands beside Transfer-Encoding; a request has one of them")
                answer = error_response(error, scope["state"]["request_id"], status=400, headers=_CLOSING)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)
