"""Damage to files of a lake: which file, what is done to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.storage.lakes import tenant_folder

Damage = Callable[[Path], None]
FLIPPED = 40


def cut(path: Path) -> None:
    """Leave the first two thirds."""
    os.truncate(path, path.stat().st_size * 2 // 3)


def flip(path: Path) -> None:
    """Turn 40 bytes around, the page of a Parquet file or the middle of another one."""
    data = bytearray(path.read_bytes())
    start = 24 if path.suffix == ".parquet" else max(0, len(data) // 2 - FLIPPED // 2)
    for place in range(start, min(start + FLIPPED, len(data))):
        data[place] ^= 0xFF
    path.write_bytes(data)


def another(path: Path) -> None:
    """Whole, and of something else."""
    if path.suffix == ".parquet":
        path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 8) + b"PAR1")
    elif path.parent.name == "_delta_log" and path.suffix == ".json":
        path.write_text('{"protocol":{"minReaderVersion":9,"minWriterVersion":9}}\n')
    else:
        path.write_text(json.dumps({"format_version": 99, "bucket_digits": "1", "version": 99, "tables": {}}))


HOW: Mapping[str, Damage] = {
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "cut": cut,
    "flipped": flip,
    "another": another,
}


def _table(folder: Path, name: str) -> Path:
    return folder / "users" if name == "users" else tenant_folder(folder) / name


def _commits(folder: Path, table: str) -> list[Path]:
    return sorted((_table(folder, table) / "_delta_log").glob("*.json"))


def _checkpoint(folder: Path, table: str) -> Path:
    return max((_table(folder, table) / "_delta_log").glob("*.checkpoint.parquet"))


def _data(folder: Path, table: str) -> Path:
    """The file that the last commit added."""
    adds = [json.loads(line) for line in _commits(folder, table)[-1].read_text().splitlines()]
    path = next(action["add"]["path"] for action in adds if "add" in action)
    return _table(folder, table) / str(path)


FILES: Mapping[str, Callable[[Path], Path]] = {
    "marker": lambda folder: folder / "timedb-lake.json",
    "marker's copy": lambda folder: folder / ".timedb-known" / "marker.json",
    "inventory": lambda folder: tenant_folder(folder) / "timedb-tables.json",
    "values: an early commit": lambda folder: _commits(folder, "values")[1],
    "values: last commit": lambda folder: _commits(folder, "values")[-1],
    "values: checkpoint": lambda folder: _checkpoint(folder, "values"),
    "values: hint": lambda folder: _table(folder, "values") / "_delta_log" / "_last_checkpoint",
    "values: data file": lambda folder: _data(folder, "values"),
    "series: last commit": lambda folder: _commits(folder, "series")[-1],
    "series: data file": lambda folder: _data(folder, "series"),
    "runs: last commit": lambda folder: _commits(folder, "runs")[-1],
    "runs: data file": lambda folder: _data(folder, "runs"),
    "updates: last commit": lambda folder: _commits(folder, "updates")[-1],
    "updates: data file": lambda folder: _data(folder, "updates"),
    "users: last commit": lambda folder: _commits(folder, "users")[-1],
    "users: data file": lambda folder: _data(folder, "users"),
    "sign of a server": lambda folder: folder / ".timedb-serving" / "left",
    "staging": lambda folder: _table(folder, "values") / ".aside-left",
}
