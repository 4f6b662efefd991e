"""What leaves the server when a handler or a stream fails: tried on a real server whose handlers fail on demand."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import INSIDE, eventually, fails
from timedb.contract.errors import Conflict, TimeDBError
from timedb.flight_server.call.boundary import MIDDLEWARE_KEY, guarded_stream, rpc
from timedb.flight_server.call.context import CallContext, RequestIds
from timedb.flight_server.call.errors import FLIGHT_CLASSES, to_schema_error
from timedb.flight_server.call.slots import Slots

SCHEMA = pa.schema([("key", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())], {b"version": b"7"})


def panic() -> None:
    """Fail as Polars does when it panics: not with an ``Exception``."""
    raise pl.exceptions.PanicException("at /secret/place.rs")


def fail_with(error: BaseException) -> Callable[[], None]:
    """A function that raises it."""

    def fail() -> None:
        raise error

    return fail


FOREIGN: dict[str, Callable[[], None]] = {
    "value": fail_with(ValueError("/secret/place")),
    "key": fail_with(KeyError("/secret/place")),
    "missing file": fail_with(FileNotFoundError(2, "no such file", "/secret/place")),
    "memory": fail_with(MemoryError()),
    "arrow": fail_with(pa.ArrowInvalid("/secret/place")),
    "not implemented": fail_with(NotImplementedError("/secret/place")),
    "a bare Flight error": fail_with(flight.FlightUnavailableError("/secret/place", b"/secret/place")),
    "panic": panic,
    "exit": fail_with(SystemExit(3)),
    "interrupt": fail_with(KeyboardInterrupt()),
    "generator exit": fail_with(GeneratorExit()),
    "stop": fail_with(StopIteration("/secret/place")),
}
OURS: dict[str, Callable[[], None]] = {
    cls.code: fail_with(cls("limit: 7")) for cls in FLIGHT_CLASSES if cls is not TimeDBError
}


def batch(*keys: str) -> pa.RecordBatch:
    """A batch whose dictionary is its own."""
    return pa.record_batch(
        [pa.array(keys).dictionary_encode(), pa.array([float(len(key)) for key in keys])], schema=SCHEMA
    )


class FailingServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """Does as it is told: the ticket, command or action names what is to happen."""

    def __init__(self) -> None:
        self.ended = threading.Semaphore(0)
        self.slots = Slots("reads", 1000, 600.0)
        super().__init__("grpc://127.0.0.1:0", middleware={MIDDLEWARE_KEY: RequestIds()})

    def admit(self, call: CallContext) -> None:
        call.hold(self.ended.release)

    @rpc("do_action")
    def do_action(self, call: CallContext, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        {**FOREIGN, **OURS}[action.type]()
        return []

    @rpc("get_schema", to_schema_error)
    def get_schema(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        {**FOREIGN, **OURS}[descriptor.command.decode()]()

    @rpc("do_put")
    def do_put(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        if descriptor.command == b"{}":
            raise Conflict("run_id: is there")
        reader.read_chunk()
        writer.write(b"{}")
        {**FOREIGN, **OURS}[descriptor.command.decode()]()

    @rpc("do_exchange")
    def do_exchange(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        chunk = reader.read_chunk()
        writer.begin(chunk.data.schema)
        writer.write_batch(chunk.data)
        {**FOREIGN, **OURS}[descriptor.command.decode()]()

    @rpc("get_flight_info")
    def get_flight_info(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        {**FOREIGN, **OURS}[descriptor.command.decode()]()

    @rpc("list_flights")
    def list_flights(
        self, call: CallContext, context: flight.ServerCallContext, criteria: bytes
    ) -> list[flight.FlightInfo]:
        {**FOREIGN, **OURS}[criteria.decode()]()
        return []

    @rpc("do_get")
    def do_get(
        self, call: CallContext, context: flight.ServerCallContext, ticket: flight.Ticket
    ) -> flight.GeneratorStream:
        what = ticket.ticket.decode()
        return guarded_stream(call, pa.RecordBatchReader.from_batches(SCHEMA, self.batches(what)), self.slots.lease())

    def batches(self, what: str) -> Iterator[pa.RecordBatch]:
        """What the ticket asks for."""
        if what == "endless":
            while True:
                yield batch(*["x"] * 10_000)
        if what == "nothing":
            return
        if what != "at once":
            yield batch("a", "b")
            yield batch("c")
            yield batch("a", "b", "d")
        if what == "another schema":
            yield pa.record_batch({"value": [1.0]})
        {**FOREIGN, **OURS, "at once": OURS["busy"]}.get(what, lambda: None)()


@pytest.fixture(scope="module")
def failing_server() -> Iterator[FailingServer]:
    """The server."""
    server = FailingServer()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def failing(failing_server: FailingServer) -> Iterator[flight.FlightClient]:
    """A client of it."""
    with flight.connect(f"grpc://127.0.0.1:{failing_server.port}") as client:
        yield client


def calls_ended(server: FailingServer) -> int:
    """How many calls have ended since this was asked last."""
    count = 0
    while server.ended.acquire(blocking=False):
        count += 1
    return count


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_exception_is_an_internal_error(
    failing: flight.FlightClient, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    with caplog.at_level(logging.INFO, "timedb.flight"), fails("internal", "the service failed") as failure:
        list(failing.do_action(flight.Action(what, b"")))
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [failure.request_id in record.getMessage() for record in logged] == [True]
    assert logged[0].exc_info, "the log has the traceback that the client has not"


@pytest.mark.parametrize("code", OURS)
def test_our_errors_keep_their_code(failing: flight.FlightClient, code: str) -> None:
    with fails(code):
        list(failing.do_action(flight.Action(code, b"")))


@pytest.mark.parametrize("what", [*FOREIGN, *OURS])
def test_every_class_goes_through_every_method(failing: flight.FlightClient, what: str) -> None:
    code = what if what in OURS else "internal"
    rows = pa.record_batch({"value": [1.0]})
    descriptor = flight.FlightDescriptor.for_command(what.encode())
    with fails(code):
        failing.get_flight_info(descriptor)
    with fails(code):
        list(failing.list_flights(what.encode()))
    with fails(code):
        writer, _ = failing.do_put(descriptor, rows.schema)
        writer.write_batch(rows)
        writer.done_writing()
        writer.close()
    writer, reader = failing.do_exchange(descriptor)
    writer.begin(rows.schema)
    writer.write_batch(rows)
    assert reader.read_chunk().data.equals(rows)
    with fails(code):
        reader.read_chunk()
    with suppress(flight.FlightError, OSError):
        writer.close()


@pytest.mark.parametrize("what", [*FOREIGN, *OURS])
def test_an_error_in_mid_stream_keeps_its_class_and_body(failing: flight.FlightClient, what: str) -> None:
    reader = failing.do_get(flight.Ticket(what))
    batches = []
    with fails(what if what in OURS else "internal"):
        while True:
            batches.append(reader.read_chunk().data)
    assert [each.column(0).to_pylist() for each in batches] == [["a", "b"], ["c"], ["a", "b", "d"]]


def test_an_error_before_the_first_batch(failing: flight.FlightClient) -> None:
    with fails("busy", "limit: 7"):
        failing.do_get(flight.Ticket("at once")).read_all()


def test_a_batch_of_another_schema_is_our_fault(failing: flight.FlightClient) -> None:
    with fails("internal"):
        failing.do_get(flight.Ticket("another schema")).read_all()


def test_dictionaries_that_change_from_batch_to_batch_arrive_right(failing: flight.FlightClient) -> None:
    table = failing.do_get(flight.Ticket("all")).read_all()
    assert table.schema.metadata == {b"version": b"7"}
    assert table.column("key").cast(pa.string()).to_pylist() == ["a", "b", "c", "a", "b", "d"]
    table.validate(full=True)


def test_a_stream_of_nothing_has_a_schema(failing: flight.FlightClient) -> None:
    table = failing.do_get(flight.Ticket("nothing")).read_all()
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA, check_metadata=True)


@pytest.mark.parametrize("what", [*FOREIGN, *OURS])
def test_get_schema_shows_no_traceback(failing: flight.FlightClient, what: str) -> None:
    # pyarrow's glue for this one RPC knows no Flight errors: class and extra_info are lost, the code is not.
    with pytest.raises(pa.ArrowInvalid) as caught:
        failing.get_schema(flight.FlightDescriptor.for_command(what.encode()))
    assert str(caught.value).startswith(f"{what}: limit: 7" if what in OURS and what != "internal" else "internal: ")
    assert not [each for each in (*INSIDE, "secret") if each in str(caught.value)]


def test_an_error_before_an_upload_is_read_arrives(failing: flight.FlightClient) -> None:
    rows = pa.table({"value": np.zeros(500_000)})
    for _ in range(20):
        with fails("conflict", "run_id: is there"):
            writer, _ = failing.do_put(flight.FlightDescriptor.for_command(b"{}"), rows.schema)
            writer.write_table(rows, max_chunksize=10_000)
            writer.close()


@pytest.mark.parametrize("what", ["all", "nothing", "busy", "panic", "at once"])
def test_a_stream_ends_its_call_once(
    failing_server: FailingServer, failing: flight.FlightClient, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    calls_ended(failing_server)
    with caplog.at_level(logging.INFO, "timedb.flight"):
        try:
            failing.do_get(flight.Ticket(what)).read_all()
        except flight.FlightError:
            code = {"panic": "internal"}.get(what, "busy")
        else:
            code = "ok"
        eventually(lambda: any("do_get" in record.message for record in caplog.records))
    gc.collect()
    assert calls_ended(failing_server) == 1
    lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert [f"code={code}" in line for line in lines] == [True]


@pytest.mark.parametrize("how", ["cancel", "drop", "deadline", "at once"])
def test_a_client_that_goes_away_ends_its_call(
    failing_server: FailingServer, failing: flight.FlightClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    calls_ended(failing_server)
    options = flight.FlightCallOptions(timeout=0.5 if how == "deadline" else 60)
    with caplog.at_level(logging.INFO, "timedb.flight"):
        reader = failing.do_get(flight.Ticket("endless"), options)
        if how != "at once":
            reader.read_chunk()
        if how in ("cancel", "at once"):
            reader.cancel()
        if how == "drop":
            del reader
        eventually(lambda: any("code=cancelled" in record.message for record in caplog.records))
    assert calls_ended(failing_server) == 1


def test_the_access_line_has_what_it_should_and_no_key(
    failing: flight.FlightClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(b"x-api-key", b"s3cret"), (b"authorization", b"Bearer s3cret"), (b"x-request-id", b"my-request.1")]
    with caplog.at_level(logging.DEBUG, "timedb.flight"), fails("not_found") as failure:
        list(failing.do_action(flight.Action("not_found", b""), flight.FlightCallOptions(headers=headers)))
    assert failure.request_id == "my-request.1"
    access = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(access) == 1
    assert access[0].startswith("do_action tenant=- code=not_found ms=")
    assert access[0].endswith(" request_id=my-request.1")
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("sent", [b"", b"a b", b"x" * 129, b"a/b", b"a%0ab"])
def test_a_request_id_that_is_not_sane_is_replaced(failing: flight.FlightClient, sent: bytes) -> None:
    with fails("busy") as failure:
        list(failing.do_action(flight.Action("busy", b""), flight.FlightCallOptions(headers=[(b"x-request-id", sent)])))
    assert len(failure.request_id) == 32
    assert failure.request_id.isalnum()


def test_the_answer_says_under_which_id_the_server_knows_the_call(failing_server: FailingServer) -> None:
    seen: dict[str, Any] = {}

    class Listen(flight.ClientMiddleware):  # type: ignore[misc]  # pyarrow ships no types
        def received_headers(self, headers: dict[str, list[str]]) -> None:
            seen.update(headers)

    class Listening(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
        def start_call(self, info: flight.CallInfo) -> Listen:
            return Listen()

    with flight.connect(f"grpc://127.0.0.1:{failing_server.port}", middleware=[Listening()]) as client:
        with pytest.raises(flight.FlightUnavailableError) as caught:
            list(client.do_action(flight.Action("busy", b"")))
        assert seen["x-request-id"] == [json.loads(caught.value.extra_info)["request_id"]]
