"""What is written, as it is: an answer as soon as there is something, or a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Annotated, TypeVar

import orjson
import pyarrow as pa
from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response, StreamingResponse

from timedb.client.retrying import UPLOAD_ATTEMPTS, retrying
from timedb.contract.errors import TimeDBError
from timedb.rest_gateway.answer.answers import ChangeRows
from timedb.rest_gateway.answer.formats import EVENTS, changes_json, prefers_events
from timedb.rest_gateway.ask.inputs import query
from timedb.rest_gateway.ask.reads import ChangesQuery, in_words_of_the_query
from timedb.rest_gateway.http.caching import NOT_KEPT
from timedb.rest_gateway.http.connection import CallerClient, FollowedBatches, TheCaller, key_of
from timedb.rest_gateway.http.errors import error_body
from timedb.rest_gateway.http.wake_ups import WakeUps
from timedb.rest_gateway.openapi.document import describe_inputs, errors

__all__ = ["router"]

router = APIRouter(tags=["values"])

_TEXT = """\
Every version of every revision that passes the filters, once, as it is committed: rows as of `GET /values` with
`mode=changes`. `since` is the `token` of the answer before; left out, all that there is comes page by page, and with
`now` what is written from now on. The answer comes as soon as there is something, else, after `wait` seconds, without
rows. Kept together with what was made of the rows, the token makes each version count exactly once.

`Accept: text/event-stream` asks for a stream without end ([server-sent
events](https://html.spec.whatwg.org/multipage/server-sent-events.html)): the data of each event is such an answer, its
`id` is the token, which `EventSource` gives back as `Last-Event-ID` when it connects again. An event without data says
that there is nothing new. A fault after the first event is an event `error`, whose data is the error."""

# Whoever waits has no thread; only what there is by now is read on one.
_READERS = ThreadPoolExecutor(8, "timedb-rest-changes")
_LOOK_SECONDS = 1.0
"""How often a call that waits asks whether its client is still there."""

T = TypeVar("T")
Message = tuple[pa.RecordBatch, str]


@router.get(
    "/changes",
    response_model=ChangeRows,
    responses={200: {"content": {EVENTS: {"schema": {"type": "string"}}}}, **errors(404, 413)},
    openapi_extra=describe_inputs(query=ChangesQuery),
    summary="Follow what is written",
    description=_TEXT,
)
async def read_changes(
    asked: Annotated[ChangesQuery, Depends(query(ChangesQuery))],
    caller: TheCaller,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Answer once, or go on for as long as the client is there."""
    changes = _Changes(asked, caller, request)
    if prefers_events(accept):
        since = last_event_id or asked.since
        with in_words_of_the_query():
            stream = await changes.begin(since)
            first = await _on_thread(stream.next)
        events = changes.events(stream, first, since)
        return StreamingResponse(events, media_type=EVENTS, headers={**NOT_KEPT, "X-Accel-Buffering": "no"})
    with in_words_of_the_query():
        batch, token = await changes.poll()
    body = changes_json(batch, token, non_finite_text=asked.non_finite == "text")
    return Response(body, media_type="application/json", headers=NOT_KEPT)


class _Changes:
    """What one call reads."""

    def __init__(self, asked: ChangesQuery, caller: CallerClient, request: Request) -> None:
        self._asked = asked
        self._caller = caller
        self._request = request
        self._wake_ups: WakeUps = request.app.state.wake_ups
        self._heartbeat_seconds: float = request.app.state.settings.follow_heartbeat_seconds

    async def begin(self, since: str | None) -> FollowedBatches:
        """Start to read what there is by now."""
        ticket = self._asked.to_ticket(since)
        return await _on_thread(lambda: self._caller.follow(ticket))

    async def poll(self) -> Message:
        """The first rows, once there are some or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._asked.wait
        found = await self._some(self._asked.since)
        if found[0].num_rows or not self._asked.wait:
            return found
        async with self._wake_ups.of(key_of(self._request.headers), self._caller) as waking:
            while not found[0].num_rows:
                seen = waking.told
                found = await self._some(found[1])
                while not found[0].num_rows and waking.told == seen:
                    left = deadline - loop.time()
                    if left <= 0 or self._wake_ups.is_stopped or await self._request.is_disconnected():
                        return found
                    await waking.wait(seen, min(left, _LOOK_SECONDS))
        return found

    async def _some(self, since: str | None) -> Message:
        """The first rows behind a token, or none and where they will be.

        Begun and read to its end in one go: of many who are woken at once only as many read as there are threads.
        """
        ticket = self._asked.to_ticket(since)

        def read() -> Message:
            stream = self._caller.follow(ticket)
            try:
                message = stream.next()
                while message is not None and not message[0].num_rows and (following := stream.next()) is not None:
                    message = following
            finally:
                stream.close()
            assert message is not None  # there is always one
            return message

        return await _on_thread(lambda: retrying(UPLOAD_ATTEMPTS)(read))

    async def events(self, stream: FollowedBatches, first: Message | None, since: str | None) -> AsyncIterator[bytes]:
        """All that there is, and then what is written."""
        token = since
        try:
            try:
                while first is not None:
                    token = first[1]
                    yield self._event(*first)
                    first = await _on_thread(stream.next)
            finally:
                stream.close()
            async with self._wake_ups.of(key_of(self._request.headers), self._caller) as waking:
                while not self._wake_ups.is_stopped:
                    seen = waking.told
                    message = await self._some(token)
                    token = message[1]
                    yield self._event(*message)
                    if message[0].num_rows:  # there may be more
                        continue
                    while waking.told == seen and not self._wake_ups.is_stopped:
                        if not await waking.wait(seen, self._heartbeat_seconds):
                            yield _event_id(token)
        except TimeDBError as error:
            body = orjson.dumps(error_body(error, self._request.state.request_id))
            yield b"event: error\ndata: " + body + b"\n\n"

    def _event(self, batch: pa.RecordBatch, token: str) -> bytes:
        if not batch.num_rows:
            return _event_id(token)
        data = changes_json(batch, token, non_finite_text=self._asked.non_finite == "text")
        return b"id: " + token.encode() + b"\ndata: " + data + b"\n\n"


def _event_id(token: str | None) -> bytes:
    """An event that no listener is called for, and whose id counts."""
    return b"id: " + (token or "").encode() + b"\n\n"


async def _on_thread(work: Callable[[], T]) -> T:
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(_READERS, lambda: context.run(work))
