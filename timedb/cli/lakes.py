"""``timedb create`` and ``timedb delete``: the lake itself, without a server."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Annotated

import typer

from timedb.cli.options import AsJson
from timedb.cli.output import confirm, show

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    app.command()(create)
    app.command()(delete)


def create(
    lake: Lake = None,
    with_users: Annotated[
        bool, typer.Option("--with-users", help="Ask every call for an API key, from now on and for good.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make the lake; one that is there already stays as it is."""
    from timedb.run import sdk, users

    with _sdk_prints_beside(json):
        if with_users:
            users.create_with_users(lake)
        else:
            sdk.create(lake)
    if json:
        show({"lake": _address(lake), "users": with_users}, as_json=True)


def delete(
    lake: Lake = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it although a server is running on it.")] = False,
    json: AsJson = False,
) -> None:
    """Delete the lake with everything in it. Asks first."""
    from timedb.run import sdk

    address = _address(lake)
    confirm(f"Delete the lake at {address} with everything in it?", yes=yes)
    with _sdk_prints_beside(json):
        sdk.delete(address, force=force)
    if json:
        show({"lake": address, "deleted": True}, as_json=True)


def _address(lake: str | None) -> str:
    from timedb.contract.settings import ServerSettings, load_settings

    return load_settings(ServerSettings, lake=lake).lake


def _sdk_prints_beside(json: bool) -> AbstractContextManager[object]:
    """What the SDK tells people goes to standard error where the answer is for a program."""
    return redirect_stdout(sys.stderr) if json else nullcontext()
