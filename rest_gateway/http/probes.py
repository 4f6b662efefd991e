"""What the gateway asks the Flight server on its own account: is it well, is the lake open, is this key one.

On threads and a connection of its own, with a deadline: a call that asks is answered whatever others hang in.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers

from timedb.contract.errors import Busy, Forbidden, TimeDBError, Unauthenticated
from timedb.contract.wire import Nothing
from timedb.rest_gateway.http.connection import FlightConnection, key_of

__all__ = ["PROBE_SECONDS", "Probes"]

PROBE_SECONDS = 5.0
"""After which a Flight server that has not answered counts as one that does not answer."""
_THREADS = 8
_KNOWN_SECONDS = 1.0
_MOST_KNOWN = 4096

T = TypeVar("T")


class Probes:
    """For the event loop's thread alone. Who asks what is being asked already gets that answer.

    Args:
        flight_url: For example ``grpc://127.0.0.1:8815``.
    """

    def __init__(self, flight_url: str) -> None:
        self._connection = FlightConnection(flight_url, timeout=PROBE_SECONDS)
        self._threads = CapacityLimiter(_THREADS)
        self._asked: dict[str, asyncio.Task[Any]] = {}
        self._known: dict[str, float] = {}
        self._seen_closed = False

    def close(self) -> None:
        """Close the connection; a later question opens it anew."""
        self._connection.close()

    async def health(self, request_id: str) -> dict[str, Any]:
        """What the Flight server says of itself.

        Raises:
            TimeDBError: it does not answer.
        """
        return await self._ask("health", lambda: self._connection.as_caller(None, request_id).call("health", Nothing()))

    async def lake_is_open(self) -> bool:
        """Whether the lake has no users, so that anybody who reaches it may do anything.

        The Flight server does not say so by itself: a call without a key tells. Closed lakes never open again.
        A server that does not answer counts as open.
        """
        if not self._seen_closed:
            with suppress(TimeDBError):  # whatever else is wrong, the lake has not been seen to ask for keys
                await self._check(None)
        return not self._seen_closed

    async def admit(self, headers: Headers, _request_id: str) -> None:
        """See that the key of a call is one that the Flight server knows, whatever it may do.

        A key that has been seen to be good is not asked about again for a second: each call asks anyhow.

        Raises:
            Unauthenticated: it is none.
            Busy: the Flight server does not answer.
        """
        key = key_of(headers)
        if key is None:
            if not self._seen_closed:
                await self._check(None)
            else:
                raise Unauthenticated()
            return
        name = hashlib.sha256(key.encode()).hexdigest()
        if self._known.get(name, 0.0) > time.monotonic():
            return
        await self._check(key, name)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[name] = time.monotonic() + _KNOWN_SECONDS

    async def _check(self, key: str | None, name: str = "no key") -> None:
        try:
            await self._ask(name, partial(self._check_access, key))
        except Forbidden:
            return  # a good key, for other calls
        except Unauthenticated:
            self._seen_closed = True
            raise

    def _check_access(self, key: str | None) -> None:
        self._connection.as_caller(key).check_access()

    async def _ask(self, name: str, question: Callable[[], T]) -> T:
        task = self._asked.get(name)
        if task is None:
            task = asyncio.ensure_future(to_thread.run_sync(question, limiter=self._threads))
            self._asked[name] = task
            task.add_done_callback(lambda done: self._forget(name, done))
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer: T = await asyncio.shield(task)
        except TimeoutError:
            raise Busy("the Flight server behind this gateway does not answer; retry") from None
        return answer

    def _forget(self, name: str, done: asyncio.Task[Any]) -> None:
        self._asked.pop(name, None)
        if not done.cancelled():
            done.exception()  # has been told to those who waited, or nobody did any more
