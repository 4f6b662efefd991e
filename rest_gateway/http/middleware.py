"""What happens around every call, as plain ASGI: the request id, the access log, the figures, the loopback rule."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timedb.contract.errors import Forbidden, Internal
from timedb.contract.hosts import is_loopback
from timedb.rest_gateway.http.errors import error_response
from timedb.rest_gateway.http.metrics import Metrics

__all__ = ["CallMiddleware", "HeadAsGet", "LoopbackOnly"]

REQUEST_ID_HEADER = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = logging.getLogger("timedb.rest")


class CallMiddleware:
    """Gives each call its id, logs it, counts it, and turns what nobody caught into the one error shape."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with self.metrics.running.track_inprogress():
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                pass  # while its body was being read; nobody is there to be answered
            except Exception:
                _log.exception("unhandled error request_id=%s", request_id)
                if status:  # the head is out: only a broken connection still tells the client
                    raise
                await error_response(Internal(), request_id)(scope, receive, send_with_id)
            finally:
                # 499: the client went away before there was an answer.
                self._finish(scope, request_id, status or 499, time.perf_counter() - started)

    def _finish(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.record(method, getattr(scope.get("route"), "path_format", "unmatched"), status, seconds)
        _log.info(
            "%s %s %d %.1f ms request_id=%s peer=%s",
            method,
            ascii(scope["path"]),  # never a raw line break in the log, and no query: it may hold names
            status,
            seconds * 1e3,
            request_id,
            (scope.get("client") or ("unknown",))[0],
        )


class HeadAsGet:
    """Answers HEAD as GET without the body (RFC 9110 section 9.3.2): what a GET would begin with, and then no more."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        answered = False

        async def receive_until_answered() -> Message:
            # A body that is being streamed stops as for a client that has gone.
            return {"type": "http.disconnect"} if answered else await receive()

        async def send_head(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                await send(message)
                answered = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        scope["method"] = "GET"  # in place: what the router finds is for the log, too
        try:
            await self.app(scope, receive_until_answered, send_head)
        finally:
            scope["method"] = "HEAD"


class LoopbackOnly:
    """Refuses peers of other machines while anybody may do anything: as long as the lake has no users.

    The Flight server sees only the gateway as its peer, so the gateway has to apply the rule to its own.
    """

    def __init__(self, app: ASGIApp, lake_is_open: Callable[[], Awaitable[bool]]) -> None:
        self.app = app
        self.lake_is_open = lake_is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(_peer(scope)) and await self.lake_is_open():
            error = Forbidden(
                "the lake has no users, so only this machine is served; create users, or start with TIMEDB_INSECURE=1"
            )
            await error_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _peer(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _SANE_ID.fullmatch(given) else uuid4().hex
