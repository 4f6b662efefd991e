"""One call and its answer on their connection: a body that nobody reads closes it, an answer goes out in parts."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Exchange", "has_body"]

# What a server holds of an answer that its client does not take is about this.
_SENT_BYTES = 256 << 10
# A client that is still sending when its connection closes may see a reset in place of the answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 64 << 20


def has_body(headers: Headers) -> bool:
    """Whether a call announces a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() not in ("", "0")


class Exchange:
    """Sends answers in parts, each once the client has taken most of the one before.

    An answer to a call whose body has not been read goes out at once and says that the connection ends. What the client
    still sends is then thrown away, for a moment and no longer (RFC 9112 section 9.6).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        unread = has_body(Headers(scope=scope))
        lingers = False

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_in_parts(message: Message) -> None:
            nonlocal lingers
            if message["type"] == "http.response.start":
                lingers = unread
                if lingers:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                await send(message)
            elif message["type"] == "http.response.body":
                await _send_parts(send, message, more=lingers)
            else:
                await send(message)

        await self.app(scope, receive_and_note, send_in_parts)
        if lingers:
            await _linger(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_parts(send: Send, message: Message, *, more: bool) -> None:
    body, more = memoryview(message.get("body", b"")), more or message.get("more_body", False)
    last = max(len(body) - 1, 0) // _SENT_BYTES * _SENT_BYTES
    for start in range(0, last + 1, _SENT_BYTES):
        part = bytes(body[start : start + _SENT_BYTES])
        await send({"type": "http.response.body", "body": part, "more_body": more or start < last})


async def _linger(receive: Receive) -> None:
    left = _LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
