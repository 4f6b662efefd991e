"""Requests whose end can be read in two ways: no second request hides in them, and the connection is closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import uvicorn

from timedb.contract.settings import ServerSettings
from timedb.rest_gateway import create_app

if TYPE_CHECKING:
    from timedb.run.launch import Service

HOST = b"Host: localhost\r\n"
HIDDEN = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"\r\n0\r\n\r\n"
POST = b"POST /runs/x/withdraw HTTP/1.1\r\n" + HOST
REFUSED = {
    "length, then chunked": POST + b"Content-Length: 4\r\n" + CHUNKED + EMPTY + HIDDEN,
    "chunked, then length": POST + CHUNKED + b"Content-Length: 4\r\n" + EMPTY + HIDDEN,
    "chunked and a length of nothing": POST + CHUNKED + b"Content-Length: 0\r\n" + EMPTY + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a negative length": POST + b"Content-Length: -2\r\n\r\n{}" + HIDDEN,
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\n{}" + HIDDEN,
    "another encoding": POST + b"Transfer-Encoding: xchunked\r\n" + EMPTY + HIDDEN,
    "two encodings": POST + CHUNKED + b"Transfer-Encoding: identity\r\n" + EMPTY + HIDDEN,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + EMPTY + HIDDEN,
    "a bare CR": POST + b"X: a\rTransfer-Encoding: chunked\r\n" + EMPTY + HIDDEN,
    "a negative chunk": POST + JSON + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
}


@pytest.fixture(scope="module", params=["as served", "h11"])
def port(request: pytest.FixtureRequest, service: Service) -> Iterator[int]:
    """The gateway as ``timedb serve`` runs it, and under each parser of ``uvicorn timedb.api:app``."""
    if request.param == "as served":
        yield int(urlsplit(service.rest_url).port or 0)
        return
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(service.flight_url, ServerSettings())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http=request.param, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def statuses(port: int, sent: bytes) -> list[int]:
    """What is answered until the connection is closed; a connection that stays open is an error."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(sent)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_hides_behind_a_request_that_ends_twice(port: int, kind: str) -> None:
    assert statuses(port, REFUSED[kind]) == [400]


def test_honest_requests_may_follow_each_other_on_a_connection(port: int) -> None:
    last = HIDDEN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    chunked = POST + JSON + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n"
    assert statuses(port, chunked + HIDDEN + last) == [404, 200, 200]
