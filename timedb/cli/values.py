"""``timedb upload``: values from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import progress_bar, say, show

if TYPE_CHECKING:
    import pyarrow as pa

    from timedb.cli.files import UploadFile

__all__ = ["register"]

Format = Literal["csv", "parquet", "arrow"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(upload)


def upload(
    file: Annotated[
        Path,
        typer.Argument(dir_okay=False, help="A file; - is standard input."),
    ],
    format: Annotated[
        Format | None, typer.Option(help="What the file is. [by its suffix or its first bytes, else csv]")
    ] = None,
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
    """Upload a file as one run; all of it or nothing. Columns that no upload has are left out."""
    from timedb.cli.files import FileColumns, open_file

    named = {"valid_time": valid_time, "value": value, "series_key": series_column}
    known_at = None
    if known_time is not None:
        known_at = _instant(known_time)
        named["known_time"] = None if known_at else known_time
    given = {ours: source for ours, source in named.items() if source is not None}
    opened = open_file(file, FileColumns(given, series, time_zone), format)
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
    answer: dict[str, object] = {"run_id": receipt.run_id, "rows": receipt.rows, "skipped": receipt.skipped}
    if receipt.withdrawn_rows:
        answer["withdrawn_rows"] = receipt.withdrawn_rows
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
        with progress_bar(file.rows) as advance:
            for batch in file.reader:
                yield batch
                advance(batch.num_rows)

    return pa.RecordBatchReader.from_batches(file.reader.schema, batches())
