"""``timedb serve`` and ``timedb api``: run servers until they are told to stop."""

from __future__ import annotations

import gc
import json as json_lib
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from timedb.cli.allocators import choose_allocators
from timedb.cli.options import AsJson
from timedb.contract.waiting import wait_in_slices

if TYPE_CHECKING:
    from timedb.contract.settings import ServerSettings
    from timedb.run.launch import Service

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [TIMEDB_HOST, 127.0.0.1]")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
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
    json: AsJson = False,
) -> None:
    """Run everything in one process: the lake, its Flight server and its REST gateway."""
    choose_allocators()
    from timedb.contract.settings import ServerSettings, load_settings
    from timedb.run.launch import start_service

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
    _run(start_service(settings), stop, as_json=json)


def api(
    host: Host = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one. [TIMEDB_REST_PORT, 8000]")
    ] = None,
    flight_url: Annotated[
        str | None, typer.Option(help="Flight server to speak to; none: an embedded one. [TIMEDB_FLIGHT_URL]")
    ] = None,
    json: AsJson = False,
) -> None:
    """Run a REST gateway; without a Flight server to speak to it starts one on the lake of TIMEDB_LAKE."""
    choose_allocators()
    from timedb.contract.settings import ServerSettings, load_settings
    from timedb.run.launch import start_gateway

    settings = load_settings(ServerSettings, host=host, rest_port=port, flight_url=flight_url)
    _log_to_stderr(settings)
    stop = _stop_signals()
    _run(start_gateway(settings), stop, as_json=json)


def _log_to_stderr(settings: ServerSettings) -> None:
    from timedb.run.logs import log_to_stderr

    log_to_stderr(settings.log_level, settings.log_format)
    if settings.audit_log is not None:
        _audit_to(settings.audit_log)


def _audit_to(path: str) -> None:
    from timedb.contract.errors import InvalidRequest
    from timedb.flight_server.call.audit import AUDIT_LOGGER
    from timedb.flight_server.call.audit_file import AuditFile

    try:
        handler = AuditFile(path)
    except OSError as error:
        raise InvalidRequest(f"TIMEDB_AUDIT_LOG: {path!a} cannot be written: {error.strerror}") from None
    audit = logging.getLogger(AUDIT_LOGGER)
    audit.addHandler(handler)
    audit.setLevel(logging.INFO)  # whatever the other log leaves out
    audit.propagate = False


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


def _run(service: Service, stop: threading.Event, *, as_json: bool) -> None:
    if as_json:
        print(json_lib.dumps(_about(service)), flush=True)
    else:
        _print_banner(service)
    gc.freeze()  # modules and models: nothing of them is ever garbage, and looking for some takes time from every call
    wait_in_slices(stop.wait)
    service.stop()
    logging.shutdown()
    sys.stdout.flush()
    # The lake is closed. A reader that stalls would keep the Flight server's threads, and so a normal exit, for ever.
    os._exit(0)


def _about(service: Service) -> dict[str, object]:
    lake = {"lake": service.lake, "lake_is_new": service.lake_is_new, "has_users": service.has_users}
    return {"flight_url": service.flight_url, "rest_url": service.rest_url, **(lake if service.lake else {})}


def _print_banner(service: Service) -> None:
    if service.lake is not None:
        made = ", made now" if service.lake_is_new else ""
        access = "has users: calls need a key" if service.has_users else "open: calls need no key (timedb users create)"
        print(f"Lake          {service.lake}{made}; {access}")
    print(f"Arrow Flight  {service.flight_url}")
    print(f"REST          {service.rest_url}")
    print(f"Page          {service.rest_url}/ui")
    print(f"Docs          {service.rest_url}/docs", flush=True)
