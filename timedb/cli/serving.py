"""``timedb serve`` and ``timedb api``: run servers until they are told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from timedb.launch import Service
    from timedb.settings import ServerSettings

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [TIMEDB_HOST, 127.0.0.1]")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(api)


def serve(
    lake: Lake = None,
    host: Host = None,
    flight_port: Annotated[
        int | None, typer.Option(help="Port of the Flight server; 0 takes a free one. [TIMEDB_FLIGHT_PORT, 8815]")
    ] = None,
    rest_port: Annotated[
        int | None, typer.Option(help="Port of the REST gateway; 0 takes a free one. [TIMEDB_REST_PORT, 8000]")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines although the lake has no users. [TIMEDB_INSECURE]")
    ] = False,
) -> None:
    """Run everything in one process: the lake, its Flight server and its REST gateway."""
    from timedb.launch import start_service
    from timedb.settings import ServerSettings, load_settings

    settings = load_settings(
        ServerSettings,
        lake=lake,
        host=host,
        flight_port=flight_port,
        rest_port=rest_port,
        insecure=insecure or None,
    )
    _log_to_stderr(settings)
    stop = _stop_signals()
    _run(start_service(settings), stop)


def api(
    host: Host = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one. [TIMEDB_REST_PORT, 8000]")
    ] = None,
    flight_url: Annotated[
        str | None, typer.Option(help="Flight server to speak to; none: an embedded one. [TIMEDB_FLIGHT_URL]")
    ] = None,
) -> None:
    """Run a REST gateway; without a Flight server to speak to it starts one on the lake of TIMEDB_LAKE."""
    from timedb.launch import start_gateway
    from timedb.settings import ServerSettings, load_settings

    settings = load_settings(ServerSettings, host=host, rest_port=port, flight_url=flight_url)
    _log_to_stderr(settings)
    stop = _stop_signals()
    _run(start_gateway(settings), stop)


def _log_to_stderr(settings: ServerSettings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


def _stop_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, on_signal)
    return stop


def _run(service: Service, stop: threading.Event) -> None:
    print(f"Arrow Flight  {service.flight_url}")
    print(f"REST          {service.rest_url}")
    print(f"Docs          {service.rest_url}/docs", flush=True)
    stop.wait()
    service.stop()
    logging.shutdown()
    sys.stdout.flush()
    # The lake is closed. A reader that stalls would keep the Flight server's threads, and so a normal exit, for ever.
    os._exit(0)
