"""The client for programs that run on an event loop: each call of :class:`~timedb.client.Client`, made on a thread.

The same methods with the same arguments, awaited; ``async for`` follows, ``async with`` writes. Cancelling the task
of a call does not end the call: the client's ``timeout`` and ``stream_timeout`` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from timedb.client.client import Client
from timedb.client.client import connect as connect_client
from timedb.client.writer import Writer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import polars as pl

    from timedb.client.following import Follower
    from timedb.client.receipt import Receipt

__all__ = ["AsyncClient", "AsyncWriter", "connect"]

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(
    method: Callable[Concatenate[Client, P], R],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]:
    @wraps(method)
    async def call(self: AsyncClient, /, *args: P.args, **fields: P.kwargs) -> R:
        return await asyncio.to_thread(method, self.client, *args, **fields)

    return call


def _iterated(
    method: Callable[Concatenate[Client, P], Follower],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[tuple[pl.DataFrame, str]]]:
    @wraps(method)
    async def follow(
        self: AsyncClient, /, *args: P.args, **fields: P.kwargs
    ) -> AsyncIterator[tuple[pl.DataFrame, str]]:
        on_thread = asyncio.get_running_loop().run_in_executor
        waiting = ThreadPoolExecutor(1, "timedb-aio-follow")  # one of its own, as it waits without end
        follower = None
        try:
            follower = await on_thread(waiting, partial(method, self.client, *args, **fields))
            while (found := await on_thread(waiting, next, follower, None)) is not None:
                yield found
        finally:
            if follower is not None:
                follower.close()
            waiting.shutdown(wait=False)

    return follow


def _written(
    method: Callable[Concatenate[Client, P], Writer],
) -> Callable[Concatenate[AsyncClient, P], AbstractAsyncContextManager[AsyncWriter]]:
    @wraps(method)
    @asynccontextmanager
    async def writer(self: AsyncClient, /, *args: P.args, **fields: P.kwargs) -> AsyncIterator[AsyncWriter]:
        writing = method(self.client, *args, **fields)
        try:
            yield AsyncWriter(writing)
        except BaseException as error:
            await asyncio.to_thread(writing.__exit__, type(error), error, None)
            raise
        await asyncio.to_thread(writing.close)

    return writer


def _sent(
    method: Callable[Concatenate[Writer, P], Future[Receipt]],
) -> Callable[Concatenate[AsyncWriter, P], Coroutine[Any, Any, Receipt]]:
    @wraps(method)
    async def upload(self: AsyncWriter, /, *args: P.args, **fields: P.kwargs) -> Receipt:
        return await asyncio.wrap_future(await asyncio.to_thread(method, self.writer, *args, **fields))

    return upload


class AsyncWriter:
    """A :class:`~timedb.Writer`, made by :meth:`AsyncClient.writer`. What is awaited is durable; ``asyncio.gather`` has
    many runs under way at once, in no order.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    upload = _sent(Writer.upload)


class AsyncClient:
    """A :class:`~timedb.Client` on an event loop, made by :func:`connect`; ``client`` is the one that blocks.

    ``follow`` begins with the first step of its ``async for``.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    close = _awaited(Client.close)
    upload, upload_file, writer = _awaited(Client.upload), _awaited(Client.upload_file), _written(Client.writer)
    update_values, correct = _awaited(Client.update_values), _awaited(Client.correct)
    read, read_arrow, read_pandas = _awaited(Client.read), _awaited(Client.read_arrow), _awaited(Client.read_pandas)
    follow, lookup, accuracy = _iterated(Client.follow), _awaited(Client.lookup), _awaited(Client.accuracy)
    sql = _awaited(Client.sql)
    get_run, list_runs = _awaited(Client.get_run), _awaited(Client.list_runs)
    withdraw_run, restore_run = _awaited(Client.withdraw_run), _awaited(Client.restore_run)
    create_series, create_many_series = _awaited(Client.create_series), _awaited(Client.create_many_series)
    list_series, series_labels = _awaited(Client.list_series), _awaited(Client.series_labels)
    update_series = _awaited(Client.update_series)
    status, health = _awaited(Client.status), _awaited(Client.health)
    compact, maintain = _awaited(Client.compact), _awaited(Client.maintain)
    apply_retention = _awaited(Client.apply_retention)


def connect(*args: Any, **fields: Any) -> AsyncClient:
    """A client of a Flight server, for a loop; arguments as of :func:`timedb.connect`. It connects at the first call.

    Examples:
        >>> async def newest() -> float:
        ...     async with aio.connect() as client:
        ...         rows = await client.read(series_keys="wind", view="latest")
        ...         return rows["value"][0]
    """
    return AsyncClient(connect_client(*args, **fields))
