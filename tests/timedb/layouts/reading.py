"""Reads small files as the command line does, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timedb.layouts.layout import Layout
from timedb.layouts.prepared import prepare

__all__ = ["micro_rows", "rows_of"]


def rows_of(folder: Path, content: str | bytes, name: str = "a.csv", **options: Any) -> list[dict[str, Any]]:
    """The rows that a file would be, in the order of their series and valid times."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with prepare(path, Layout.of(options)) as prepared:
        found = prepared.reader().read_all().to_pylist()
        assert len(found) == prepared.rows
    return sorted(found, key=lambda row: (row.get("series_key") or "", row.get("labels") or "", row["valid_time"]))


def micro_rows(folder: Path, content: str | bytes, **options: Any) -> list[tuple[str, float | None]]:
    """Valid times as RFC 3339 texts without seconds, and values."""
    return [(f"{row['valid_time']:%Y-%m-%dT%H:%MZ}", row["value"]) for row in rows_of(folder, content, **options)]
