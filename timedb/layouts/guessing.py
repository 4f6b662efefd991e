"""What the first lines of a text file leave no doubt about, and what they look like where they do."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from timedb.layouts.layout import Layout

__all__ = ["Looks", "looks_of"]

_DELIMITERS = (",", ";", "\t", "|")
_LINES = 40


@dataclass(frozen=True, slots=True)
class Looks:
    """What a file looks like.

    Attributes:
        delimiter: What tells its cells apart.
        found_out: Option → value, of what was found out and not said.
        hint: What to do where a column is missing; empty: nothing.
    """

    delimiter: str = ","
    found_out: tuple[tuple[str, str], ...] = ()
    hint: str = ""


def looks_of(head: bytes, layout: Layout, encoding: str | None) -> Looks:
    """Look at the first lines of a text file.

    The delimiter is found out where the line of names and all lines that follow it have as many cells by it, two or
    more, and by no other: else it is the comma.
    """
    text = head.decode("utf-8-sig", errors="replace")
    lines = list(text.splitlines()[: layout.get("skip_lines") + _LINES])
    if not text.endswith(("\n", "\r")) and len(lines) > 1 and len(head) >= 1 << 16:
        lines = lines[:-1]
    found_out: list[tuple[str, str]] = []
    if encoding is not None and "encoding" not in layout.said:
        found_out.append(("encoding", encoding))
    rows = [line for line in lines[layout.get("skip_lines") :] if line.strip()]
    delimiter = layout.said.get("delimiter")
    if delimiter is None:
        delimiter = _delimiter_of(rows)
        if delimiter != ",":
            found_out.append(("delimiter", delimiter))
    return Looks(delimiter, tuple(found_out), _hint(lines, rows, delimiter, layout))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [line]


def _delimiter_of(rows: list[str]) -> str:
    if not rows:
        return ","
    whole = [row for row in rows if row.count('"') % 2 == 0]
    fitting = []
    for delimiter in _DELIMITERS:
        counts = {len(_cells(row, delimiter)) for row in whole}
        if len(counts) == 1 and counts.pop() > 1:
            fitting.append(delimiter)
    if "," in fitting and len(fitting) > 1 and "," not in rows[0]:
        fitting.remove(",")  # decimals of a file whose names have no comma
    return fitting[0] if len(fitting) == 1 else ","


def _lines_before_names(lines: list[str], delimiter: str) -> int | None:
    """How many lines stand before the one that looks like the line of names; None: none does, or none stands there."""
    widths = [len(_cells(line, delimiter)) if line.strip() else 0 for line in lines]
    for number, line in enumerate(lines[1:], 1):
        even = {width for width in widths[number:] if width} == {widths[number]}
        named = not any(re.search(r"^\s*-?\d", each) for each in _cells(line, delimiter))
        if even and named and widths[number] > 1 and number < len(lines) - 1:
            return number
    return None


def _hint(lines: list[str], rows: list[str], delimiter: str, layout: Layout) -> str:
    """What a file without the columns that are needed looks like."""
    if not rows:
        return ""
    names = _cells(rows[0], delimiter)
    if "skip_lines" not in layout.said and not layout.get("no_header"):
        for each in (delimiter,) if "delimiter" in layout.said else _DELIMITERS:
            if (before := _lines_before_names(lines, each)) is not None:
                told = layout.spoken("skip_lines", str(before))
                return f"line {before + 1} looks like its line of names: {told} leaves out what stands before it"
    if "delimiter" not in layout.said:
        for other in (";", "\t", "|"):
            if delimiter == "," and len(_cells(rows[0], other)) > len(names):
                return (
                    f"its line of names is {rows[0][:200]!a}: {layout.spoken('delimiter', other)} tells its cells apart"
                )
    if not layout.get("no_header") and names and all(re.fullmatch(r"\s*[-\d.,:/ TZ+]+\s*", name) for name in names):
        told = layout.spoken("no_header")
        return f"its first line is {rows[0][:200]!a}, which names nothing: {told} calls columns 1, 2, …"
    return ""
