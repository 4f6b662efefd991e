"""``timedb create`` and ``timedb delete``: the lake itself, without a server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(create)
    app.command()(delete)


def create(lake: Lake = None) -> None:
    """Make the lake; one that is there already stays as it is."""
    from timedb import sdk

    sdk.create(lake)


def delete(lake: Lake = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete the lake with everything in it. Asks first."""
    from timedb import sdk
    from timedb.errors import InvalidRequest
    from timedb.settings import ServerSettings, load_settings

    address = load_settings(ServerSettings, lake=lake).lake
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("--yes: is needed where nobody can be asked")
        typer.confirm(f"Delete the lake at {address} with everything in it?", abort=True)
    sdk.delete(address)
