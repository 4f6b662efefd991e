"""What a peer may cost of whom nothing is known: the key is asked for on the head, everything else has a limit."""

from __future__ import annotations

import email
import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
from starlette.responses import Response

import timedb as td
from tests.rest_gateway.calls import assert_error, serving
from timedb.contract.settings import ServerSettings, load_settings
from timedb.rest_gateway import Connections, create_app
from timedb.rest_gateway.http import probes
from timedb.run.launch import start_service

if TYPE_CHECKING:
    from tests.conftest import Served
    from timedb.run.launch import Service

JSON = "application/json"
WHOLE = 1 << 20


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a gateway over a lake with users, and a key that may only read."""
    lake = str(tmp_path_factory.mktemp("doors") / "lake")
    key = td.create_user("ann@example.com", lake=lake, scopes=["read"])["api_key"]
    service = start_service(load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0))
    yield service.rest_url, key
    service.stop()


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway that takes few connections and small bodies, and waits for nobody."""
    lake = str(tmp_path_factory.mktemp("doors") / "lake")
    short = {"max_head_seconds": 0.6, "max_body_idle_seconds": 0.6, "max_idle_seconds": 0.6}
    few = {"max_rest_connections": 24, "max_body_bytes": WHOLE}
    service = start_service(load_settings(ServerSettings, lake=lake, flight_port=0, rest_port=0, **short, **few))
    yield service
    service.stop()


def begin(
    url: str, call: str, headers: Mapping[str, object], body: bytes = b"", *, receive_buffer: int | None = None
) -> socket.socket:
    """Send the head of a call, and what of its body is given, and no more."""
    address = urlsplit(url)
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect((address.hostname, address.port))
    lines = [f"{call} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return connection


def answer(connection: socket.socket, *, until_closed: bool = False) -> tuple[int, dict[str, Any]]:
    """The status and the body of an answer that says that the connection closes; on demand see that it does."""
    with closing(connection), connection.makefile("rb") as received:
        status = int(received.readline().split(b" ")[1])
        headers = email.message_from_bytes(b"".join(iter(received.readline, b"\r\n")))
        assert headers["connection"] == "close"
        body = received.read(int(headers["content-length"]))
        assert not until_closed or received.read() == b""
    return status, orjson.loads(body)


WRITES = [
    ("POST /upload", JSON),
    ("POST /upload", "text/csv"),
    ("POST /runs", "application/vnd.apache.parquet"),
    ("POST /runs/x/withdraw", JSON),
    ("POST /runs/x/restore", JSON),
    ("POST /series", JSON),
    ("POST /series/many", JSON),
    ("PATCH /series/x", JSON),
    ("PUT /values", JSON),
    ("POST /upload", "multipart/form-data; boundary=x"),
    ("POST /upload", "text/plain"),
    ("POST /nothing", JSON),
    ("DELETE /values", JSON),
    ("POST /health", JSON),
    ("BREW /coffee", JSON),
]


@pytest.mark.parametrize(("call", "kind"), WRITES)
@pytest.mark.parametrize("length", [{"Content-Length": 32 << 20}, {"Transfer-Encoding": "chunked"}])
def test_a_call_without_a_key_is_refused_on_its_head(
    closed: tuple[str, str], call: str, kind: str, length: dict[str, Any]
) -> None:
    # Nothing of the body is sent: whoever waits for it never answers.
    for key in ({}, {"X-API-Key": "of-nobody"}):
        status, body = answer(begin(closed[0], call, {"Content-Type": kind, **length, **key}))
        assert (status, body["code"]) == (401, "unauthenticated")


def test_a_good_key_comes_as_far_as_what_it_asks_for(closed: tuple[str, str]) -> None:
    with httpx.Client(base_url=closed[0], headers={"X-API-Key": closed[1]}) as rest:
        assert_error(rest.post("/series", json={"name": "x"}), 403, "forbidden", "write")
        assert_error(rest.post("/nothing", json={}), 404, "not_found")
        assert_error(rest.delete("/values"), 405, "invalid_request")


@pytest.mark.parametrize(
    ("call", "headers", "status", "code"),
    [
        ("GET /health/live", {"Content-Length": 32 << 20}, 200, None),
        ("GET /runs", {"Content-Length": 32 << 20}, 200, None),
        ("GET /runs", {"Transfer-Encoding": "chunked"}, 200, None),
        ("POST /nothing", {"Content-Length": 32 << 20}, 404, "not_found"),
        ("DELETE /values", {"Content-Length": 32 << 20}, 405, "invalid_request"),
        ("POST /upload", {"Content-Length": 32 << 20, "Content-Type": "multipart/form-data"}, 422, "invalid_request"),
        ("POST /series", {"Content-Length": 32 << 20, "Content-Type": "text/plain"}, 422, "invalid_request"),
        ("POST /upload?colour=red", {"Content-Length": 9, "Content-Type": "text/csv"}, 422, "invalid_request"),
        ("POST /upload", {"Content-Length": 1 << 40, "Content-Type": JSON}, 413, "too_large"),
    ],
)
def test_what_the_head_alone_decides_is_answered_without_the_body(
    rest: httpx.Client, call: str, headers: dict[str, Any], status: int, code: str | None
) -> None:
    found, body = answer(begin(str(rest.base_url), call, headers))
    assert (found, body.get("code")) == (status, code)


def test_a_body_that_is_refused_is_thrown_away_and_the_answer_arrives(closed: tuple[str, str]) -> None:
    with httpx.Client(base_url=closed[0], timeout=30) as rest:
        refused = rest.post("/upload", content=b" " * (24 << 20), headers={"Content-Type": JSON})
        assert_error(refused, 401, "unauthenticated")


def test_bodies_that_do_not_end_keep_no_other_out_and_end(hurried: Service) -> None:
    url, held = hurried.rest_url, {"Content-Type": JSON, "Content-Length": WHOLE}
    with ExitStack() as stack:
        slow = [stack.enter_context(begin(url, "POST /upload", held, b" " * (WHOLE - 1))) for _ in range(8)]
        for number in range(3):
            assert httpx.post(f"{url}/series", json={"name": f"beside-{number}"}, timeout=30).status_code == 200
        status, body = answer(slow[0], until_closed=True)
        assert (status, body["code"]) == (408, "timeout")
        assert body["detail"] == "body: nothing more of it came for 0.6 seconds"


def test_a_large_body_takes_the_place_of_one_that_stands_still(new_service: Callable[..., Service]) -> None:
    url = new_service(max_body_bytes=WHOLE, max_body_idle_seconds=30.0).rest_url
    held = {"Content-Type": JSON, "Content-Length": WHOLE}
    with ExitStack() as stack:
        slow = [stack.enter_context(begin(url, "POST /upload", held, b" " * (WHOLE - 1))) for _ in range(8)]
        row = {"valid_time": "2025-01-01T00:00:00Z", "value_key": "large", "value": 1.0}
        run = {"run_start_time": "2025-01-01T00:00:00Z", "value_rows": [row], "run_params": {"x": "y" * (WHOLE // 2)}}
        tries = [httpx.post(f"{url}/upload", json=run, timeout=30).status_code]
        while tries[-1] == 503:  # until the others have stood still for a second
            tries.append(httpx.post(f"{url}/upload", json=run, timeout=30).status_code)
        assert tries[-1] == 200
        (gave_way,), _, _ = select.select(slow, [], [], 30)
        status, body = answer(gave_way)
        assert (status, body["code"]) == (503, "busy")


def test_heads_that_do_not_end_keep_no_other_out_and_end(hurried: Service) -> None:
    address = urlsplit(hurried.rest_url)
    with ExitStack() as stack:
        heads = []
        for _ in range(120):
            heads.append(stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30)))
            heads[-1].sendall(b"POST /upload HTTP/1.1\r\nHost: ")
        assert httpx.get(f"{hurried.rest_url}/health/live", timeout=30).status_code == 200
        assert httpx.post(f"{hurried.rest_url}/series", json={"name": "heads"}, timeout=30).status_code == 200
        status, body = answer(heads[-1], until_closed=True)
        assert (status, body["code"], body["detail"]) == (408, "timeout", "head: did not arrive within 0.6 seconds")
        silent = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
        assert silent.recv(100) == b""


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    settings = load_settings(ServerSettings, max_idle_seconds=0.6)
    app = create_app("grpc://127.0.0.1:9", settings)
    size = 64 << 20  # more than the system's own buffers hold
    given_up = threading.Event()

    @app.get("/large")
    async def large() -> Response:
        class Large(Response):
            async def __call__(self, *call: Any) -> None:
                try:
                    await super().__call__(*call)
                finally:
                    given_up.set()

        return Large(b"x" * size)

    with serving(app, settings) as rest:
        connection = begin(str(rest.base_url), "GET /large", {}, receive_buffer=4096)
        assert given_up.wait(30)
        received = 0
        with closing(connection), suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                received += len(part)
        assert received < size
        assert rest.get("/health/live").status_code == 200


@contextmanager
def open_files(most: int) -> Iterator[None]:
    """This process may open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_are_fewer_than_the_machine_has_files(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(ServerSettings, max_rest_connections=900)
    with open_files(1024):
        assert Connections.under(settings).most == 512
    assert "TIMEDB_MAX_REST_CONNECTIONS is 512, not 900" in caplog.text
    with open_files(2000):
        assert Connections.under(settings).most == 900


def test_what_needs_no_flight_server_is_answered_while_it_hangs(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.5)
    app = create_app(served.flight_url, load_settings(ServerSettings, max_rest_calls=48))
    with serving(app) as rest, ExitStack() as stack:
        assert rest.get("/runs").status_code == 200
        os.kill(served.pid, signal.SIGSTOP)
        stack.callback(os.kill, served.pid, signal.SIGCONT)
        statuses: list[int] = []
        calls = [
            threading.Thread(target=lambda: statuses.append(httpx.get(f"{rest.base_url}/runs", timeout=60).status_code))
            for _ in range(48)
        ]
        for call in calls:
            call.start()
        while b"timedb_rest_calls_running 48.0" not in app.state.metrics.text():
            threading.Event().wait(0.01)
        assert_error(rest.get("/runs"), 503, "busy", "48 calls are under way")
        for path in ("/health/live", "/", "/ui", "/ui/", "/docs", "/openapi.json"):
            assert rest.get(path, follow_redirects=True).status_code == 200, path
        assert_error(rest.get("/health"), 503, "unavailable", "does not answer")
        stack.close()
        for call in calls:
            call.join(60)
        assert statuses == [200] * 48
        assert rest.get("/health").status_code == 200
