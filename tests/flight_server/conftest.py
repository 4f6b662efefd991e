"""One Flight server for all of these tests, in this process, and others over its lake where a test wants limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pyarrow import flight

from tests.flight_server.flights import many_rows, send
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import FlightService, start_flight_server
from timedb.storage import Lake

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The lake of all servers here."""
    uri = str(tmp_path_factory.mktemp("flight") / "lake")
    lake = Lake.open(uri, load_settings(ServerSettings, lake=uri, memory_wait_seconds=3.0))
    yield lake
    lake.close()


@pytest.fixture(scope="session")
def flight_service(lake: Lake) -> Iterator[FlightService]:
    """The server. pyarrow never frees one, so there is one for the session."""
    service = start_flight_server(lake, load_settings(ServerSettings, flight_port=0, shutdown_seconds=5.0))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def client(flight_service: FlightService) -> Iterator[flight.FlightClient]:
    """A client of the server."""
    with flight.connect(flight_service.url) as client:
        yield client


@pytest.fixture(scope="session")
def wide_read(client: flight.FlightClient) -> dict[str, Any]:
    """A read whose answer is far larger than what fits between a server and a client that does not read."""
    send(client, many_rows("wide", 400_000), rows=400_000, run_id="wide")
    names = [f"wide-{number}" for number in range(100)]
    columns = ["series_id", "valid_time", "known_time", "change_time", "value", "value_id", "run_id"]
    return {"series_keys": names, "view": "overlapping", "columns": columns}


@pytest.fixture
def start(lake: Lake) -> Iterator[Callable[..., FlightService]]:
    """Starts another server over the lake, with settings as the test wants them."""
    with ExitStack() as services:

        def start(**settings: Any) -> FlightService:
            fields = {"flight_port": 0, "shutdown_seconds": 2.0, **settings}
            service = start_flight_server(lake, load_settings(ServerSettings, **fields))
            services.callback(service.stop)
            return service

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[[FlightService], flight.FlightClient]]:
    """Connects to a server; the connection is closed with the test."""
    with ExitStack() as clients:
        yield lambda service: clients.enter_context(flight.connect(service.url))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A series name that no other test uses."""
    return f"{request.node.name}-{next(_NUMBERS)}"
