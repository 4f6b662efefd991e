"""Who waits for something to be written is woken: one stream of ``follow`` a key, however many wait under it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from timedb.contract.errors import TimeDBError, Unavailable
from timedb.contract.wire import FollowTicket
from timedb.rest_gateway.http.connection import CallerClient, FollowedBatches

__all__ = ["WakeUps", "Waking"]

_LINGER_SECONDS = 5.0
"""For so long a stream stays that nobody waits for any more: a client that polls comes back."""
_WOKEN = FollowTicket(since="now", rows=False)


class Waking:
    """Tells all who wait under one key that something has been committed. For the event loop's thread alone.

    Attributes:
        told: How often it has.
        members: How many wait.
    """

    def __init__(self, caller: CallerClient, forget: Callable[[], None]) -> None:
        self.told = 0
        self.members = 0
        self._forget = forget
        self._news = asyncio.Event()
        self._failure: TimeDBError | None = None
        self._is_stopped = False
        self._stream: FollowedBatches | None = None
        listening = (caller, asyncio.get_running_loop())
        threading.Thread(target=self._listen, args=listening, name="timedb-rest-wake-up", daemon=True).start()

    async def wait(self, seen: int, seconds: float) -> bool:
        """Wait until something has been told after ``seen``.

        Returns:
            Whether that was in time, and the gateway is not stopping.

        Raises:
            TimeDBError: the stream has ended; why the Flight server says.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.told == seen and self._failure is None and not self._is_stopped:
                    await self._news.wait()
        if self._is_stopped:
            return False
        if self._failure is not None:
            raise self._failure
        return self.told != seen

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._is_stopped = True
        self._wake()
        if self._stream is not None:
            self._stream.close()

    def _wake(self) -> None:
        woken, self._news = self._news, asyncio.Event()
        woken.set()

    def _note(self) -> None:
        self.told += 1
        self._wake()

    def _fail(self, error: TimeDBError) -> None:
        self._failure = error
        self._forget()
        self._wake()

    def _begin(self, stream: FollowedBatches) -> None:
        self._stream = stream
        if self._is_stopped:
            stream.close()

    def _listen(self, caller: CallerClient, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of its own."""
        last: str | None = None
        failure: TimeDBError = Unavailable("the Flight server behind this gateway has ended the stream; retry")
        with suppress(RuntimeError):  # the loop is gone
            try:
                stream = caller.follow(_WOKEN)
                loop.call_soon_threadsafe(self._begin, stream)
                for _, token in stream:
                    if token != last:
                        loop.call_soon_threadsafe(self._note)
                    last = token
            except TimeDBError as error:
                failure = error
            loop.call_soon_threadsafe(self._fail, failure)


class WakeUps:
    """The streams that wake, by key. For the event loop's thread alone, but for :meth:`stop`."""

    def __init__(self) -> None:
        self._known: dict[str | None, Waking] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_stopped = False

    @asynccontextmanager
    async def of(self, key: str | None, caller: CallerClient) -> AsyncIterator[Waking]:
        """What wakes whoever waits under a key; from then on each commit does.

        Args:
            key: The key.
            caller: The Flight server under that key.

        Raises:
            TimeDBError: the Flight server refuses it.
        """
        self._loop = asyncio.get_running_loop()
        waking = self._known.get(key)
        if waking is None:
            waking = self._known[key] = Waking(caller, partial(self._forget, key))
        waking.members += 1
        try:
            while not waking.told and not self.is_stopped:
                await waking.wait(0, _LINGER_SECONDS)
            yield waking
        finally:
            waking.members -= 1
            if not waking.members:
                self._loop.call_later(_LINGER_SECONDS, self._drop, key, waking)

    def stop(self) -> None:
        """Let nobody wait any longer, and end the streams; from any thread."""
        self.is_stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it is over
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        for waking in list(self._known.values()):
            waking.stop()

    def _forget(self, key: str | None) -> None:
        self._known.pop(key, None)

    def _drop(self, key: str | None, waking: Waking) -> None:
        if not waking.members and self._known.get(key) is waking:
            del self._known[key]
            waking.stop()
