"""How query parameters and JSON bodies become messages: strictly, under limits, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from timedb.errors import Busy, InvalidRequest, TimeDBError, TooLarge
from timedb.wire import WireModel, parse, parse_object, shown

__all__ = ["BodyBudget", "json_body", "query"]

_BODIES_HELD = 8
_LARGE_BODY_BYTES = 1 << 20
_DRAINED_BODIES = 4
_DRAIN_SECONDS = 10.0

M = TypeVar("M", bound=WireModel)


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
        """The whole body of a request, counted until the block ends.

        Raises:
            TooLarge: it is longer than ``max_body_bytes``.
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
        """Read a body as ``model`` on a worker thread, with the errors of :func:`timedb.wire.parse`."""
        async with self._large if len(body) > _LARGE_BODY_BYTES else nullcontext():
            return await run_in_threadpool(parse, model, body, what="body", max_bytes=self.max_body_bytes)

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
            if body:
                _check_content_type(request)
            yield await budget.parse(model, body)

    return read


def _check_content_type(request: Request) -> None:
    # Browsers send application/json to a foreign origin only after asking it, which protects an open lake on
    # this machine from the pages that its user visits.
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidRequest(f"Content-Type: {shown(given)} is not application/json")


def query(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the query parameters as ``model``; an unknown or repeated one is an error.

    Parameters whose field is a list may be repeated.
    """
    lists = {name for name, schema in model.model_json_schema().get("properties", {}).items() if _is_list(schema)}

    async def read(request: Request) -> M:  # a coroutine, as a plain function would cost a change of threads
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

    return read


def _is_list(schema: dict[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in (schema, *schema.get("anyOf", [])))
