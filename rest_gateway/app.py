"""The REST gateway as an ASGI app: a Flight client that speaks JSON. It keeps nothing; run as many as you like."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match

from timedb._version import __version__
from timedb.contract.errors import InvalidRequest, TimeDBError
from timedb.contract.hosts import reachable
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import quoted
from timedb.rest_gateway.answer.compression import Compressed
from timedb.rest_gateway.ask.bodies import BodyBudget, Memory
from timedb.rest_gateway.ask.models import (
    NewManySeries,
    NewSeries,
    Restoration,
    SeriesChange,
    UpdateRequest,
    UploadRequest,
    Withdrawal,
)
from timedb.rest_gateway.http.caching import AskEveryTime
from timedb.rest_gateway.http.connection import FlightConnection
from timedb.rest_gateway.http.connections import most_connections
from timedb.rest_gateway.http.errors import error_for_status, error_response, status_of
from timedb.rest_gateway.http.exchange import Exchange
from timedb.rest_gateway.http.framing import OneLength
from timedb.rest_gateway.http.key_first import CallLimit, KeyFirst
from timedb.rest_gateway.http.metrics import Metrics
from timedb.rest_gateway.http.middleware import CallMiddleware, HeadAsGet, LoopbackOnly
from timedb.rest_gateway.http.origins import OPEN_LAKE_HEADER, OwnOrigins, Senders
from timedb.rest_gateway.http.probes import Probes
from timedb.rest_gateway.http.wake_ups import WakeUps
from timedb.rest_gateway.openapi.document import ANSWER_HEADERS, errors, install_openapi
from timedb.rest_gateway.routes import changes as routes_changes
from timedb.rest_gateway.routes import runs as routes_runs
from timedb.rest_gateway.routes import series as routes_series
from timedb.rest_gateway.routes import service as routes_service
from timedb.rest_gateway.routes import ui as routes_ui
from timedb.rest_gateway.routes import values as routes_values

__all__ = ["create_app"]

_ROUTERS = tuple(
    routes.router for routes in (routes_service, routes_series, routes_runs, routes_values, routes_changes, routes_ui)
)
_EVERYWHERE = (401, 403, 422, 500, 501, 503, 504)
_log = logging.getLogger("timedb.rest")
_DESCRIPTION = """\
Time series whose values are revised: what is known now, and what was known when.

Every error has one shape, `{"detail", "code", "request_id"}`; branch on `code`. Names of calls, fields and codes are
stable; fields may be added to answers. A time without an offset is UTC. Send the API key as `X-API-Key`, or as
`Authorization: Bearer`; a lake without users needs none."""


def create_app(flight_url: str, settings: ServerSettings | None = None, memory: Memory | None = None) -> FastAPI:
    """Build the gateway. It connects to the Flight server at the first call, not here.

    Args:
        flight_url: The Flight server, for example ``grpc://127.0.0.1:8815``.
        settings: Limits and the loopback rule; default: from the environment.
        memory: What the bodies of calls ask for room, of the process that this gateway runs in; None: nobody counts.

    Raises:
        InvalidRequest: a setting in the environment does not fit.
    """
    if settings is None:
        settings = load_settings(ServerSettings)
    connection, probes = FlightConnection(flight_url), Probes(flight_url)
    metrics, wake_ups = Metrics(), WakeUps()
    middleware = [Middleware(Exchange), Middleware(CallMiddleware, metrics=metrics)]
    middleware += [Middleware(HeadAsGet), Middleware(Compressed), Middleware(AskEveryTime), Middleware(OneLength)]
    if not settings.insecure:
        middleware.append(Middleware(LoopbackOnly, lake_is_open=probes.lake_is_open))
    origins = settings.cors_origins.replace(",", " ").split()
    hosts = [reachable(settings.host), *settings.allowed_hosts.replace(",", " ").split()]
    senders = Senders(hosts, origins, elsewhere=settings.insecure)
    middleware.append(Middleware(OwnOrigins, senders=senders, lake_is_open=probes.lake_is_open))
    if origins:
        middleware.append(_cors(origins))
    middleware += [
        Middleware(CallLimit, most=settings.max_rest_calls, most_followers=_most_followers(settings)),
        Middleware(KeyFirst, admit=probes.admit),
    ]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        wake_ups.stop()
        connection.close()
        probes.close()

    app = FastAPI(
        title="TimeDB API",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        middleware=middleware,
        responses=errors(*_EVERYWHERE),
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,  # those pages load their scripts from elsewhere; routes_ui has one that does not
        redoc_url=None,
    )
    app.state.connection = connection
    app.state.probes = probes
    app.state.instance = uuid4().hex
    app.state.metrics = metrics
    app.state.settings = settings
    app.state.wake_ups = wake_ups
    app.state.bodies = BodyBudget(settings, memory)
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(TimeDBError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    install_openapi(
        app, (NewSeries, NewManySeries, SeriesChange, UploadRequest, UpdateRequest, Withdrawal, Restoration)
    )
    return app


def _most_followers(settings: ServerSettings) -> int:
    # A connection that waits is never closed to let another in: half of them are for other calls.
    return min(settings.max_rest_followers, max(1, most_connections(settings) // 2))


def _cors(origins: list[str]) -> Middleware:
    # No cookie says who calls, but a key that the page itself sends: credentials need no leave.
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "PATCH"],
        allow_headers=[
            *("Authorization", "Content-Encoding", "Content-Type", "If-None-Match", "X-API-Key", "X-Request-Id"),
            OPEN_LAKE_HEADER,
        ],
        expose_headers=[*ANSWER_HEADERS, "ETag", "Retry-After", "X-Request-Id"],
    )


# These are coroutines, as plain functions would wait for a thread behind calls that hang.
async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TimeDBError)
    request_id: str = request.state.request_id
    if status_of(error) >= 500:
        _log.warning("%s: %s request_id=%s", error.code, error.detail, request_id)
    return error_response(error, request_id)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"][1:])
    reason = fault["msg"][:1].lower() + fault["msg"][1:]
    return await _on_error(request, InvalidRequest(f"{field}: {quoted(fault.get('input'))}: {reason}"))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, quoted(request.url.path)[1:-1]
    detail = {
        404: f"path: there is nothing at {path}; GET / lists the calls",
        405: f"method: {path} does not take {quoted(method)[1:-1]}",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    status = error.status_code
    if status == 405:
        headers["Allow"] = ", ".join(sorted(_methods_of(request)))
    return error_response(error_for_status(status, detail), request.state.request_id, status=status, headers=headers)


def _methods_of(request: Request) -> set[str]:
    """Those that some route of the path takes; Starlette knows only the first of them."""
    routes = [route for each in _ROUTERS for route in each.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or ()}
    return methods | {"HEAD"} if "GET" in methods else methods
