"""Past the service: lakes of all kinds, selections of series, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import timedb as td
from tests.behaviour.doors import StorageDoor
from tests.behaviour.racing import comparable
from tests.behaviour.readers import duckdb_with_delta, some_row
from timedb.contract.columns import COLUMN_TYPES
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import CreateSeries, ReadTicket, RetentionRule, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.tables.schemas import VALUES_DATA

OTHER_TENANT = "11111111-1111-4111-8111-111111111111"
LABELLED: list[dict[str, str]] = [
    {},
    {"site": "north"},
    {"site": "south"},
    {"site": "north", "kind": 'it\'s "offshore"'},
]


def served(tenant: Tenant, **fields: Any) -> pa.Table:
    """The answer of the server, with all columns that there are."""
    return tenant.plan_read(parse_object(ReadTicket, {"columns": list(COLUMN_TYPES), **fields})).reader().read_all()


def plain_types(answer: pa.Table) -> dict[str, pl.DataType]:
    """The types of columns, identifiers as text."""
    kinds = pl.DataFrame(answer).schema.items()
    return {name: pl.String() if isinstance(kind, pl.Categorical) else kind for name, kind in kinds}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The path and the tenant of a lake of series that differ by name or by labels, in part compacted."""
    path = str(tmp_path_factory.mktemp("labelled") / "lake")
    with closing(Lake.open(path, load_settings(ServerSettings, lake=path, maintenance_seconds=10_000.0))) as lake:
        tenant = lake.tenant(OPEN_TENANT_ID)
        door, ids = StorageDoor(tenant), []
        for name in ("wind", "load"):
            for labels in LABELLED:
                made = tenant.create_series(CreateSeries(name=name, labels=labels, unit="MW"), created_by=None)
                ids.append(made["series_id"])
        for known in range(3):
            rows = [some_row(each, f"r{known}", known, known + place / 8) for place, each in enumerate(ids)]
            door.upload(rows, run_id=f"r{known}", known_time=known)
            if known == 1:
                tenant.compact()
        for run_id in ("r0", "r2"):
            door.withdraw_run(run_id, "too early")
        door.restore_run("r2", None)
        yield path, tenant


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"series_keys": ["load"]},
    {"labels": {"site": "north"}},
    {"labels": {"site": ["south", "east"]}},
    {"labels": {"site": None}},
    {"labels": {"site": "north", "kind": None}},
    {"labels": {"kind": LABELLED[3]["kind"]}, "series_keys": ["wind"]},
    {"labels": {"site": "nowhere"}},
    {"labels": {}},
    {"labels": {}, "series_keys": ["load"]},
    {"series_ids": []},
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=repr)
def test_series_by_name_and_labels(labelled: tuple[str, Tenant], selection: dict[str, Any]) -> None:
    path, tenant = labelled
    for view, all_versions in (("flat", False), ("overlapping", True), ("latest", False)):
        read = {"view": view, "all_versions": all_versions, **selection}
        expected = served(tenant, **read)
        parts = td.split_read(path, **read, columns=list(COLUMN_TYPES)).parts
        scanned = td.scan_lake(path, **read, columns=list(COLUMN_TYPES)).collect().to_arrow()
        for found in (scanned, pa.concat_tables(part.read_arrow() for part in parts)):
            assert found.column_names == expected.column_names
            assert plain_types(found) == plain_types(expected)
            assert comparable(found) == comparable(expected)


def test_series_by_name_and_labels_in_sql(labelled: tuple[str, Tenant]) -> None:
    path, tenant = labelled
    selections: dict[str, dict[str, Any]] = {
        "name = 'load' AND labels = '{}'": {"series_keys": ["load"]},
        "labels ->> 'site' = 'north'": {"labels": {"site": "north"}},
        "labels ->> 'site' IN ('south', 'east')": {"labels": {"site": ["south", "east"]}},
        "labels ->> 'site' IS NULL": {"labels": {"site": None}},
        "labels ->> 'kind' = 'it''s \"offshore\"'": {"labels": {"kind": LABELLED[3]["kind"]}},
    }
    views: dict[str, dict[str, Any]] = {
        "flat": {},
        "overlapping_versions": {"view": "overlapping", "all_versions": True},
        "latest": {"view": "latest"},
    }
    with duckdb_with_delta() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(td.duckdb_macros(path))
        for condition, selection in selections.items():
            for macro, read in views.items():
                expected = served(tenant, **read, **selection).select(VALUES_DATA.names)
                columns = ", ".join(VALUES_DATA.names)
                joined = f"timedb_{macro}() JOIN timedb_series() USING (series_id)"
                found = connection.execute(f"SELECT {columns} FROM {joined} WHERE {condition}").to_arrow_table()
                assert found.num_rows > 0
                assert plain_types(found) == plain_types(expected)
                assert comparable(found) == comparable(expected)


@pytest.mark.parametrize("digits", ["2", "full"])
def test_buckets_of_any_size(tmp_path: Path, digits: str) -> None:
    path = str(tmp_path / "lake")
    with closing(Lake.open(path, load_settings(ServerSettings, lake=path, bucket_digits=digits))) as lake:
        tenant = lake.tenant(OPEN_TENANT_ID)
        door = StorageDoor(tenant)
        series = [door.create_series(f"s{number}") for number in range(4)]
        for known in range(2):
            rows = [some_row(each, f"r{known}", known, known + place / 8) for place, each in enumerate(series)]
            door.upload(rows, run_id=f"r{known}", known_time=known)
        tenant.compact()
        expected = comparable(served(tenant))
        assert comparable(td.scan_lake(path, columns=list(COLUMN_TYPES)).collect().to_arrow()) == expected
        parts = td.split_read(path, columns=list(COLUMN_TYPES)).parts
        assert {len(part.bucket or "") for part in parts} == {36 if digits == "full" else 2}
        assert comparable(pa.concat_tables(part.read_arrow() for part in parts)) == expected
        assert td.scan_lake(path, series_ids=series[:1]).collect()["value"].to_list() == [1.0]


def test_each_tenant_by_its_id(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    with closing(Lake.open(path, load_settings(ServerSettings, lake=path))) as lake:
        for value, each in ((1.0, tenant), (2.0, lake.tenant(OTHER_TENANT))):
            door = StorageDoor(each)
            series = door.create_series("of the same name")
            door.upload([some_row(series, "r", 0, value)], run_id="r", known_time=0)
    folder = f"{path}/tenants/{OTHER_TENANT}"
    for given, value in (((path,), 1.0), ((path, UUID(OTHER_TENANT)), 2.0), ((folder,), 2.0)):
        assert td.scan_lake(*given, columns=["value"]).collect()["value"].to_list() == [value]
        assert [part.read()["value"].to_list() for part in td.split_read(*given).parts] == [[value]]
        with duckdb_with_delta() as connection:
            connection.execute(td.duckdb_macros(*given))
            assert connection.execute("SELECT value FROM timedb_flat()").fetchall() == [(value,)]


def test_a_lake_without_rows(own_lake: tuple[str, Tenant]) -> None:
    path, _ = own_lake
    for view in ("flat", "overlapping", "latest"):
        found = td.scan_lake(path, view=view).collect()
        assert (found.height, found.columns) == (0, VALUES_DATA.names)
        (part,) = td.split_read(path, view=view).parts
        assert part.read().height == 0
    with duckdb_with_delta() as connection:
        connection.execute(td.duckdb_macros(path))
        assert connection.execute("SELECT * FROM timedb_flat()").fetchall() == []


def test_what_is_scanned_is_streamed(labelled: tuple[str, Tenant]) -> None:
    path, _ = labelled
    gate = {"days_ahead": 1, "time_of_day": "10:00", "time_zone": "Europe/Stockholm"}
    reads: list[dict[str, Any]] = [
        {},
        {"view": "overlapping"},
        {"view": "latest"},
        {"all_versions": True},
        {"end_known": datetime(2025, 1, 1, tzinfo=UTC), "columns": ["series_key", "value", "value_id"]},
        {"relative": gate},
        {"lead_time": "1h"},
        {"lead_time": "-45d"},
    ]

    def nodes(query: pl.LazyFrame) -> str:
        graph = query.show_graph(engine="streaming", plan_stage="physical", raw_output=True)
        return str(graph)

    collects_all = "in-memory-map"
    assert collects_all in nodes(td.scan_lake(path).map_batches(lambda rows: rows))
    for read in reads:
        found = nodes(td.scan_lake(path, **read))
        assert "multi-scan[parquet]" in found
        assert collects_all not in found


def test_files_that_maintenance_took(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    # No service may be told to keep nothing for its readers; here they are meant to find nothing.
    settings = load_settings(ServerSettings, lake=path).model_copy(
        update={"retention_hours": 0.0, "max_call_seconds": 0.0}
    )
    with closing(Lake.open(path, settings)) as lake, duckdb_with_delta() as connection:
        tenant = lake.tenant(OPEN_TENANT_ID)
        door = StorageDoor(tenant)
        series = door.create_series("taken")
        for known in range(2):
            door.upload([some_row(series, f"r{known}", known, float(known))], run_id=f"r{known}", known_time=known)
        query, split = td.scan_lake(path), td.split_read(path)
        connection.execute(td.duckdb_macros(path))
        connection.execute("BEGIN; FROM timedb_flat()")
        assert tenant.maintain()["vacuumed_files"] > 0
        with pytest.raises(FileNotFoundError, match=r"tier=fresh/.*\.parquet"):
            query.collect()
        with pytest.raises(
            td.NotFound, match=r"^table_version: files of version 2 of the values are gone.*split the read"
        ):
            split.parts[0].read()
        with pytest.raises(duckdb.IOException, match=r"Cannot open file .*tier=fresh/"):
            connection.execute("FROM timedb_flat()")
        connection.execute("ROLLBACK")
        assert td.scan_lake(path).collect()["value"].to_list() == [1.0]
        assert connection.execute("SELECT value FROM timedb_flat()").fetchall() == [(1.0,)]


def test_moments_before_retention_removed_rows(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("dropped")
    now = int(datetime.now(UTC).timestamp()) * 1_000_000
    door.upload([some_row(series, "r", 0, float(valid > 0), valid) for valid in (0, now)], run_id="r", known_time=0)
    before = td.split_read(path).as_of
    tenant.apply_retention([RetentionRule(labels={}, drop_after_days=1)], dry_run=False)
    for read in (td.scan_lake, td.split_read):
        with pytest.raises(td.InvalidRequest, match=r"^as_of: .* is before .*, when retention removed"):
            read(path, as_of=before)
        with pytest.raises(td.InvalidRequest, match=r"^view: the first release is not known"):
            read(path, view="first")
        with pytest.raises(td.InvalidRequest, match=r"^columns: the number of a revision is not known"):
            read(path, columns=["revision"])
    assert td.scan_lake(path, view="first", start_valid="2025-01-01T00:00:00Z").collect()["value"].to_list() == [1.0]
    assert td.scan_lake(path, as_of=before, start_valid="2025-01-01T00:00:00Z").collect()["value"].to_list() == [1.0]


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"tenant": "11111111-1111-4111-8111-111111111111"}, td.NotFound, "tenant: there is no tenant '11111111"),
        ({"tenant": "somebody"}, td.InvalidRequest, "tenant: 'somebody' is not a UUID"),
        ({"series_keys": "nobody"}, td.NotFound, "series_key: there is no series 'nobody'"),
        ({"series_ids": ["x"]}, td.NotFound, "series_ids: there is no series 'x'"),
        ({"view": "changes"}, td.InvalidRequest, "view: 'changes' is not flat, overlapping, latest or first"),
        ({"columns": ["speed"]}, td.InvalidRequest, "columns: unknown column 'speed'"),
        ({"start_valid": "yesterday"}, td.InvalidRequest, "start_valid: 'yesterday'"),
        ({"columns": []}, td.InvalidRequest, "columns: [] names no column"),
        ({"columns": ["value", "value"]}, td.InvalidRequest, "columns: 'value' is named twice"),
        ({"all_versions": "yes"}, td.InvalidRequest, "all_versions: 'yes' input should be a valid boolean"),
        ({"labels": {"site": 1}}, td.InvalidRequest, "labels.site.str: 1 input should be a valid string"),
        ({"series_ids": 5}, td.InvalidRequest, "series_ids: 5 input should be a valid list"),
        ({"as_of": datetime(2025, 1, 1)}, td.InvalidRequest, "as_of: datetime.datetime(2025, 1, 1, 0, 0) has no time"),
        ({"view": "latest", "all_versions": True}, td.InvalidRequest, "all_versions goes with the views flat and"),
        ({"view": "first", "all_versions": True}, td.InvalidRequest, "all_versions goes with the views flat and"),
        (
            {"newest_run": True, "all_versions": True},
            td.InvalidRequest,
            "newest_run: goes with the revisions that stand",
        ),
        ({"newest_run": True, "lead_time": "1h"}, td.InvalidRequest, "newest_run: lead_time cuts each valid_time"),
        ({"lead_time": "soon"}, td.InvalidRequest, "lead_time: 'soon' is not a duration"),
        ({"lead_time": "-1mo"}, td.InvalidRequest, "lead_time: -P1M has months"),
        ({"relative": {"time_zone": "Mars"}}, td.InvalidRequest, "relative"),
        ({"relative": 5}, td.InvalidRequest, "relative: 5 input should be"),
        ({"tenant": 5}, td.InvalidRequest, "tenant: '5' is not a UUID"),
        ({"start_known": "2025-01-02T00:00:00Z", "end_known": "2025-01-01T00:00:00Z"}, td.InvalidRequest, "end_known"),
    ],
)
def test_what_cannot_be_scanned(
    own_lake: tuple[str, Tenant], asked: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        td.scan_lake(own_lake[0], **asked)


@pytest.mark.parametrize("read", [td.scan_lake, td.split_read, td.duckdb_macros, td.spark_functions])
def test_where_there_is_no_lake(read: Callable[..., Any], tmp_path: Path, own_lake: tuple[str, Tenant]) -> None:
    (tmp_path / "notes").mkdir()
    for wrong in (None, 5, b"lake", "nul\0"):
        with pytest.raises(td.InvalidRequest, match=rf"^path: {re.escape(ascii(wrong))} is no path and no address"):
            read(wrong)
    for path in (tmp_path / "nowhere", tmp_path / "notes"):
        with pytest.raises(td.NotFound, match=r"^path: there is no lake at"):
            read(path)
    with pytest.raises(td.InvalidRequest, match=r"^path: 'gopher://hole' is no folder and no address"):
        read("gopher://hole")
    lake, _ = own_lake
    folder = f"{lake}/tenants/{OPEN_TENANT_ID}"
    with pytest.raises(td.NotFound, match=r"^tenant: .*is no folder of '11111111"):
        read(folder, "11111111-1111-4111-8111-111111111111")
    marker = Path(lake) / "timedb-lake.json"
    marker.write_text(marker.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(td.InvalidRequest, match=r"^path: .*has format version 99, this reader knows"):
        read(lake)
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "notes").iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "Time", "1st", "a b", "x;drop", "é", 5, None])
def test_prefixes_that_are_no_names(prefix: Any, own_lake: tuple[str, Tenant]) -> None:
    with pytest.raises(td.InvalidRequest, match=rf"^prefix: {re.escape(ascii(prefix))} is not up to"):
        td.duckdb_macros(own_lake[0], prefix=prefix)


def test_runs_of_a_workflow(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("wind")
    for known, workflow_id in enumerate(["day-ahead", "day-ahead", "nowcast"]):
        row = some_row(series, f"run-{known}", known, float(known))
        door.upload([row], run_id=row.run_id, known_time=known, workflow_id=workflow_id)
    selected: dict[str, Any] = {"series_ids": [series], "workflow_id": "day-ahead"}
    for _ in ("the runs are in the log of the values alone", "they are in their table"):
        assert td.scan_lake(path, **selected).collect()["value"].to_list() == [1.0]
        (part,) = td.split_read(path, **selected).parts
        assert part.read()["value"].to_list() == [1.0]
        assert td.scan_lake(path, **selected, run_ids="run-2").collect().is_empty()
        tenant.compact()
        tenant.maintain()
    runs = f"{path}/tenants/{OPEN_TENANT_ID}/runs".replace("'", "''")
    of_workflow = f"(SELECT list(run_id) FROM delta_scan('{runs}') WHERE workflow_id = 'day-ahead')"
    with duckdb_with_delta() as connection:
        connection.execute(td.duckdb_macros(path))
        found = connection.execute(f"SELECT value FROM timedb_flat(run_ids := {of_workflow})").fetchall()
    assert found == [(1.0,)]
