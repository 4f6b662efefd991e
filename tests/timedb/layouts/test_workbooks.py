"""Sheets of Excel workbooks: numbers, texts, times and dates, whatever their format; and what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.timedb.layouts.reading import micro_rows
from timedb.contract.errors import InvalidRequest

NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
S: dict[str, Any] = {"valid_time": "t", "value": "v", "series": "s", "time_zone": "Europe/Berlin"}


def workbook(*sheets: tuple[str, list[list[Any]]]) -> bytes:
    """A workbook; a cell that is a tuple is a day and time as Excel counts them."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        names = "".join(
            f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"/>' for number, (name, _) in enumerate(sheets, 1)
        )
        links = "".join(
            f'<Relationship Id="r{number}" Type="{REL}/worksheet" Target="worksheets/sheet{number}.xml"/>'
            for number in range(1, len(sheets) + 1)
        )
        package = "http://schemas.openxmlformats.org/package/2006"
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"/>')
        root = f'<Relationship Id="book" Type="{REL}/officeDocument" Target="xl/workbook.xml"/>'
        archive.writestr("_rels/.rels", f'<Relationships xmlns="{package}/relationships">{root}</Relationships>')
        archive.writestr("xl/workbook.xml", f'<workbook {NS} xmlns:r="{REL}"><sheets>{names}</sheets></workbook>')
        links += f'<Relationship Id="style" Type="{REL}/styles" Target="styles.xml"/>'
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'
        )
        formats = '<cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="22" applyNumberFormat="1"/></cellXfs>'
        archive.writestr("xl/styles.xml", f"<styleSheet {NS}>{formats}</styleSheet>")
        for number, (_, rows) in enumerate(sheets, 1):
            lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
            archive.writestr(
                f"xl/worksheets/sheet{number}.xml", f"<worksheet {NS}><sheetData>{lines}</sheetData></worksheet>"
            )
    return sink.getvalue()


def cell(value: Any) -> str:
    if isinstance(value, tuple):
        return f'<c s="1"><v>{value[0]}</v></c>'
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    return f"<c><v>{value}</v></c>"


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
