"""Files, and standard input, as uploads: what they are, and what is wrong with them, in words of the options."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from timedb.cli.upload_columns import ChosenColumns, FileColumns, choose
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.csv_tables import CsvForm
from timedb.files.table_files import Reading, Rejoined, Source, TableKind, open_table

__all__ = ["STANDARD_INPUT", "UploadFile", "csv_form", "open_file"]

STANDARD_INPUT = Path("-")
_SUFFIXES: dict[str, TableKind] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
}
_HEAD_BYTES = 8
_MAGIC: dict[bytes, TableKind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
_BRACKETS: dict[bytes, TableKind] = {b"{": "ndjson", b"[": "json"}
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".lz4")
_AS_CSV = "; save the sheet as CSV (UTF-8) and upload that"
_STRANGE = {
    b"PK\x03\x04": f"is an Excel workbook, or another zip archive{_AS_CSV}",
    b"\xd0\xcf\x11\xe0": f"is an Excel workbook of the old kind{_AS_CSV}",
    b"%PDF": "is a PDF, which holds no table",
    b"<": "is HTML or XML; upload CSV, JSON, Parquet or Arrow",
}
_USUAL = CsvForm()


@dataclass(frozen=True, slots=True)
class UploadFile:
    """A file that is ready to be sent.

    Attributes:
        rows: How many it has; None if that is known only at its end.
        chosen: Which columns are sent, and what was overruled.
        reader: The rows.
    """

    rows: int | None
    chosen: ChosenColumns
    reader: pa.RecordBatchReader


@contextmanager
def open_file(
    path: Path, columns: FileColumns, kind: TableKind | None = None, form: CsvForm = _USUAL
) -> Iterator[UploadFile]:
    """Open a file, or standard input, and close it in the end.

    Args:
        path: The file; ``-`` is standard input. Compressed ones (gzip, zstd, bzip2, lz4) are read as what they hold.
        columns: Which columns are what.
        kind: The format; None: by its first bytes and its name; else CSV.
        form: How CSV is written.

    Raises:
        InvalidRequest: it cannot be read, lacks a column, or has one that nothing takes; the reader raises it for what
            comes later.
    """
    what = "standard input" if path == STANDARD_INPUT else path.name
    with ExitStack() as stack:
        try:
            stream = _standard_input() if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            source, kind = _opened(stream, path, kind, what)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{what}: {getattr(error, 'strerror', None) or error}") from None
        if form != _USUAL and kind != "csv":
            raise InvalidRequest(f"--delimiter, --decimal, --thousands, --null: are about CSV, and {what} is {kind}")
        table = open_table(source, kind, what=what, form=form)
        chosen = choose(table.names, columns, what)
        how = Reading(
            time_zone=columns.time_zone,
            series=columns.series,
            labels=columns.labels,
            fixed_labels=columns.fixed_labels,
            form=form,
            advise=_Advice(form, kind),
        )
        yield UploadFile(table.rows, chosen, table.read(chosen.columns, how))


def csv_form(delimiter: str | None, decimal: str | None, thousands: str | None, nulls: list[str] | None) -> CsvForm:
    """How CSV is written, by the options.

    Raises:
        InvalidRequest: an option is none that a file could be written with.
    """
    cut = {None: ",", "tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if cut is None or len(cut) != 1 or not cut.isascii() or cut in '"\r\n\0':
        raise InvalidRequest(f"--delimiter: {quoted(delimiter)} is not one character (tab stands for the tab)")
    point = "." if decimal is None else decimal
    if point not in (".", ","):
        raise InvalidRequest(f"--decimal: {quoted(point)} is neither . nor ,")
    if thousands is not None and (len(thousands) != 1 or thousands.isdigit() or thousands in f"+-eE{point}"):
        raise InvalidRequest(f"--thousands: {quoted(thousands)} is not one character other than --decimal")
    return CsvForm(cut, point, thousands, tuple(nulls or ()))


def _opened(stream: BinaryIO, path: Path, kind: TableKind | None, what: str) -> tuple[Source, TableKind]:
    head = stream.read(_HEAD_BYTES)
    rejoined = io.BufferedReader(Rejoined(head, stream))
    name = path.name.lower()
    for magic, compression in _COMPRESSIONS.items():
        if head.startswith(magic):
            unpacked = pa.CompressedInputStream(pa.PythonFile(rejoined, mode="r"), compression)
            for suffix in _COMPRESSED_SUFFIXES:
                name = name.removesuffix(suffix)
            with _unpacking(what):
                head = unpacked.read(_HEAD_BYTES)
            return _as_kind(io.BufferedReader(Rejoined(head, unpacked)), head, kind, name, what)
    if path != STANDARD_INPUT and path.is_file() and _kind(head, kind, name, what) in ("parquet", "arrow"):
        return pa.OSFile(str(path)), _kind(head, kind, name, what)
    return _as_kind(rejoined, head, kind, name, what)


def _as_kind(
    source: io.BufferedReader[Any], head: bytes, kind: TableKind | None, name: str, what: str
) -> tuple[Source, TableKind]:
    found = _kind(head, kind, name, what)
    if found == "parquet" or head.startswith(b"ARROW1"):  # their directories are at the end
        return pa.BufferReader(source.read()), found
    return source, found


def _kind(head: bytes, kind: TableKind | None, name: str, what: str) -> TableKind:
    for magic, strange in _STRANGE.items():
        if head.lstrip().startswith(magic):
            raise InvalidRequest(f"{what}: {strange}")
    by_content = next((each for magic, each in _MAGIC.items() if head.startswith(magic)), None)
    found = kind or by_content or _SUFFIXES.get(Path(name).suffix)
    return found or _BRACKETS.get(head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1], "csv")


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("is closed")
    return sys.stdin.buffer


class _unpacking:
    """What is wrong with compressed bytes, as an error that names them."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            raise InvalidRequest(f"{self._what}: its compression is damaged") from None


@dataclass(frozen=True, slots=True)
class _Advice:
    """Which option would read a cell that could not be read."""

    form: CsvForm
    kind: TableKind

    def __call__(self, ours: str, text: str) -> str:
        if ours == "time_zone":
            return "; say which with --time-zone"
        if self.kind != "csv" or len(text) > 40:
            return ""
        if ours == "value" and (option := self._of_number(text.strip())):
            return f"; {option} reads it, if that is how numbers are written here"
        if ours != "valid_time" and not re.search(r"\d", text):
            return f"; --null {shlex.quote(text)} takes it for no value"
        return ""

    def _of_number(self, text: str) -> str:
        if self.form.decimal == "." and re.fullmatch(r"[+-]?\d+,\d+", text):
            return "--decimal ,"
        if self.form.decimal == "." and (
            found := re.fullmatch(r"[+-]?\d{1,3}(?:([.' \xa0\u202f])\d{3})+(,\d*)?", text)
        ):
            return f"--decimal , --thousands {shlex.quote(found[1])}"
        if found := re.fullmatch(r"[+-]?\d{1,3}(?:([,'. \xa0\u202f])\d{3})+([.,]\d*)?", text):
            return f"--thousands {shlex.quote(found[1])}"
        return ""
