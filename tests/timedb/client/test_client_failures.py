"""What becomes of calls that fail: each code is one class, wherever it is raised, and uploads are retried safely."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

import timedb as td
from tests.timedb.conftest import T0, ScriptedServer, flight_error, frame
from timedb.client import Client
from timedb.client.flight_errors import as_timedb_error
from timedb.contract.errors import error_classes, error_for_code
from timedb.contract.wire import Nothing, ReadCommand, UploadCommand

Start = Callable[..., ScriptedServer]
CODES = [cls.code for cls in error_classes()]
FLIGHT_CLASS = {
    "unauthenticated": flight.FlightUnauthenticatedError,
    "forbidden": flight.FlightUnauthorizedError,
    "busy": flight.FlightUnavailableError,
    "unavailable": flight.FlightUnavailableError,
    "timeout": flight.FlightTimedOutError,
    "internal": flight.FlightInternalError,
}
RECEIPT = {
    "run_id": "r",
    "rows": 3,
    "skipped": 0,
    "series_ids": {},
    "series": [],
    "change_time": "2025-01-01T00:00:00.000000+00:00",
    "table_version": 1,
}


def fail(code: str) -> Any:
    raise flight_error(code, cls=FLIGHT_CLASS.get(code, flight.FlightServerError))


def drain(reader: Any) -> tuple[int, dict[str, Any] | None]:
    """Read an upload to its end: rows, and the last metadata."""
    rows, marker = 0, None
    for chunk in reader:
        rows += chunk.data.num_rows if chunk.data is not None else 0
        if chunk.app_metadata is not None:
            marker = json.loads(chunk.app_metadata.to_pybytes())
    return rows, marker


@pytest.mark.parametrize("code", [*CODES, "of_a_later_release"])
def test_every_code_is_its_class_wherever_it_is_raised(scripted: Start, code: str) -> None:
    def broken_stream(ticket: object) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"value": [1.0]})
        fail(code)

    server = scripted(
        do_action=lambda *_: fail(code), do_get=broken_stream, do_put=lambda _, reader, __: (drain(reader), fail(code))
    )
    client = td.connect(server.url)
    stream = client.stream(ReadCommand())
    assert next(stream).num_rows == 1
    calls: list[Callable[[], object]] = [
        client.health,
        lambda: next(stream),
        lambda: client.read_arrow(),
        lambda: client.send(UploadCommand(run_id="r"), frame("load", [1.0]).to_arrow().to_reader()),
    ]
    for call in calls:
        with pytest.raises(td.TimeDBError) as caught:
            call()
        assert type(caught.value) is type(error_for_code(code))
        assert caught.value.detail == "what is wrong"
        assert caught.value.request_id == "request-1"
    client.close()


def test_a_code_in_the_message_alone_is_found_too() -> None:
    lost = pa.ArrowException("Unknown error: not_found: no series 'x'. Detail: Python exception: Traceback (most ...")
    error = as_timedb_error(lost, "grpc://host:1")
    assert type(error) is td.NotFound
    assert error.detail == "no series 'x'"


def test_an_error_of_no_protocol_of_ours_is_internal_and_shows_no_traceback(scripted: Start) -> None:
    client = td.connect(scripted(do_action=lambda *_: 1 / 0).url)
    with pytest.raises(td.Internal) as caught:
        client.health()
    assert "Traceback" not in caught.value.detail
    client.close()


def test_a_server_that_is_not_there_is_named() -> None:
    with td.connect("grpc://127.0.0.1:1") as client:
        for call in (client.status, lambda: client.read(), lambda: client.upload(frame("load", [1.0]))):
            with pytest.raises(td.Unavailable, match=r"^nothing listens at grpc://127\.0\.0\.1:1; start"):
                call()


def test_a_server_that_does_not_answer_is_a_timeout(scripted: Start) -> None:
    release = threading.Event()
    server = scripted(do_action=lambda *_: (release.wait(30), b"{}")[1])
    with td.connect(server.url, timeout=0.2) as client:
        with pytest.raises(td.Timeout):
            client.status()
        # What a write has done by then, nobody can say.
        with pytest.raises(td.OutcomeUnknown):
            client.create_series("load")
        release.set()


@pytest.mark.parametrize("answers", [[], [b"{}", b"[]"], [b"[]"], [b"nonsense"]])
def test_an_answer_that_is_none_is_internal(scripted: Start, answers: list[bytes]) -> None:
    server = scripted()
    server.do_action = lambda *_: answers  # type: ignore[method-assign]  # a server that breaks the contract
    with td.connect(server.url) as client, pytest.raises(td.Internal):
        client.call("status", Nothing())


def test_headers_carry_the_caller_and_never_break_a_call(scripted: Start) -> None:
    seen: list[dict[str, list[str]]] = []

    class Recorder(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
        def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
            seen.append(headers)

    class Listening(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
        def do_action(self, context: Any, action: Any) -> list[bytes]:
            return [b"{}"]

    server = Listening("grpc://127.0.0.1:0", middleware={"recorder": Recorder()})
    with td.connect(f"grpc://127.0.0.1:{server.port}", api_key="mine") as client:
        client.health()
        client.as_caller("theirs", "request-7").health()
        client.as_caller(None).health()
        for odd in ("a\r\nb", "é", " padded ", "x" * 100_000, ""):
            client.as_caller(odd, odd).health()
    server.shutdown()
    keys = [headers.get("x-api-key") for headers in seen]
    assert keys[:3] == [["mine"], ["theirs"], None]
    assert seen[1]["x-request-id"] == ["request-7"]
    assert keys[3:6] == [["a??b"], ["?"], ["padded"]]
    assert [len(key) for key in keys[6] or ()] == [1024]
    assert keys[7] is None


# Uploads


def test_an_early_refusal_reaches_a_client_that_is_still_sending(scripted: Start) -> None:
    def refuse(command: object, reader: Any, writer: object) -> None:
        reader.read_chunk()
        fail("too_large")

    data = pl.DataFrame({"value": range(5_000_000)})
    with td.connect(scripted(do_put=refuse).url) as client, pytest.raises(td.TooLarge, match="what is wrong"):
        client.upload(data)


def test_progress_that_nobody_reads_does_not_stop_an_upload(scripted: Start) -> None:
    def talk(command: object, reader: Any, writer: Any) -> None:
        for _ in reader:
            for _ in range(5_000):
                writer.write(b'{"received": 1}')
        writer.write(json.dumps(RECEIPT).encode())

    with td.connect(scripted(do_put=talk).url) as client:
        assert client.upload(pl.DataFrame({"value": range(3_000_000)})).rows == 3


def test_a_server_that_ends_without_a_receipt_is_internal(scripted: Start) -> None:
    server = scripted(do_put=lambda _, reader, __: drain(reader))
    with td.connect(server.url) as client, pytest.raises(td.Internal, match="without a receipt"):
        client.upload(frame("load", [1.0]))


def test_the_last_message_counts_the_rows(scripted: Start) -> None:
    received: list[tuple[int, dict[str, Any] | None]] = []

    def count(command: object, reader: Any, writer: Any) -> None:
        received.append(drain(reader))
        writer.write(json.dumps(RECEIPT).encode())

    with td.connect(scripted(do_put=count).url) as client:
        client.upload(pl.DataFrame({"value": range(200_001)}))
    assert received == [(200_001, {"commit": True, "rows": 200_001})]


def test_data_that_breaks_off_is_never_confirmed(scripted: Start) -> None:
    received: list[tuple[int, dict[str, Any] | None]] = []
    done = threading.Event()

    def count(command: object, reader: Any, writer: Any) -> None:
        received.append(drain(reader))
        done.set()
        fail("incomplete_upload")

    class Broken(Exception):
        pass

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"value": range(100_000)})
        raise Broken

    reader = pa.RecordBatchReader.from_batches(pa.schema([("value", pa.int64())]), batches())
    with td.connect(scripted(do_put=count).url) as client, pytest.raises(Broken):
        client.upload(reader)
    assert done.wait(10)
    assert received == [(100_000, None)]


class Relay:
    """Stands between a client and the real service, and fails some uploads before or after passing them on."""

    def __init__(self, client: Client, fail_times: int, how: Callable[[], object], *, passes_on: bool) -> None:
        self.client = client
        self.left = fail_times
        self.how = how
        self.passes_on = passes_on
        self.run_ids: list[str] = []

    def do_put(self, command: dict[str, Any], reader: Any, writer: Any) -> None:
        self.run_ids.append(command["run_id"])
        table = reader.read_all()
        receipt = None
        if self.passes_on or not self.left:
            receipt = self.client.send(UploadCommand.model_validate_json(json.dumps(command)), table.to_reader())
        if self.left:
            self.left -= 1
            self.how()
        writer.write(json.dumps(receipt).encode())


def lose_connection() -> None:
    raise flight.FlightUnavailableError("Socket closed")


HOW: dict[str, Callable[[], object]] = {
    "busy": lambda: fail("busy"),
    "timeout": lambda: fail("timeout"),
    "outcome_unknown": lambda: fail("outcome_unknown"),
    "lost connection": lose_connection,
}


@pytest.mark.parametrize("passes_on", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_a_failed_upload_is_sent_again_under_its_run_id(
    scripted: Start, client: Client, name: str, how: str, passes_on: bool
) -> None:
    relay = Relay(client, 2, HOW[how], passes_on=passes_on)
    with td.connect(scripted(do_put=relay.do_put).url) as through:
        receipt = through.upload(frame(name, [1.0, 2.0]), known_time=T0)
    assert relay.run_ids == [receipt.run_id] * 3
    assert client.read(series_keys=name, view="overlapping").height == 2


def test_what_is_read_once_is_sent_once(scripted: Start, client: Client, name: str) -> None:
    relay = Relay(client, 1, HOW["busy"], passes_on=False)
    with td.connect(scripted(do_put=relay.do_put).url) as through, pytest.raises(td.Busy):
        through.upload(frame(name, [1.0]).to_arrow().to_reader())
    assert len(relay.run_ids) == 1


def test_errors_that_a_retry_cannot_mend_are_not_retried(scripted: Start) -> None:
    attempts: list[object] = []

    def refuse(command: object, reader: Any, writer: object) -> None:
        attempts.append(drain(reader))
        fail("conflict")

    with td.connect(scripted(do_put=refuse).url) as client, pytest.raises(td.Conflict):
        client.upload(frame("load", [1.0]))
    assert len(attempts) == 1


def test_an_upload_whose_answers_are_all_lost_says_how_to_settle_it(scripted: Start, client: Client, name: str) -> None:
    relay = Relay(client, 100, lose_connection, passes_on=True)
    with (
        td.connect(scripted(do_put=relay.do_put).url) as through,
        pytest.raises(td.OutcomeUnknown, match=f"run_id='{name}' to settle it"),
    ):
        through.upload(frame(name, [1.0]), run_id=name, known_time=T0)
    assert client.upload(frame(name, [1.0]), run_id=name, known_time=T0).rows == 1
    assert client.read(series_keys=name, view="overlapping", start_valid=T0 - timedelta(1)).height == 1
