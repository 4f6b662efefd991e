"""The client on an event loop: the same calls, and a loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import polars as pl
import pytest

from tests.timedb.conftest import T0, frame
from timedb import aio
from timedb.client import Client
from timedb.contract.errors import NotFound
from timedb.run.launch import Service

# What the gateway is made of, and what gives another blocking thing: to be had as ``client.client``.
BLOCKING = {"as_caller", "call", "send", "stream", "stream_sql", "follow_stream"}


def test_every_call_of_the_client_is_there() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")}
    assert {name for name in dir(aio.AsyncClient) if not name.startswith("_")} == public - BLOCKING
    assert aio.AsyncClient.read.__doc__ == Client.read.__doc__


def test_values_go_in_and_come_out_beside_a_loop(service: Service, name: str) -> None:
    async def main() -> None:
        async with aio.connect(service.flight_url) as client:
            assert (await client.upload(frame(name, [1.0, 2.0]), known_time=T0)).rows == 2
            rows, table = await asyncio.gather(client.read(series_keys=name), client.read_arrow(series_keys=name))
            assert rows["value"].to_list() == table["value"].to_pylist() == [1.0, 2.0]
            with pytest.raises(NotFound, match=f"no {name}"):
                await client.read(series_keys=f"no {name}")

    asyncio.run(main())


def test_it_follows_and_writes(service: Service, name: str) -> None:
    async def main() -> None:
        async with aio.connect(service.flight_url) as client:
            await client.create_series(name)
            token = [each async for _, each in client.follow(series_keys=name, wait=False)]
            assert token == []
            following = client.follow(series_keys=name, columns=["value"])
            async with client.writer(workflow_id="meters") as writer:
                sent = [
                    writer.upload(frame(name, [float(hour)], T0 + timedelta(hours=hour)), known_time=T0)
                    for hour in range(3)
                ]
                receipts = await asyncio.gather(*sent)
            assert [receipt.rows for receipt in receipts] == [1, 1, 1]
            seen = pl.Series(dtype=pl.Float64)
            async for rows, _ in following:
                seen = seen.append(rows["value"])
                if len(seen) == 3:
                    break
            assert sorted(seen) == [0.0, 1.0, 2.0]
            with pytest.raises(RuntimeError, match="ours"):
                async with client.writer():
                    raise RuntimeError("ours")

    asyncio.run(main())


def test_a_follower_that_is_cancelled_ends(service: Service, name: str) -> None:
    async def main() -> None:
        async with aio.connect(service.flight_url) as client:
            await client.create_series(name)
            begun = asyncio.Event()

            async def follow() -> None:
                async for _ in client.follow(series_keys=name):
                    begun.set()

            task = asyncio.create_task(follow())
            while not begun.is_set():
                await client.upload(frame(name, [1.0]), known_time=T0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
