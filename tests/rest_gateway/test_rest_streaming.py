"""Long answers: sent as they come, given up when nobody reads, cut when they cannot be finished."""

from __future__ import annotations

import collections
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.rest_gateway.calls import assert_error, serving
from timedb.client import connect
from timedb.contract.settings import ServerSettings, load_settings
from timedb.rest_gateway import create_app
from timedb.rest_gateway.http import streaming

if TYPE_CHECKING:
    from timedb.run.launch import Service

ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
ROWS = 150_000


def load(flight_url: str, name: str, rows: int) -> None:
    """A series of a value a second."""
    times = np.datetime64("2025-01-01", "us") + np.arange(rows) * np.timedelta64(1, "s")
    table = pa.table(
        {
            "series_key": pa.array([name] * rows).dictionary_encode(),
            "valid_time": pa.array(times).cast(pa.timestamp("us", "UTC")),
            "value": np.arange(rows) / 8,
        }
    )
    with connect(flight_url) as client:
        client.upload(table)


def test_a_long_answer_is_streamed_whole(service: Service, rest: httpx.Client) -> None:
    load(service.flight_url, "long", ROWS)
    answer = rest.get("/values", params={"name": "long"})
    assert answer.headers["transfer-encoding"] == "chunked"
    data = answer.json()
    assert data["count"] == len(data["data"]) == ROWS
    assert [row["value"] for row in data["data"]] == [row / 8 for row in range(ROWS)]
    start = datetime(2025, 1, 1, tzinfo=UTC)
    assert [row["valid_time"] for row in data["data"]] == [
        (start + timedelta(seconds=row)).isoformat(timespec="microseconds") for row in range(ROWS)
    ]
    table = pa.ipc.open_stream(rest.get("/values", params={"name": "long"}, headers={"Accept": ARROW}).content)
    assert table.read_all()["value"].to_pylist() == [row / 8 for row in range(ROWS)]


@pytest.mark.parametrize("stays", [False, True], ids=["goes away", "stays and reads nothing"])
def test_a_reader_that_reads_no_more_frees_its_place(
    new_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    service = new_service(max_concurrent_reads=1)
    load(service.flight_url, "big", 1_000_000)
    if stays:
        monkeypatch.setattr(streaming, "_STALLED_SECONDS", 0.2)
    target = urlsplit(service.rest_url)
    with (
        httpx.Client(base_url=service.rest_url, timeout=30) as rest,
        socket.create_connection((target.hostname, target.port or 80)) as reader,
    ):
        reader.sendall(b"GET /values?name=big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reader.recv(4096).startswith(b"HTTP/1.1 200")
        if not stays:
            assert_error(rest.get("/values", params={"name": "big", "limit": 1}), 503, "busy")
            reader.close()
        deadline = time.monotonic() + 30
        while (answer := rest.get("/values", params={"name": "big", "limit": 1})).status_code == 503:
            assert time.monotonic() < deadline
        assert [row["value"] for row in answer.json()["data"]] == [0.0]


class BreaksOff(flight.FlightServerBase):  # type: ignore[misc] # pyarrow ships no types
    """A Flight server that fails in the middle of every read."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        names = json.loads(ticket.ticket)["columns"]
        schema = pa.schema([("valid_time", pa.timestamp("us", "UTC")), *((name, pa.string()) for name in names[1:])])
        schema = schema.set(2, pa.field("value", pa.float64())).with_metadata({"token": "of this answer"})

        def batches() -> Iterator[pa.RecordBatch]:
            row = dict.fromkeys(names, "x") | {"valid_time": datetime(2025, 1, 1, tzinfo=UTC), "value": 0.5}
            yield pa.RecordBatch.from_pylist([row] * 10_000, schema)
            said = {"code": "timeout", "message": "fixed", "detail": "too slow", "request_id": "there"}
            raise flight.FlightTimedOutError("timeout: too slow", json.dumps(said).encode())

        return flight.GeneratorStream(schema, batches())


def test_an_answer_that_breaks_off_cannot_be_taken_for_whole(caplog: pytest.LogCaptureFixture) -> None:
    with (
        BreaksOff() as server,
        serving(create_app(f"grpc://127.0.0.1:{server.port}", load_settings(ServerSettings))) as rest,
    ):
        for accept, coding in itertools.product(("application/json", ARROW, "text/csv", NDJSON), ("", "gzip", "zstd")):
            headers = {"Accept": accept, "Accept-Encoding": coding, "X-Request-Id": "here"}
            with rest.stream("GET", "/values", headers=headers) as answer:
                assert (answer.status_code, answer.headers.get("content-encoding", "")) == (200, coding)
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                    collections.deque(answer.iter_raw(), 0)
        assert rest.get("/").status_code == 200
    broken = [record.getMessage() for record in caplog.records if "broken off" in record.getMessage()]
    assert len(broken) == 4 * 3
    assert "request_id=here" in broken[-1]


def test_a_short_answer_that_breaks_off_is_an_error() -> None:
    class Short(BreaksOff):
        def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
            schema = pa.schema([("valid_time", pa.timestamp("us", "UTC"))], {"token": "of this answer"})

            def batches() -> Iterator[pa.RecordBatch]:
                yield pa.RecordBatch.from_pylist([{"valid_time": datetime(2025, 1, 1, tzinfo=UTC)}], schema)
                raise flight.FlightTimedOutError("timeout: too slow")

            return flight.GeneratorStream(schema, batches())

    with (
        Short() as server,
        serving(create_app(f"grpc://127.0.0.1:{server.port}", load_settings(ServerSettings))) as rest,
    ):
        assert_error(rest.get("/values"), 504, "timeout")
