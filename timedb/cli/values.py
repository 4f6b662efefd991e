"""``timedb upload``: values from files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import say, show

if TYPE_CHECKING:
    from timedb.cli.files import UploadFile
    from timedb.client.receipt import Receipt

__all__ = ["register"]

Format = Literal["csv", "parquet", "arrow", "ndjson", "json"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    app.command()(upload)


def upload(
    file: Annotated[
        Path,
        typer.Argument(dir_okay=False, help="A file; - is standard input."),
    ],
    format: Annotated[
        Format | None, typer.Option(help="What the file is. [by its first bytes and its suffix, else csv]")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Of CSV: what stands between cells; tab is the tab. [,]")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Of CSV: what stands before decimals: . or , [.]")
    ] = None,
    thousands: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="Of CSV: what stands between groups of three digits.")
    ] = None,
    null: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Of CSV: stands for no value, say n/e; may be repeated.")
    ] = None,
    valid_time: Annotated[str | None, typer.Option(metavar="COLUMN", help="[valid_time]")] = None,
    valid_time_end: Annotated[str | None, typer.Option(metavar="COLUMN", help="[valid_time_end]")] = None,
    value: Annotated[str | None, typer.Option(metavar="COLUMN", help="[value]")] = None,
    series: Annotated[str | None, typer.Option(metavar="NAME", help="One series for all rows.")] = None,
    series_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The series' names. [series_key, series_id]")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="KEY=COLUMN", help="A label of the series, from that column; may be repeated. [labels]"
        ),
    ] = None,
    label_values: Annotated[
        list[str] | None,
        typer.Option(
            "--label-value", metavar="KEY=TEXT", help="A label of the series, for all rows; may be repeated. [labels]"
        ),
    ] = None,
    known_time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|TIME", help="When the values became known. [known_time, else now]"),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE", help="Of times and dates without an offset, in the file and here, say Europe/Stockholm."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is left out; may be repeated.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Names the run; repeating it is a safe retry. [a new one]")] = None,
    workflow_id: Annotated[str | None, typer.Option(help="What made the run.")] = None,
    create_series: Annotated[bool, typer.Option(help="Create the series that do not exist yet.")] = True,
    skip_unchanged: Annotated[
        bool,
        typer.Option(
            "--skip-unchanged",
            help="Leave out rows that repeat the one known before; late runs and corrections find them as never sent.",
        ),
    ] = False,
    unit: Annotated[str | None, typer.Option(help="Of all values; converted to the unit of their series.")] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Upload a file as one run; all of it or nothing.

    Every column must be one of an upload (series_key or series_id, labels, valid_time, valid_time_end, known_time,
    value, annotation, tags), one that an option names, or one that --ignore leaves out. An option goes before a column.
    """
    from timedb.cli.files import csv_form, open_file
    from timedb.cli.upload_columns import FileColumns, pairs_of
    from timedb.client.progress import bar
    from timedb.files.cells import check_time_zone

    check_time_zone("--time-zone", time_zone)
    columns = FileColumns(
        named=_named(valid_time=valid_time, valid_time_end=valid_time_end, value=value, series_key=series_column),
        series=_one_of_two(series, series_column),
        known_time=known_time,
        labels=pairs_of("--label", labels),
        fixed_labels=pairs_of("--label-value", label_values),
        ignored=ignore or (),
        time_zone=time_zone,
    )
    form = csv_form(delimiter, decimal, thousands, null)

    with (
        open_file(file, columns, format, form) as opened,
        client_of(flight_url) as client,
        bar("Uploading", opened.rows) as progress,
    ):
        _tell(opened)
        receipt = client.upload(
            opened.reader,
            run_id=run_id,
            workflow_id=workflow_id,
            known_time=opened.chosen.known_at,
            create_series=create_series,
            skip_unchanged=skip_unchanged,
            unit=unit,
            progress=progress,
        )
    if text := receipt.withdrawal_text(f"timedb restore-run {shlex.quote(receipt.run_id)}"):
        say(f"warning: {text}")
    show(_shown(receipt, whole=json), as_json=json)


def _named(**options: str | None) -> dict[str, str]:
    return {ours: source for ours, source in options.items() if source is not None}


def _one_of_two(series: str | None, series_column: str | None) -> str | None:
    from timedb.contract.errors import InvalidRequest

    if series is not None and series_column is not None:
        raise InvalidRequest("--series, --series-column: say one of them, not both")
    return series


def _tell(opened: UploadFile) -> None:
    """Say what a person might not expect: columns that lost against an option, and values that are known from now."""
    for column, option in opened.chosen.overruled.items():
        say(f"not the file's column {column}, but what {option} says")
    if opened.chosen.known_at is None and "known_time" not in opened.chosen.columns:
        say("known_time: now, as nothing said when the values became known; --known-time says it")


def _shown(receipt: Receipt, *, whole: bool) -> dict[str, Any]:
    counts: dict[str, Any] = {"run_id": receipt.run_id, "rows": receipt.rows, "skipped": receipt.skipped}
    if receipt.withdrawn_rows:
        counts["withdrawn_rows"] = receipt.withdrawn_rows
    change_time = receipt.change_time.isoformat()
    if not whole:
        return {**counts, "series": len(receipt.series), "change_time": change_time}
    return {**counts, "series": receipt.series, "change_time": change_time, "table_version": receipt.table_version}
