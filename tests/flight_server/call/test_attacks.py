"""What an attacker may send, beside :mod:`test_hostile`: after each the server answers, and nothing was written.

``docs/security.md`` has a table of everything that was tried; each of its rows names the test.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import (
    INSIDE,
    Connect,
    Start,
    act,
    command,
    commit_marker,
    eventually,
    hours,
    many_rows,
    read,
    read_command,
    rows_of,
    send,
    upload_command,
)
from tests.flight_server.raw_http2 import begin, exchange, flight_data, half_open, ipc_messages
from timedb.flight_server.sql.messages import TicketStatementQuery, pack

ROOT = Path(__file__).parents[3]
SERVER = """
import sys
from flight_server import start_flight_server
from storage import Lake
from timedb.contract.settings import ServerSettings, load_settings
settings = load_settings(ServerSettings, lake=sys.argv[1], flight_port=0, max_idle_seconds=2.0,
                         max_concurrent_uploads=2, max_message_bytes=1 << 20, maintenance_seconds=10000)
lake = Lake.open(settings.lake, settings)
service = start_flight_server(lake, settings)
print(service.url, flush=True)
sys.stdin.read()
service.stop()
lake.close()
"""
ROWS = 50
BY_FLIGHT = "refused by Flight before any code of ours"
REFUSED = ("invalid_request", "incomplete_upload", "too_large", BY_FLIGHT)


class Target:
    """A server in a process of its own, over an open lake."""

    def __init__(self, url: str, folder: Path, pid: int) -> None:
        self.url = url
        self.port = urlsplit(url).port or 0
        self.folder = folder
        self.pid = pid

    def files(self) -> set[Path]:
        """All files of the lake but the records that are written behind."""
        behind = {"runs", "updates"}
        return {path for path in self.folder.rglob("*") if path.is_file() and behind.isdisjoint(path.parts)}

    def memory(self) -> int:
        """Bytes that it has."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) << 10

    def open_files(self) -> int:
        """How many file descriptors it has."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server; that it ends as it should is part of the test."""
    folder = tmp_path_factory.mktemp("attacked") / "lake"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server.stdin, server.stdout:
        url = server.stdout.readline().strip()
        with flight.connect(url) as client:
            send(client, rows_of("honest"), rows=3)
        yield Target(url, folder, server.pid)
        server.stdin.close()
        assert server.wait(30) == 0


@pytest.fixture
def target(running: Target) -> Iterator[Target]:
    """The server; after the test it answers as before, and its lake has the files that it had."""
    before = running.files()
    yield running
    with flight.connect(running.url) as client:
        assert act(client, "health", timeout=20) == {"ok": True}
        assert [one["name"] for one in act(client, "list_series", timeout=20)["series"]] == ["honest"]
        assert read(client, series_keys=["honest"]).num_rows == 3
    eventually(lambda: running.files() == before)


def code_in(answer: bytes) -> str:
    """The code of ours in the bytes of an answer, which must show nothing of the inside."""
    assert not [each for each in (*INSIDE, str(ROOT)) if each.encode() in answer], answer
    found = re.search(rb"(invalid_request|incomplete_upload|too_large|not_found|internal): ", answer)
    if found is None and b"Invalid flatbuffers message." in answer:
        return BY_FLIGHT
    return found[1].decode() if found else repr(answer)


def upload_of(schema: bytes, *batches: tuple[bytes, bytes], rows: int = ROWS) -> list[bytes]:
    """The messages of an upload that is confirmed."""
    return [
        flight_data(schema, b"", command("upload", {})),
        *(flight_data(header, body) for header, body in batches),
        flight_data(b"", b"", metadata=commit_marker(rows)),
    ]


def messages_of(table: pa.Table) -> tuple[bytes, tuple[bytes, bytes]]:
    """The schema's header, and header and body of the one batch."""
    (schema, _), batch = ipc_messages(table)
    return schema, batch


def test_a_message_that_is_cut_anywhere(target: Target) -> None:
    schema, (header, body) = messages_of(rows_of("cut", ROWS))
    for size in range(0, len(schema), 24):
        assert code_in(exchange(target.port, "DoPut", upload_of(schema[:size], (header, body)))) in REFUSED
    for size in range(0, len(header), 24):
        assert code_in(exchange(target.port, "DoPut", upload_of(schema, (header[:size], body)))) in REFUSED


def test_bytes_of_a_message_that_are_turned(target: Target) -> None:
    schema, (header, body) = messages_of(rows_of("turned", ROWS))
    for place in range(0, len(header), 7):
        turned = bytearray(header)
        turned[place] ^= 0xFF
        answer = exchange(target.port, "DoPut", upload_of(schema, (bytes(turned), body), rows=ROWS + 1))
        assert code_in(answer) in REFUSED


def other_schema(**columns: Any) -> Callable[[], list[bytes]]:
    """An upload whose second batch has other columns than its schema."""

    def messages() -> list[bytes]:
        schema, batch = messages_of(rows_of("mixed", ROWS))
        return upload_of(schema, batch, messages_of(pa.table({**columns}))[1], rows=2 * ROWS)

    return messages


def compressed(stated: int) -> list[bytes]:
    """An upload of a compressed batch of which each buffer says that it unpacks to so many bytes."""
    table = rows_of("bomb", 2_000)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    (schema, _), (header, body) = [
        (message.metadata.to_pybytes(), b"" if message.body is None else message.body.to_pybytes())
        for message in pa.ipc.MessageReader.open_stream(sink.getvalue())
    ]
    lying = body.replace(struct.pack("<q", 2_000 * 8), struct.pack("<q", stated))
    assert lying != body
    return upload_of(schema, (header, lying), rows=2_000)


def nested(depth: int) -> list[bytes]:
    """An upload whose value is a list of lists of lists …"""
    kind = pa.float64()
    for _ in range(depth):
        kind = pa.list_(kind)
    schema = pa.schema([("series_key", pa.string()), ("valid_time", pa.timestamp("us", "UTC")), ("value", kind)])
    return upload_of(header_of(schema), rows=0)


def header_of(schema: pa.Schema) -> bytes:
    """The header of the message of a schema, which pyarrow itself might refuse to read."""
    message: bytes = schema.serialize().to_pybytes()
    return message[8 : 8 + struct.unpack_from("<i", message, 4)[0]]


def without_columns() -> list[bytes]:
    """An upload of no columns, and many rows of them."""
    schema, (header, body) = messages_of(pa.table({"series_key": ["x"] * ROWS}).select([]))
    return upload_of(schema, (header, body), rows=0)


def dictionary_of(kind: pa.DataType) -> list[bytes]:
    """An upload whose series are a dictionary of something that is no text."""
    schema = pa.schema(
        [("series_key", pa.dictionary(pa.int32(), kind)), ("valid_time", pa.timestamp("us", "UTC")), ("value", "f8")]
    )
    return upload_of(header_of(schema), rows=0)


STREAMS: dict[str, Callable[[], list[bytes]]] = {
    "a batch of fewer columns": other_schema(value=pa.array([1.0] * ROWS)),
    "a batch of more columns": other_schema(**{f"c{n}": pa.array([n] * ROWS) for n in range(9)}),
    "a batch of other types": other_schema(
        series_key=pa.array(range(ROWS)), valid_time=pa.array(["x"] * ROWS), value=pa.array([[1]] * ROWS)
    ),
    "no columns at all": without_columns,
    "sixty lists in one another": lambda: nested(60),
    "a thousand lists in one another": lambda: nested(1000),
    "a dictionary of lists": lambda: dictionary_of(pa.list_(pa.string())),
    "a dictionary of structs": lambda: dictionary_of(pa.struct([("a", pa.string())])),
    "buffers that say they unpack to 1 TiB": lambda: compressed(1 << 40),
    "buffers that say they unpack to 64 GiB": lambda: compressed(64 << 30),
    "buffers that say they unpack to less": lambda: compressed(8),
    "buffers that say they unpack to less than nothing": lambda: compressed(-7),
}


@pytest.mark.parametrize("how", STREAMS)
def test_a_stream_that_is_not_what_it_says(target: Target, how: str) -> None:
    before = target.memory()
    assert code_in(exchange(target.port, "DoPut", STREAMS[how]())) in REFUSED
    assert target.memory() - before < 256 << 20


@pytest.mark.parametrize("index", [3, 1 << 20, (1 << 31) - 1, -1, -(1 << 31)])
@pytest.mark.parametrize("column", ["series_key", "annotation"])
def test_an_index_beyond_its_dictionary(target: Target, column: str, index: int) -> None:
    lying = pa.DictionaryArray.from_arrays(pa.array([0, index, 1], pa.int32()), pa.array(["a", "b"]), safe=False)
    with flight.connect(target.url) as client:
        assert outcome(lambda: send(client, rows_of("index", **{column: lying}), rows=3))[0] == "invalid_request"


def test_metadata_of_a_hundred_megabytes(target: Target) -> None:
    rows = rows_of("metadata")
    with flight.connect(target.url) as client:
        # On a slow machine so much takes longer than this server waits for one message.
        assert outcome(lambda: send(client, rows, marker=b" " * (100 << 20)))[0] in ("too_large", "timeout")
        assert outcome(lambda: send(client, rows, marker=b'{"commit": true, "rows": 3}' + b" " * (2 << 20)))[0] == (
            "too_large"
        )


@pytest.mark.parametrize("header", ["x-api-key", "authorization", "x-request-id", "x-other"])
def test_headers_of_a_megabyte(target: Target, header: str) -> None:
    with calling(target.url, None, (header, "x" * (1 << 20))) as client:
        code, detail = outcome(lambda: act(client, "status"))
    # gRPC refuses the call before any code of ours.
    assert code != "ok"
    assert not [each for each in INSIDE if each in detail]


@pytest.mark.parametrize("action", ["update_values", "create_series", "list_series", "health", "nonsense"])
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"labels":' * 50_000, b'{"a":' * 500 + b"1" + b"}" * 500])
def test_json_that_goes_deep(target: Target, action: str, body: bytes) -> None:
    with flight.connect(target.url) as client:
        code, _ = outcome(lambda: act(client, action, body))
    # Of `health`, which needs no key, hardly any body is looked at.
    assert code == {"nonsense": "unimplemented", "health": "too_large"}.get(action, "invalid_request")


def test_json_of_very_many_values(start: Start, connect: Connect) -> None:
    client = connect(start(max_json_values=1000))
    body = b'{"a":[' + b"[]," * 2000 + b"[]]}"
    for action in ("update_values", "create_series", "list_series"):
        found = outcome(partial(act, client, action, body))
        assert found == ("too_large", f"{action}: 2003 values are over the limit of 1000")
    found = outcome(lambda: client.get_flight_info(flight.FlightDescriptor.for_command(body)))
    assert found == ("too_large", "command: 2003 values are over the limit of 1000")
    assert outcome(lambda: list(client.list_flights(body)))[0] == "too_large"


@pytest.mark.parametrize("bucket", ["zz", "../../etc", "", "0/..", "%2e%2e", "g", "0' OR 1=1"])
def test_a_ticket_with_another_bucket(target: Target, bucket: str) -> None:
    with flight.connect(target.url) as client:
        assert read(client, bucket=bucket).num_rows == 0, "a bucket is compared, never a part of a path"


@pytest.mark.parametrize(
    "fields",
    [{"bucket": 7}, *({"table_version": version} for version in (1 << 62, -5, "1", 1.5)), {"tenant_id": "1" * 32}],
)
def test_a_ticket_that_was_altered(target: Target, fields: dict[str, Any]) -> None:
    with flight.connect(target.url) as client:
        assert outcome(lambda: read(client, **fields))[0] == "invalid_request"


def _fetch(client: flight.FlightClient, ticket: bytes) -> pa.Table:
    return client.do_get(flight.Ticket(ticket)).read_all()


def test_a_statement_handle_that_was_altered(target: Target) -> None:
    tickets = [pack(TicketStatementQuery(b'{"sql": "SELECT 1", "parameters": "AAAA"}'))]
    tickets += [pack(TicketStatementQuery(b"")), pack(TicketStatementQuery(b'{"sql": "SELECT 1", "user": "admin"}'))]
    tickets += [pack(TicketStatementQuery(b'{"sql": "SELECT 1"}'))[:-3], b"\x0a\xff\xff\xff\xff\x0f"]
    with flight.connect(target.url) as client:
        for ticket in tickets:
            code, _ = outcome(partial(_fetch, client, ticket))
            assert code == "invalid_request"


def test_a_flood_of_handshakes(target: Target) -> None:
    before = target.open_files()
    with ExitStack() as calls:
        for number in range(100):
            calls.enter_context(begin(target.port, "Handshake", [b"\x12\x04user"] if number % 2 else []))
        with flight.connect(target.url) as client:
            assert act(client, "health", timeout=20) == {"ok": True}
    for payload in (b"", b"\x12\x04user", b"\xff" * 1000):
        assert b"Traceback" not in exchange(target.port, "Handshake", [payload])
    eventually(lambda: target.open_files() <= before + 5)


def test_connections_that_say_nothing(target: Target) -> None:
    before = target.open_files()
    with ExitStack() as connections:
        for _ in range(200):
            connections.enter_context(half_open(target.port))
        with flight.connect(target.url) as client:
            assert act(client, "health", timeout=20) == {"ok": True}
            assert read(client, series_keys=["honest"]).num_rows == 3
    eventually(lambda: target.open_files() <= before + 5)


def test_uploads_that_stop_in_the_middle_of_a_message(target: Target) -> None:
    schema, (header, body) = messages_of(rows_of("loris", ROWS))
    with ExitStack() as calls:
        for cut in (1, 100):
            calls.enter_context(begin(target.port, "DoPut", upload_of(schema, (header, body)), cut=cut))
        rows = many_rows("loris-other", 10)
        with flight.connect(target.url) as client:
            # The two have all places for uploads, until they have kept the server waiting for too long.
            eventually(lambda: outcome(lambda: send(client, rows, rows=11))[0] == "incomplete_upload")


def test_a_read_s_ticket_of_a_plan_is_bound_to_no_other_version(target: Target) -> None:
    with flight.connect(target.url) as client:
        (endpoint, *_) = client.get_flight_info(read_command(series_keys=["honest"])).endpoints
        ticket = endpoint.ticket.ticket
        turned = [ticket[:place] + bytes([ticket[place] ^ 1]) + ticket[place + 1 :] for place in range(len(ticket))]
        codes = {outcome(partial(_fetch, client, one))[0] for one in turned}
    assert codes <= {"ok", "invalid_request", "not_found", "unimplemented"}


def test_an_exchange_of_broken_batches(target: Target) -> None:
    questions = pa.table({"series_key": ["honest"] * ROWS, "valid_time": hours(ROWS)})
    schema, (header, body) = messages_of(questions)
    begins = flight_data(schema, b"", command("lookup", {}))
    for broken in ((header[:40], body), (header, body[:16]), messages_of(rows_of("other", ROWS))[1]):
        assert code_in(exchange(target.port, "DoExchange", [begins, flight_data(*broken)])) in (*REFUSED, "not_found")


def test_an_unfinished_upload_command(target: Target) -> None:
    with flight.connect(target.url) as client:
        writer, _ = client.do_put(upload_command(rows=3), rows_of("unfinished").schema)
        assert outcome(writer.close)[0] == "incomplete_upload"
