"""A service starts and stops in this process, whatever its peers do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import timedb as td
from tests.timedb.conftest import T0, frame
from timedb.launch import Service, start_gateway, start_service
from timedb.settings import ServerSettings, load_settings
from timedb.wire import ReadCommand


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


def test_an_embedded_server_takes_another_port_where_its_own_is_taken(lake_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start_gateway(settings_for(lake_dir, flight_port=port)) as gateway:
            assert gateway.flight_url != f"grpc://127.0.0.1:{port}"
            assert httpx.get(f"{gateway.rest_url}/health").is_success


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
