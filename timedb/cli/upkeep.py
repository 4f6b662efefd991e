"""``timedb doctor``, ``upgrade``, ``backup``, ``restore`` and ``retention``: what an operator does to a lake."""

from __future__ import annotations

import json as json_lib
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import can_ask, confirm, say, show

__all__ = ["register"]

Lake = Annotated[str | None, typer.Option(help="Where the lake is. [TIMEDB_LAKE, ./timedb-data]")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_LEAST = 19
_TELL_SECONDS = 5.0
FAULTS_FOUND = 1
"""Exit code of ``timedb doctor`` where something is wrong and has not been mended."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for command in (doctor, upgrade, backup, restore, retention):
        app.command()(command)


def doctor(
    lake: Lake = None,
    repair: Annotated[bool, typer.Option(help="Mend what can be mended without losing acknowledged rows.")] = False,
    accept_loss: Annotated[
        bool, typer.Option(help="With --repair: drop what is gone or damaged, and with it the rows that were there.")
    ] = False,
    accept_foreign: Annotated[
        bool,
        typer.Option(
            help="Take what other writers have done to the tables so far for meant: from now on it is no fault."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(help="Read every byte of every live file, at low priority; beside a running server, too."),
    ] = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Examine the lake's files; ends with 1 where a fault is left."""
    from timedb.contract.errors import InvalidRequest
    from timedb.storage import Lake as StoredLake

    if accept_loss and not repair:
        raise InvalidRequest("--accept-loss: does nothing without --repair")
    if accept_loss:
        losses = [] if yes or not can_ask() else StoredLake.doctor(_address(lake))
        for finding in losses:
            if finding["loss"] is not None:
                say(f"{finding['table']}: {finding['fault']} {finding['path']}; lost is {finding['loss']}")
        confirm("Drop what is gone or damaged? What is said above is lost then.", yes=yes)
    progress = _Progress()
    if verify:
        os.nice(_LEAST)
    found = StoredLake.doctor(
        _address(lake),
        repair=repair,
        accept_loss=accept_loss,
        verify=verify,
        progress=progress.looked_at,
        accept_foreign=accept_foreign,
    )
    if verify:
        say(f"every byte was read: {progress}")
    show(found, as_json=json)
    faults = [finding for finding in found if not finding["notice"]]
    if not faults:
        say("the lake is sound")
    if not all(finding["repaired"] for finding in faults):
        raise typer.Exit(FAULTS_FOUND)


def upgrade(lake: Lake = None, json: AsJson = False) -> None:
    """Lift the lake to the newest format; its servers must be stopped for that.

    Tables that an older release made also get the properties that new ones have. Done again, it changes nothing.
    """
    from timedb.storage import Lake as StoredLake

    lifted = StoredLake.upgrade(_address(lake))
    if lifted["from"] == lifted["to"] and not lifted["tables"]:
        say(f"the lake is at the newest format already: {lifted['to']}")
    show(lifted, as_json=json)


def backup(
    target: Annotated[str, typer.Argument(help="An empty folder, or one to be made.")],
    lake: Lake = None,
    hard_links: Annotated[
        bool, typer.Option(help="Link data files instead of copying them: quick, but on the same disk.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Copy the lake as it is now, while its servers go on."""
    from timedb.storage import Lake as StoredLake

    show(StoredLake.backup(_address(lake), target, hard_links=hard_links), as_json=json)


def restore(
    source: Annotated[str, typer.Argument(help="A folder that timedb backup has made.")],
    lake: Lake = None,
    json: AsJson = False,
) -> None:
    """Make a lake from a backup, in a folder that is empty or not there."""
    from timedb.storage import Lake as StoredLake

    show(StoredLake.restore(source, _address(lake)), as_json=json)


def retention(
    rules: Annotated[Path, typer.Argument(help="A JSON file: a list of rules.", exists=True, dir_okay=False)],
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove what the rules do not keep; without it, only tell.")
    ] = False,
    yes: Yes = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Tell what retention rules would remove, or remove it; asks before it does."""
    from timedb.contract.errors import InvalidRequest
    from timedb.contract.json_keys import object_of

    try:
        listed = json_lib.loads(rules.read_text(), object_pairs_hook=object_of)
    except (json_lib.JSONDecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"rules: {str(rules)!r} is not JSON") from None
    except RecursionError:
        raise InvalidRequest(f"rules: {str(rules)!r} is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"rules: {str(rules)!r}: {error}") from None
    if apply:
        confirm(f"Remove what {rules} does not keep? Nothing brings it back.", yes=yes)
    with client_of(flight_url) as client:
        show(client.apply_retention(listed, dry_run=not apply), as_json=json)


class _Progress:
    """What has been looked at, told every few seconds."""

    def __init__(self) -> None:
        self._files = self._bytes = 0
        self._told = time.monotonic()

    def looked_at(self, table: str, size: int) -> None:
        """Count a file."""
        self._files, self._bytes = self._files + 1, self._bytes + size
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            say(f"{table}: {self} so far")

    def __str__(self) -> str:
        return f"{self._files:,} files, {self._bytes:,} bytes"


def _address(lake: str | None) -> str:
    from timedb.contract.settings import ServerSettings, load_settings

    return load_settings(ServerSettings, lake=lake).lake
