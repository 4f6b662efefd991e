"""Bytes that no honest client sends, against a server in a process of its own, for they might end it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pyarrow import flight

from tests.flight_server.flights import act, command, commit_marker, read, rows_of, send
from tests.flight_server.raw_http2 import exchange, flight_data, ipc_messages

_SERVER = """
import sys
from flight_server import start_flight_server
from storage import Lake
from timedb.contract.settings import ServerSettings, load_settings
settings = load_settings(ServerSettings, lake=sys.argv[1], flight_port=0)
lake = Lake.open(settings.lake, settings)
service = start_flight_server(lake, settings)
print(service.url, flush=True)
sys.stdin.read()
service.stop()
lake.close()
"""
ROWS = 777


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server; that it ends as it should is part of the test."""
    lake = tmp_path_factory.mktemp("hostile") / "lake"
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(lake)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server.stdin, server.stdout:
        yield server.stdout.readline().strip()
        server.stdin.close()
        assert server.wait(30) == 0


@pytest.fixture
def port(url: str) -> Iterator[int]:
    """Its port; after the test the server still answers."""
    yield urlsplit(url).port or 0
    with flight.connect(url) as client:
        assert act(client, "health", timeout=20) == {"ok": True}


@pytest.mark.parametrize("length", [0, 1, ROWS + 1, 1_000_000, 1 << 31, 1 << 40, 1 << 60, -1, -(1 << 40)])
@pytest.mark.parametrize("which", [0, 1, 2, 3, "all"])
def test_a_batch_that_lies_about_its_length(port: int, which: int | str, length: int) -> None:
    (schema, _), (header, body) = ipc_messages(rows_of("torn", ROWS))
    places = [place for place in range(len(header) - 7) if header[place : place + 8] == struct.pack("<q", ROWS)]
    assert len(places) == 4, "the batch and its three columns"
    torn = bytearray(header)
    for place in places if which == "all" else [places[int(which)]]:
        struct.pack_into("<q", torn, place, length)
    answer = exchange(port, "DoPut", upload(schema, bytes(torn), body))
    assert shows_a_code(answer)


def upload(schema: bytes, header: bytes, body: bytes) -> list[bytes]:
    """The messages of an upload that is confirmed."""
    return [
        flight_data(schema, b"", command("upload", {})),
        flight_data(header, body),
        flight_data(b"", b"", metadata=commit_marker(ROWS)),
    ]


def shows_a_code(answer: bytes) -> bool:
    """Whether an answer holds an error of ours, and nothing of the inside."""
    assert b"Traceback" not in answer
    return b"invalid_request: " in answer or b"incomplete_upload: " in answer


def test_a_body_that_is_shorter_than_its_header_says(port: int) -> None:
    (schema, _), (header, body) = ipc_messages(rows_of("torn", ROWS))
    for size in (0, 1, 8, len(body) // 2, len(body) - 8):
        assert shows_a_code(exchange(port, "DoPut", upload(schema, header, body[:size])))


def test_a_stream_without_a_schema(port: int) -> None:
    only_metadata = [flight_data(b"", b"", command("upload", {}), commit_marker(0))]
    assert shows_a_code(exchange(port, "DoPut", only_metadata))
    assert shows_a_code(exchange(port, "DoPut", [flight_data(b"", b"", command("upload", {}))]))


def test_a_schema_where_a_batch_should_be(port: int) -> None:
    (schema, _), (_, body) = ipc_messages(rows_of("torn", ROWS))
    assert shows_a_code(exchange(port, "DoPut", upload(schema, schema, body)))


def test_no_message_at_all(port: int) -> None:
    for method in ("DoPut", "DoExchange", "DoGet", "GetFlightInfo", "ListFlights", "DoAction", "Handshake"):
        assert b"Traceback" not in exchange(port, method, [])


def test_bytes_that_are_no_protobuf(port: int) -> None:
    for method in ("DoPut", "DoGet", "GetFlightInfo", "GetSchema", "ListFlights", "DoAction"):
        assert b"Traceback" not in exchange(port, method, [b"\xff" * 100])


def test_a_header_that_is_not_ascii_shows_nothing_of_ours(port: int) -> None:
    # pyarrow decodes headers itself, before any code of ours, and shows where in its own source it failed.
    answer = exchange(port, "DoAction", [b"\x0a\x06health"], [(b"x-api-key", b"\xff")])
    assert b"flight_server" not in answer
    assert str(Path(__file__).parents[3]).encode() not in answer


def test_after_all_that_the_server_works(url: str) -> None:
    with flight.connect(url) as client:
        assert send(client, rows_of("honest"), rows=3)[-1]["rows"] == 3
        assert read(client, series_keys=["honest"]).num_rows == 3
        assert [one["name"] for one in act(client, "list_series")["series"]] == ["honest"]
