"""The commands, put together. Importing this costs next to nothing: each command imports what it needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from timedb._version import __version__
from timedb.cli import (
    correcting,
    following,
    freshness,
    importing,
    lakes,
    reading,
    runs,
    series,
    service,
    serving,
    sql,
    upkeep,
    users,
    values,
    watching,
)
from timedb.cli.examples import show_examples
from timedb.cli.exit_codes import exit_code
from timedb.cli.option_names import speak_of_options
from timedb.cli.output import show_error
from timedb.contract.errors import Internal, TimeDBError

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="timedb",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    serving,
    lakes,
    users,
    service,
    freshness,
    series,
    values,
    correcting,
    watching,
    importing,
    reading,
    following,
    runs,
    sql,
    upkeep,
):
    module.register(app)
speak_of_options(app)
show_examples(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"timedb {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """TimeDB: time series whose values are revised.

    Commands that read or write values speak to the Flight server of --flight-url or TIMEDB_FLIGHT_URL, with the key of
    TIMEDB_API_KEY. Every setting has an environment variable; options come first.
    """


def _debugs() -> bool:
    return os.environ.get("TIMEDB_LOG_LEVEL", "").lower() == "debug"


class _WithoutTraceback(logging.Formatter):
    """What went wrong, in a line."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        return record.getMessage() if error is None else f"{record.getMessage()}: {type(error).__name__}: {error}"


def main() -> None:
    """Run the command line; ends with ``SystemExit``."""
    # What the client warns of, the commands say in words of their own.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"timedb\.(cli\.|client\.files)")
    if logging.lastResort is not None and not _debugs():
        logging.lastResort.setFormatter(_WithoutTraceback())
    try:
        app()
    except TimeDBError as error:
        show_error(error)
        sys.exit(exit_code(error))
    except Exception as error:
        # A fault of ours, or of the machine: a line for whoever runs the command, the rest for whoever mends it.
        if _debugs():
            raise
        reason = error.strerror or str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        hint = "" if isinstance(error, OSError) else "; TIMEDB_LOG_LEVEL=debug shows where"
        show_error(Internal(f"{reason}{hint}"))
        sys.exit(exit_code(Internal()))


def run() -> None:
    """Run the command line as a process: it ends at once when the command has ended.

    Threads of Arrow and gRPC that wait for a server would meet an interpreter that is being taken down, and a process
    that said what is wrong would then die by SIGABRT.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # nobody reads any more
            stream.flush()
    logging.shutdown()
    os._exit(code if isinstance(code, int) else int(code is not None))
