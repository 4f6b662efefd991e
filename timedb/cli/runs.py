"""``timedb withdraw`` and ``timedb restore-run``: a run that was wrong, and one that was right after all."""

from __future__ import annotations

from typing import Annotated

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import show

__all__ = ["register"]

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run_id.")]
SeriesIds = Annotated[
    list[str] | None, typer.Option("--series-id", help="Only this series of the run; may be given several times.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    app.command()(withdraw)
    app.command("restore-run")(restore_run)


def withdraw(
    run: RunId,
    reason: Annotated[str | None, typer.Option(help="Why; it stands in the audit of each row.")] = None,
    series_id: SeriesIds = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Withdraw a run that was wrong: the next best values win again, nothing is erased, restore-run undoes it.

    Example: timedb withdraw load-09 --reason "wrong weather"
    """
    with client_of(flight_url) as client:
        show({"withdrawn": client.withdraw_run(run, reason=reason, series_ids=series_id)}, as_json=json)


def restore_run(
    run: RunId,
    reason: Annotated[
        str | None, typer.Option(help="Becomes the annotation of the rows that come back. [their own]")
    ] = None,
    series_id: SeriesIds = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Undo the withdrawals of a run. Rows that were retracted one by one stay so.

    Example: timedb restore-run load-09
    """
    with client_of(flight_url) as client:
        show(client.restore_run(run, reason=reason, series_ids=series_id), as_json=json)
