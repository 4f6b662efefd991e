"""A REST client of the session's service, and services of a test's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from timedb.contract.settings import ServerSettings, load_settings

if TYPE_CHECKING:
    from timedb.run.launch import Service

_NAMES = itertools.count()


@pytest.fixture(scope="session")
def rest(service: Service) -> Iterator[httpx.Client]:
    """HTTP to the session's gateway."""
    with httpx.Client(base_url=service.rest_url, timeout=60) as client:
        yield client


@pytest.fixture
def new_service(lake_dir: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service over a fresh lake, with settings as the test wants them."""
    from timedb.run.launch import start_service

    with ExitStack() as services:

        def start(**settings: Any) -> Service:
            lake = str(lake_dir / str(next(_NAMES)))
            fields = {"lake": lake, "flight_port": 0, "rest_port": 0, "shutdown_seconds": 2.0, **settings}
            service = start_service(load_settings(ServerSettings, **fields))
            services.callback(service.stop)
            return service

        yield start


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A series name that no other test uses."""
    return f"{request.node.name}-{next(_NAMES)}"
