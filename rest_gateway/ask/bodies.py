"""Request bodies in memory: as many as there is room for, each in its time, unpacked and parsed off the event loop.

What parsing takes is asked of the server's memory first, which other calls share; see :class:`Memory`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool

from timedb.contract.errors import Busy, TooLarge
from timedb.contract.json_counts import json_memory_bytes
from timedb.contract.settings import ServerSettings
from timedb.contract.wire import WireModel, parse
from timedb.rest_gateway.http.encoding import decoded
from timedb.rest_gateway.http.errors import REQUEST_TIMEOUT

__all__ = ["BodyBudget", "Memory"]

_BODIES_HELD = 8
_HELD_SHARE = 4  # of the memory, bodies take this part at most
_LARGE_WORK_BYTES = 8 << 20
_SHORT_BODY_BYTES = 1 << 16
# This part of the greatest size needs no room, so that small bodies come in whatever large ones take up.
_FREE_PART = 512
# Without room, a body of which nothing has come for so long goes, and another comes in.
_GIVES_WAY_SECONDS = 1.0

M = TypeVar("M", bound=WireModel)
T = TypeVar("T")


class Memory(Protocol):
    """The memory of the process, as far as this gateway asks for some of it."""

    @property
    def for_calls(self) -> int:
        """How many bytes there are for calls."""

    def share(self, what: str, size: int) -> AbstractContextManager[object]:
        """Give a call so many bytes, once they are there, until the block ends.

        Raises:
            TooLarge: there is not so much at all.
            Busy: others held it for too long.
        """


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
        memory: What parsing asks for room; None: nobody counts.
    """

    def __init__(self, settings: ServerSettings, memory: Memory | None = None) -> None:
        self._memory = memory
        self._most_held = _BODIES_HELD * settings.max_body_bytes
        if memory is not None:
            self._most_held = min(self._most_held, max(settings.max_body_bytes, memory.for_calls // _HELD_SHARE))
        self.max_body_bytes = settings.max_body_bytes
        self.max_json_values = settings.max_json_values
        self.max_columns = settings.max_upload_columns
        self.max_rows = settings.max_upload_rows
        self._seconds = settings.max_body_seconds
        self._idle_seconds = settings.max_body_idle_seconds
        self._wait_seconds = settings.memory_wait_seconds
        self._held = 0
        self._arriving: set[_Arriving] = set()
        # Parsed, a body of the greatest size takes some hundred megabytes; two at once would not be faster.
        self._large = asyncio.Semaphore(1)

    @asynccontextmanager
    async def receive(
        self, request: Request, unwrapped: Callable[[bytes], bytes] | None = None
    ) -> AsyncIterator[bytes]:
        """The whole body of a request, decompressed, counted until the block ends.

        Args:
            request: The request.
            unwrapped: The part of the body that matters; the rest is not kept.

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
                async with self._turn():
                    body = await run_in_threadpool(decoded, body, encoding, self.max_body_bytes)
                self._held += self._counted(len(body)) - held
                held = self._counted(len(body))
                if self._is_full():
                    raise self._busy()
            if unwrapped is not None:
                body = await run_in_threadpool(unwrapped, body)
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
        return self._held > self._most_held

    async def parse(self, model: type[M], body: bytes) -> M:
        """Read a body as ``model`` on a worker thread, with the errors of :func:`timedb.contract.wire.parse`."""
        limits = {"max_bytes": self.max_body_bytes, "max_values": self.max_json_values}
        return await self.on_thread(body, json_memory_bytes, partial(parse, model, body, what="body", **limits))

    async def on_thread(self, body: bytes, memory_bytes: Callable[[bytes], int], work: Callable[[], T]) -> T:
        """Do what a body asks for on a worker thread; where it takes much memory, nothing else of the kind meanwhile.

        Args:
            body: The body.
            memory_bytes: How much memory that takes, by the body.
            work: What is done.

        Raises:
            TooLarge, Busy: there is not so much memory.
        """
        is_short = len(body) <= _SHORT_BODY_BYTES
        size = memory_bytes(body) if is_short else await run_in_threadpool(memory_bytes, body)
        if size <= _LARGE_WORK_BYTES:
            return await run_in_threadpool(work)
        async with self._turn():
            return await run_in_threadpool(self._with_share, size, work)

    def _with_share(self, size: int, work: Callable[[], T]) -> T:
        with self._share(size):
            return work()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """So many bytes of memory, until the block ends.

        Raises:
            TooLarge, Busy: there is not so much.
        """
        share: AbstractContextManager[object] = nullcontext()
        if size > _LARGE_WORK_BYTES:
            async with self._turn():  # so that one thread waits at most
                share = await run_in_threadpool(self._share, size)
        with share:
            yield

    def _share(self, size: int) -> AbstractContextManager[object]:
        return nullcontext() if self._memory is None else self._memory.share("body", size)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._large.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            yield
        finally:
            self._large.release()

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
