"""``timedb follow``: what is written, as it is, a line a row."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from timedb.cli.options import FlightUrl, Labels, client_of, selected_labels
from timedb.cli.read_options import Filters, fields_typed, with_read_options
from timedb.cli.reading import SeriesIds, SeriesNames, columns_of
from timedb.contract.errors import InvalidRequest

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(with_read_options(follow))


def follow(
    *,
    series: SeriesNames = None,
    series_id: SeriesIds = None,
    labels: Labels = None,
    filters: Filters,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of times and dates without an offset, say Europe/Stockholm.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="What was written after that; now: from now on. [the beginning]")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Keep the token there after each batch, and go on from what it says."
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="End when all has come that there is.")] = False,
    columns: Annotated[str | None, typer.Option(metavar="A,B,C", help="Which columns, in which order.")] = None,
    flight_url: FlightUrl = None,
) -> None:
    """Print what is written as it is committed: a JSON object a line, a line a version, until it is interrupted.

    A lost connection is made anew. What --state keeps is the token behind the rows that have been printed.

    Example: timedb follow --series wind --state wind.token
    """
    from timedb.cli.formats import pieces_of

    fields = {
        "series_keys": series,
        "series_ids": series_id,
        "labels": selected_labels(labels),
        **fields_typed(time_zone, filters),
    }
    begin = _kept(state) or since
    wanted = columns_of(columns, "changes", all_versions=False)
    with client_of(flight_url) as client:
        follower = client.follow(since=begin, columns=wanted, wait=not no_wait, **fields)
        with follower:
            for batch, token in follower.batches():
                for piece in pieces_of("ndjson", batch.schema, [batch]):
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                _keep(state, token)
        _keep(state, follower.token)


def _kept(state: Path | None) -> str | None:
    if state is None or not state.exists():
        return None
    try:
        return state.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        raise InvalidRequest(f"--state: {str(state)!a} cannot be read, or holds no token") from None


def _keep(state: Path | None, token: str | None) -> None:
    if state is None or token is None:
        return
    whole = state.with_name(f".{os.getpid()}.{state.name[:200]}.part")
    try:
        whole.write_text(f"{token}\n", encoding="ascii")
        whole.replace(state)
    except OSError as error:
        raise InvalidRequest(f"--state: {str(state)!a} cannot be written: {error.strerror}") from None
