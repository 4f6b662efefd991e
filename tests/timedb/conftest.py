"""A client of the session's service, names that no other test uses, and Flight servers that fail to order."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

from timedb.client import Client, connect
from timedb.run.launch import Service

T0 = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[Client]:
    with connect(service.flight_url) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A name for a series of this test alone."""
    return f"series-{uuid4()}"


def frame(name: str, values: Sequence[float | None], start: datetime = T0) -> pl.DataFrame:
    """Hourly values of one series."""
    times = [start + timedelta(hours=hour) for hour in range(len(values))]
    columns = {"series_key": [name] * len(values), "valid_time": times, "value": values}
    return pl.DataFrame(columns, schema_overrides={"valid_time": pl.Datetime("us", "UTC"), "value": pl.Float64})


class ScriptedServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """A Flight server whose answers a test writes: each method calls the function of its name."""

    def __init__(self, **script: Callable[..., Any]) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.url = f"grpc://127.0.0.1:{self.port}"
        self.script = script

    def do_action(self, context: Any, action: Any) -> Any:
        return [self.script["do_action"](action.type, json.loads(action.body.to_pybytes()))]

    def do_get(self, context: Any, ticket: Any) -> Any:
        schema = pa.schema([("value", pa.float64())])
        return flight.GeneratorStream(schema, self.script["do_get"](json.loads(ticket.ticket)))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        self.script["do_put"](json.loads(descriptor.command), reader, writer)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers, and stops them after the test."""
    servers: list[ScriptedServer] = []

    def start(**script: Callable[..., Any]) -> ScriptedServer:
        servers.append(ScriptedServer(**script))
        return servers[-1]

    yield start
    for server in servers:
        stopping = threading.Thread(target=server.shutdown, daemon=True)
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive(), "a test left a call open"


def flight_error(
    code: str, detail: str = "what is wrong", cls: type[Exception] = flight.FlightServerError
) -> Exception:
    """An error as the contract puts it on the wire."""
    said = {"code": code, "message": "fixed", "detail": detail, "request_id": "request-1"}
    return cls(f"{code}: {detail}", json.dumps(said).encode())
