"""What caches may keep: nothing without asking, and of answers with rows only what is still so.

An answer with rows has an ``ETag`` made of its token. Whoever sends it back in ``If-None-Match`` gets 304 as long as
the rows, the names of the series and what the key sees are the same. Other answers are made, and have one of what is
in them. All are weak: the same answer may be compressed or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timedb._version import __version__
from timedb.contract.columns import META_SERIES_VERSION, META_TOKEN

__all__ = ["NOT_KEPT", "AskEveryTime", "etag_of", "not_modified", "unchanged"]

NOT_KEPT = {"Cache-Control": "no-store"}
"""Headers of an answer that is true for a moment only."""
_ASK = "private, no-cache"
_VARY = "Accept, Accept-Encoding, X-API-Key, Authorization"
_HASH_CHARS = 16


def etag_of(request: Request, metadata: Mapping[bytes, bytes], media_type: str) -> str:
    """The tag of an answer with rows: the token, and a hash of what else it depends on.

    Weak, for the bytes of a format may differ where the rows do not.

    Args:
        request: Whose key sees the rows; its address is not part of the tag.
        metadata: Of the answer's schema.
        media_type: Of the body.
    """
    headers = request.headers
    parts = (__version__, metadata.get(META_SERIES_VERSION, b"").decode(), media_type)
    keys = (headers.get("x-api-key", ""), headers.get("authorization", ""))
    digest = hashlib.sha256(repr((*parts, *keys)).encode()).hexdigest()[:_HASH_CHARS]
    return f'W/"{metadata[META_TOKEN].decode()}.{digest}"'


def not_modified(headers: Headers, tag: str) -> bool:
    """Whether the caller has what a tag stands for (RFC 9110 section 13.1.2, by the weak comparison)."""
    given = ",".join(headers.getlist("if-none-match"))
    known = {each.strip().removeprefix("W/") for each in given.split(",")}
    return bool(known & {tag.removeprefix("W/"), "*"})


class AskEveryTime:
    """Says of every answer that says nothing of caching itself: for this caller alone, and only after asking.

    Of those that come whole, what is asked about is a hash of them. Errors and the answers to writes are not to be kept
    at all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: Message | None = None

        async def send_with_caching(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kept = "cache-control" not in headers and scope["method"] == "GET" and message["status"] < 400
                _say(headers, kept=kept)
                if kept and message["status"] == 200 and "etag" not in headers and "content-length" in headers:
                    held = message
                    return
            elif held is not None:
                start, held = held, None
                message = _tagged(Headers(scope=scope), start, message)
                await send(start)
            await send(message)

        await self.app(scope, receive, send_with_caching)


def _say(headers: MutableHeaders, *, kept: bool) -> None:
    if kept:
        headers["Cache-Control"] = _ASK
        for name in _VARY.split(", "):
            headers.add_vary_header(name)
    headers.setdefault("Cache-Control", NOT_KEPT["Cache-Control"])
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")


def _tagged(asked: Headers, start: Message, message: Message) -> Message:
    """The body of an answer whose start gets a tag, or nothing, where the caller has it already."""
    headers = MutableHeaders(scope=start)
    tag = headers["ETag"] = f'W/"{hashlib.sha256(message["body"]).hexdigest()[:_HASH_CHARS]}"'
    if not not_modified(asked, tag):
        return message
    start["status"] = 304
    del headers["Content-Length"]
    del headers["Content-Type"]
    return {**message, "body": b""}


def unchanged(tag: str) -> Response:
    """The answer to whoever has it already."""
    return Response(status_code=304, headers={"ETag": tag})
