"""Filters on every column of every table, through whatever reads Delta: the rows that are there, and no fewer.

``make readers`` asks the same of old and new versions of the readers.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

import timedb as td
from tests.readers import probe
from tests.readers.expected import FEW, SOME, expectations, tables_of
from tests.readers.history import write_lake
from tests.storage.lakes import AUDIT, open_tenant, read, stored_rows, tenant_folder, tiny_settings
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.storage import Lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake as the service leaves it."""
    folder = tmp_path_factory.mktemp("readers") / "lake"
    write_lake(folder)
    return folder


@pytest.fixture(scope="module")
def touched(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake after delta-rs has deleted, changed, appended and compacted rows of its values."""
    folder = tmp_path_factory.mktemp("touched") / "lake"
    shutil.copytree(lake, folder)
    table = str(tenant_folder(folder) / "values")
    DeltaTable(table).delete("value = 10.0 AND tier = 'fresh'")
    DeltaTable(table).update(updates={"annotation": "'by another'"}, predicate="value = 1.0")
    one = pl.read_delta(table).filter(pl.col("value") == 2.0).head(1)
    write_deltalake(table, one.with_columns(run_id=pl.lit("not ours"), tier=pl.lit("fresh")), mode="append")
    DeltaTable(table).optimize.compact(partition_filters=[("tier", "=", "current")])
    return folder


def assert_all_right(expected: list[dict[str, Any]], *readers: str, of_others: bool = False) -> None:
    found = probe.run(expected, readers)
    assert found.keys() == set(readers)
    wrong = [each for reader in found.values() for each in reader["wrong"]]
    # delta-rs writes views of text, and pyarrow says that it cannot compare them: an error, and no wrong answer.
    assert [each for each in wrong if not (of_others and "string_view" in str(each["found"]))] == []
    assert all(reader["checked"] for reader in found.values())


@pytest.mark.parametrize("name", ["series", "runs", "updates", "users"])
def test_delta_rs_finds_rows_by_every_column(lake: Path, name: str) -> None:
    assert_all_right(expectations(tables_of(lake)[name], SOME), "deltalake, pyarrow dataset", "deltalake, filters")


@pytest.mark.parametrize("which", ["lake", "touched"])
def test_every_reader_finds_values_by_every_column(request: pytest.FixtureRequest, which: str) -> None:
    values = tables_of(request.getfixturevalue(which))["values"]
    assert_all_right(expectations(values, FEW), "Polars", "DuckDB")
    over_pyarrow = ("Polars over pyarrow", "deltalake, pyarrow dataset", "deltalake, filters")
    assert_all_right(expectations(values, SOME), *over_pyarrow, of_others=which == "touched")


@pytest.mark.parametrize("which", ["lake", "touched"])
def test_our_own_readers_do(request: pytest.FixtureRequest, which: str) -> None:
    lake = request.getfixturevalue(which)
    ours = td.scan_lake(lake, view="overlapping", all_versions=True)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(td.duckdb_macros(lake))
        for each in expectations(tables_of(lake)["values"], FEW):
            column, test = each["column"], each["test"]
            if column in ("series_bucket", "tier"):
                continue
            value = probe.value_of(each)
            field = pl.col(column)
            wanted = field.is_null() if test == "is null" else probe.TESTS[test](field, value)
            assert ours.filter(wanted).select("change_time").collect().height == each["rows"], each
            sql = f"SELECT count(*) FROM timedb_overlapping_versions() WHERE {column} {test}"
            given = [] if test == "is null" else [value]
            assert connection.execute(f"{sql} {'?' * len(given)}", given).fetchall() == [(each["rows"],)], each


def test_the_service_reads_what_other_writers_left(touched: Path) -> None:
    with closing(Lake.open(str(touched), tiny_settings())) as lake:
        tenant = open_tenant(lake)

        def seen() -> list[object]:
            return [
                sorted(read(tenant, **filters), key=str)
                for filters in (
                    {},
                    {"start_valid": "2025-01-01T01:00:00Z"},
                    {"end_known": "2025-01-03T00:00:00Z"},
                    {"as_of": lake_time},
                    {"view": "flat", "all_versions": False},
                    {"view": "latest", "all_versions": False},
                )
            ]

        lake_time = pl.read_delta(str(tenant_folder(touched) / "values"))["change_time"].max()
        before = seen()
        direct = td.scan_lake(touched, OPEN_TENANT_ID, view="overlapping", all_versions=True, columns=AUDIT)
        assert sorted(stored_rows(direct.collect().to_arrow()), key=str) == before[0]
        assert {row.run_id for row in before[0]} >= {"not ours"}
        assert {row.annotation for row in before[0]} >= {"by another"}
        tenant.maintain()
        assert seen() == before
