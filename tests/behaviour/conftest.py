"""The doors of one running service, each with its own lake or its own series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.behaviour.doors import AppendDoor, Door, EveryDoor, FlightDoor, RestDoor, StorageDoor, TableDoor
from tests.behaviour.pairs import Doors
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.storage import Lake, Tenant

if TYPE_CHECKING:
    from timedb.client import Client
    from timedb.run.launch import Service


@pytest.fixture(scope="session")
def lake_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the storage door's lake."""
    return str(tmp_path_factory.mktemp("behaviour") / "lake")


@pytest.fixture(scope="session")
def lake(lake_uri: str) -> Iterator[Lake]:
    """A lake of its own for the storage door."""
    lake = Lake.open(lake_uri, load_settings(ServerSettings, lake=lake_uri))
    yield lake
    lake.close()


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[Client]:
    """A Flight client of the session's service."""
    from timedb.client import connect

    with connect(service.flight_url) as client:
        yield client


@pytest.fixture(scope="session")
def storage_door(lake: Lake) -> Door:
    return StorageDoor(lake.tenant(OPEN_TENANT_ID))


@pytest.fixture(scope="session")
def flight_door(service: Service, client: Client) -> Door:
    return FlightDoor(client, service.flight_url)


@pytest.fixture(scope="session")
def append_door(service: Service, client: Client) -> Iterator[AppendDoor]:
    door = AppendDoor(client, service.flight_url)
    yield door
    door.close()


@pytest.fixture(scope="session")
def rest_door(service: Service, client: Client) -> Iterator[Door]:
    with httpx.Client(base_url=service.rest_url, timeout=30) as http:
        yield RestDoor(http, client)


@pytest.fixture(scope="session")
def every_door(service: Service, client: Client, flight_door: Door, append_door: Door, rest_door: Door) -> Door:
    return EveryDoor(flight_door, append_door, rest_door, TableDoor(client, service.flight_url))


@pytest.fixture(scope="session", params=["storage", "flight", "rest"])
def door(request: pytest.FixtureRequest) -> Door:
    """Each door in turn."""
    door: Door = request.getfixturevalue(f"{request.param}_door")
    return door


@pytest.fixture(scope="session")
def doors(
    service: Service, client: Client, service_lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Doors]:
    """All doors of the session's service."""
    with httpx.Client(base_url=service.rest_url, timeout=60) as http:
        yield Doors(client, service.flight_url, http, service_lake, tmp_path_factory.mktemp("doors"))


@pytest.fixture
def own_lake(tmp_path: Path) -> Iterator[tuple[str, Tenant]]:
    """The path and the tenant of a lake for one test; the path has all that a shell would stumble on."""
    path = str(tmp_path / "Åsa's lake #[1]")
    lake = Lake.open(path, load_settings(ServerSettings, lake=path, maintenance_seconds=10_000.0))
    yield path, lake.tenant(OPEN_TENANT_ID)
    lake.close()
