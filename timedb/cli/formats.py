"""The answer of a read as CSV, JSON, NDJSON, Arrow or Parquet, written while it arrives."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from timedb.cli.options import Format
from timedb.cli.output import confirm
from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time
from timedb.contract.wire import shown

__all__ = ["FORMATS", "STANDARD_OUTPUT", "ResultWriter", "format_of", "may_write", "sink_of"]

STANDARD_OUTPUT = Path("-")
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".parquet": "parquet",
}
_CSV_TIME = "%Y-%m-%dT%H:%M:%S%.6f%:z"


class ResultWriter(Protocol):
    """Writes batches of one schema."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""

    def close(self) -> None:
        """Write the end."""


class CsvWriter:
    """A header, then a line a row; null is empty, NaN is ``NaN``, a list is JSON."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._sink = sink
        self._write(pl.DataFrame(schema.empty_table()), header=True)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        self._write(pl.DataFrame(batch), header=False)

    def _write(self, frame: pl.DataFrame, *, header: bool) -> None:
        for name, kind in frame.schema.items():
            if isinstance(kind, pl.List):
                texts = [
                    None if each is None else json.dumps(each, ensure_ascii=False) for each in frame[name].to_list()
                ]
                frame = frame.with_columns(pl.Series(name, texts, dtype=pl.String))
        self._sink.write(frame.write_csv(include_header=header, datetime_format=_CSV_TIME).encode())

    def close(self) -> None:
        """Nothing ends a CSV file."""


class JsonWriter:
    """An array of objects; numbers that are not finite are text, as in all JSON of TimeDB."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._sink = sink
        self._before = b"[\n"

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        for row in batch.to_pylist():
            self._sink.write(self._before + _json_line(row).encode())
            self._before = b",\n"

    def close(self) -> None:
        """Close the array."""
        self._sink.write(b"[]\n" if self._before.startswith(b"[") else b"\n]\n")


class NdjsonWriter:
    """An object a line; numbers as in JSON."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._sink = sink

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        self._sink.write("".join(f"{_json_line(row)}\n" for row in batch.to_pylist()).encode())

    def close(self) -> None:
        """Nothing ends lines."""


class ArrowWriter:
    """An Arrow IPC stream, as the server sent it."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_stream(sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the end of the stream."""
        self._writer.close()


class ParquetWriter:
    """Parquet with zstd; the file's metadata has the table version and ``as_of`` of the read."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        self._writer = parquet.ParquetWriter(sink, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


FORMATS: dict[Format, Callable[[BinaryIO, pa.Schema], ResultWriter]] = {
    "csv": CsvWriter,
    "json": JsonWriter,
    "ndjson": NdjsonWriter,
    "arrow": ArrowWriter,
    "parquet": ParquetWriter,
}


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
    found = _SUFFIXES.get(output.suffix.lower())
    if found is None:
        hint = "; spreadsheets open .csv" if output.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise InvalidRequest(
            f"{option}: {shown(output.name)} ends with none of {', '.join(_SUFFIXES)}{hint}; --format says it otherwise"
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
        raise InvalidRequest(f"{option}: {shown(str(output))} cannot be written: {error.strerror or error}") from None


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


def _json_line(row: dict[str, object]) -> str:
    return json.dumps({name: _json_value(value) for name, value in row.items()}, ensure_ascii=False)


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
