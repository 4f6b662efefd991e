"""Starting and stopping."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    Connect,
    Start,
    act,
    commit_marker,
    eventually,
    fails,
    read_ticket,
    rows_of,
    upload_command,
)
from timedb.contract.errors import InvalidRequest


def test_port_zero_takes_a_free_one(start: Start, connect: Connect) -> None:
    first, second = start(), start()
    assert first.port != second.port
    assert first.url == f"grpc://127.0.0.1:{first.port}"
    assert act(connect(first), "health") == act(connect(second), "health") == {"ok": True}


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "[::1]", "::"])
def test_the_url_of_any_host_can_be_called(start: Start, connect: Connect, host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    assert act(connect(start(host=host, insecure=True)), "health") == {"ok": True}


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", ["no such host", "host.invalid", "192.0.2.1"])
def test_where_nothing_can_listen_there_is_a_clear_error(start: Start, host: str) -> None:
    with pytest.raises(InvalidRequest, match="TIMEDB_HOST, TIMEDB_FLIGHT_PORT"):
        start(host=host, insecure=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1"])
def test_an_open_lake_is_not_served_beyond_its_machine(start: Start, host: str) -> None:
    with pytest.raises(InvalidRequest, match=r"TIMEDB_HOST.*no users.*timedb users create.*--insecure"):
        start(host=host)


def test_a_port_in_use_is_a_clear_error(start: Start) -> None:
    taken = start().port
    with pytest.raises(InvalidRequest, match=f"port {taken}"):
        start(flight_port=taken)


def test_stop_ends_waiting_and_listening_and_may_be_repeated(start: Start, connect: Connect) -> None:
    service = start()
    client = connect(service)
    assert act(client, "health") == {"ok": True}
    waiting = threading.Thread(target=service.wait)
    waiting.start()
    service.stop()
    waiting.join(10)
    assert not waiting.is_alive()
    service.stop()
    with pytest.raises(flight.FlightUnavailableError):
        act(client, "health", timeout=10)


def test_stop_lets_calls_in_flight_end_and_refuses_new_ones(start: Start, connect: Connect, name: str) -> None:
    service = start(shutdown_seconds=30.0)
    client = connect(service)
    rows = rows_of(name)
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows)
    stopping = threading.Thread(target=service.stop)
    eventually(lambda: service.calls_in_flight == 1)
    stopping.start()
    eventually(lambda: _is_refused(client))
    with fails("busy", "stopping"):
        act(client, "health")
    assert stopping.is_alive()
    writer.write_metadata(commit_marker(3))
    writer.done_writing()
    assert b'"rows":3' in reader.read().to_pybytes()
    writer.close()
    stopping.join(20)
    assert not stopping.is_alive()


def _is_refused(client: flight.FlightClient) -> bool:
    try:
        act(client, "health")
    except flight.FlightUnavailableError:
        return True
    return False


def test_stop_returns_although_a_reader_stalls(
    start: Start, connect: Connect, wide_read: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    service = start(shutdown_seconds=0.5)
    stalled = connect(service).do_get(read_ticket(**wide_read))
    stalled.read_chunk()
    stopping = threading.Thread(target=service.stop)
    with caplog.at_level(logging.WARNING, "timedb.flight"):
        stopping.start()
        stopping.join(30)
    assert not stopping.is_alive()
    assert "still in flight" in caplog.text
    stalled.cancel()
    eventually(lambda: service.calls_in_flight == 0)


_SERVER = """
import signal, sys
from flight_server import start_flight_server
from storage import Lake
from timedb.contract.settings import ServerSettings, load_settings
settings = load_settings(ServerSettings, lake=sys.argv[1], flight_port=0)
lake = Lake.open(settings.lake, settings)
service = start_flight_server(lake, settings)
signal.signal(signal.SIGTERM, lambda *_: service.stop())
print(service.url, flush=True)
service.wait()
lake.close()
print("stopped", flush=True)
"""


def test_a_signal_handler_runs_while_the_main_thread_waits(lake_dir: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(lake_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with flight.connect(server.stdout.readline().strip()) as client:
        assert act(client, "health") == {"ok": True}
    time.sleep(0.1)
    server.send_signal(signal.SIGTERM)
    out, errors = server.communicate(timeout=30)
    assert (server.returncode, out) == (0, "stopped\n"), errors
