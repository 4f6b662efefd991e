"""``timedb import``: what other stores hold, with its runs, known times and corrections."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import say, show

if TYPE_CHECKING:
    from timedb.imports.origin import Origin

__all__ = ["register"]

imports = typer.Typer(
    no_args_is_help=True,
    help="Import what other stores hold: runs, known times, corrections in their order, units. Run again after an "
    "interruption, it reads everything, and sends what is not there yet.",
)
Url = Annotated[
    str,
    typer.Argument(metavar="URL", help="postgresql://USER@HOST/DATABASE; the password is that of PGPASSWORD."),
]
Preview = Annotated[
    bool, typer.Option("--dry-run", "--preview", help="Read everything, say what would be sent; send nothing.")
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Before the run_ids. [where they come from, before those that are numbers]"),
]
Ignore = Annotated[list[str] | None, typer.Option(metavar="FIELD", help="A field that is left out; may be repeated.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    for name, command in (
        ("timedb-0.1", timedb_0_1),
        ("timedb-0.8", timedb_0_8),
        ("flexmeasures", beliefs),
        ("timely-beliefs", beliefs),
        ("influxdb", influxdb),
    ):
        imports.command(name)(command)
    app.add_typer(imports, name="import")


def timedb_0_1(
    url: Url,
    *,
    tenant_id: Annotated[
        str | None, typer.Option("--tenant-id", metavar="UUID", help="Whose data. [of the only tenant]")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="metadata: leave out what has no place here.")
    ] = None,
    prefix: Prefix = None,
    preview: Preview = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Import the PostgreSQL database of TimeDB 0.1: its batches as runs, its corrections as versions.

    Once more, it adds what has come since.

    Example: timedb import timedb-0.1 postgresql://ann@db.example.com/timedb --dry-run
    """
    from timedb.imports.postgres import Database
    from timedb.imports.timedb_0_1 import TimeDB01

    with Database(url) as database:
        _import(TimeDB01(database, tenant_id, ignore or ()), prefix, preview, flight_url, json)


def timedb_0_8(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Parquet of SELECT * FROM series_values; also patterns.")
    ],
    *,
    catalog: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="CSV or Parquet: series_id, name, and maybe unit, labels (JSON), description. [series-NUMBER]",
        ),
    ] = None,
    prefix: Prefix = None,
    preview: Preview = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Import the table of TimeDB 0.8 in ClickHouse, written as Parquet.

    Example: timedb import timedb-0.8 'values-*.parquet' --catalog series.csv
    """
    from timedb.cli.files import paths_of
    from timedb.imports.timedb_0_8 import TimeDB08

    with TimeDB08(paths_of(files), catalog) as origin:
        _import(origin, prefix, preview, flight_url, json)


def beliefs(
    url: Url, *, prefix: Prefix = None, preview: Preview = False, flight_url: FlightUrl = None, json: AsJson = False
) -> None:
    """Import the PostgreSQL database of FlexMeasures or timely-beliefs: belief times become known times."""
    from timedb.imports.beliefs import Beliefs
    from timedb.imports.postgres import Database

    with Database(url) as database:
        _import(Beliefs(database), prefix, preview, flight_url, json)


def influxdb(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files of lines, also as patterns; - is stdin.")],
    *,
    precision: Annotated[Literal["ns", "us", "ms", "s"], typer.Option(help="What timestamps count.")] = "ns",
    ignore: Ignore = None,
    known_after: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Values became known so long after their time. [now]")
    ] = None,
    label_value: Annotated[
        list[str] | None, typer.Option(metavar="KEY=TEXT", help="A label of all series; may be repeated.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of all values.")] = None,
    workflow_id: Annotated[str, typer.Option(help="What made the runs.")] = "influxdb",
    preview: Preview = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Import files of InfluxDB's line protocol, each as one run: series MEASUREMENT.FIELD, tags as labels.

    The same point twice is dropped; two that contradict each other are an error.

    Example: timedb import influxdb export.lp.gz --known-after 0h
    """
    from timedb.cli.files import paths_of
    from timedb.cli.values import show_preview, tell
    from timedb.client.files import upload_prepared
    from timedb.client.progress import bar
    from timedb.imports.influxdb import prepare_lines
    from timedb.layouts.layout import Layout
    from timedb.layouts.opening import stem_of

    layout = Layout.of({"known_after": known_after, "label_value": label_value, "duplicates": "drop"})
    run = {name: value for name, value in (("workflow_id", workflow_id), ("unit", unit)) if value is not None}
    answers = []
    for path in paths_of(files):
        with prepare_lines(path, layout, bar("Reading"), precision, ignore or ()) as prepared:
            tell(prepared, layout)
            if preview:
                answers.append(show_preview(path, prepared, layout, unit, as_json=json))
                continue
            with client_of(flight_url) as client, bar("Uploading", prepared.rows) as progress:
                done = upload_prepared(client, prepared, layout, run, stem_of(path), progress)
            answers.append(done.shown(whole=json))
    if not (preview and not json):
        show(answers if len(answers) > 1 else answers[0], as_json=json)


def _import(origin: Origin, prefix: str | None, preview: bool, flight_url: str | None, as_json: bool) -> None:
    from timedb.client.progress import bar
    from timedb.imports.loading import load

    with nullcontext() if preview else client_of(flight_url) as client, bar("Importing") as progress:
        done = load(client, origin, prefix=prefix, progress=progress)
    shown: dict[str, Any] = done.shown()
    show(shown, as_json=as_json)
    if preview:
        say("nothing was sent")
