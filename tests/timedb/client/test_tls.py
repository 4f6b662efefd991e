"""TLS and mutual TLS at both doors, with certificates made here."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import flight

import timedb as td
from tests.timedb.certificates import Authority, Pair
from tests.timedb.conftest import frame
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import Service, start_gateway, start_service


@dataclass(frozen=True)
class Papers:
    """Certificates of two authorities, of which the second signs nobody's server."""

    ours: Authority
    theirs: Authority
    server: Pair
    elsewhere: Pair
    client: Pair
    stranger: Pair

    def context(self, *, client: Pair | None = None) -> ssl.SSLContext:
        """What an HTTP client needs."""
        context = ssl.create_default_context(cafile=self.ours.pair.certificate)
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    return Papers(
        ours,
        theirs,
        server=ours.issue("server", ["localhost", "127.0.0.1"]),
        elsewhere=ours.issue("elsewhere", ["timedb.example.com"]),
        client=ours.issue("client"),
        stranger=theirs.issue("stranger"),
    )


def settings(papers: Papers, lake: Path, **others: object) -> ServerSettings:
    fields: dict[str, object] = {"lake": str(lake), "flight_port": 0, "rest_port": 0, "shutdown_seconds": 2.0}
    tls = {"tls_certificate": papers.server.certificate, "tls_key": papers.server.key}
    return load_settings(ServerSettings, **{**fields, **tls, **others})


@pytest.fixture
def serve(papers: Papers, lake_dir: Path) -> Iterator[Callable[..., Service]]:
    with ExitStack() as services:
        yield lambda **others: services.enter_context(start_service(settings(papers, lake_dir, **others)))


def test_both_doors_speak_tls_and_nothing_else(serve: Callable[..., Service], papers: Papers) -> None:
    service = serve()
    assert service.flight_url.startswith("grpc+tls://127.0.0.1:")
    assert service.rest_url.startswith("https://127.0.0.1:")
    roots = papers.ours.pair.certificate
    with td.connect(service.flight_url, tls_root_certificates=roots) as client:
        client.upload(frame("load", [1.0, 2.0]))
        assert client.read(series_keys="load").height == 2
    with httpx.Client(base_url=service.rest_url, verify=papers.context()) as rest:
        assert rest.get("/health").json() == {"status": "ok"}
        assert rest.get("/values").json()["count"] == 2
    plain = service.flight_url.replace("+tls", "")
    said = re.escape(f"the server at {plain} speaks TLS; its address is {service.flight_url}")
    with td.connect(plain, timeout=5) as client:
        for call in (client.health, lambda: client.read(), lambda: client.upload(frame("load", [1.0]))):
            with pytest.raises(td.InvalidRequest, match=said):
                call()
    alone = load_settings(ServerSettings, flight_url=plain, rest_port=0, shutdown_seconds=2.0)
    with start_gateway(alone) as gateway:
        answer = httpx.get(f"{gateway.rest_url}/values")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "behind this gateway cannot be reached" in answer.json()["detail"]
    with pytest.raises(httpx.TransportError):
        httpx.get(service.rest_url.replace("https", "http"))


@pytest.mark.parametrize("roots", ["theirs", None])
def test_a_server_of_another_authority_is_not_trusted(
    serve: Callable[..., Service], papers: Papers, roots: str | None
) -> None:
    chosen = None if roots is None else papers.theirs.pair.certificate
    with td.connect(serve().flight_url, tls_root_certificates=chosen, timeout=5) as client:
        with pytest.raises(td.InvalidRequest, match=r"certificate of another name or authority.*TIMEDB_TLS_ROOT"):
            client.health()
        with pytest.raises(td.InvalidRequest):
            client.upload(frame("load", [1.0]))


def test_a_server_of_another_name_is_not_trusted_but_serves_its_own_gateway(
    serve: Callable[..., Service], papers: Papers
) -> None:
    service = serve(tls_certificate=papers.elsewhere.certificate, tls_key=papers.elsewhere.key)
    roots = papers.ours.pair.certificate
    client = td.connect(service.flight_url, tls_root_certificates=roots, timeout=5)
    with client, pytest.raises(td.InvalidRequest, match="another name"):
        client.health()
    context = papers.context()
    context.check_hostname = False
    assert httpx.get(f"{service.rest_url}/health", verify=context).json() == {"status": "ok"}


def test_mutual_tls_asks_every_client_for_a_certificate(serve: Callable[..., Service], papers: Papers) -> None:
    service = serve(tls_client_ca=papers.ours.pair.certificate)
    roots = papers.ours.pair.certificate

    def ask(pair: Pair | None) -> dict[str, object]:
        shown: dict[str, Any] = {}
        if pair is not None:
            shown = {"tls_client_certificate": pair.certificate, "tls_client_key": pair.key}
        with td.connect(service.flight_url, tls_root_certificates=roots, timeout=5, **shown) as client:
            return client.health()

    assert ask(papers.client) == {"ok": True}
    with httpx.Client(verify=papers.context(client=papers.client)) as rest:
        assert rest.get(f"{service.rest_url}/health").json() == {"status": "ok"}
        assert rest.get(f"{service.rest_url}/list_timeseries").json() == {}
    for pair in (None, papers.stranger):
        with pytest.raises(td.Busy):
            ask(pair)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{service.rest_url}/health", verify=papers.context(client=pair))


def test_a_gateway_alone_finds_its_certificates_in_the_environment(
    serve: Callable[..., Service], papers: Papers, lake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(tls_client_ca=papers.ours.pair.certificate)
    alone = load_settings(ServerSettings, flight_url=server.flight_url, rest_port=0)
    monkeypatch.setenv("TIMEDB_TLS_ROOT_CERTIFICATES", papers.ours.pair.certificate)
    with start_gateway(alone) as gateway:
        assert httpx.get(f"{gateway.rest_url}/health").status_code == 503
    monkeypatch.setenv("TIMEDB_TLS_CLIENT_CERTIFICATE", papers.client.certificate)
    monkeypatch.setenv("TIMEDB_TLS_CLIENT_KEY", papers.client.key)
    with start_gateway(alone) as gateway:
        assert httpx.get(f"{gateway.rest_url}/health").json() == {"status": "ok"}


def test_the_inner_door_is_for_this_user_alone_and_goes_with_the_service(serve: Callable[..., Service]) -> None:
    service = serve()
    socket = Path(service.inner_url.removeprefix("grpc+unix://"))
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    with td.connect(service.inner_url) as client:
        assert client.health() == {"ok": True}
        flights: flight.FlightClient = client._connection.flight_client
        assert {action.type for action in flights.list_actions()} >= {"health", "status"}
    service.stop()
    assert not socket.parent.exists()


def test_the_inner_door_asks_for_keys_too(serve: Callable[..., Service], lake_dir: Path) -> None:
    td.create_with_users(str(lake_dir))
    service = serve()
    with td.connect(service.inner_url, api_key="nonsense") as client, pytest.raises(td.Unauthenticated):
        client.list_series()
    key = td.create_user("ann@example.com", lake=str(lake_dir))["api_key"]
    with td.connect(service.inner_url, api_key=key) as client:
        assert client.list_series() == []
        client.upload(frame("load", [1.0]))
        assert client.read().height == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tls_key": None}, r"TIMEDB_TLS_CERTIFICATE, TIMEDB_TLS_KEY: TLS needs both"),
        ({"tls_certificate": None}, r"TIMEDB_TLS_CERTIFICATE, TIMEDB_TLS_KEY: TLS needs both"),
        ({"tls_key": "client.key"}, r"are no certificate and its unencrypted private key"),
        ({"tls_certificate": "server.key"}, r"are no certificate and its unencrypted private key"),
        ({"tls_key": "missing.key"}, r"TIMEDB_TLS_KEY: .*missing\.key' cannot be read"),
        ({"tls_client_ca": "missing.pem"}, r"TIMEDB_TLS_CLIENT_CA: .*missing\.pem' cannot be read"),
        ({"tls_client_ca": "server.key"}, r"TIMEDB_TLS_CLIENT_CA: .* holds no PEM certificate"),
    ],
)
def test_what_is_wrong_with_a_server_s_certificate_is_said_before_it_listens(
    papers: Papers, lake_dir: Path, wrong: dict[str, str | None], said: str
) -> None:
    folder = Path(papers.server.key).parent
    paths = {name: None if text is None else str(folder / text) for name, text in wrong.items()}
    with pytest.raises(td.InvalidRequest, match=said):
        start_service(settings(papers, lake_dir).model_copy(update=paths))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_root_certificates": "missing.pem"}, r"TIMEDB_TLS_ROOT_CERTIFICATES: .* cannot be read"),
        ({"tls_root_certificates": "server.key"}, r"TIMEDB_TLS_ROOT_CERTIFICATES: .* holds no PEM certificate"),
        ({"tls_client_certificate": "client.pem"}, r"goes with its key"),
        ({"tls_client_certificate": "client.pem", "tls_client_key": "server.key"}, r"are no certificate and its"),
    ],
)
def test_what_is_wrong_with_a_client_s_certificate_is_said_before_it_connects(
    papers: Papers, given: dict[str, str], said: str
) -> None:
    folder = Path(papers.server.key).parent
    files: dict[str, Any] = {name: str(folder / text) for name, text in given.items()}
    with pytest.raises(td.InvalidRequest, match=said):
        td.connect("grpc+tls://127.0.0.1:1", **files)


def test_the_notebook_s_facade_serves_tls_by_the_environment(papers: Papers, tmp_path: Path) -> None:
    code = """
import timedb as td
td.create()
assert td.start_api_background(port=0) is True
assert td.check_api() is True
"""
    environment = {
        **os.environ,
        "TIMEDB_TLS_CERTIFICATE": papers.elsewhere.certificate,
        "TIMEDB_TLS_KEY": papers.elsewhere.key,
        "TIMEDB_FLIGHT_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Server running at https://127.0.0.1:" in done.stdout
    assert "Arrow Flight at grpc+tls://127.0.0.1:" in done.stdout
