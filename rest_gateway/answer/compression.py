"""Compressed answers: as ``Accept-Encoding`` asks, piece by piece as they are sent, on few threads."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pyarrow as pa
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timedb.files.formats import Sink
from timedb.rest_gateway.answer.preferences import weighted

__all__ = ["Compressed", "preferred_coding"]

_AT_LEAST_BYTES = 1024  # what fits into a packet anyway is not worth it
# The fastest level: twice its time, level 4, saves another tenth. docs/decisions/0034 has the figures.
_GZIP_LEVEL = 1
_GZIP_WINDOW = 31  # of zlib: the greatest window, in gzip's frame
_TYPES = frozenset(
    {
        *("application/json", "application/x-ndjson", "text/csv", "text/plain"),
        "application/vnd.apache.arrow.stream",  # whose buffers are as they lie in memory
    }
)
_INLINE_BYTES = 64 << 10
# Half the cores at most, whoever asks: answers wait for each other here, and reads and writes go on.
_COMPRESSORS = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "timedb-rest-compress")


class _Compressor(Protocol):
    def add(self, data: bytes) -> bytes:
        """What comes out as these bytes go in."""

    def end(self) -> bytes:
        """What is left, and the end of it all."""


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def add(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def end(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    def __init__(self) -> None:
        self._sink = Sink()
        self._stream = pa.CompressedOutputStream(self._sink, "zstd")

    def add(self, data: bytes) -> bytes:
        self._stream.write(data)
        return self._sink.take()

    def end(self) -> bytes:
        self._stream.close()
        return self._sink.take()


# Of two that are liked alike the first is taken: it is smaller for half the work.
_CODINGS: Mapping[str, Callable[[], _Compressor]] = {"zstd": _Zstd, "gzip": _Gzip}


def preferred_coding(accept_encoding: str) -> str | None:
    """The coding that an ``Accept-Encoding`` header prefers (RFC 9110 section 12.5.3), ``zstd`` or ``gzip``.

    None: the body goes as it is, which nobody may refuse here. ``*`` stands for gzip, which everybody can read.
    """
    given = weighted(accept_encoding)
    if "*" in given:
        given.setdefault("gzip", given["*"])
    best = max(_CODINGS, key=lambda coding: given.get(coding, 0.0))
    weight = given.get(best, 0.0)
    return best if weight > 0 and weight >= given.get("identity", 0.0) else None


class Compressed:
    """Compresses the answers of an app for those who take them so: texts and Arrow, not Parquet, nor events."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            coding = preferred_coding(",".join(Headers(scope=scope).getlist("accept-encoding")))
            if coding is not None:
                send = _Compressing(send, coding)
        await self.app(scope, receive, send)


class _Compressing:
    """Sends one answer. One that comes whole says how long it is."""

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._compressor: _Compressor | None = None
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] == 200 and _is_worth_it(headers):
                self._compressor = _CODINGS[self._coding]()
                self._start = message
                headers["Content-Encoding"] = self._coding
                del headers["Content-Length"]
                return
        if message["type"] == "http.response.body" and self._compressor is not None:
            message = await self._compressed(message, self._compressor)
        if self._start is not None:
            start, self._start = self._start, None
            if not message["more_body"]:
                MutableHeaders(scope=start)["Content-Length"] = str(len(message["body"]))
            await self._send(start)
        await self._send(message)

    async def _compressed(self, message: Message, compressor: _Compressor) -> Message:
        body, more = message.get("body", b""), message.get("more_body", False)

        def compress() -> bytes:
            return compressor.add(body) + (b"" if more else compressor.end())

        loop = asyncio.get_running_loop()
        is_short = len(body) <= _INLINE_BYTES
        packed = compress() if is_short else await loop.run_in_executor(_COMPRESSORS, compress)
        return {**message, "body": packed, "more_body": more}


def _is_worth_it(headers: Headers) -> bool:
    if "content-encoding" in headers or int(headers.get("content-length", _AT_LEAST_BYTES)) < _AT_LEAST_BYTES:
        return False
    return headers.get("content-type", "").partition(";")[0].strip() in _TYPES
