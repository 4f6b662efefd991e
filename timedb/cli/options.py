"""Options that several commands have, and the client that they lead to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timedb.contract.errors import InvalidRequest

if TYPE_CHECKING:
    from timedb.client import Client

__all__ = ["AsJson", "FlightUrl", "Format", "Labels", "client_of", "instant_of_option", "labels_of", "selected_labels"]

Format = Literal["csv", "json", "ndjson", "arrow", "parquet"]
"""How an answer is written."""
FlightUrl = Annotated[
    str | None, typer.Option(help="Flight server to speak to. [TIMEDB_FLIGHT_URL, grpc://127.0.0.1:8815]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="Only series with this label; twice for either value; '': those with none.",
    ),
]


def instant_of_option(option: str, text: str | None, time_zone: str | None) -> str | None:
    """The time that an option says, as RFC 3339 text; a date is its first moment. None stays None.

    Args:
        option: How an error calls it.
        text: With an offset, or without one where there is a ``time_zone``.
        time_zone: What ``--time-zone`` says.

    Raises:
        InvalidRequest: it is no time, has no offset and there is no zone, or there is no such zone.
    """
    if text is None:
        return None
    from timedb.contract.times import format_time
    from timedb.contract.wire import quoted
    from timedb.files.cells import check_time_zone, instant_of

    check_time_zone("--time-zone", time_zone)
    try:
        return format_time(instant_of(text, time_zone))
    except ValueError as error:
        hint = "; end it with Z or an offset, or say --time-zone" if str(error) == "has no time zone" else ""
        raise InvalidRequest(f"{option}: {quoted(text)} {error}{hint}") from None


def client_of(flight_url: str | None) -> Client:
    """A client of that server, with the key of the environment."""
    from timedb.client import connect

    return connect(flight_url)


def labels_of(pairs: Iterable[str] | None, option: str = "--label") -> dict[str, str | list[str] | None]:
    """``KEY=VALUE`` texts as label criteria: a key that comes twice may have either value.

    Raises:
        InvalidRequest: one has no ``=``.
    """
    wanted: dict[str, list[str]] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"{option}: {pair!r} is not KEY=VALUE")
        wanted.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in wanted.items()}


def selected_labels(pairs: list[str] | None, option: str = "--label") -> dict[str, str | list[str] | None] | None:
    """What ``--label`` selects: None without the option (all series), ``{}`` for one that is empty (the unlabelled).

    Args:
        pairs: What was typed.
        option: How an error calls the option.

    Raises:
        InvalidRequest: one is not ``KEY=VALUE``, or the empty one stands beside others.
    """
    if not pairs:
        return None
    return {} if pairs == [""] else labels_of(pairs, option)
