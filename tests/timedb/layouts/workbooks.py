"""Makes small Excel workbooks."""

from __future__ import annotations

import io
import zipfile
from typing import Any

__all__ = ["sparse_workbook", "workbook"]

NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


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


def sparse_workbook(rows: list[list[Any]], far: str) -> bytes:
    """A workbook of one sheet, with one more cell, 7, at an address far from the others."""
    made, sink = zipfile.ZipFile(io.BytesIO(workbook(("A", rows)))), io.BytesIO()
    with made, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in made.namelist():
            number = "".join(filter(str.isdigit, far))
            more = f'<row r="{number}"><c r="{far}"><v>7</v></c></row></sheetData>'.encode()
            archive.writestr(name, made.read(name).replace(b"</sheetData>", more))
    return sink.getvalue()
