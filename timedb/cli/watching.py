"""``timedb watch``: a directory whose new files are uploaded, each as one run, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.file_options import LayoutAsked, RunAsked
from timedb.cli.options import FlightUrl, client_of
from timedb.cli.output import say
from timedb.cli.read_options import with_read_options
from timedb.cli.values import Recipe, said_options, upload_one
from timedb.contract.errors import Conflict, InvalidRequest, NotFound, TimeDBError, TooLarge

if TYPE_CHECKING:
    from timedb.client import Client

__all__ = ["FAULTY", "LOADED", "register"]

LOADED = "loaded"
"""Where files go that have been uploaded."""
FAULTY = "faulty"
"""Where files go that cannot be, each beside a text that says why."""
_OF_THE_FILE = (InvalidRequest, Conflict, NotFound, TooLarge)
_UNFINISHED = (".part", ".tmp", ".crdownload", ".filepart")


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(with_read_options(watch))


def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, exists=True, help="Where files arrive.")],
    *,
    layout: LayoutAsked,
    run: RunAsked,
    recipe: Recipe = None,
    pattern: Annotated[str, typer.Option(help="Which files: a pattern of their names.")] = "*",
    every: Annotated[float, typer.Option(min=0.05, metavar="SECONDS", help="How often to look.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Upload what is there and complete, and end.")] = False,
    flight_url: FlightUrl = None,
) -> None:
    """Upload each new file of a directory as one run, once it is complete: it has not grown between two looks.

    Files that were uploaded go to DIR/loaded; those that cannot be to DIR/faulty, each beside a text that says why.
    While the service cannot be reached they stay and are tried again.

    Example: timedb watch ./in --recipe entsoe-prices --pattern '*.csv'
    """
    said = said_options(recipe, layout, run)
    watched = _Watched(directory, pattern)
    with client_of(flight_url) as client:
        while True:
            for path in watched.complete():
                _take(client, path, said)
            if once and not watched.growing:
                return
            time.sleep(every)


@dataclass
class _Watched:
    """A directory, and how large its files were at the last look."""

    directory: Path
    pattern: str
    growing: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def complete(self) -> Iterator[Path]:
        """The files that have not changed since the look before, by name."""
        sizes = {path: (found.st_size, found.st_mtime_ns) for path, found in self._files()}
        settled = sorted(path for path, size in sizes.items() if self.growing.get(path) == size)
        self.growing = {path: size for path, size in sizes.items() if path not in settled}
        yield from settled

    def _files(self) -> Iterator[tuple[Path, Any]]:
        for path in self.directory.glob(self.pattern):
            if path.name.startswith(".") or path.suffix.lower() in _UNFINISHED:
                continue
            try:
                if path.is_file():
                    yield path, path.stat()
            except FileNotFoundError:  # somebody took it meanwhile
                continue


def _take(client: Client, path: Path, said: dict[str, Any]) -> None:
    try:
        done = upload_one(client, path, said)
    except _OF_THE_FILE as error:
        said_of = f"{error.code}: {' '.join(error.detail.split())}"
        kept = _move(path, FAULTY)
        kept.with_name(f"{kept.name}.txt").write_text(f"{said_of}\n", encoding="utf-8")
        say(f"{path.name}: set aside: {said_of}")
    except TimeDBError as error:  # of the service: it may be there again at the next look
        say(f"{path.name}: left for later: {error.code}: {' '.join(error.detail.split())}")
    else:
        _move(path, LOADED)
        what = "already loaded" if done.already_loaded else f"{done.rows} rows"
        say(f"{path.name}: {what}, run {done.run_id}")


def _move(path: Path, folder: str) -> Path:
    """Move a file into a folder beside it, under a name that is free there."""
    target = path.parent / folder
    target.mkdir(exist_ok=True)
    free, number = target / path.name, 1
    while free.exists():
        number += 1
        free = target / f"{path.stem}-{number}{path.suffix}"
    return path.rename(free)
