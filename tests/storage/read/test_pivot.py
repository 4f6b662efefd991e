"""Wide answers: which rows and columns they have, and what is refused; all doors against the oracle elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.lakes import hour, open_tenant, read_table, tiny_settings, upload
from timedb.contract.columns import META_CURSOR
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.wire import ReadTicket, parse_object
from timedb.storage import Lake, Tenant

NAN = float("nan")


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """Quantiles of two sites and a mean without one, by two runs; and series of other names."""
    path = str(tmp_path_factory.mktemp("wide"))
    lake = Lake.open(path, tiny_settings(lake=path, max_pivot_columns=5))
    tenant = open_tenant(lake)
    north, south = '{"site": "north"%s}', '{"site": "south"%s}'
    quantile = ', "quantile": "%s"'
    for run in range(2):
        rows: list[tuple[str, str, int, float | None]] = [
            ("wind", north % (quantile % each), valid, number + 10.0 * valid + 100 * run)
            for number, each in enumerate(("0.05", "0.5", "0.25"))
            for valid in range(3)
            if (number, valid) != (1, 1)
        ]
        rows += [
            ("wind", north % "", 1, NAN),
            ("wind", north % "", 2, None),
            ("wind", south % (quantile % "0.5"), 2, 7.0),
        ]
        rows += [("load", "{}", 0, 3.0), ("price", '{"site": "north"}', 0, 4.0)] if run else []
        names, labels, valids, values = zip(*rows, strict=True)
        table = pa.table(
            {
                "series_key": names,
                "labels": labels,
                "valid_time": pa.array([hour(valid) for valid in valids], pa.timestamp("us", "UTC")),
                "value": pa.array(values, pa.float64()),
            }
        )
        upload(tenant, table, f"run {run}", known_time=f"2025-01-01T0{run}:00:00Z")
    yield tenant
    lake.close()


def cells(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows, times as hours, NaN as text."""
    return [
        tuple(
            "NaN" if isinstance(cell, float) and math.isnan(cell) else getattr(cell, "hour", cell)
            for cell in row.values()
        )
        for row in table.to_pylist()
    ]


def test_quantiles_stand_side_by_side_in_the_order_of_numbers(tenant: Tenant) -> None:
    for _ in range(2):
        table = read_table(tenant, series_keys=["wind"], pivot="quantile")
        assert table.column_names == ["site", "valid_time", "valid_time_end", "0.05", "0.25", "0.5", "null"]
        assert table.schema.field("0.05").type == pa.float64()
        assert cells(table) == [
            ("north", 0, None, 100.0, 102.0, 101.0, None),
            ("north", 1, None, 110.0, 112.0, None, "NaN"),
            ("north", 2, None, 120.0, 122.0, 121.0, None),
            ("south", 2, None, None, None, 7.0, None),
        ]
        by_time = read_table(
            tenant, series_keys=["wind"], pivot="quantile", order_by="valid_time", start_valid="2025-01-01T02:00:00Z"
        )
        assert cells(by_time)[0] == ("north", 2, None, 120.0, 122.0, 121.0, None)
        newest = read_table(tenant, pivot="quantile", view="latest", labels={"site": "north"}, series_keys=["wind"])
        assert newest.column_names == ["valid_time", "valid_time_end", "0.05", "0.25", "0.5", "null"]
        assert cells(newest) == [(2, None, 120.0, 122.0, 121.0, None)]
        tenant.compact()


def test_runs_have_rows_of_their_own_in_overlapping(tenant: Tenant) -> None:
    table = read_table(tenant, pivot="quantile", view="overlapping", labels={"site": "south"}, order_by="known_time")
    assert table.column_names == ["valid_time", "valid_time_end", "known_time", "run_id", "0.5"]
    assert cells(table) == [(2, None, 0, "run 0", 7.0), (2, None, 1, "run 1", 7.0)]


def test_names_stand_side_by_side(tenant: Tenant) -> None:
    table = read_table(tenant, pivot="series_key", series_keys=["price", "load"], unit=None)
    assert table.column_names == ["site", "valid_time", "valid_time_end", "load", "price"]
    assert cells(table) == [("north", 0, None, None, 4.0), (None, 0, None, 3.0, None)] or cells(table) == [
        (None, 0, None, 3.0, None),
        ("north", 0, None, None, 4.0),
    ]
    sites = read_table(tenant, pivot="site", series_keys=["price", "load"], order_by="valid_time")
    assert sites.column_names == ["series_key", "valid_time", "valid_time_end", "north", "null"]
    assert cells(sites) == [("load", 0, None, None, 3.0), ("price", 0, None, 4.0, None)]
    how = {"period": "P1D", "aggregate": "sum"}
    daily = read_table(tenant, pivot="site", series_keys=["price", "load"], resample=how)
    assert cells(daily.select(["series_key", "north", "null"])) == [("load", None, 3.0), ("price", 4.0, None)]


@pytest.mark.parametrize("order_by", ["series", "valid_time"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_count_rows_of_the_answer(tenant: Tenant, order_by: str, limit: int) -> None:
    asked: dict[str, Any] = {"pivot": "quantile", "series_keys": ["wind"], "order_by": order_by, "ordered": True}
    whole = read_table(tenant, **asked)
    pages = [read_table(tenant, **asked, limit=limit)]
    while cursor := (pages[-1].schema.metadata or {}).get(META_CURSOR):
        pages.append(read_table(tenant, **asked, limit=limit, after=cursor.decode()))
    assert [page.num_rows for page in pages] == [min(limit, 4 - done) for done in range(0, 4, limit)]
    assert [row for page in pages for row in cells(page)] == cells(whole)


def test_it_comes_in_one_part_and_needs_no_row_to_know_its_columns(tenant: Tenant) -> None:
    plan = tenant.plan_read(
        parse_object(ReadTicket, {"pivot": "series_key"} | {"labels": {"site": ["north", "south"]}})
    )
    assert len(plan.parts) == 1
    assert plan.schema.names == ["quantile", "site", "valid_time", "valid_time_end", "price", "wind"]
    assert plan.reader().read_all().schema.names == plan.schema.names
    nothing = read_table(tenant, pivot="quantile", series_keys=["wind"], end_valid="2024-01-01T00:00:00Z")
    assert nothing.column_names == ["site", "valid_time", "valid_time_end", "0.05", "0.25", "0.5", "null"]


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"pivot": "quantil"}, InvalidRequest, "pivot: no series has a label 'quantil'; did you mean quantile?"),
        ({"pivot": "quantile", "all_versions": True}, InvalidRequest, "pivot: a cell has one value"),
        ({"pivot": "quantile", "view": "changes"}, InvalidRequest, "pivot: a cell has one value"),
        ({"pivot": "quantile", "columns": ["value"]}, InvalidRequest, "columns: pivot makes the columns"),
        ({"pivot": "quantile", "order_by": "known_time"}, InvalidRequest, "order_by: known_time is no column"),
        ({"pivot": ""}, InvalidRequest, "pivot: "),
        ({"pivot": "quantile", "limit": 1, "after": "eyJ9"}, InvalidRequest, "after: 'eyJ9' is not a cursor"),
    ],
)
def test_what_cannot_be_brought_side_by_side(
    tenant: Tenant, fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as refused:
        read_table(tenant, **fields)
    assert says in str(refused.value)


def test_columns_that_clash_and_too_many_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    lake = Lake.open(path, tiny_settings(lake=path, max_pivot_columns=3))
    tenant = open_tenant(lake)

    def series(*pairs: tuple[str, str]) -> None:
        table = pa.table(
            {
                "series_key": [name for name, _ in pairs],
                "labels": [labels for _, labels in pairs],
                "valid_time": pa.array([hour(0)] * len(pairs), pa.timestamp("us", "UTC")),
                "value": [1.0] * len(pairs),
            }
        )
        upload(tenant, table)

    series(("a", '{"kind": "null"}'), ("a", "{}"), ("valid_time", "{}"), ("twin", "{}"), ("b", '{"series_key": "x"}'))
    series(("b", "{}"))
    for fields, says in (
        ({"pivot": "kind", "series_keys": ["a"]}, "two columns 'null'"),
        ({"pivot": "series_key", "series_keys": ["valid_time", "twin"]}, "two columns 'valid_time'"),
        ({"pivot": "series_key", "series_keys": ["b"]}, "pivot: 'series_key' puts values of two series into one cell"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            read_table(tenant, **fields)
    with pytest.raises(TooLarge, match="pivot: 'series_key' makes 4 columns, more than 3, the limit"):
        read_table(tenant, pivot="series_key")
    lake.close()
