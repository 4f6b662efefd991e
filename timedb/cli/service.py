"""``timedb status``, ``timedb maintain``: what a running service holds, and its upkeep."""

from __future__ import annotations

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for command in (status, maintain):
        app.command()(command)


def status(flight_url: FlightUrl = None, json: AsJson = False) -> None:
    """Print figures of the lake."""
    with client_of(flight_url) as client:
        show(client.status(), as_json=json)


def maintain(flight_url: FlightUrl = None, json: AsJson = False) -> None:
    """Compact the values, checkpoint and clean the log, remove dead files; print what was done."""
    with client_of(flight_url) as client:
        show(client.maintain(), as_json=json)
