"""Excel workbooks (XLSX): a sheet as a table of texts, numbers and times written one way whatever their format."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.files.csv_tables import Piece
from timedb.files.table_files import TableFile
from timedb.layouts.layout import Layout

__all__ = ["is_workbook", "open_workbook"]

_MAX_UNPACKED_BYTES = 1 << 30
_PIECE_ROWS = 1 << 14
Row = tuple[int, list[Any]]


def is_workbook(head: bytes) -> bool:
    """Whether a file begins like a workbook, or another zip archive."""
    return head.startswith(b"PK\x03\x04")


def open_workbook(source: Any, what: str, layout: Layout) -> TableFile:
    """Look at the line of names of a sheet.

    Raises:
        InvalidRequest: it is no workbook, has no such sheet or several, or its reader is not installed.
        TooLarge: it has over a gibibyte when it is unpacked.
    """
    rows = _rows(source.read(), what, layout)
    numbered = itertools.islice(enumerate(rows, 1), layout.get("skip_lines"), None)
    filled: Iterator[Row] = (
        (number, cells) for number, cells in numbered if any(cell not in ("", None) for cell in cells)
    )
    first = next(filled, None)
    if first is None:
        raise InvalidRequest(f"{what}: the sheet is empty")
    if layout.get("no_header"):
        names, filled = [str(number) for number, _ in enumerate(first[1], 1)], itertools.chain([first], filled)
    else:
        names = [_text(cell, ".") or "" for cell in first[1]]
    while names and not names[-1] and not layout.get("no_header"):
        names.pop()

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        places = {name: names.index(name) for name in dict.fromkeys(columns.values())}
        nulls = {"", *layout.get("null")}
        while some := list(itertools.islice(filled, _PIECE_ROWS)):
            yield _piece(some, places, layout.get("decimal") or ".", nulls, len(names), what)

    return TableFile(what, names, None, pieces, numbers_are_text=True)


def _rows(content: bytes, what: str, layout: Layout) -> Iterator[list[Any]]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ModuleNotFoundError:
        raise InvalidRequest(
            f"{what}: is an Excel workbook, whose reader is an extra: pip install 'timedb-flight[xlsx]'; or save the"
            " sheet as CSV (UTF-8) and upload that"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError):
        raise InvalidRequest(f"{what}: is an Excel workbook, or another zip archive, and damaged") from None
    if not any(part.filename == "xl/workbook.xml" for part in parts):
        raise InvalidRequest(f"{what}: is a zip archive, and no Excel workbook; unpack it first")
    if sum(part.file_size for part in parts) > _MAX_UNPACKED_BYTES:
        raise TooLarge(f"{what}: has over {_MAX_UNPACKED_BYTES} bytes when it is unpacked; save the sheet as CSV")
    try:
        book = CalamineWorkbook.from_object(io.BytesIO(content))
        name = _sheet_of(book.sheet_names, what, layout)
        sheet = book.get_sheet_by_name(name)
        blank: list[list[Any]] = [[]] * (sheet.start[0] if sheet.start else 0)
        return itertools.chain(blank, iter(sheet.to_python(skip_empty_area=True)))
    except (CalamineError, OSError, ValueError) as error:
        raise InvalidRequest(f"{what}: cannot be read as a workbook: {' '.join(str(error).split())}") from None


def _sheet_of(names: list[str], what: str, layout: Layout) -> str:
    said, spoken = layout.said.get("sheet"), layout.spoken("sheet")
    if said is not None:
        if said not in names:
            raise InvalidRequest(f"{spoken}: the workbook has no sheet {quoted(said)}{did_you_mean(said, names)}")
        return str(said)
    if len(names) != 1:
        raise InvalidRequest(f"{spoken}: say which of its {len(names)} sheets: {', '.join(names[:30])} ({what})")
    return names[0]


def _piece(rows: list[Row], places: Mapping[str, int], decimal: str, nulls: set[str], width: int, what: str) -> Piece:
    for number, cells in rows:
        if any(cell not in ("", None) for cell in cells[width:]):
            extra = next(cell for cell in cells[width:] if cell not in ("", None))
            raise InvalidRequest(f"{what}: row {number}: {quoted(str(extra))} stands under no name")
    columns = {}
    for name, place in places.items():
        texts = [_text(cells[place] if place < len(cells) else None, decimal) for _, cells in rows]
        columns[name] = pa.array([None if text is None or text in nulls else text for text in texts], pa.string())
    numbers = [number for number, _ in rows]
    return Piece(pa.RecordBatch.from_pydict(columns), partial(_place, numbers))


def _place(numbers: list[int], row: int) -> str:
    return f"row {numbers[row]}"


def _text(cell: Any, decimal: str) -> str | None:
    """A cell as a CSV file would have it, its decimals as they are written there."""
    match cell:
        case None:
            return None
        case str() | bool():
            return str(cell)
        case datetime():
            return _rounded(cell).isoformat(" ")
        case date():
            return cell.isoformat()
        case time():
            return cell.isoformat()
        case timedelta():
            hours, seconds = divmod(int(cell.total_seconds()), 3600)
            return f"{hours:02}:{seconds // 60:02}" + (f":{seconds % 60:02}" if seconds % 60 else "")
        case int():
            return str(cell)
        case float() if cell.is_integer() and abs(cell) < 1e15:
            return str(int(cell))
        case _:
            return repr(cell).replace(".", decimal)


def _rounded(moment: datetime) -> datetime:
    """To the millisecond: a workbook holds days as a float, which is off by a few microseconds."""
    return moment + timedelta(microseconds=(500 + moment.microsecond) // 1000 * 1000 - moment.microsecond)
