"""Request bodies in memory: as many as there is room for, each in its time, unpacked and parsed off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from timedb.contract.errors import Busy, TooLarge
from timedb.contract.settings import ServerSettings
from timedb.contract.wire import WireModel, parse
from timedb.rest_gateway.http.encoding import decoded
from timedb.rest_gateway.http.errors import REQUEST_TIMEOUT

__all__ = ["BodyBudget"]

_BODIES_HELD = 8
_LARGE_BODY_BYTES = 1 << 20
# This part of the greatest size needs no room, so that small bodies come in whatever large ones take up.
_FREE_PART = 512
# Without room, a body of which nothing has come for so long goes, and another comes in.
_GIVES_WAY_SECONDS = 1.0

M = TypeVar("M", bound=WireModel)
T = TypeVar("T")


@dataclass(eq=False)
class _Arriving:
    """A body that is not whole yet."""

    deadline: asyncio.Timeout
    last: float
    size: int = 0
    gives_way: bool = False


class BodyBudget:
    """How much of request bodies is in memory at once: at most eight bodies of the greatest size.

    Lives on the event loop's thread, so it needs no lock.

    Args:
        settings: What one body may hold, and how long it may take.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.max_body_bytes = settings.max_body_bytes
        self._seconds = settings.max_body_seconds
        self._idle_seconds = settings.max_body_idle_seconds
        self._held = 0
        self._arriving: set[_Arriving] = set()
        self._large = asyncio.Semaphore(2)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body of a request, decompressed, counted until the block ends.

        Raises:
            InvalidRequest: it is not what its ``Content-Encoding`` says.
            TooLarge: it is longer than ``max_body_bytes``, as it came or decompressed; of one that says so in its head
                nothing is read.
            Busy: other bodies take up all the room.
            HTTPException: 408, it did not arrive in time.
        """
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdecimal() and int(announced) > self.max_body_bytes:
            raise self._too_large()
        body = await self._arrived(request)
        held = self._counted(len(body))
        try:
            if encoding := request.headers.get("content-encoding"):
                async with self._large:
                    body = await run_in_threadpool(decoded, body, encoding, self.max_body_bytes)
                self._held += self._counted(len(body)) - held
                held = self._counted(len(body))
                if self._is_full():
                    raise self._busy()
            yield body
        finally:
            self._held -= held

    async def _arrived(self, request: Request) -> bytes:
        """The body as it comes; what of it counts is counted from then on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        chunks: list[bytes] = []
        arriving = _Arriving(asyncio.timeout_at(began + self._idle_seconds), began)
        self._arriving.add(arriving)
        try:
            async with arriving.deadline:
                async for chunk in request.stream():
                    arriving.last = loop.time()
                    chunks.append(chunk)
                    self._take(arriving, len(chunk))
                    if not arriving.gives_way:
                        end = min(arriving.last + self._idle_seconds, began + self._seconds)
                        arriving.deadline.reschedule(end)
        except BaseException as error:
            self._held -= self._counted(arriving.size)
            if isinstance(error, TimeoutError):
                raise self._busy() if arriving.gives_way else self._late(loop.time() - began) from None
            raise
        finally:
            self._arriving.discard(arriving)
        return b"".join(chunks)

    def _take(self, arriving: _Arriving, size: int) -> None:
        """Count more of a body; where there is no room, another gives way, or this one."""
        before = self._counted(arriving.size)
        arriving.size += size
        self._held += self._counted(arriving.size) - before
        if arriving.size > self.max_body_bytes:
            raise self._too_large()
        if self._is_full() and self._counted(arriving.size):
            waiting = [each for each in self._arriving if self._counted(each.size) and not each.gives_way]
            slowest = min(waiting, key=lambda each: each.last, default=arriving)
            if arriving.last - slowest.last < _GIVES_WAY_SECONDS:
                raise self._busy()
            slowest.gives_way = True
            slowest.deadline.reschedule(arriving.last)

    def _is_full(self) -> bool:
        return self._held > _BODIES_HELD * self.max_body_bytes

    async def parse(self, model: type[M], body: bytes) -> M:
        """Read a body as ``model`` on a worker thread, with the errors of :func:`timedb.contract.wire.parse`."""
        return await self.on_thread(len(body), partial(parse, model, body, what="body", max_bytes=self.max_body_bytes))

    async def on_thread(self, size: int, work: Callable[[], T]) -> T:
        """Do what takes memory in proportion to a body of ``size`` bytes, on a worker thread."""
        async with self._large if size > _LARGE_BODY_BYTES else nullcontext():
            return await run_in_threadpool(work)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"body: is over the limit of {self.max_body_bytes} bytes")

    def _busy(self) -> Busy:
        return Busy("too many large request bodies are under way; retry")

    def _late(self, seconds: float) -> HTTPException:
        reason = f"did not arrive within {self._seconds:g} seconds"
        if seconds < self._seconds:
            reason = f"nothing more of it came for {self._idle_seconds:g} seconds"
        return HTTPException(REQUEST_TIMEOUT, f"body: {reason}")

    def _counted(self, size: int) -> int:
        return max(size - self.max_body_bytes // _FREE_PART, 0)
