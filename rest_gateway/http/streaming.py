"""Sends a body while it is being made, stops when the client goes away, and closes the source in every case."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from timedb.contract.errors import TimeDBError

__all__ = ["streamed"]

_WHOLE_BYTES = 256 << 10
_SENT_BYTES = 1 << 20
# A client that takes no megabyte for so long is given up: its read holds one of the few places of the Flight server.
_STALLED_SECONDS = 60.0
# A task would only hand its work to a thread once the loop has nothing else to do: after the piece before is sent.
_MAKERS = ThreadPoolExecutor(40, "timedb-rest-body")
_log = logging.getLogger("timedb.rest")

Piece = bytes | memoryview


def streamed(
    pieces: Iterator[Piece],
    close: Callable[[], None],
    *,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """The answer that carries ``pieces``; blocks until it is known that the first of them can be made.

    What fails before then is raised, so that it becomes an ordinary error answer. A short body is sent as a whole,
    with its length.

    Args:
        pieces: The body; it may block, and is only used on worker threads.
        close: Releases what ``pieces`` reads from, without blocking; called exactly once, whatever happens.
        media_type: Of the body.
        headers: More headers.
    """
    ready: list[Piece] = []
    size = 0
    try:
        while size < _WHOLE_BYTES and (piece := next(pieces, None)) is not None:
            ready.append(piece)
            size += len(piece)
    except BaseException:
        close()
        raise
    if size < _WHOLE_BYTES:
        close()
        return Response(b"".join(ready), media_type=media_type, headers=headers)
    return _Stream(ready, pieces, close, media_type, headers)


class _Stream(Response):
    def __init__(
        self,
        ready: list[Piece],
        rest: Iterator[Piece],
        close: Callable[[], None],
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self._ready = ready
        self._rest = rest
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id: str = request.state.request_id
        following = self._begin_next()  # each piece is made while the one before it is sent
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for piece in self._ready:
                await _send_piece(send, piece)
            self._ready.clear()
            try:
                while (made := await following) is not None:
                    following = self._begin_next()
                    await _send_piece(send, made)
                    if await request.is_disconnected():
                        return
            except TimeDBError as error:
                _log.error("answer broken off: %s: %s request_id=%s", error.code, error.detail, request_id)
                return  # the server closes the connection of an answer that has no end
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            _log.warning("answer given up: nobody reads it request_id=%s", request_id)
        finally:
            self._close()  # which ends what is being made, too
            await asyncio.wait({following})
            if not following.cancelled():
                following.exception()  # has been dealt with, or concerns nobody any more

    def _begin_next(self) -> asyncio.Future[Piece | None]:
        context = copy_context()
        return asyncio.get_running_loop().run_in_executor(_MAKERS, lambda: context.run(next, self._rest, None))


async def _send_piece(send: Send, piece: Piece) -> None:
    # In parts that a server may copy without much ado; none is empty, which would end a chunked body.
    for start in range(0, len(piece), _SENT_BYTES):
        part = piece[start : start + _SENT_BYTES]
        async with asyncio.timeout(_STALLED_SECONDS):
            await send({"type": "http.response.body", "body": part, "more_body": True})
