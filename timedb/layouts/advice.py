"""Which option would read a cell that could not be read, and numbers that may mean one of two."""

from __future__ import annotations

import re

import pyarrow.compute as pc

from timedb.contract.columns import is_text
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.cells import Cells
from timedb.files.csv_tables import CsvForm
from timedb.layouts.layout import Layout

__all__ = ["Advice"]

_IN_DOUBT = r"^\s*[+-]?[1-9]\d{0,2}\.\d{3}\s*$"
_HAS_A_POINT = r"^\s*[+-]?(0\.\d+|\d+\.(\d{1,2}|\d{4,})|\d{4,}\.\d+)([eE][+-]?\d+)?\s*$"


class Advice:
    """Says what helps.

    Args:
        layout: What the options say.
        form: How CSV is written.
        numbers_are_text: Whether options about how numbers are written are about this file.
    """

    def __init__(self, layout: Layout, form: CsvForm, *, numbers_are_text: bool) -> None:
        self._layout = layout
        self._form = form
        self._texts = numbers_are_text
        self._settled: set[str] = set()

    def __call__(self, ours: str, text: str) -> str:
        """The end of the error about a cell: our column and the cell's text → what to do."""
        spoken = self._layout.spoken
        if ours == "time_zone":
            return f"; say which with {spoken('time_zone')}"
        if not self._texts or len(text) > 40:
            return ""
        if ours == "value" and (options := self._of_number(text.strip())):
            return f"; {options} reads it, if that is how numbers are written here"
        if ours != "valid_time" and not re.search(r"\d", text):
            return f"; {spoken('null', text)} takes it for no value"
        if ours == "value" and len(self._layout.said.keys() & {"wide"}):
            return f"; {spoken('ignore')} leaves its column out"
        return ""

    def _of_number(self, text: str) -> str:
        spoken, usual = self._layout.spoken, self._form.decimal == "."
        if usual and re.fullmatch(r"[+-]?\d+,\d+", text):
            either = f" or {spoken('thousands', ',')}" if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text) else ""
            return f"{spoken('decimal', ',')}{either}"
        if usual and (found := re.fullmatch(r"[+-]?\d{1,3}(?:([.' \xa0\u202f])\d{3})+(,\d*)?", text)):
            return f"{spoken('decimal', ',')} {spoken('thousands', found[1])}"
        if found := re.fullmatch(r"[+-]?\d{1,3}(?:([,'. \xa0\u202f])\d{3})+([.,]\d*)?", text):
            return spoken("thousands", found[1])
        return ""

    def check_in_doubt(self, cells: Cells) -> None:
        """Refuse ``1.234`` in a file whose cells ``;`` tells apart, as nothing says whether it is 1234.

        Raises:
            InvalidRequest: names both options.
        """
        said = self._layout.said.keys() & {"decimal", "thousands"}
        if self._form.delimiter != ";" or said or cells.name in self._settled or not is_text(cells.column.type):
            return
        if pc.any(pc.match_substring_regex(cells.column, _HAS_A_POINT), min_count=0).as_py():
            self._settled.add(cells.name)
            return
        doubtful = pc.fill_null(pc.match_substring_regex(cells.column, _IN_DOUBT), False)
        if (row := pc.index(doubtful, True).as_py()) >= 0:
            text, spoken = cells.column[row].as_py(), self._layout.spoken
            whole = text.strip().replace(".", "")
            raise InvalidRequest(
                f"{cells.name}: {cells.place(row)}: {quoted(text)} may be {text.strip()} or {whole}: "
                f"{spoken('decimal', '.')} says the one, {spoken('decimal', ',')} {spoken('thousands', '.')} the other"
            )
