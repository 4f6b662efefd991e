"""Who may call."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
from pyarrow import flight

from tests.flight_server.flights import act, fails, read_command, rows_of, send
from timedb.contract.errors import Forbidden
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import FlightService
from timedb.flight_server.call.context import is_local, refuse_strangers
from timedb.flight_server.rpc.server import FlightServer
from timedb.storage import Lake


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:127.0.0.1:4711",
        "ipv4:127.8.9.10:4711",
        "ipv6:[::1]:4711",
        "ipv6:%5B::1%5D:4711",
        "ipv6:[::ffff:127.0.0.1]:4711",
        "ipv6:%5B::ffff:127.0.0.1%5D:4711",
        "ipv6:[::1%25lo]:4711",
        "unix:",
        "unix:/run/timedb.sock",
        "unix-abstract:name",
    ],
)
def test_loopback(peer: str) -> None:
    assert is_local(peer)


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "ipv4:",
        "ipv4:10.0.0.7:4711",
        "ipv4:128.0.0.1:4711",
        "ipv4:127.0.0.1.example.com:4711",
        "ipv6:[2001:db8::1]:4711",
        "ipv6:%5Bfe80::1%25eth0%5D:4711",
        "ipv6:[::ffff:10.0.0.7]:4711",
        "ipv6:[::]:4711",
        "unixoid:127.0.0.1:1",
        "127.0.0.1:4711",
    ],
)
def test_not_loopback(peer: str) -> None:
    assert not is_local(peer)


def test_an_open_lake_serves_its_own_machine_only(lake: Lake) -> None:
    refuse_strangers(lake, "ipv4:127.0.0.1:4711", insecure=False)
    refuse_strangers(lake, "ipv4:10.0.0.7:4711", insecure=True)
    with pytest.raises(Forbidden):
        refuse_strangers(lake, "ipv4:10.0.0.7:4711", insecure=False)


def test_a_stranger_is_refused_over_the_wire(
    start: Callable[..., FlightService], connect: Callable[[FlightService], flight.FlightClient], lake: Lake, name: str
) -> None:
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    # As if it had got past the door that does not let it listen there in the first place.
    listening = FlightServer(lake, load_settings(ServerSettings), "grpc://0.0.0.0:0")
    try:
        with flight.connect(f"grpc://{address}:{listening.port}") as client:
            with fails("forbidden", "machine"):
                act(client, "status")
            with fails("forbidden"):
                act(client, "health")
            with fails("forbidden"):
                send(client, rows_of(name), rows=3)
            with fails("forbidden"):
                client.get_flight_info(read_command())
        with flight.connect(f"grpc://127.0.0.1:{listening.port}") as client:
            assert act(client, "health") == {"ok": True}
    finally:
        listening.shutdown()
    insecure = start(host="0.0.0.0", insecure=True)
    with flight.connect(f"grpc://{address}:{insecure.port}") as client:
        assert act(client, "health") == {"ok": True}
        assert act(client, "status")["tenant_id"] == OPEN_TENANT_ID


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


def test_while_the_lake_is_open_any_key_is_ignored(client: flight.FlightClient) -> None:
    headers = [(b"x-api-key", b"nonsense"), (b"authorization", b"Bearer nonsense")]
    assert act(client, "status", headers=headers)["tenant_id"] == OPEN_TENANT_ID


def test_health_says_nothing_else(client: flight.FlightClient) -> None:
    body = json.dumps({}).encode()
    results = list(client.do_action(flight.Action("health", body)))
    assert [result.body.to_pybytes() for result in results] == [b'{"ok":true}']
