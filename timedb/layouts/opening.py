"""Files, streams and bytes as tables: what they are, packed and encoded as they come."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.files.csv_tables import CsvForm
from timedb.files.formats import READ_SUFFIXES
from timedb.files.table_files import Rejoined, Source, TableFile, TableKind, TableLimits, open_table
from timedb.layouts.encodings import Decoded, by_mark
from timedb.layouts.guessing import Looks, looks_of
from timedb.layouts.layout import Layout
from timedb.layouts.spool import temporary_files
from timedb.layouts.workbook import is_workbook, open_workbook

__all__ = ["STANDARD_INPUT", "OpenTable", "open_bytes", "open_file", "open_source", "stem_of"]

STANDARD_INPUT = Path("-")
_HEAD_BYTES = 8
_LOOKED_AT = 1 << 16
_MAGIC: dict[bytes, str] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
_BRACKETS: dict[bytes, str] = {b"{": "ndjson", b"[": "json"}
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".lz4")
_STRANGE = {
    b"\xd0\xcf\x11\xe0": "is an Excel workbook of the old kind; save it as XLSX, or its sheet as CSV (UTF-8)",
    b"%PDF": "is a PDF, which holds no table",
    b"<": "is HTML or XML; upload CSV, JSON, Parquet or Arrow",
}
_TEXT_ONLY = ("delimiter", "encoding", "decimal", "thousands", "skip_lines", "no_header", "null")


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A table that is ready to be read, once.

    Attributes:
        what: How an error calls it.
        table: The table.
        kind: Its format.
        form: How CSV is written, as said or found out.
        looks: What was found out about it.
    """

    what: str
    table: TableFile
    kind: str
    form: CsvForm
    looks: Looks


def stem_of(path: Path) -> str:
    """A file's name without the endings that say its format and compression."""
    name = "stdin" if path == STANDARD_INPUT else path.name
    for suffix in _COMPRESSED_SUFFIXES:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in READ_SUFFIXES else name


@contextmanager
def open_file(path: Path, layout: Layout, *, every_key: bool = False) -> Iterator[OpenTable]:
    """Open a file, or standard input, and close it in the end.

    Args:
        path: The file; ``-`` is standard input. Compressed ones (gzip, zstd, bzip2, lz4) are read as what they hold.
        layout: How it is written.
        every_key: As of ``timedb.files.table_files.open_table``.

    Raises:
        InvalidRequest: it cannot be read, or is of no kind that is taken.
    """
    with open_bytes(path, layout.said.get("format")) as (source, kind, what):
        yield open_source(source, kind, what, layout, every_key=every_key)


@contextmanager
def open_bytes(path: Path, kind: str | None) -> Iterator[tuple[Source, str, str]]:
    """The bytes of a file, or of standard input, unpacked; what they are; and how an error calls them.

    Args:
        path: The file.
        kind: What it is; None: it is found out.

    Raises:
        InvalidRequest: it cannot be read, or is of no kind that is taken.
    """
    what = "standard input" if path == STANDARD_INPUT else path.name
    with ExitStack() as stack:
        try:
            stream = _standard_input() if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
            source, found = _opened(stream, path, kind, what, stack)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{what}: {getattr(error, 'strerror', None) or error}") from None
        yield source, found, what


def open_source(
    source: Source,
    kind: str,
    what: str,
    layout: Layout,
    limits: TableLimits | None = None,
    *,
    every_key: bool = False,
) -> OpenTable:
    """The table in some bytes.

    Args:
        source: The bytes.
        kind: Their format.
        what: How an error calls them.
        layout: How they are written.
        limits: What the table may hold.
        every_key: As of ``timedb.files.table_files.open_table``.

    Raises:
        InvalidRequest: it is not of that format, or an option is about another.
        TooLarge: it holds more.
    """
    _check_about(kind, what, layout)
    if kind == "xlsx":
        return OpenTable(what, open_workbook(source, what, layout, limits), kind, layout.csv_form(), Looks())
    looks = Looks()
    if kind == "csv":
        head = source.read(_LOOKED_AT)
        encoding = layout.said.get("encoding") or by_mark(head)
        source = io.BufferedReader(Rejoined(head, source))
        if encoding is not None:
            source = io.BufferedReader(Decoded(source, encoding, what))
            head = source.read(_LOOKED_AT)
            source = io.BufferedReader(Rejoined(head, source))
        looks = looks_of(head, layout, encoding)
    form = layout.csv_form(looks.delimiter)
    asked: Any = kind
    sheet, sheet_option = layout.said.get("sheet"), layout.spoken("sheet")
    table = open_table(
        source,
        asked,
        what=what,
        form=form,
        limits=limits,
        sheet=sheet,
        sheet_option=sheet_option,
        every_key=every_key,
    )
    return OpenTable(what, table, kind, form, looks)


def _check_about(kind: str, what: str, layout: Layout) -> None:
    """Refuse options that are about another format."""
    for_it = {"csv": _TEXT_ONLY, "xlsx": (*_TEXT_ONLY[2:], "sheet"), "json": ("sheet",)}.get(kind, ())
    for option in (*_TEXT_ONLY, "sheet"):
        if option in layout.said and option not in for_it:
            about = "XLSX and JSON" if option == "sheet" else "CSV"
            options = option if option == "sheet" else "delimiter, decimal, thousands, null"
            named = (
                ", ".join(layout.spoken(each) for each in options.split(", "))
                if option in options
                else layout.spoken(option)
            )
            raise InvalidRequest(f"{named}: are about {about}, and {what} is {kind}", field=option)


def _opened(stream: BinaryIO, path: Path, kind: str | None, what: str, stack: ExitStack) -> tuple[Source, str]:
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
            whole = Rejoined(head, _Unpacked(unpacked, what))
            return _as_kind(io.BufferedReader(whole), head, _kind(head, kind, name, what), stack)
    found = _kind(head, kind, name, what)
    if path != STANDARD_INPUT and path.is_file() and found in ("parquet", "arrow"):
        return pa.OSFile(str(path)), found
    return _as_kind(rejoined, head, found, stack)


@temporary_files()
def _as_kind(source: io.BufferedReader[Any], head: bytes, kind: str, stack: ExitStack) -> tuple[Source, str]:
    if kind == "parquet" or head.startswith(b"ARROW1"):  # their directories are at the end
        whole = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 # the stack closes it
        shutil.copyfileobj(source, whole)
        whole.seek(0)
        return pa.PythonFile(whole, mode="r"), kind
    return source, kind


def _kind(head: bytes, kind: str | None, name: str, what: str) -> TableKind | str:
    if is_workbook(head):
        return "xlsx"
    for magic, strange in _STRANGE.items():
        if head.lstrip().startswith(magic):
            raise InvalidRequest(f"{what}: {strange}")
    by_content = next((each for magic, each in _MAGIC.items() if head.startswith(magic)), None)
    found = kind or by_content or READ_SUFFIXES.get(Path(name).suffix)
    return found or _BRACKETS.get(head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1], "csv")


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("is closed")
    return sys.stdin.buffer


class _Unpacked:
    """Bytes as they are unpacked; those that are damaged are an error of the file's."""

    def __init__(self, source: pa.NativeFile, what: str) -> None:
        self._source = source
        self._what = what

    def read(self, size: int = -1) -> bytes:
        with _unpacking(self._what):
            found: bytes = self._source.read(size if size >= 0 else None)
        return found


class _unpacking:
    """What is wrong with compressed bytes, as an error that names them."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            raise InvalidRequest(f"{self._what}: its compression is damaged") from None
