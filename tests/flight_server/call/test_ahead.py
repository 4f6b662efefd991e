"""Batches read ahead of a client: few, in their order, with their errors, and none once it has gone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import eventually, read_ticket
from timedb.contract.errors import Conflict
from timedb.flight_server import FlightService
from timedb.flight_server.call.ahead import AHEAD_BATCHES, ReadAhead
from timedb.flight_server.call.boundary import _Batches

SCHEMA = pa.schema([("number", pa.int64())])


class Source:
    """Numbered batches, and what became of their generator."""

    def __init__(self, count: int, end: BaseException | None = None) -> None:
        self.made = 0
        self.closed = threading.Event()
        self._count = count
        self._end = end

    def reader(self) -> pa.RecordBatchReader:
        """A reader of them."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for number in range(self._count):
                self.made += 1
                yield pa.record_batch([pa.array([number])], schema=SCHEMA)
            if self._end is not None:
                raise self._end
        finally:
            self.closed.set()


def threads() -> int:
    """How many are at it."""
    return sum(thread.name == "timedb-read-ahead" for thread in threading.enumerate())


def test_batches_come_in_order_and_end() -> None:
    ahead = ReadAhead(Source(10).reader())
    assert [ahead.take().column(0)[0].as_py() for _ in range(10)] == list(range(10))
    for _ in range(2):
        with pytest.raises(StopIteration):
            ahead.take()


def test_no_more_are_made_than_lie_ready() -> None:
    source = Source(1000)
    ahead = ReadAhead(source.reader())
    eventually(lambda: source.made == AHEAD_BATCHES)
    for taken in range(1, 5):
        ahead.take()
        eventually(lambda: source.made == AHEAD_BATCHES + taken)  # noqa: B023  # asked for before the next round
    assert not source.closed.is_set()
    ahead.stop()
    assert source.closed.wait(10)
    assert source.made <= AHEAD_BATCHES + 5


def test_an_error_comes_after_the_batches_before_it() -> None:
    ahead = ReadAhead(Source(3, Conflict("run_id: is there")).reader())
    assert [ahead.take().num_rows for _ in range(3)] == [1, 1, 1]
    with pytest.raises(Conflict, match="run_id"):
        ahead.take()


@pytest.mark.parametrize("chunks", [0, 1, 5])
@pytest.mark.parametrize("how", ["cancel", "drop"])
def test_a_client_that_goes_away_ends_the_thread(
    client: flight.FlightClient, wide_read: dict[str, Any], how: str, chunks: int
) -> None:
    stream = client.do_get(read_ticket(**wide_read))
    for _ in range(chunks):
        stream.read_chunk()
    leave: Callable[[], None] = stream.cancel if how == "cancel" else lambda: None
    leave()
    del stream, leave
    eventually(lambda: threads() == 0)


def test_a_stream_read_to_its_end_leaves_no_thread(client: flight.FlightClient, wide_read: dict[str, Any]) -> None:
    assert client.do_get(read_ticket(**wide_read)).read_all().num_rows == 400_000
    eventually(lambda: threads() == 0)


@pytest.mark.parametrize("how", ["whole", "cancelled", "dropped"])
def test_a_stream_that_has_ended_is_forgotten(
    client: flight.FlightClient, flight_service: FlightService, wide_read: dict[str, Any], how: str
) -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(each, (_Batches, ReadAhead)) for each in gc.get_objects())

    eventually(lambda: flight_service.calls_in_flight == 0)
    before = alive()
    for _ in range(3):
        stream = client.do_get(read_ticket(**wide_read))
        if how == "whole":
            stream.read_all()
        else:
            stream.read_chunk()
        if how == "cancelled":
            stream.cancel()
        del stream
    eventually(lambda: alive() <= before)
