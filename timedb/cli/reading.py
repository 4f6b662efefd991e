"""``timedb read``, ``export`` and ``accuracy``: values to files, and how good forecasts were."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timedb.cli.options import AsJson, FlightUrl, Format, Labels, client_of, selected_labels
from timedb.cli.output import say, show
from timedb.cli.read_options import AllVersions, Asked, Compared, Rows, fields_typed, with_read_options
from timedb.contract.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from timedb.files.formats import Piece
    from timedb.files.local_csv import LocalCsv

__all__ = ["SeriesIds", "SeriesNames", "columns_of", "register"]

View = Literal["flat", "overlapping", "latest", "changes", "first"]
SeriesNames = Annotated[
    list[str] | None, typer.Option("--series", metavar="NAME", help="Only this series; may be repeated.")
]
SeriesIds = Annotated[list[str] | None, typer.Option("--series-id", help="Only this series; may be repeated.")]
LabelsOfActual = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The series of actual values that has this label.")
]
LabelsOfReference = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="The reference that has this label.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Replace a file that is there without asking.")]
WithoutFormulas = Annotated[
    bool, typer.Option("--without-formulas", help="Of CSV for spreadsheets: ' before texts that begin like a formula.")
]
Delimiter = Annotated[
    str | None, typer.Option(metavar="CHARACTER", help="Of CSV: what stands between cells; tab is the tab. [,]")
]
Decimal = Annotated[str | None, typer.Option(metavar="CHARACTER", help="Of CSV: before decimals: . or , [.]")]
LocalTimes = Annotated[
    bool, typer.Option("--local-times", help="Of CSV: times as the clock of --time-zone shows them, without an offset.")
]
TimeZone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="Of times and dates without an offset, say Europe/Stockholm.")
]
_EXPORTED = "series_key,series_id,valid_time,valid_time_end,known_time,value,run_id,annotation,tags"
_EXPORTED_VERSIONS = f"{_EXPORTED},change_time,changed_by,retracted,value_id"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for command in (read, export, accuracy):
        app.command()(with_read_options(command))


def read(
    *,
    series: SeriesNames = None,
    series_id: SeriesIds = None,
    labels: Labels = None,
    view: Annotated[View, typer.Option(help="The value known last, every revision, …, or known first.")] = "flat",
    rows: Rows,
    asked: Asked,
    time_zone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Of --days-ahead, --window-length and --period, and of times and dates without an offset, say "
            "Europe/Stockholm.",
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B,C", help="Which columns, in which order.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    format: Annotated[
        Format | None, typer.Option(help="How the rows are written. [by the suffix of --output, else csv]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file; - is standard output. [-]")
    ] = None,
    without_formulas: WithoutFormulas = False,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    local_times: LocalTimes = False,
    yes: Yes = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Read values, sorted by series and valid_time or as told. The token of the answer goes to standard error."""
    versions = asked["all_versions"]
    fields = {
        **_series(series, series_id, labels),
        **fields_typed(time_zone, rows, asked),
        "view": view,
        "columns": None if asked["pivot"] and columns is None else columns_of(columns, view, all_versions=versions),
        "ordered": True,
        "limit": limit,
    }
    if json and format not in (None, "json"):
        raise InvalidRequest(f"--json, --format: say one of them; --format is {format}")
    said: Format | None = "json" if json else format
    local = _local_csv(delimiter, decimal, time_zone, local_times, without_formulas)
    answer = _Answer.to("--output", output, said, yes=yes, without_formulas=without_formulas, local=local)
    answer.write(fields, flight_url)


def export(
    *,
    output: Annotated[
        Path, typer.Argument(dir_okay=False, help="A file, whose suffix says the format; - is standard output.")
    ],
    series: SeriesNames = None,
    series_id: SeriesIds = None,
    labels: Labels = None,
    view: Annotated[
        Literal["flat", "overlapping"], typer.Option(help="Every revision, or the value known last.")
    ] = "overlapping",
    rows: Rows,
    versions: AllVersions,
    time_zone: TimeZone = None,
    format: Annotated[Format | None, typer.Option(help="Another format than the suffix says.")] = None,
    without_formulas: WithoutFormulas = False,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    local_times: LocalTimes = False,
    yes: Yes = False,
    flight_url: FlightUrl = None,
) -> None:
    """Write the history of series to a file: every revision with its run, annotation and tags. In any order."""
    fields = {
        **_series(series, series_id, labels),
        **fields_typed(time_zone, rows, versions),
        "view": view,
        "columns": (_EXPORTED_VERSIONS if versions["all_versions"] else _EXPORTED).split(","),
    }
    local = _local_csv(delimiter, decimal, time_zone, local_times, without_formulas)
    answer = _Answer.to("OUTPUT", output, format, yes=yes, labels=True, without_formulas=without_formulas, local=local)
    answer.write(fields, flight_url)


def accuracy(
    *,
    actual: Annotated[str | None, typer.Option(metavar="NAME", help="The series of actual values, or …")] = None,
    actual_id: Annotated[str | None, typer.Option(metavar="UUID", help="… its id.")] = None,
    actual_label: LabelsOfActual = None,
    horizon: Annotated[str, typer.Option(metavar="LENGTH", help="Length of a bucket of lead times.")] = "1h",
    series: SeriesNames = None,
    series_id: SeriesIds = None,
    labels: Labels = None,
    rows: Rows,
    compared: Compared,
    reference_label: LabelsOfReference = None,
    time_zone: TimeZone = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Tell how far forecasts were from the actual values, and how good quantiles and ensembles were, by lead time.

    Of siblings together, which differ in the label quantile or member alone, there are rows of their own. Columns that
    say nothing in any row are left out.
    """
    fields = {
        **_series(series, series_id, labels),
        **fields_typed(time_zone, rows, compared),
        "actual_key": actual,
        "actual_id": actual_id,
        "actual_labels": selected_labels(actual_label, "--actual-label"),
        "reference_labels": selected_labels(reference_label, "--reference-label"),
        "horizon": horizon,
    }
    from timedb.client.selection import message_of
    from timedb.contract.durations import parse_duration
    from timedb.contract.wire import AccuracyCommand

    with client_of(flight_url) as client, client.stream(message_of(AccuracyCommand, fields)) as stream:
        figures = stream.read_all()
    said = [name for name in figures.column_names if figures[name].null_count < figures.num_rows]
    told = figures.select(said).to_pylist()
    for row in told:
        row |= {name: str(parse_duration(row[name])) for name in ("lead_time", "lead_time_end")}
    show(told, as_json=json)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where the answer of a read goes.

    Attributes:
        option: What an error calls the file.
        output: The file; None, or ``-``, is standard output.
        format: How it is written.
        labels: With a column of each row's labels, as an upload takes them.
        without_formulas: Whether CSV is for spreadsheets.
        local: How CSV is written for a spreadsheet of some country; None: as it is everywhere.
    """

    option: str
    output: Path | None
    format: Format
    labels: bool = False
    without_formulas: bool = False
    local: LocalCsv | None = None

    @classmethod
    def to(cls, option: str, output: Path | None, said: Format | None, *, yes: bool, **more: Any) -> _Answer:
        """An answer that goes there, once it is clear how it is written and that a file may be replaced."""
        from timedb.cli.formats import format_of, may_write

        format = format_of(option, output, said)
        may_write(output, yes=yes)
        if more.get("without_formulas") and format != "csv":
            raise InvalidRequest(f"--without-formulas: is about CSV, and {option} is {format}")
        if more.get("local") is not None and format != "csv":
            raise InvalidRequest(
                f"--delimiter, --decimal, --local-times: are about CSV, and {option} is {format}", field="delimiter"
            )
        return cls(option, output, format, **more)

    def write(self, fields: dict[str, Any], flight_url: str | None) -> None:
        """Read and write, batch by batch; the token goes to standard error."""
        from timedb.cli.formats import pieces_of, sink_of
        from timedb.cli.labelled import LabelledBatches
        from timedb.client.progress import CountedBatches, RowCount, bar
        from timedb.client.selection import message_of
        from timedb.contract.columns import META_TOKEN
        from timedb.contract.wire import ReadCommand

        command = message_of(ReadCommand, fields)
        sink_of_answer = sink_of(self.option, self.output, binary=self.format in ("arrow", "parquet"))
        with client_of(flight_url) as client, client.stream(command) as stream, sink_of_answer as sink:
            batches = LabelledBatches(client, stream) if self.labels else stream
            with bar("Reading") if self.output is not None else nullcontext() as show:
                counted = batches if show is None else CountedBatches(batches, RowCount(show))
                made: Iterator[Piece]
                if self.local is not None:
                    made = self.local.pieces(batches.schema, counted)
                else:
                    made = pieces_of(self.format, batches.schema, counted, without_formulas=self.without_formulas)
                for piece in made:
                    sink.write(piece)
            say(f"token: {(stream.schema.metadata or {}).get(META_TOKEN, b'').decode()}")


def _local_csv(
    delimiter: str | None, decimal: str | None, zone: str | None, local_times: bool, without_formulas: bool
) -> LocalCsv | None:
    if delimiter is None and decimal is None and not local_times:
        return None  # before what takes time to import
    from timedb.files.local_csv import LocalCsv
    from timedb.layouts.layout import as_option

    return LocalCsv.of(
        delimiter,
        decimal,
        local_times=local_times,
        time_zone=zone,
        without_formulas=without_formulas,
        spoken=as_option,
    )


def _series(series: list[str] | None, series_id: list[str] | None, labels: list[str] | None) -> dict[str, Any]:
    return {"series_keys": series or None, "series_ids": series_id or None, "labels": selected_labels(labels)}


def columns_of(named: str | None, view: View, *, all_versions: bool) -> list[str]:
    """The columns that were named; else those of the contract, with the series' name beside its id."""
    from timedb.contract.columns import result_columns
    from timedb.contract.wire import ReadCommand, parse_object

    if named is not None:
        columns = [name.strip() for name in named.split(",")]
        if not all(columns):
            raise InvalidRequest(f"--columns: {named!r} is not A,B,C")
        return columns
    usual = result_columns(parse_object(ReadCommand, {"view": view, "all_versions": all_versions}))
    return ["series_key", *usual]
