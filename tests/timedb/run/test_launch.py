"""A service starts and stops in this process, whatever its peers do."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import timedb as td
from tests.timedb.conftest import T0, frame
from timedb.client.answering import describe_api, flight_instance
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ReadCommand
from timedb.run.launch import Service, refuse_another, start_flight, start_gateway, start_service


def settings_for(lake: Path, **others: object) -> ServerSettings:
    return load_settings(ServerSettings, **{"lake": str(lake), "flight_port": 0, "rest_port": 0, **others})


def test_a_service_answers_at_both_doors_and_stops_twice(lake_dir: Path) -> None:
    service = start_service(settings_for(lake_dir))
    with td.connect(service.flight_url) as client:
        assert client.health() == {"ok": True}
    assert httpx.get(service.rest_url).json()["name"] == "TimeDB API"
    waiting = threading.Thread(target=service.wait)
    waiting.start()
    service.stop()
    waiting.join(10)
    assert not waiting.is_alive()
    service.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.rest_url)


def test_what_was_acknowledged_is_there_after_a_restart(lake_dir: Path) -> None:
    with start_service(settings_for(lake_dir), rest=False) as service, td.connect(service.flight_url) as client:
        assert service.rest_url == ""
        client.upload(frame("load", [1.0, 2.0]))
    with start_service(settings_for(lake_dir), rest=False) as service, td.connect(service.flight_url) as client:
        assert client.read(series_keys="load", ordered=True)["value"].to_list() == [1.0, 2.0]


def test_a_gateway_alone_speaks_to_the_server_that_it_is_told(lake_dir: Path) -> None:
    with (
        start_service(settings_for(lake_dir / "served"), rest=False) as server,
        start_gateway(settings_for(lake_dir / "unused", flight_url=server.flight_url)) as gateway,
        td.connect(server.flight_url) as client,
    ):
        assert gateway.lake is None
        assert httpx.post(f"{gateway.rest_url}/series", json={"name": "load"}).is_success
        assert [each["name"] for each in client.list_series()] == ["load"]
    assert not (lake_dir / "unused").exists()


def test_a_plain_server_is_not_called_by_tls(service: Service) -> None:
    url = service.flight_url.replace("grpc", "grpc+tls")
    with td.connect(url, timeout=5) as client:
        for call in (client.health, lambda: client.upload(frame("load", [1.0]))):
            with pytest.raises(td.InvalidRequest, match=rf"{re.escape(url)} speaks no TLS; .*{service.flight_url}$"):
                call()


START: list[Callable[[ServerSettings], Service]] = [start_service, start_gateway, start_flight]


@pytest.mark.parametrize("start", START)
def test_who_was_started_is_who_answers(lake_dir: Path, service: Service, start: Callable[..., Service]) -> None:
    port = int(service.flight_url.rpartition(":")[2])
    with pytest.raises(td.InvalidRequest, match=rf"TIMEDB_FLIGHT_PORT.*{port}.*stop it, or take another port"):
        start(settings_for(lake_dir, flight_port=port))
    with start(settings_for(lake_dir)) as started:
        assert flight_instance(started.flight_url) not in (None, "", flight_instance(service.flight_url))
        assert started.rest_instance == (describe_api(started.rest_url) or {}).get("instance", "")
    assert flight_instance(started.flight_url) is None


def test_another_service_in_place_of_the_one_that_was_started_is_an_error(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may lead elsewhere than to who listens: localhost is often ::1 first."""
    resolve = socket.getaddrinfo

    def six_first(host: Any, *arguments: Any, **more: Any) -> Any:
        return [
            *(resolve("::1", *arguments, **more) if host == "localhost" else []),
            *resolve(host, *arguments, **more),
        ]

    with start_service(settings_for(lake_dir / "other", host="::1")) as other:
        port = int(other.rest_url.rpartition(":")[2])
        monkeypatch.setattr(socket, "getaddrinfo", six_first)
        with pytest.raises(td.InvalidRequest, match=f"TIMEDB_REST_PORT: another service answers at .*localhost:{port}"):
            start_service(settings_for(lake_dir / "mine", host="localhost", rest_port=port))
        with pytest.raises(td.InvalidRequest, match="TIMEDB_FLIGHT_PORT: another service answers"):
            refuse_another("TIMEDB_FLIGHT_PORT", other.flight_url, flight_instance(other.flight_url), "the one started")


@pytest.mark.parametrize("door", ["flight_port", "rest_port"])
def test_a_port_that_is_taken_is_named_and_nothing_is_left_running(lake_dir: Path, door: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(td.InvalidRequest, match=f"TIMEDB_{door.upper()}.*{port}"):
            start_service(settings_for(lake_dir, **{door: port}))
    with start_service(settings_for(lake_dir, **{door: port})) as service:
        assert str(port) in service.flight_url + service.rest_url


@pytest.mark.parametrize("act", [td.delete, td.create, lambda lake: start_service(settings_for(Path(lake)))])
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, act: Callable[[str], object]) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(td.InvalidRequest):
        act(str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_a_reader_that_stalls_does_not_hold_up_the_stop(lake_dir: Path) -> None:
    service = start_service(settings_for(lake_dir, shutdown_seconds=0.2))
    with td.connect(service.flight_url) as client:
        client.upload(frame("load", [float(i) for i in range(500_000)]))
        # More bytes than the connection's buffers hold.
        stalled = client.stream(ReadCommand(columns=["value_id"]))
        next(stalled)
        service.stop()
        stalled.close()


def test_a_client_finds_its_server_again_after_a_restart(lake_dir: Path) -> None:
    service = start_service(settings_for(lake_dir), rest=False)
    settings = settings_for(lake_dir, flight_port=int(service.flight_url.rpartition(":")[2]))
    with td.connect(service.flight_url) as client:
        client.upload(frame("load", [1.0]), run_id="run-1", known_time=T0)
        service.stop()
        with pytest.raises(td.Busy):
            client.upload(frame("load", [1.0]), run_id="run-1", known_time=T0)
        with start_service(settings, rest=False):
            for _ in range(20):  # gRPC looks for a lost server every two seconds at the least
                try:
                    client.upload(frame("load", [1.0]), run_id="run-1", known_time=T0)
                except td.Busy:
                    continue
                break
            assert client.read(series_keys="load", view="overlapping").height == 1


def test_clients_leave_nothing_behind(service: Service) -> None:
    def open_and_close() -> int:
        for _ in range(20):
            with td.connect(service.flight_url) as client:
                client.health()
                client.upload(frame("leaks", []))
        # gRPC's own threads come and go as it likes; Python calls them so.
        return sum(not thread.name.startswith("Dummy") for thread in threading.enumerate())

    assert open_and_close() == open_and_close()
