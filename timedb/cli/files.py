"""Files of any shape as uploads: which of their columns are what."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import pyarrow as pa

from timedb.columns import UPLOAD_COLUMNS
from timedb.errors import InvalidRequest
from timedb.table_files import Source, TableKind, open_table
from timedb.wire import shown

__all__ = ["STANDARD_INPUT", "FileColumns", "UploadFile", "open_file"]

STANDARD_INPUT = Path("-")
_SUFFIXES: dict[str, TableKind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_MAGIC: dict[bytes, TableKind] = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Which columns of a file are what.

    Attributes:
        named: Our column → the file's, as the user said; a column of ours that the file has needs no word.
        series: One series for all rows.
        time_zone: Of times without an offset; None: they are an error.
    """

    named: dict[str, str] = field(default_factory=dict)
    series: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class UploadFile:
    """A file that is ready to be sent.

    Attributes:
        rows: How many it has; None if that is known only at its end.
        ignored: Its columns that no upload has.
        reader: The rest.
    """

    rows: int | None
    ignored: list[str]
    reader: pa.RecordBatchReader


def open_file(path: Path, columns: FileColumns, kind: TableKind | None = None) -> UploadFile:
    """Open a file, or standard input.

    Args:
        path: The file; ``-`` is standard input. Compressed ones (``.gz``, ``.zst``, ``.bz2``) are read as what they
            hold.
        columns: Which columns are what.
        kind: The format; None: by the suffix of a file, by the first bytes of standard input; else CSV.

    Raises:
        InvalidRequest: it cannot be read, or lacks a column; the reader raises it for what comes later.
    """
    what = "standard input" if path == STANDARD_INPUT else path.name
    try:
        source, kind = _standard_input(kind) if path == STANDARD_INPUT else _file(path, kind)
    except OSError as error:
        raise InvalidRequest(f"{what}: {error}") from None
    table = open_table(source, kind, what=what)
    chosen = _choose(table.names, columns)
    reader = table.read(chosen, time_zone=columns.time_zone, series=columns.series)
    return UploadFile(table.rows, [name for name in table.names if name not in chosen.values()], reader)


def _file(path: Path, kind: TableKind | None) -> tuple[Source, TableKind]:
    kind = kind or _SUFFIXES.get(path.suffix.lower(), "csv")
    if kind == "csv":
        return pa.input_stream(str(path), compression="detect"), kind
    return pa.OSFile(str(path)), kind


def _standard_input(kind: TableKind | None) -> tuple[Source, TableKind]:
    stream = sys.stdin.buffer
    assert isinstance(stream, BufferedReader)  # else nobody can look ahead
    head = stream.peek(4)[:4]
    kind = kind or _MAGIC.get(head, "csv")
    if head in (b"PAR1", b"ARRO"):  # their directories are at the end
        return pa.BufferReader(stream.read()), kind
    return pa.PythonFile(stream, mode="r"), kind


def _choose(names: list[str], columns: FileColumns) -> dict[str, str]:
    """Our column → the file's, of all that are to be sent."""
    for ours, source in columns.named.items():
        if source not in names:
            raise InvalidRequest(f"{ours}: the file has no column {shown(source)}; it has {', '.join(names)}")
    taken = set(columns.named.values())
    implied = {name: name for name in UPLOAD_COLUMNS if name in names and name not in taken}
    if columns.series is not None or "series_key" in columns.named:
        implied = {ours: source for ours, source in implied.items() if ours not in ("series_id", "series_key")}
    chosen = {**implied, **columns.named}
    for ours in ("valid_time", "value"):
        if ours not in chosen:
            option = ours.replace("_", "-")
            raise InvalidRequest(f"--{option}: the file has no column {ours}; say which of {', '.join(names)} it is")
    if columns.series is None and not {"series_id", "series_key"} & chosen.keys():
        raise InvalidRequest(f"--series: say which series it is, or with --series-column which of {', '.join(names)}")
    return chosen
