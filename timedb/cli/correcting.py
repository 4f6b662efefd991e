"""``timedb correct``: corrections from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from timedb.cli.file_options import options_typed
from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import show
from timedb.cli.read_options import with_read_options
from timedb.contract.errors import InvalidRequest
from timedb.layouts.options import FILE_OPTIONS

__all__ = ["register"]

_OPTIONS = (
    "format",
    "sheet",
    "delimiter",
    "decimal",
    "thousands",
    "encoding",
    "skip_lines",
    "null",
    "time_zone",
    "ignore",
)
"""The options of a file that a table of corrections has, too; its columns have the names of the contract."""
TableAsked = Annotated[dict[str, Any], tuple(each for each in FILE_OPTIONS if each.name in _OPTIONS)]


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(with_read_options(correct))


def correct(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file; - is standard input.")],
    *,
    table: TableAsked,
    create: Annotated[
        bool, typer.Option("--create", help="Make rows that do not exist, where their runs are; else an error.")
    ] = False,
    update_id: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Names the corrections: once more they change nothing. [a digest]"),
    ] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Correct the values that the rows of a file name: all of them or none.

    Columns that say which row: series_id or series_key (beside it labels) and valid_time, where needed valid_time_end,
    known_time and run_id; or value_id. Columns that say what becomes of it: value, annotation, tags, retracted. A
    column that is not there leaves things as they are, an empty or null cell clears.

    Example: timedb correct checked.csv
    """
    from timedb.files.table_files import Reading
    from timedb.layouts.corrections import corrections_in, digest_of
    from timedb.layouts.layout import Layout
    from timedb.layouts.opening import open_file

    said = options_typed(table)
    layout = Layout.of({name: value for name, value in said.items() if name not in ("ignore", "time_zone")})
    path = Path(file)
    if path.is_dir():
        raise InvalidRequest(f"FILE: {file!a} is a directory")
    with open_file(path, layout, every_key=True) as opened:
        how = Reading(time_zone=said.get("time_zone"), form=opened.form)
        reader = corrections_in(opened.table, how, ignored=said.get("ignore", ()), advice="; --ignore leaves it out")
        rows = reader.read_all()
    with client_of(flight_url) as client:
        done = client.correct(rows, update_id=update_id or digest_of(rows, create=create), create=create)
    show(done, as_json=json)
