"""Plain ``pyarrow.flight`` calls as the tests make them, and what an error must look like when it arrives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from timedb.contract.errors import error_for_code
from timedb.flight_server import FlightService
from timedb.flight_server.call.errors import FLIGHT_CLASSES

Start = Callable[..., FlightService]
"""The fixture ``start``: a server of its own, with settings."""
Connect = Callable[[FlightService], flight.FlightClient]
TIMESTAMP = pa.timestamp("us", tz="UTC")
START = datetime(2025, 1, 1, tzinfo=UTC)
INSIDE = ("Traceback", ".py", "site-packages", "File ", "/work", "/tmp", "/home", "/root")
"""What no client may ever read."""


class Failure:
    """An error that a client got; filled in when the ``with`` block is left."""

    detail: str
    request_id: str


@contextmanager
def fails(code: str, *parts: str) -> Iterator[Failure]:
    """The block must fail with this code, in the right form, say ``parts``, and show nothing of the inside."""
    failure = Failure()
    with pytest.raises(FLIGHT_CLASSES[type(error_for_code(code))]) as caught:
        yield failure
    assert type(caught.value) is FLIGHT_CLASSES[type(error_for_code(code))]
    extra: bytes = caught.value.extra_info  # type: ignore[attr-defined]  # pyarrow ships no types
    body = json.loads(extra)
    assert set(body) - {"field"} == {"code", "message", "detail", "request_id"}
    assert body["detail"].startswith(body.get("field", ""))
    assert body["code"] == code
    assert body["message"] == error_for_code(code).summary
    assert str(caught.value).startswith(f"{code}: {body['detail']}")
    shown = str(caught.value) + extra.decode()
    assert not [each for each in INSIDE if each in shown], shown
    assert not [part for part in parts if part not in body["detail"]], body["detail"]
    failure.detail, failure.request_id = body["detail"], body["request_id"]


def act(client: flight.FlightClient, action: str, body: dict[str, Any] | bytes = b"", **options: Any) -> dict[str, Any]:
    """Run an action and give its one result."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    results = list(client.do_action(flight.Action(action, data), flight.FlightCallOptions(**options)))
    assert len(results) == 1
    answer: dict[str, Any] = json.loads(results[0].body.to_pybytes())
    return answer


def command(op: str, fields: dict[str, Any]) -> bytes:
    """A command or ticket."""
    return json.dumps({"op": op, **fields}).encode()


def upload_command(**fields: Any) -> flight.FlightDescriptor:
    """The descriptor of an upload."""
    return flight.FlightDescriptor.for_command(command("upload", fields))


def read_command(**fields: Any) -> flight.FlightDescriptor:
    """The descriptor of a read."""
    return flight.FlightDescriptor.for_command(command("read", fields))


def read_ticket(**fields: Any) -> flight.Ticket:
    """The ticket of a read."""
    return flight.Ticket(command("read", fields))


def read(client: flight.FlightClient, **fields: Any) -> pa.Table:
    """All rows of a read."""
    return client.do_get(read_ticket(**fields)).read_all()


def send(
    client: flight.FlightClient,
    data: pa.Table | Sequence[pa.RecordBatch],
    *,
    marker: int | bytes | None = None,
    chunk_rows: int = 65_536,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Upload and give all metadata that came back. ``marker`` is the row count, or the very bytes, to confirm with."""
    batches = data.to_batches(max_chunksize=chunk_rows) if isinstance(data, pa.Table) else data
    schema = data.schema if isinstance(data, pa.Table) else data[0].schema
    writer, reader = client.do_put(upload_command(**fields), schema)
    for batch in batches:
        writer.write_batch(batch)
    if marker is not None:
        writer.write_metadata(marker if isinstance(marker, bytes) else commit_marker(marker))
    writer.done_writing()
    messages = []
    while (message := reader.read()) is not None:
        messages.append(json.loads(message.to_pybytes()))
    writer.close()
    return messages


def commit_marker(rows: int) -> bytes:
    """The last message of an upload."""
    return json.dumps({"commit": True, "rows": rows}).encode()


def rows_of(name: str, count: int = 3, **columns: Any) -> pa.Table:
    """So many hourly rows of a series; ``columns`` replace or add."""
    data = {
        "series_key": pa.array([name] * count),
        "valid_time": hours(count),
        "value": pa.array(np.arange(count, dtype=np.float64)),
    }
    return pa.table({**data, **columns})


def hours(count: int, start: datetime = START) -> pa.Array:
    """So many hours."""
    return pa.array([start + timedelta(hours=index) for index in range(count)], TIMESTAMP)


def many_rows(name: str, count: int, series: int = 100) -> pa.Table:
    """So many rows, spread over so many series ``<name>-0``, ``<name>-1``, …"""
    index = np.arange(count)
    names = pa.array([f"{name}-{number}" for number in range(series)])
    return pa.table(
        {
            "series_key": pa.DictionaryArray.from_arrays(pa.array((index % series).astype(np.int32)), names),
            "valid_time": pa.array(index // series * 3_600_000_000, pa.int64()).cast(TIMESTAMP),
            "value": np.random.default_rng(7).random(count),
        }
    )


def series_named(client: flight.FlightClient, name: str) -> list[dict[str, Any]]:
    """What the server knows of a name."""
    series: list[dict[str, Any]] = act(client, "list_series", {"name": name})["series"]
    return series


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("did not come true")
        time.sleep(0.02)
