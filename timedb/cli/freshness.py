"""``timedb series``: the series of the lake, how much they hold, and how fresh they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.options import AsJson, FlightUrl, Labels, client_of, selected_labels
from timedb.cli.output import say, show

if TYPE_CHECKING:
    from timedb.client import Client

__all__ = ["STALE", "register"]

STALE = 17
"""What the command ends with where a series is stale."""
_FIGURES_SHOWN = 100
_ASKED_AT_ONCE = 500
_FIGURES = """
SELECT series_id, min(valid_time) AS first, max(valid_time) AS last, count(*) AS rows, max(change_time) AS last_upload
FROM overlapping WHERE series_id IN ({ids}) GROUP BY series_id
"""


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(series)


def series(
    name: Annotated[str | None, typer.Option(help="Only series of this name.")] = None,
    labels: Labels = None,
    search: Annotated[
        str | None, typer.Option(help="Words that name, unit, description, id or labels must contain.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many by name.")] = None,
    figures: Annotated[
        bool | None,
        typer.Option(
            "--figures/--no-figures",
            help="With first and last valid_time, rows, last upload. [of up to 100, not as JSON]",
        ),
    ] = None,
    stale: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help=f"Ends with {STALE} where the last upload of a series is older, say 2h."),
    ] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """List the series of the lake, with what they hold and how fresh they are.

    Example: timedb series --name load --stale 2h || echo "the load is late"
    """
    allowed = None if stale is None else _length(stale)
    with client_of(flight_url) as client:
        listed = client.list_series(name=name, labels=selected_labels(labels), search=search, limit=limit)
        wanted = figures if figures is not None else (not json and len(listed) <= _FIGURES_SHOWN)
        if wanted or allowed is not None:
            _add_figures(client, listed)
    late = [] if allowed is None else _late(listed, allowed)
    show(listed, as_json=json)
    if allowed is not None and not listed:
        say("there is no such series")
        raise typer.Exit(STALE)
    if late:
        say(f"stale, as nothing came for {stale}: {', '.join(late[:20])}")
        raise typer.Exit(STALE)


def _length(text: str) -> timedelta:
    from timedb.contract.durations import parse_duration
    from timedb.contract.errors import InvalidRequest

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"--stale: {text!a} {error}") from None
    if found.months or found.sign < 0:
        raise InvalidRequest(f"--stale: {text!a} is not a length of days, hours or less")
    return timedelta(days=found.days, microseconds=found.micros)


def _add_figures(client: Client, listed: list[dict[str, Any]]) -> None:
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(listed), _ASKED_AT_ONCE):
        ids = ", ".join(f"'{each['series_id']}'" for each in listed[start : start + _ASKED_AT_ONCE])
        for row in client.sql(_FIGURES.format(ids=ids)).iter_rows(named=True):
            found[row["series_id"]] = row
    for each in listed:
        row = found.get(each["series_id"], {})
        for name in ("first", "last", "last_upload"):
            each[name] = row[name].isoformat() if row.get(name) is not None else None
        each["rows"] = row.get("rows", 0)
        last = row.get("last_upload")
        age = None if last is None else max(datetime.now(UTC) - last, timedelta())
        each["age_seconds"] = None if age is None else round(age.total_seconds(), 1)


def _late(listed: list[dict[str, Any]], allowed: timedelta) -> list[str]:
    names = []
    for each in listed:
        each["stale"] = each["age_seconds"] is None or each["age_seconds"] > allowed.total_seconds()
        if each["stale"]:
            names.append(each["name"])
    return names
