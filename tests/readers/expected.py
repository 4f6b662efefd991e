"""What every filter on every column of a lake's tables finds, counted in Python over all of their rows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from tests.readers.probe import TESTS
from tests.storage.lakes import tenant_folder

__all__ = ["FEW", "SOME", "expectations", "tables_of"]


def tables_of(lake: Path) -> dict[str, Path]:
    """The Delta tables of a lake."""
    tables = {name: tenant_folder(lake) / name for name in ("values", "series", "runs", "updates")}
    return {**tables, "users": lake / "users"}


FEW = ("<=", "is null")
SOME = ("==", "<=", "is null")


def expectations(table: Path, tests: tuple[str, ...] = (*TESTS, "is null", "is not null")) -> list[dict[str, Any]]:
    """Filters on each column, with the rows that they find, as ``probe.py`` takes them.

    Args:
        table: A Delta table.
        tests: Of the filters; each is asked with the least and the greatest value of the column, of a few the least.
    """
    rows = pl.scan_delta(str(table)).collect(engine="in-memory")
    found = []
    for column in rows.columns:
        cells = rows[column].to_list()
        values = [] if rows[column].dtype == pl.List else sorted({cell for cell in cells if cell is not None})
        for test in tests:
            if test.startswith("is"):
                wanted = sum((cell is None) == (test == "is null") for cell in cells)
                found.append(_filter(table, column, test, None, wanted))
                continue
            ends = values[:1] if tests == FEW else [*values[:1], *values[1:][-1:]]
            for value in ends:
                wanted = sum(cell is not None and TESTS[test](cell, value) for cell in cells)
                found.append(_filter(table, column, test, value, wanted))
    return found


def _filter(table: Path, column: str, test: str, value: object, rows: int) -> dict[str, Any]:
    value = {"time": value.isoformat()} if isinstance(value, datetime) else value
    return {"table": str(table), "column": column, "test": test, "value": value, "rows": rows}
