"""``timedb status``, ``timedb series``, ``timedb maintain``: what a running service holds, and its upkeep."""

from __future__ import annotations

from typing import Annotated

import typer

from timedb.cli.options import AsJson, FlightUrl, Labels, client_of, selected_labels
from timedb.cli.output import show

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for command in (status, series, maintain):
        app.command()(command)


def status(flight_url: FlightUrl = None, json: AsJson = False) -> None:
    """Print figures of the lake."""
    with client_of(flight_url) as client:
        show(client.status(), as_json=json)


def series(
    name: Annotated[str | None, typer.Option(help="Only series of this name.")] = None,
    labels: Labels = None,
    search: Annotated[
        str | None, typer.Option(help="Words that name, unit, description, id or labels must contain.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many by name.")] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """List the series of the lake."""
    with client_of(flight_url) as client:
        listed = client.list_series(name=name, labels=selected_labels(labels), search=search, limit=limit)
    show(listed, as_json=json)


def maintain(flight_url: FlightUrl = None, json: AsJson = False) -> None:
    """Compact the values, checkpoint and clean the log, remove dead files; print what was done."""
    with client_of(flight_url) as client:
        show(client.maintain(), as_json=json)
