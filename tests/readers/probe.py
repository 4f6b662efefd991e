"""Counts rows under filters with whatever reads Delta tables here, and prints what differs from what is expected.

It runs in environments of its own, with old and new versions of the readers, and so imports nothing of ours:
``python probe.py EXPECTED.json``, a list of ``{table, column, test, value, rows}``; times are ``{"time": RFC 3339}``.
Prints one JSON object: reader -> ``{"version", "checked", "wrong": [...]}``.
"""

from __future__ import annotations

import importlib
import json
import operator
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
Count = Callable[[str, str, str, Any], int]


def pyarrow_dataset() -> Count:
    """delta-rs: ``to_pyarrow_dataset()``, which also serves pandas, Ray, and whatever scans an Arrow dataset."""
    import pyarrow.compute as pc
    from deltalake import DeltaTable

    open_table = cache(lambda table: DeltaTable(table).to_pyarrow_dataset())

    def count(table: str, column: str, test: str, value: Any) -> int:
        field, dataset = pc.field(column), open_table(table)
        if test == "is null":
            wanted = field.is_null()
        elif test == "is not null":
            wanted = ~field.is_null()
        else:
            wanted = TESTS[test](field, _scalar(dataset, column, value))
        return int(dataset.to_table(filter=wanted).num_rows)

    return count


def pyarrow_filters() -> Count:
    """delta-rs: ``to_pyarrow_table(filters=…)``; it has no tests for null."""
    from deltalake import DeltaTable

    open_table = cache(DeltaTable)

    def count(table: str, column: str, test: str, value: Any) -> int:
        opened = open_table(table)
        if test.startswith("is"):
            return _unknown()
        return int(opened.to_pyarrow_table(filters=[(column, test, value)]).num_rows)

    return count


def polars() -> Count:
    """``pl.scan_delta``."""
    import polars as pl

    return _polars(lambda table: pl.scan_delta(table))


def polars_over_pyarrow() -> Count:
    """``pl.scan_delta(use_pyarrow=True)``, or what it does where it is not offered."""
    import polars as pl
    from deltalake import DeltaTable

    return _polars(cache(lambda table: pl.scan_pyarrow_dataset(DeltaTable(table).to_pyarrow_dataset())))


def _polars(scan: Callable[[str], Any]) -> Count:
    import polars as pl

    def count(table: str, column: str, test: str, value: Any) -> int:
        field = pl.col(column)
        if test == "is null":
            wanted = field.is_null()
        elif test == "is not null":
            wanted = field.is_not_null()
        else:
            wanted = TESTS[test](field, value)
        return int(scan(table).filter(wanted).select("change_time" if "values" in table else column).collect().height)

    return count


def duckdb() -> Count:
    """DuckDB's ``delta_scan``, the extension out of its package."""
    engine = importlib.import_module("duckdb")
    connection = engine.connect()
    (folder,) = util.find_spec("duckdb_extension_delta").submodule_search_locations  # type: ignore[union-attr,misc]
    (extension,) = Path(folder).rglob("delta.duckdb_extension")
    connection.execute(f"LOAD '{extension}'")

    def count(table: str, column: str, test: str, value: Any) -> int:
        wanted = f"{column} {test}" if test.startswith("is") else f"{column} {test} $value"
        values = {} if test.startswith("is") else {"value": value}
        return int(
            connection.execute(f"SELECT count(*) FROM delta_scan('{table}') WHERE {wanted}", values).fetchone()[0]
        )

    return count


def daft() -> Count:
    """``daft.read_deltalake``."""
    engine = importlib.import_module("daft")

    def count(table: str, column: str, test: str, value: Any) -> int:
        field = engine.col(column)
        if test == "is null":
            wanted = field.is_null()
        elif test == "is not null":
            wanted = field.not_null()
        else:
            wanted = TESTS[test](field, engine.lit(value))
        return int(engine.read_deltalake(table).where(wanted).count_rows())

    return count


READERS: dict[str, tuple[Callable[[], Count], str]] = {
    "deltalake, pyarrow dataset": (pyarrow_dataset, "deltalake"),
    "deltalake, filters": (pyarrow_filters, "deltalake"),
    "Polars": (polars, "polars"),
    "Polars over pyarrow": (polars_over_pyarrow, "polars"),
    "DuckDB": (duckdb, "duckdb"),
    "Daft": (daft, "daft"),
}
NEEDS = {"duckdb": "duckdb-extension-delta", "polars": "deltalake", "daft": "deltalake", "deltalake": "pyarrow"}


def _scalar(dataset: Any, column: str, value: Any) -> Any:
    import pyarrow as pa

    return pa.scalar(value, dataset.schema.field(column).type)


def value_of(each: Mapping[str, Any]) -> Any:
    """What a filter compares with."""
    value = each["value"]
    return datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value


class Unknown(Exception):
    """A reader has no such test."""


def _unknown() -> int:
    raise Unknown


def run(expected: list[dict[str, Any]], readers: Collection[str] = ()) -> dict[str, Any]:
    """What each reader that is installed answers, or those that are named."""
    found: dict[str, Any] = {}
    for name, (make, package) in READERS.items():
        if not (_version(package) and _version(NEEDS[package])) or (readers and name not in readers):
            continue
        count, wrong, checked = make(), [], 0
        for each in expected:
            value = value_of(each)
            try:
                rows: object = count(each["table"], each["column"], each["test"], value)
            except Unknown:
                continue
            except BaseException as error:  # a panic is none
                rows = f"{type(error).__name__}: {str(error)[:200]}"
            checked += 1
            if rows != each["rows"]:
                wrong.append({**each, "found": rows})
        found[name] = {"version": _version(package), "checked": checked, "wrong": wrong}
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text())), default=str))
