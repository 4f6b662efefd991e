"""The REST gateway for ASGI servers: ``uvicorn timedb.api:app``.

With ``TIMEDB_FLIGHT_URL`` it is a gateway for that Flight server and nothing else. Without, it starts an embedded
Flight server on the lake of ``TIMEDB_LAKE`` when the ASGI server starts it, and stops that with it. Importing this
module starts nothing; settings are read when ``app`` is first asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

    from timedb.contract.settings import ServerSettings

    app: FastAPI

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from timedb.contract.settings import ServerSettings, load_settings

    value = globals()["app"] = _build(load_settings(ServerSettings))
    return value


def _build(settings: ServerSettings) -> FastAPI:
    from timedb.rest_gateway import create_app
    from timedb.storage import MemoryOfServer

    if settings.flight_url is not None:
        return create_app(settings.flight_url, settings, MemoryOfServer(settings).calls)
    return _with_embedded_server(settings)


def _with_embedded_server(settings: ServerSettings) -> FastAPI:
    """An app around the gateway: that must be told its Flight server's port, which is known only once it runs."""
    from anyio.to_thread import run_sync
    from fastapi import FastAPI

    from timedb.rest_gateway import create_app

    @asynccontextmanager
    async def lifespan(outer: FastAPI) -> AsyncIterator[None]:
        from timedb.run.launch import start_flight

        service = await run_sync(start_flight, settings)
        try:
            gateway = create_app(service.inner_url, settings, service.memory)
            async with gateway.router.lifespan_context(gateway):
                outer.state.gateway = gateway
                yield
        finally:
            await run_sync(service.stop)

    outer = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        await outer.state.gateway(scope, receive, send)

    outer.mount("/", forward)
    return outer
