"""A process that reads a sheet of a workbook: the workbook on standard input, its rows a line each on standard output.

It runs by its path, imports nothing of ours, and has a limit of memory: a workbook of a few hundred bytes may state
a sheet of billions of cells, and its reader then ends the process that it runs in.

Arguments: bytes of memory, seconds of processor time, the decimal mark, and the sheet, if one was said. The first line
is an object: ``sheets`` (the names) or ``error``. Where one sheet is meant, each further line is a row: its number and
its cells, texts or null.
"""

from __future__ import annotations

import io
import json
import sys
from datetime import date, datetime, time, timedelta
from typing import Any

__all__ = ["main", "text_of"]


def main(memory_bytes: int, seconds: int, decimal: str, said: str | None) -> None:
    """Read the workbook and write the rows."""
    content = sys.stdin.buffer.read()
    from python_calamine import CalamineError, CalamineWorkbook

    _limit(memory_bytes, seconds)
    try:
        book = CalamineWorkbook.from_object(io.BytesIO(content))
        names = book.sheet_names
        _say({"sheets": names})
        wanted = said if said is not None else names[0] if len(names) == 1 else None
        if wanted not in names:
            return
        sheet = book.get_sheet_by_name(wanted)
        left = sheet.start[1] if sheet.start else 0  # columns that are empty
        for number, row in enumerate(sheet.iter_rows(), 1):
            _say([number, *(text_of(cell, decimal) for cell in row[left:])])
    except (CalamineError, OSError, ValueError) as error:
        _say({"error": " ".join(str(error).split())})


def _limit(memory_bytes: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")


def text_of(cell: Any, decimal: str) -> str | None:
    """A cell as a CSV file would have it, its decimals as they are written there."""
    match cell:
        case None | "":
            return None
        case str() | bool():
            return str(cell)
        case datetime():
            return _rounded(cell).isoformat(" ")
        case date() | time():
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


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
