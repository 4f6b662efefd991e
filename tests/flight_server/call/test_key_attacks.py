"""Keys and tickets in the wrong hands, and connections that want less than they should."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import INSIDE, act, fails, many_rows, read, read_command, read_ticket, rows_of, send
from tests.flight_server.sql_client import query
from tests.timedb.certificates import Authority
from timedb.contract.errors import Unauthenticated
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import FlightService, start_flight_server
from timedb.storage import Lake
from timedb.storage.users.users import NewUser, UserAddress

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


class Closed:
    """A lake with two tenants, and a server on it."""

    def __init__(self, lake: Lake, service: FlightService) -> None:
        self.lake = lake
        self.url = service.url
        self.one = self.key("ann@one.example", ONE)
        self.two = self.key("ann@two.example", TWO)
        with calling(self.url, self.one) as client:
            sent = send(client, many_rows("secret", 300_000, series=3), rows=300_000, run_id="secret-run")
        self.ids = sorted(sent[-1]["series_ids"].values())

    def key(self, email: str, tenant_id: str) -> str:
        """Make a user; its key."""
        new = parse_object(NewUser, {"email": email, "tenant_id": tenant_id})
        return str(self.lake.create_user(new)["api_key"])


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    uri = str(tmp_path_factory.mktemp("keys") / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=2.0)
    lake = Lake.open(uri, settings)
    lake.enable_users()
    service = start_flight_server(lake, settings)
    yield Closed(lake, service)
    service.stop()
    lake.close()


def test_a_ticket_in_another_tenant_s_hands(closed: Closed) -> None:
    with calling(closed.url, closed.one) as mine, calling(closed.url, closed.two) as theirs:
        info = mine.get_flight_info(read_command(series_ids=closed.ids))
        statement = mine.get_flight_info(query("SELECT * FROM flat"))
        for endpoint in info.endpoints:
            code, _ = outcome(lambda ticket=endpoint.ticket: theirs.do_get(ticket).read_all())  # type: ignore[misc]  # what a default binds, mypy does not infer
            assert code in ("not_found", "invalid_request")
        assert theirs.do_get(statement.endpoints[0].ticket).read_all().num_rows == 0
        with fails("not_found"):
            act(theirs, "get_run", {"run_id": "secret-run"})


def test_a_token_and_a_cursor_of_another_tenant(closed: Closed) -> None:
    with calling(closed.url, closed.one) as mine, calling(closed.url, closed.two) as theirs:
        page = read(mine, series_keys=["secret-0"], limit=5).schema.metadata
        for field, value in (("token", page[b"token"]), ("after", page[b"cursor"])):
            more = {"limit": 5} if field == "after" else {}
            asked = {field: value.decode(), **more}
            assert outcome(lambda asked=asked: _rows(theirs, asked))[0] in ("invalid_request", "ok")  # type: ignore[misc]  # what a default binds, mypy does not infer
            with suppress(pa.ArrowException):
                assert read(theirs, **asked).num_rows == 0


def _rows(client: flight.FlightClient, fields: dict[str, Any]) -> int:
    return int(read(client, **fields).num_rows)


def test_a_token_that_was_forged(closed: Closed) -> None:
    with calling(closed.url, closed.one) as client:
        token = read(client, series_keys=["secret-0"], limit=1).schema.metadata[b"token"].decode()
        body = json.loads(base64.urlsafe_b64decode(token))
        forged = [
            {**body, "as_of": "9999-01-01T00:00:00.000000+00:00"},
            {**body, "as_of": "nonsense"},
            {**body, "table_version": "7"},
            {**body, "tenant_id": TWO},
            {"as_of": body["as_of"]},
            [],
        ]
        texts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in forged]
        for text in [*texts, token[:-4], "x" * 100_000, "é", "\x00"]:
            assert outcome(lambda text=text: _rows(client, {"token": text}))[0] == "invalid_request"  # type: ignore[misc]  # as above


def test_a_ticket_is_nothing_without_its_key_and_nothing_after_that_was_revoked(closed: Closed) -> None:
    key = closed.key("eve@one.example", ONE)
    with calling(closed.url, key) as client, calling(closed.url) as nobody:
        tickets = [
            client.get_flight_info(read_command(series_ids=closed.ids)).endpoints[0].ticket,
            client.get_flight_info(query("SELECT count(*) FROM flat")).endpoints[0].ticket,
        ]
        for ticket in tickets:
            assert outcome(lambda ticket=ticket: nobody.do_get(ticket).read_all())[0] == "unauthenticated"  # type: ignore[misc]  # as above
            assert client.do_get(ticket).read_all().num_rows > 0
        closed.lake.users.set_active(UserAddress(email="eve@one.example"), False)
        for ticket in tickets:
            assert outcome(lambda ticket=ticket: client.do_get(ticket).read_all())[0] == "unauthenticated"  # type: ignore[misc]  # as above


def test_a_read_ends_when_its_key_is_revoked(closed: Closed) -> None:
    key = closed.key("kim@one.example", ONE)
    columns = ["series_id", "valid_time", "known_time", "change_time", "value", "value_id", "run_id"]
    with calling(closed.url, key) as client:
        stream = client.do_get(read_ticket(view="overlapping", columns=columns))
        stream.read_chunk()
        closed.lake.users.set_active(UserAddress(email="kim@one.example"), False)
        # It looks once a second, and what is under way still comes.
        code, _ = outcome(lambda: _read_slowly(stream))
    assert code == "unauthenticated"


def _read_slowly(stream: flight.FlightStreamReader) -> None:
    while True:
        time.sleep(1.2)
        try:
            stream.read_chunk()
        except StopIteration:
            return


WRONG: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "empty": [("x-api-key", "")],
    "blank": [("x-api-key", "   ")],
    "wrong": [("x-api-key", "tdb_" + "A" * 43)],
    "no text": [("x-api-key", "%00%ff")],
    "SQL": [("x-api-key", "' OR '1'='1")],
    "very long": [("x-api-key", "A" * 4000)],
    "bearer without a key": [("authorization", "Bearer")],
    "basic": [("authorization", "Basic YW5uOmFubg==")],
    "negotiate": [("authorization", "Negotiate AAAA")],
    "the hash of a key": [],
    "half of a key": [],
    "a key and a letter": [],
    "in capitals": [],
    "two keys": [],
    "two headers": [],
    "a key and a wrong one": [],
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_key_opens_nothing(closed: Closed, what: str) -> None:
    key = closed.one
    sent = {
        "the hash of a key": [("x-api-key", hashlib.sha256(key.encode()).hexdigest())],
        "half of a key": [("x-api-key", key[: len(key) // 2])],
        "a key and a letter": [("x-api-key", f"{key}A")],
        "in capitals": [("x-api-key", key.swapcase())],
        "two keys": [("x-api-key", key), ("x-api-key", closed.two)],
        "two headers": [("x-api-key", key), ("authorization", f"Bearer {closed.two}")],
        "a key and a wrong one": [("x-api-key", key), ("x-api-key", "wrong")],
    }.get(what, WRONG[what])
    with calling(closed.url, None, *sent) as client:
        for call in (lambda: act(client, "status"), lambda: read(client), lambda: send(client, rows_of("x"), rows=3)):
            code, detail = outcome(call)
            assert code == "unauthenticated"
            assert detail == Unauthenticated.summary, "whatever is wrong with it"


def test_hashes_of_keys_are_compared_in_constant_time(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    honest = hmac.compare_digest

    def watched(known: Any, digest: Any) -> bool:
        compared.append((len(known), len(digest)))
        return honest(known, digest)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    counts = []
    for key in (closed.one, closed.two, "wrong", closed.one[:-1]):
        compared.clear()
        with calling(closed.url, key) as client:
            outcome(lambda client=client: act(client, "list_series"))  # type: ignore[misc]  # as above
        counts.append(len(set(compared)))
        assert compared, "by nothing else"
    assert set(counts) == {1}, "digests of one length, whatever was sent"


def test_tls_is_not_talked_down(tmp_path: Path) -> None:
    server = Authority(tmp_path, "ours").issue("server", ["127.0.0.1"])
    settings = load_settings(
        ServerSettings,
        lake=str(tmp_path / "lake"),
        flight_port=0,
        shutdown_seconds=2.0,
        tls_certificate=server.certificate,
        tls_key=server.key,
    )
    lake = Lake.open(settings.lake, settings)
    service = start_flight_server(lake, settings)
    try:
        port = urlsplit(service.url).port or 0
        assert _version_of(port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert _version_of(port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                _version_of(port, old)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            said = b""
            with suppress(ConnectionError):
                said = plain.recv(1000)
            assert not [each for each in INSIDE if each.encode() in said]
            assert b"\0\0\x04\0\0" not in said, "no settings of HTTP/2: it speaks TLS or nothing"
    finally:
        service.stop()
        lake.close()


def _version_of(port: int, version: ssl.TLSVersion) -> str | None:
    """What is spoken with a client that speaks one version alone, however weak its ciphers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, context.wrap_socket(connection) as tls:
        return tls.version()
