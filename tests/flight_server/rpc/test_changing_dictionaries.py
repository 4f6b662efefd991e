"""Dictionaries that change within a stream, replaced or grown by deltas: a batch means the names that it came with."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.appends import Stream, code_of
from tests.flight_server.flights import TIMESTAMP, command, hours, read
from tests.flight_server.sql_client import connected
from timedb.client import connect
from timedb.flight_server import FlightService

if TYPE_CHECKING:
    from timedb.run.launch import Service

# Of each batch the names of its dictionary, and which of them its rows are; the last dictionary begins as that before.
BATCHES: list[tuple[str, list[int]]] = [("a", [0]), ("b", [0]), ("ba", [0, 1]), ("bac", [2, 0])]
MEANT = ["a", "b", "b", "a", "c", "b"]
SCHEMA = pa.schema([("series_key", pa.dictionary(pa.int8(), pa.string())), ("valid_time", TIMESTAMP), ("value", "f8")])
DELTAS = pytest.mark.parametrize("deltas", [False, True], ids=["replaced", "deltas"])


def batches(name: str, add: float = 0.0) -> list[pa.RecordBatch]:
    """Six rows an hour apart, whose values count them; some names at int8's and the dictionary's own places."""
    found, count = [], 0
    for names, indices in BATCHES:
        keys = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), [f"{name}-{each}" for each in names])
        times = hours(6)[count : count + len(indices)]
        values = [count + number + add for number in range(len(indices))]
        found.append(pa.record_batch([keys, times, pa.array(values, pa.float64())], schema=SCHEMA))
        count += len(indices)
    return found


def options(deltas: bool) -> pa.ipc.IpcWriteOptions:
    return pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)


def streamed(name: str, add: float, *, deltas: bool) -> bytes:
    """The batches as one stream of Arrow."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA, options=options(deltas)) as writer:
        for batch in batches(name, add):
            writer.write_batch(batch)
    kinds = writer.stats.num_dictionary_deltas, writer.stats.num_replaced_dictionaries
    assert kinds == ((2, 1) if deltas else (0, 3))
    return sink.getvalue()


def put(client: flight.FlightClient, op: str, parts: list[pa.RecordBatch], deltas: bool) -> dict[str, Any]:
    descriptor = flight.FlightDescriptor.for_command(command(op, {"rows": 6}))
    writer, reader = client.do_put(descriptor, SCHEMA, flight.FlightCallOptions(write_options=options(deltas)))
    for batch in parts:
        writer.write_batch(batch)
    writer.done_writing()
    receipt: dict[str, Any] = json.loads(reader.read().to_pybytes())
    writer.close()
    return receipt


def stored(client: flight.FlightClient, name: str) -> list[tuple[str, float]]:
    """Whose value each hour's is, in the order of hours."""
    keys = [f"{name}-{each}" for each in "abc"]
    rows = read(client, series_keys=keys, columns=["series_key", "valid_time", "value"]).sort_by("valid_time")
    found = zip(rows["series_key"].to_pylist(), rows["value"].to_pylist(), strict=True)
    return [(key.removeprefix(f"{name}-"), value) for key, value in found]


def meant(add: float = 0.0) -> list[tuple[str, float]]:
    return [(key, number + add) for number, key in enumerate(MEANT)]


@DELTAS
def test_uploads_corrections_and_lookups_over_flight(client: flight.FlightClient, name: str, deltas: bool) -> None:
    assert len(put(client, "upload", batches(name), deltas)["series_ids"]) == 3
    assert stored(client, name) == meant()
    assert put(client, "correct", batches(name, 10), deltas)["updated"] == 6
    assert stored(client, name) == meant(10)
    asked = flight.FlightCallOptions(write_options=options(deltas))
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command("lookup", {})), asked)
    schema = pa.schema(list(SCHEMA)[:2])
    writer.begin(schema)
    found: list[tuple[str, float | None]] = []
    for batch in batches(name):
        writer.write_batch(batch.select(schema.names))
        answer = reader.read_chunk().data
        answer.validate(full=True)
        found += zip(answer["series_key"].to_pylist(), answer["value"].to_pylist(), strict=True)
    writer.done_writing()
    writer.close()
    assert [(key.removeprefix(f"{name}-"), value) for key, value in found] == meant(10)


def test_appended_runs(client: flight.FlightClient, name: str) -> None:
    stream = Stream(client, SCHEMA, options=flight.FlightCallOptions(write_options=options(True)))
    for seq, batch in enumerate(batches(name)):
        stream.run(seq, pa.Table.from_batches([batch]), f"{name}-{seq}")
    assert [code_of(answer) for answer in stream.end().values()] == ["ok"] * len(BATCHES)
    assert stored(client, name) == meant()


def test_the_python_client_and_the_driver_of_sql(
    flight_service: FlightService, client: flight.FlightClient, name: str
) -> None:
    reader = pa.RecordBatchReader.from_batches(SCHEMA, batches(name))
    with connected(flight_service.url) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("values", reader, mode="append") == 6
    assert stored(client, name) == meant()
    with connect(flight_service.url) as ours:
        ours.correct(pa.RecordBatchReader.from_batches(SCHEMA, batches(name, 10)))
        assert stored(client, name) == meant(10)
        ours.upload(pa.RecordBatchReader.from_batches(SCHEMA, batches(f"{name}-again")))
        assert stored(client, f"{name}-again") == meant()
        found = ours.lookup(pa.Table.from_batches(batches(name)).select(["series_key", "valid_time"]))
    assert found["value"].to_list() == [value for _, value in meant(10)]


@DELTAS
def test_streams_of_arrow_over_rest(service: Service, name: str, deltas: bool) -> None:
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    with httpx.Client(base_url=service.rest_url, headers=kind, timeout=60) as rest:
        answer = rest.post("/runs", content=streamed(name, 0, deltas=deltas))
        assert answer.status_code == 200, answer.text
        answer = rest.put("/values", content=streamed(name, 10, deltas=deltas))
        assert answer.json()["updated"] == 6, answer.text
    with flight.connect(service.flight_url) as client:
        assert stored(client, name) == meant(10)
