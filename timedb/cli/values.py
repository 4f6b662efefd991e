"""``timedb upload`` and ``timedb read``: values from files and to files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timedb.cli.options import AsJson, FlightUrl, Labels, client_of, labels_of
from timedb.cli.output import say, show
from timedb.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from timedb.cli.files import UploadFile

__all__ = ["register"]


View = Literal["flat", "overlapping", "latest", "changes"]
Format = Literal["csv", "json", "parquet"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(upload)
    app.command()(read)


def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV or Parquet.")],
    valid_time: Annotated[str | None, typer.Option(metavar="COLUMN", help="[valid_time]")] = None,
    value: Annotated[str | None, typer.Option(metavar="COLUMN", help="[value]")] = None,
    series: Annotated[str | None, typer.Option(metavar="NAME", help="One series for all rows.")] = None,
    series_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The series' names. [series_key, series_id]")
    ] = None,
    known_time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|TIME", help="When the values became known. [known_time, else now]"),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of times without an offset, say UTC or Europe/Stockholm.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Names the run; repeating it is a safe retry. [a new one]")] = None,
    workflow_id: Annotated[str | None, typer.Option(help="What made the run.")] = None,
    create_series: Annotated[bool, typer.Option(help="Create the series that do not exist yet.")] = True,
    skip_unchanged: Annotated[
        bool, typer.Option("--skip-unchanged", help="Leave out rows that say the same as the one known before.")
    ] = False,
    unit: Annotated[str | None, typer.Option(help="Of all values; converted to the unit of their series.")] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Upload a file as one run; all of it or nothing. Columns that no upload has are left out."""
    from timedb.cli.files import FileColumns, open_file

    named = {"valid_time": valid_time, "value": value, "series_key": series_column}
    known_at = None
    if known_time is not None:
        known_at = _instant(known_time)
        named["known_time"] = None if known_at else known_time
    given = {ours: source for ours, source in named.items() if source is not None}
    opened = open_file(file, FileColumns(given, series, time_zone))
    if opened.ignored:
        say(f"left out: {', '.join(opened.ignored)}")
    with client_of(flight_url) as client:
        receipt = client.upload(
            _with_progress(opened),
            run_id=run_id,
            workflow_id=workflow_id,
            known_time=known_at,
            create_series=create_series,
            skip_unchanged=skip_unchanged,
            unit=unit,
        )
    answer = {"run_id": receipt.run_id, "rows": receipt.rows, "skipped": receipt.skipped}
    show({**answer, "series": len(receipt.series), "change_time": receipt.change_time.isoformat()}, as_json=json)


def _instant(text: str) -> str | None:
    """The text, if it is a time; a column is called otherwise."""
    from timedb.times import parse_time

    try:
        parse_time(text, naive_is_utc=True)
    except ValueError:
        return None
    return text


def _with_progress(file: UploadFile) -> pa.RecordBatchReader:
    """The rows of a file, with a bar on a terminal while they are taken."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("rows", total=file.rows)
            for batch in file.reader:
                yield batch
                progress.advance(task, batch.num_rows)

    return pa.RecordBatchReader.from_batches(file.reader.schema, batches())


def read(
    series: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this series; may be repeated.")] = None,
    series_id: Annotated[list[str] | None, typer.Option(help="Only this series; may be repeated.")] = None,
    labels: Labels = None,
    view: Annotated[View, typer.Option(help="The value known last, every revision, ….")] = "flat",
    start_valid: Annotated[str | None, typer.Option(metavar="TIME")] = None,
    end_valid: Annotated[str | None, typer.Option(metavar="TIME")] = None,
    start_known: Annotated[str | None, typer.Option(metavar="TIME")] = None,
    end_known: Annotated[str | None, typer.Option(metavar="TIME")] = None,
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="As it was written by then.")] = None,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Also what was corrected, with who, when and why.")
    ] = False,
    lead_time: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Only what was known so long before, say 36h.")
    ] = None,
    days_ahead: Annotated[int | None, typer.Option(help="Only what was known so many local days before …")] = None,
    time_of_day: Annotated[str | None, typer.Option(metavar="HH:MM", help="… by this local time. [10:00]")] = None,
    period: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="The values of such a period as one, say 1h, P1D, P1M.")
    ] = None,
    aggregate: Annotated[str | None, typer.Option(help="mean, sum, min, max, first, last or count. [mean]")] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of --days-ahead and --period, say Europe/Stockholm.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Values converted to this unit.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="With --view changes: the token of the read before.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="The rows that an earlier read could see.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B,C", help="Which columns, in which order.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    format: Annotated[Format, typer.Option(help="How the rows are written.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file. [standard output]")
    ] = None,
    flight_url: FlightUrl = None,
) -> None:
    """Read values, sorted by series and valid_time. The token of the answer goes to standard error."""
    from timedb.cli.formats import FORMATS, sink_of
    from timedb.columns import META_TOKEN
    from timedb.wire import ReadCommand, parse_object

    selection: dict[str, Any] = {
        "view": view,
        "series_keys": series or None,
        "series_ids": series_id or None,
        "labels": labels_of(labels) or None,
        "start_valid": start_valid,
        "end_valid": end_valid,
        "start_known": start_known,
        "end_known": end_known,
        "as_of": as_of,
        "all_versions": all_versions,
        "lead_time": lead_time,
        "relative": _relative(days_ahead, time_of_day, time_zone),
        "resample": _resample(period, aggregate, time_zone),
        "unit": unit,
        "since": since,
        "token": token,
        "columns": _columns(columns, view, all_versions),
        "ordered": True,
        "limit": limit,
    }
    command = parse_object(ReadCommand, {name: value for name, value in selection.items() if value is not None})
    binary = format == "parquet"
    with client_of(flight_url) as client, client.stream(command) as stream, sink_of(output, binary=binary) as sink:
        writer = FORMATS[format](sink, stream.schema)
        for batch in stream:
            writer.write(batch)
        writer.close()
        say(f"token: {(stream.schema.metadata or {}).get(META_TOKEN, b'').decode()}")


def _relative(days_ahead: int | None, time_of_day: str | None, time_zone: str | None) -> dict[str, Any] | None:
    given = {"days_ahead": days_ahead, "time_of_day": time_of_day}
    asked = {name: value for name, value in given.items() if value is not None}
    if asked and time_zone is None:
        raise InvalidRequest("--time-zone: is missing; --days-ahead and --time-of-day need it")
    return {**asked, "time_zone": time_zone} if asked else None


def _resample(period: str | None, aggregate: str | None, time_zone: str | None) -> dict[str, Any] | None:
    if period is None:
        if aggregate is not None:
            raise InvalidRequest("--period: is missing; --aggregate needs it")
        return None
    return {"period": period, "aggregate": aggregate or "mean", "time_zone": time_zone or "UTC"}


def _columns(named: str | None, view: View, all_versions: bool) -> list[str]:
    """The columns that were named; else those of the contract, with the series' name beside its id."""
    from timedb.columns import result_columns
    from timedb.wire import ReadCommand

    if named is not None:
        columns = [name.strip() for name in named.split(",")]
        if not all(columns):
            raise InvalidRequest(f"--columns: {named!r} is not A,B,C")
        return columns
    usual = result_columns(ReadCommand(view=view, all_versions=all_versions))
    return ["series_key", *usual]
