"""``timedb upload``: values from files."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.file_options import LayoutAsked, RunAsked, options_typed
from timedb.cli.options import AsJson, FlightUrl, client_of
from timedb.cli.output import say, show
from timedb.cli.read_options import with_read_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from timedb.client import Client
    from timedb.client.files import FileUpload
    from timedb.layouts.layout import Layout
    from timedb.layouts.prepared import Prepared

__all__ = ["register", "show_preview", "tell"]

_RUN = ("run_id", "run_params", "workflow_id", "unit", "skip_unchanged", "create_series")
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME", help="Options from a TOML file, or a recipe that is shipped; what is typed goes first."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``timedb``."""
    app.command()(with_read_options(upload))


def upload(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Files, also as patterns such as 'in/*.csv'; - is standard input."),
    ],
    *,
    layout: LayoutAsked,
    run: RunAsked,
    create_series: Annotated[
        bool | None,
        typer.Option("--create-series/--no-create-series", help="Create the series that do not exist yet. [do]"),
    ] = None,
    recipe: Recipe = None,
    save_recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Keep the options in a TOML file for --recipe.")
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show what would be stored and what was left out or guessed; send nothing."),
    ] = False,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Upload files, each as one run; all of it or nothing.

    Every column must be one of an upload (series_key or series_id, labels, valid_time, valid_time_end, known_time,
    value, annotation, tags), one that an option names, or one that --ignore leaves out. An option goes before a column.
    """
    from timedb.cli.files import paths_of

    said = said_options(recipe, layout, run)
    if create_series is not None:
        said["create_series"] = create_series
    paths = paths_of(files)
    if save_recipe is not None:
        keep_recipe(save_recipe, said)
    answers = []
    for path in paths:
        if preview:
            answers.append(_preview(path, said, as_json=json))
            continue
        with client_of(flight_url) as client:
            receipt = upload_one(client, path, said)
        answers.append(receipt.shown(whole=json))
    if not (preview and not json):
        show(answers if len(paths) > 1 else answers[0], as_json=json)


def said_options(recipe: str | None, *groups: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says, and what was typed, which goes first."""
    from timedb.layouts.recipe import load_recipe

    typed = options_typed(*groups)
    return ({} if recipe is None else load_recipe(recipe)) | typed


def keep_recipe(path: Path, said: dict[str, Any]) -> None:
    """Write options as a recipe."""
    from timedb.contract.errors import InvalidRequest
    from timedb.layouts.layout import Layout
    from timedb.layouts.recipe import recipe_text

    Layout.of({name: value for name, value in said.items() if name not in _RUN})
    try:
        path.write_text(recipe_text(said), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"--save-recipe: {path.name!a} cannot be written: {error.strerror}") from None


def upload_one(client: Client, path: Path, said: dict[str, Any]) -> FileUpload:
    """Upload a file; what a person might not expect is said."""
    from timedb.client.files import upload_prepared
    from timedb.client.progress import bar

    with _prepared(path, said) as (prepared, layout), bar("Uploading", prepared.rows) as progress:
        run = {name: said[name] for name in _RUN if name in said}
        done = upload_prepared(client, prepared, layout, run, _stem(path), progress)
    if text := done.receipt.withdrawal_text(f"timedb restore-run {shlex.quote(done.run_id)}"):
        say(f"warning: {text}")
    return done


@contextmanager
def _prepared(path: Path, said: dict[str, Any]) -> Iterator[tuple[Prepared, Layout]]:
    from timedb.client.progress import bar
    from timedb.layouts.layout import Layout
    from timedb.layouts.prepared import prepare

    layout = Layout.of({name: value for name, value in said.items() if name not in _RUN})
    with prepare(path, layout, bar("Reading")) as prepared:
        tell(prepared, layout)
        yield prepared, layout


def _preview(path: Path, said: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    with _prepared(path, said) as (prepared, layout):
        return show_preview(path, prepared, layout, said.get("unit"), as_json=as_json)


def show_preview(path: Path, prepared: Prepared, layout: Layout, unit: str | None, *, as_json: bool) -> dict[str, Any]:
    """What a file would be; for people it is printed at once."""
    from timedb.layouts.preview import preview_of

    found = preview_of(prepared, layout, unit)
    if not as_json:
        rows = found.pop("first_rows")
        show(rows, as_json=False)
        show({name: value for name, value in found.items() if value not in ([], {}, 0)}, as_json=False)
        say("nothing was sent")
    return {"file": str(path), **found}


def _stem(path: Path) -> str:
    from timedb.layouts.opening import stem_of

    return stem_of(path)


def tell(prepared: Prepared, layout: Layout) -> None:
    """Say what a person might not expect: columns that lost against an option, and values that are known from now."""
    for column, option in prepared.chosen.overruled.items():
        say(f"not the file's column {column}, but what {option} says")
    for name, value in prepared.found_out:
        say(f"{layout.spoken(name, value)}: found out, as nothing said it")
    if prepared.chosen.left_out:
        say(f"left out: {', '.join(prepared.chosen.left_out[:20])}")
    if not prepared.knows:
        say("known_time: now, as nothing said when the values became known; --known-time or --known-after says it")
