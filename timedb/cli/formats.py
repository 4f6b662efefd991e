"""The answer of a read as CSV, JSON, NDJSON, Arrow or Parquet, written while it arrives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from timedb.cli.options import Format
from timedb.cli.output import confirm
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.formats import FORMATS, SUFFIXES, Piece, Style, write_body
from timedb.files.row_text import CSV, CSV_FOR_SPREADSHEETS, JSON_NON_FINITE_TEXT, NDJSON_NON_FINITE_TEXT

__all__ = ["STANDARD_OUTPUT", "format_of", "may_write", "pieces_of", "sink_of"]

STANDARD_OUTPUT = Path("-")


def _end_of_array(count: int) -> bytes:
    return b"\n]\n" if count else b"]\n"


_STYLE = Style(
    json=replace(JSON_NON_FINITE_TEXT, row_start=",\n{", space=" "),
    ndjson=replace(NDJSON_NON_FINITE_TEXT, space=" "),
    csv=replace(CSV, non_finite=("NaN", "inf", "-inf"), space=" "),
    json_start=b"[",
    json_end=_end_of_array,
)


def pieces_of(
    format: Format, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, without_formulas: bool = False
) -> Iterator[Piece]:
    """An answer in a format, piece by piece; JSON is an array, and what is not finite a text in it.

    Args:
        format: Of the answer.
        schema: Of the batches.
        batches: The rows.
        without_formulas: CSV is for spreadsheets, which would work out texts that begin like formulas.
    """
    style = replace(_STYLE, csv=replace(_STYLE.csv, quote=CSV_FOR_SPREADSHEETS.quote)) if without_formulas else _STYLE
    body = next(each for each in FORMATS if each.name == format)
    return write_body(body(schema, style), batches)


def format_of(option: str, output: Path | None, said: Format | None) -> Format:
    """The format of an answer: as it was said, else by the end of the file's name, else CSV for standard output.

    Args:
        option: What an error calls the file.
        output: The file; None, or ``-``, is standard output.
        said: What ``--format`` says.

    Raises:
        InvalidRequest: nothing says it.
    """
    if said is not None or output is None or output == STANDARD_OUTPUT:
        return said or "csv"
    found = SUFFIXES.get(output.suffix.lower())
    if found is None:
        hint = "; spreadsheets open .csv" if output.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise InvalidRequest(
            f"{option}: {quoted(output.name)} ends with none of {', '.join(SUFFIXES)}{hint}; --format says it otherwise"
        )
    return found


def may_write(output: Path | None, *, yes: bool) -> None:
    """Ask before a file is replaced.

    Raises:
        InvalidRequest: nobody can be asked and ``yes`` was not said.
        typer.Abort: the answer is no.
    """
    if output is not None and output != STANDARD_OUTPUT and output.is_file():
        confirm(f"{output} is there already. Replace it?", yes=yes)


@contextmanager
def sink_of(option: str, output: Path | None, *, binary: bool) -> Iterator[BinaryIO]:
    """Where an answer goes: a file, which appears only once it is whole, or standard output.

    Args:
        option: What an error calls the file.
        output: The file; None, or ``-``, is standard output.
        binary: The answer is nothing for a terminal.

    Raises:
        InvalidRequest: the file cannot be written, or a terminal would get binary data.
    """
    if output is None or output == STANDARD_OUTPUT:
        if binary and sys.stdout.isatty():
            raise InvalidRequest(f"{option}: a file is needed, as a terminal shows no binary format")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with _file(output) as sink:
            yield sink
    except OSError as error:
        raise InvalidRequest(f"{option}: {quoted(str(output))} cannot be written: {error.strerror or error}") from None


@contextmanager
def _file(output: Path) -> Iterator[BinaryIO]:
    if output.exists() and not output.is_file():  # a device or a pipe, which is not to be replaced
        with output.open("wb") as sink:
            yield sink
        return
    whole = output.resolve()  # what a link points to is written, not the link
    partial = whole.with_name(f".{os.getpid()}.{whole.name[:200]}.part")
    try:
        with partial.open("wb") as sink:
            yield sink
        partial.replace(whole)
    finally:
        partial.unlink(missing_ok=True)
