"""Excel workbooks (XLSX): a sheet as a table of texts, numbers and times written one way whatever their format."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.files.pieces import Piece
from timedb.files.table_files import TableFile, TableLimits
from timedb.layouts.layout import Layout

__all__ = ["SHEET_BYTES", "is_workbook", "open_workbook"]

SHEET_BYTES = 1 << 30
"""The memory that reading a sheet may take, where nobody says another."""
_SECONDS = 120
_PROGRAM = str(Path(__file__).with_name("sheet_process.py"))
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_PIECE_ROWS = 1 << 14
Row = tuple[int, list[str | None]]


def is_workbook(head: bytes) -> bool:
    """Whether a file begins like a workbook, or another zip archive."""
    return head.startswith(b"PK\x03\x04")


def open_workbook(source: Any, what: str, layout: Layout, limits: TableLimits | None = None) -> TableFile:
    """Look at the line of names of a sheet.

    Args:
        source: The bytes.
        what: How an error calls them.
        layout: Which sheet, and how its texts are written.
        limits: What it may hold, and the memory that reading it may take (``group_bytes``).

    Raises:
        InvalidRequest: it is no workbook, has no such sheet or several, or its reader is not installed.
        TooLarge: it holds more, or its sheet takes more memory than it may.
    """
    limits = limits or TableLimits()
    rows = _rows(source.read(), what, layout, limits.group_bytes or SHEET_BYTES)
    numbered = itertools.dropwhile(lambda row: row[0] <= layout.get("skip_lines"), rows)
    filled: Iterator[Row] = (row for row in numbered if any(cell is not None for cell in row[1]))
    first = next(filled, None)
    if first is None:
        raise InvalidRequest(f"{what}: the sheet is empty")
    if limits.columns is not None and len(first[1]) > limits.columns:
        raise TooLarge(f"{what}: {len(first[1])} columns are over the limit of {limits.columns}")
    if layout.get("no_header"):
        names, filled = [str(number) for number, _ in enumerate(first[1], 1)], itertools.chain([first], filled)
    else:
        names = [cell or "" for cell in first[1]]
    while names and not names[-1] and not layout.get("no_header"):
        names.pop()

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        places = {name: names.index(name) for name in dict.fromkeys(columns.values())}
        nulls = {"", *layout.get("null")}
        while some := list(itertools.islice(filled, _PIECE_ROWS)):
            yield _piece(some, places, nulls, len(names), what)

    return TableFile(what, names, None, pieces, numbers_are_text=True)


def _rows(content: bytes, what: str, layout: Layout, memory_bytes: int) -> Iterator[Row]:
    """The rows of the sheet, by a process that may die of a workbook without taking this one along."""
    if importlib.util.find_spec("python_calamine") is None:
        raise InvalidRequest(
            f"{what}: is an Excel workbook, whose reader is an extra: pip install 'timedb-flight[xlsx]'; or save the"
            " sheet as CSV (UTF-8) and upload that"
        )
    _check_archive(content, what)
    lines = _lines(content, what, layout, memory_bytes)
    first = next(lines)
    if "sheets" in first:
        _check_sheet(first["sheets"], what, layout)
    return ((row[0], row[1:]) for row in itertools.chain([first], lines) if isinstance(row, list))


def _check_archive(content: bytes, what: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError):
        raise InvalidRequest(f"{what}: is an Excel workbook, or another zip archive, and damaged") from None
    if "xl/workbook.xml" not in names:
        raise InvalidRequest(f"{what}: is a zip archive, and no Excel workbook; unpack it first")


def _lines(content: bytes, what: str, layout: Layout, memory_bytes: int) -> Iterator[Any]:
    """What the process writes, line by line.

    Raises:
        InvalidRequest: the workbook cannot be read.
        TooLarge: the process took more than it may.
    """
    said = layout.said.get("sheet")
    command = [sys.executable, "-I", _PROGRAM, str(memory_bytes), str(_SECONDS), layout.get("decimal") or "."]
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with tempfile.TemporaryFile() as body:
        body.write(content)
        body.seek(0)
        process = subprocess.Popen(
            [*command, *([] if said is None else [said])],
            stdin=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONIOENCODING": "utf-8"},
        )
    assert process.stdout is not None  # it is a pipe
    try:
        for line in process.stdout:
            found = json.loads(line) if line.endswith(b"\n") else {}
            if isinstance(found, dict) and "error" in found:
                raise InvalidRequest(f"{what}: cannot be read as a workbook: {found['error']}")
            yield found
        if process.wait():
            raise TooLarge(
                f"{what}: its sheet takes more than {memory_bytes >> 20} MiB of memory or {_SECONDS} seconds to read;"
                " save it as CSV (UTF-8) and upload that"
            )
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


def _check_sheet(names: list[str], what: str, layout: Layout) -> None:
    said, spoken = layout.said.get("sheet"), layout.spoken("sheet")
    if said is not None and said not in names:
        raise InvalidRequest(f"{spoken}: the workbook has no sheet {quoted(said)}{did_you_mean(said, names)}")
    if said is None and len(names) != 1:
        raise InvalidRequest(f"{spoken}: say which of its {len(names)} sheets: {', '.join(names[:30])} ({what})")


def _piece(rows: list[Row], places: Mapping[str, int], nulls: set[str], width: int, what: str) -> Piece:
    for number, cells in rows:
        if any(cell is not None for cell in cells[width:]):
            extra = next(cell for cell in cells[width:] if cell is not None)
            raise InvalidRequest(f"{what}: row {number}: {quoted(extra)} stands under no name")
    columns = {}
    for name, place in places.items():
        texts = [cells[place] if place < len(cells) else None for _, cells in rows]
        columns[name] = pa.array([None if text in nulls else text for text in texts], pa.string())
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    return Piece(pa.RecordBatch.from_pydict(columns), "row", partial(np.asarray, numbers))
