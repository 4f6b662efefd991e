"""The proxy of packaging/nginx.conf, as it is there, between clients and a server: both doors work, its limits hold."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from pyarrow import flight

import timedb as td
from tests.flight_server.callers import outcome
from tests.timedb.certificates import Authority
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

CONFIG = Path(__file__).parents[1] / "packaging" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")


@dataclass(frozen=True)
class Behind:
    """A server behind the proxy."""

    rest_url: str
    flight_url: str
    key: str
    roots: str


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """The configuration as it is in the repository, but for its ports, certificate and the folders it writes to."""
    folder = tmp_path_factory.mktemp("proxy")
    authority = Authority(folder, "authority")
    papers = authority.issue("server", ["localhost", "127.0.0.1"])
    lake = str(folder / "lake")
    key = td.create_user("ann@example.com", lake=lake)["api_key"]
    # More than the proxy lets through, so that it is the proxy that says no.
    names = ("max_concurrent_uploads", "max_open_streams")
    many = {name + whose: 500 for name in names for whose in ("", "_per_tenant")}
    service = start_service(load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0, **many))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = CONFIG.read_text()
    for there, here in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/timedb/server.pem": papers.certificate,
        "/etc/timedb/server.key": papers.key,
        "http://127.0.0.1:8000": service.rest_url,
        "grpc://127.0.0.1:8815": service.flight_url,
    }.items():
        assert there in text
        text = text.replace(there, here)
    config = folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    head = f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\nerror_log {folder / 'error.log'};\n"
    config.write_text(head + text.replace("http {\n", f"http {{\naccess_log off;\n{folders}", 1))
    proxy = subprocess.Popen([str(NGINX), "-c", str(config), "-e", str(folder / "error.log")])
    try:
        _wait_for(port, proxy)
        yield Behind(f"https://localhost:{port}", f"grpc+tls://localhost:{port}", key, authority.pair.certificate)
    finally:
        proxy.terminate()
        proxy.wait(20)
        service.stop()


def _wait_for(port: int, proxy: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while proxy.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail("nginx did not start")


def connected(behind: Behind) -> td.Client:
    """A client that comes through the proxy."""
    return td.connect(behind.flight_url, api_key=behind.key, tls_root_certificates=behind.roots)


def test_both_doors_work_behind_the_proxy(behind: Behind) -> None:
    hours = [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in range(24)]
    rows = pa.table({"valid_time": hours, "series_key": ["proxied"] * 24, "value": range(24)})
    with connected(behind) as client:
        assert client.upload(rows, run_id="proxied").rows == 24
        assert len(client.read(series_keys=["proxied"])) == 24
        asked = client.lookup(pa.table({"series_key": ["proxied"], "valid_time": hours[3:4]}))
        assert asked["value"].to_list() == [3.0]
        with pytest.raises(td.NotFound, match="nobody"):
            client.read(series_keys=["nobody"])
    with httpx.Client(base_url=behind.rest_url, verify=ssl.create_default_context(cafile=behind.roots)) as rest:
        answer = rest.get("/values", params={"name": "proxied"}, headers={"X-API-Key": behind.key})
        assert answer.json()["count"] == 24
        assert rest.get("/values").status_code == 401
        assert rest.get("/health").json() == {"status": "ok"}


def test_messages_over_the_limit_do_not_reach_the_server(behind: Behind) -> None:
    roots = Path(behind.roots).read_bytes()
    large = b" " * (40 << 20)
    with flight.FlightClient(
        behind.flight_url, tls_root_certs=roots, generic_options=[("grpc.max_send_message_length", -1)]
    ) as client:
        found = outcome(lambda: list(client.do_action(flight.Action("health", large))))
        assert found == ("too_large", "the message is over the limit of the proxy")
    with httpx.Client(
        base_url=behind.rest_url, verify=ssl.create_default_context(cafile=behind.roots), timeout=30
    ) as rest:
        assert rest.post("/upload", content=large, headers={"X-API-Key": behind.key}).status_code == 413


def test_one_peer_has_so_many_calls_at_once(behind: Behind) -> None:
    roots = Path(behind.roots).read_bytes()
    command = flight.FlightDescriptor.for_command(b'{"op": "upload"}')
    schema = pa.schema({"series_key": pa.string(), "valid_time": pa.timestamp("us", "UTC"), "value": pa.float64()})
    options = flight.FlightCallOptions(headers=[(b"x-api-key", behind.key.encode())])
    with ExitStack() as stack:
        clients = [stack.enter_context(flight.FlightClient(behind.flight_url, tls_root_certs=roots)) for _ in range(2)]

        def begin(client: flight.FlightClient) -> None:
            writer, _ = client.do_put(command, schema, options)
            stack.callback(outcome, writer.close)

        for client in clients * 70:
            outcome(partial(begin, client))  # those over the limit fail here, or only when they are closed
        with httpx.Client(base_url=behind.rest_url, verify=ssl.create_default_context(cafile=behind.roots)) as rest:
            assert rest.get("/health/live").status_code == 503
    with httpx.Client(base_url=behind.rest_url, verify=ssl.create_default_context(cafile=behind.roots)) as rest:
        deadline = time.monotonic() + 20
        while rest.get("/health/live").status_code != 200:
            assert time.monotonic() < deadline
