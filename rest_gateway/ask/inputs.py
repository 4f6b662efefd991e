"""How query parameters and JSON bodies become messages: strictly, under limits, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import cache, partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from timedb.contract.errors import Busy, InvalidRequest, TimeDBError, TooLarge
from timedb.contract.wire import WireModel, parse, parse_object, quoted
from timedb.rest_gateway.http.encoding import decoded

__all__ = ["BodyBudget", "is_json", "json_body", "media_type_of", "query", "read_query"]

_BODIES_HELD = 8
_LARGE_BODY_BYTES = 1 << 20
_DRAINED_BODIES = 4
_DRAIN_SECONDS = 10.0

M = TypeVar("M", bound=WireModel)
T = TypeVar("T")


class BodyBudget:
    """How much of request bodies is in memory at once: at most eight bodies of the greatest size.

    Lives on the event loop's thread, so it needs no lock.

    Args:
        max_body_bytes: The most that one body may hold.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._held = 0
        # Parsed, a hostile body takes some forty times its size, so large ones are parsed two at a time.
        self._large = asyncio.Semaphore(2)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body of a request, decompressed, counted until the block ends.

        Raises:
            InvalidRequest: it is not what its ``Content-Encoding`` says.
            TooLarge: it is longer than ``max_body_bytes``, as it came or decompressed.
            Busy: other bodies take up all the room.
        """
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdecimal() and int(announced) > self.max_body_bytes:
            await self._discard(request, int(announced))
            raise self._too_large()
        held = 0
        chunks: list[bytes] = []
        try:
            async for chunk in request.stream():
                held += len(chunk)
                self._held += len(chunk)
                chunks.append(chunk)
                refusal = self._refusal(held)
                if refusal is not None:
                    chunks.clear()
                    self._held -= held
                    arrived, held = held, 0
                    await self._discard(request, arrived)
                    raise refusal
            body = b"".join(chunks)
            chunks.clear()
            if encoding := request.headers.get("content-encoding"):
                async with self._large:
                    body = await run_in_threadpool(decoded, body, encoding, self.max_body_bytes)
                self._held += len(body) - held
                held = len(body)
                if (refusal := self._refusal(held)) is not None:
                    raise refusal
            yield body
        finally:
            self._held -= held

    def _refusal(self, size: int) -> TimeDBError | None:
        if size > self.max_body_bytes:
            return self._too_large()
        if self._held > _BODIES_HELD * self.max_body_bytes:
            return Busy("too many large request bodies are under way; retry")
        return None

    async def parse(self, model: type[M], body: bytes) -> M:
        """Read a body as ``model`` on a worker thread, with the errors of :func:`timedb.contract.wire.parse`."""
        return await self.on_thread(len(body), partial(parse, model, body, what="body", max_bytes=self.max_body_bytes))

    async def on_thread(self, size: int, work: Callable[[], T]) -> T:
        """Do what takes memory in proportion to a body of ``size`` bytes, on a worker thread."""
        async with self._large if size > _LARGE_BODY_BYTES else nullcontext():
            return await run_in_threadpool(work)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"body: is over the limit of {self.max_body_bytes} bytes")

    async def _discard(self, request: Request, size: int) -> None:
        # A client that is still sending when the connection closes sees a reset instead of the answer, so the rest of
        # a body that is not absurdly long is received and thrown away; one that waits for leave to send gets none.
        most = _DRAINED_BODIES * self.max_body_bytes
        if size > most or request.headers.get("expect", "").lower() == "100-continue":
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in request.stream():
                    most -= len(chunk)
                    if most < 0:
                        return


def json_body(model: type[M]) -> Callable[[Request], AsyncIterator[M]]:
    """A dependency that reads the request's JSON body as ``model``; no body at all counts as ``{}``.

    It raises :class:`TooLarge`, :class:`Busy` and :class:`InvalidRequest`.
    """

    async def read(request: Request) -> AsyncIterator[M]:
        budget: BodyBudget = request.app.state.bodies
        async with budget.receive(request) as body:
            media_type = media_type_of(request)
            if (body or media_type) and not is_json(media_type):
                raise InvalidRequest(f"Content-Type: {quoted(media_type)} is not application/json")
            yield await budget.parse(model, body)

    return read


def media_type_of(request: Request) -> str:
    """The media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Whether it is one of JSON.

    Browsers send it to a foreign origin only after asking it, which protects an open lake on this machine from the
    pages that its user visits. The same is true of every other type that is taken anywhere here.
    """
    return media_type == "application/json" or media_type.endswith("+json")


def query(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the query parameters as ``model``; an unknown or repeated one is an error.

    Parameters whose field is a list may be repeated.
    """

    async def read(request: Request) -> M:  # a coroutine, as a plain function would cost a change of threads
        return read_query(model, request)

    return read


def read_query(model: type[M], request: Request) -> M:
    """The query parameters of a request as ``model``, with the errors of :func:`query`."""
    lists = _lists_of(model)
    given = request.query_params.multi_items()
    counts = Counter(name for name, _ in given)
    fields: dict[str, Any] = {}
    for name, value in given:
        if name in lists:
            fields.setdefault(name, []).append(value)
        elif counts[name] > 1 and name in model.model_fields:
            raise InvalidRequest(f"{name}: is given {counts[name]} times")
        else:
            fields[name] = value
    return parse_object(model, fields, what="query")


@cache
def _lists_of(model: type[WireModel]) -> frozenset[str]:
    properties = model.model_json_schema().get("properties", {})
    return frozenset(name for name, schema in properties.items() if _is_list(schema))


def _is_list(schema: dict[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in (schema, *schema.get("anyOf", [])))
