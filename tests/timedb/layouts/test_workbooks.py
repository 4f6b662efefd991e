"""Sheets of Excel workbooks: numbers, texts, times and dates, whatever their format; and what is wrong with them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from tests.timedb.layouts.reading import micro_rows
from tests.timedb.layouts.workbooks import sparse_workbook, workbook
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.files.table_files import TableLimits
from timedb.layouts.layout import Layout
from timedb.layouts.opening import open_source

S: dict[str, Any] = {"valid_time": "t", "value": "v", "series": "s", "time_zone": "Europe/Berlin"}

PRICES: tuple[str, list[list[Any]]] = (
    "Prices",
    [["t", "v"], [(45658.0,), 1.5], [(45658.0104166667,), 1234567], ["2025-01-01 00:30", "n/e"]],
)


def test_a_sheet_is_read(tmp_path: Path) -> None:
    found = micro_rows(tmp_path, workbook(PRICES), null=["n/e"], **S)
    assert found == [("2024-12-31T23:00Z", 1.5), ("2024-12-31T23:15Z", 1234567.0), ("2024-12-31T23:30Z", None)]
    # Numbers of a workbook are numbers, however texts beside them are written.
    german: tuple[str, list[list[Any]]] = ("Prices", [["t", "v"], [(45658.0,), 1.5], [(45658.5,), "1.234,5"]])
    told = micro_rows(tmp_path, workbook(german), decimal=",", thousands=".", **S)
    assert [value for _, value in told] == [1.5, 1234.5]


def test_which_sheet_and_where_its_names_are(tmp_path: Path) -> None:
    both = workbook(("Notes", [["made by hand"]]), ("Prices", [["in EUR"], *PRICES[1][:2]]))
    with pytest.raises(InvalidRequest, match="--sheet: say which of its 2 sheets: Notes, Prices"):
        micro_rows(tmp_path, both, **S)
    with pytest.raises(InvalidRequest, match="--sheet: the workbook has no sheet 'Price'; did you mean Prices"):
        micro_rows(tmp_path, both, sheet="Price", **S)
    assert micro_rows(tmp_path, both, sheet="Prices", skip_lines=1, **S) == [("2024-12-31T23:00Z", 1.5)]
    with pytest.raises(InvalidRequest, match="v: row 4: 'n/e' is not a number; --null n/e"):
        micro_rows(tmp_path, workbook(PRICES), **S)
    with pytest.raises(InvalidRequest, match=r"--delimiter.*about CSV"):
        micro_rows(tmp_path, workbook(PRICES), delimiter=";", **S)
    with pytest.raises(InvalidRequest, match="is an Excel workbook, or another zip archive"):
        micro_rows(tmp_path, workbook(PRICES)[:-40], **S)


def test_a_sheet_that_takes_too_much_memory_ends_its_own_process_alone() -> None:
    content = sparse_workbook([["t", "v"], ["2025-01-01", 1]], "XFD1048576")
    with pytest.raises(TooLarge, match=r"a\.xlsx: its sheet takes more than 64 MiB"):
        open_source(io.BytesIO(content), "xlsx", "a.xlsx", Layout.of(S), TableLimits(group_bytes=64 << 20))
    apart = sparse_workbook([["t", "v"], ["2025-01-01", 1]], "C9")
    table = open_source(io.BytesIO(apart), "xlsx", "a.xlsx", Layout.of(S)).table
    with pytest.raises(InvalidRequest, match="row 9: '7' stands under no name"):
        list(table.pieces({"value": "v"}))
