"""Runs: list them, show one, compare two, withdraw one that was wrong and restore one that was right after all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of, instant_of_option
from timedb.cli.output import say, show

if TYPE_CHECKING:
    from timedb.client import Client

__all__ = ["register"]

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run_id.")]
SeriesIds = Annotated[
    list[str] | None, typer.Option("--series-id", help="Only this series of the run; may be given several times.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    app.command("runs")(list_runs)
    app.command("show")(show_run)
    app.command("diff")(diff_runs)
    app.command()(withdraw)
    app.command("restore-run")(restore_run)


_OF_RUN = """
SELECT series_key, series_id, count(*) AS rows, min(valid_time) AS first, max(valid_time) AS last,
  min(known_time) AS first_known, max(known_time) AS last_known
FROM overlapping WHERE run_id = {run} GROUP BY ALL ORDER BY series_key, series_id
"""
_COMPARED = "series_key, series_id, valid_time, valid_time_end, value, run_id"
_BETWEEN = """
WITH one AS (SELECT {columns} FROM overlapping WHERE run_id = {one}),
  other AS (SELECT {columns} FROM overlapping WHERE run_id = {other})
SELECT coalesce(one.series_key, other.series_key) AS series_key, coalesce(one.series_id, other.series_id) AS series_id,
  coalesce(one.valid_time, other.valid_time) AS valid_time, coalesce(one.valid_time_end, other.valid_time_end)
  AS valid_time_end, one.value AS value, other.value AS other_value, other.value - one.value AS difference,
  CASE WHEN other.run_id IS NULL THEN 'only in the first' WHEN one.run_id IS NULL THEN 'only in the second'
    ELSE 'changed' END AS what
FROM one FULL JOIN other ON one.series_id = other.series_id AND one.valid_time = other.valid_time
  AND one.valid_time_end IS NOT DISTINCT FROM other.valid_time_end
WHERE one.run_id IS NULL OR other.run_id IS NULL OR one.value IS DISTINCT FROM other.value
ORDER BY ALL LIMIT {limit}
"""


def list_runs(
    workflow_id: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="First run_start_time, inclusive.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Last run_start_time, exclusive.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="Of times without an offset.")] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """List runs, newest first.

    Example: timedb runs --workflow-id day-ahead --limit 5
    """
    times = {name: instant_of_option(f"--{name}", text, time_zone) for name, text in (("start", start), ("end", end))}
    with client_of(flight_url) as client:
        found = client.list_runs(workflow_id=workflow_id, limit=limit, **times)
    show(found if json else [_in_short(each) for each in found], as_json=json)


def _in_short(run: dict[str, Any]) -> dict[str, Any]:
    names = ("run_id", "workflow_id", "run_start_time", "known_time", "rows", "change_time", "created_by")
    return {name: run.get(name) for name in names} | (
        {"withdrawn_rows": run["withdrawn_rows"]} if run.get("withdrawn_rows") else {"withdrawn_rows": ""}
    )


def show_run(run: RunId, flight_url: FlightUrl = None, json: AsJson = False) -> None:
    """Show a run: what is said of it, and its series with how much they hold, from when to when.

    Example: timedb show load-09
    """
    from timedb.cli.sql import answer_rows

    with client_of(flight_url) as client:
        record = client.get_run(run)
        series = answer_rows(client.sql(_OF_RUN.format(run=_quoted(run))))
    if json:
        show({**record, "series": series}, as_json=True)
        return
    show(record, as_json=False)
    show(series, as_json=False)


def diff_runs(
    run: RunId,
    other: Annotated[str, typer.Argument(metavar="RUN", help="The run_id of another one.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 1000,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Compare two runs: the values that differ, and what stands in one of them alone.

    Example: timedb diff load-06 load-09
    """
    from timedb.cli.sql import answer_rows

    with client_of(flight_url) as client:
        _check_runs(client, run, other)
        query = _BETWEEN.format(columns=_COMPARED, one=_quoted(run), other=_quoted(other), limit=limit)
        rows = answer_rows(client.sql(query))
    show(rows, as_json=json)
    if len(rows) == limit:
        say(f"the first {limit} rows; --limit says another number")
    if not rows:
        say("the runs say the same")


def _check_runs(client: Client, *runs: str) -> None:
    for each in runs:
        client.get_run(each)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


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
