"""Polars and DuckDB read the Delta tables past the service and must find what the server's clients find.

The queries by hand and all blocks of code are those of docs/direct-reads.md, taken from the page.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import expressions

import timedb as td
from tests.behaviour import histories as drawn
from tests.behaviour.doors import Door, FlightDoor, RestDoor, StorageDoor
from tests.behaviour.histories import Write, histories, reads
from tests.behaviour.oracle import micros
from tests.behaviour.playing import Played, play
from tests.behaviour.racing import Race, every_read, some_writes
from tests.behaviour.readers import (
    DuckReader,
    PartsReader,
    PolarsByHand,
    ScanReader,
    SqlByHand,
    duckdb_with_delta,
    some_row,
)
from timedb.client import connect
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import CreateSeries
from timedb.run.launch import start_service
from timedb.storage import Lake, Tenant
from timedb.storage.direct.cluster import SplitRead

PAGE = (Path(__file__).parents[2] / "docs" / "direct-reads.md").read_text()
BLOCKS = re.findall(r"```(python|sql spark|sql)\n(.*?)```", PAGE, re.DOTALL)
ON_A_CLUSTER = "from distributed import"
(POLARS,) = [text for kind, text in BLOCKS if kind == "python" and "scan_delta" in text]
(SQL,) = [text for kind, text in BLOCKS if kind == "sql" and "delta_scan" in text]
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
VIEWS = [("flat", False), ("flat", True), ("overlapping", False), ("overlapping", True)]


@pytest.fixture(scope="module")
def lake_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake of its own: what engines read is all of its log."""
    return str(tmp_path_factory.mktemp("direct") / "lake")


@pytest.fixture(scope="module")
def settings(lake_uri: str) -> ServerSettings:
    """Checkpoints and compactions after few commits, nothing by itself."""
    ports = {"flight_port": 0, "rest_port": 0}
    return load_settings(
        ServerSettings,
        lake=lake_uri,
        checkpoint_commits=5,
        compact_fresh_files=2,
        maintenance_seconds=10_000.0,
        **ports,
    )


@pytest.fixture(scope="module")
def lake(lake_uri: str, settings: ServerSettings) -> Iterator[Lake]:
    lake = Lake.open(lake_uri, settings)
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def storage_door(lake: Lake) -> Door:
    return StorageDoor(lake.tenant(OPEN_TENANT_ID))


@pytest.fixture(scope="module")
def tenant(lake: Lake) -> Tenant:
    """The tenant whose tables are read."""
    return lake.tenant(OPEN_TENANT_ID)


@pytest.fixture(scope="module")
def folder(lake_uri: str) -> str:
    """The tenant's folder in the storage door's lake."""
    return f"{lake_uri}/tenants/{OPEN_TENANT_ID}"


@pytest.fixture(scope="module")
def readers(tenant: Tenant, lake_uri: str, folder: str) -> Iterator[dict[str, Any]]:
    """Every reader; the macros are made from the tenant's folder alone, and DuckDB stands in for Spark."""
    enough = "tier IN ('fresh', 'current')"
    with duckdb_with_delta() as one, duckdb_with_delta() as two, duckdb_with_delta() as three:
        yield {
            "scan_lake": ScanReader(tenant, lake_uri),
            "macros": DuckReader(tenant, one, td.duckdb_macros(folder)),
            "Spark's": DuckReader(tenant, two, spark_in_duckdb(lake_uri)),
            "scan_delta": PolarsByHand(tenant, lake_uri, POLARS),
            "delta_scan": SqlByHand(tenant, three, folder, SQL),
            "two tiers": SqlByHand(tenant, three, folder, SQL, enough),
        }


def spark_in_duckdb(lake: str) -> str:
    """The views of the SQL for Spark as DuckDB's macros; the sources and the clocks are DuckDB's own."""
    statements = [each for each in td.duckdb_macros(lake).split(";\n") if "AS TABLE\nSELECT" not in each]
    for statement in filter(None, sqlglot.parse(td.spark_functions(lake), read="spark")):
        assert isinstance(statement, expressions.Create), "what sqlglot does not understand is a command to it"
        body = statement.expression.this
        if statement.kind == "FUNCTION" and isinstance(body, expressions.Select):
            name, columns = statement.this.this.sql(), statement.this.expressions
            parameters = ", ".join(f"{each.name} := {each.constraints[0].kind.this.sql('duckdb')}" for each in columns)
            query = body.sql("duckdb").replace("timedb_uploads", "timedb_uploads()")  # a view in Spark
            statements.append(f"CREATE OR REPLACE MACRO {name}({parameters}) AS TABLE {query}")
    statements.insert(0, "CREATE OR REPLACE MACRO raise_error(text) AS error(text)")
    return ";\n".join(statements)


def check(played: Played, reader: Any, views: list[tuple[str, bool]], extra: list[drawn.Read]) -> None:
    """Some views of everything, then reads that were drawn, through a reader, against the oracle."""
    played.door = reader
    for view, all_versions in views:
        played.check(view, all_versions=all_versions)
    for read in extra:
        played.check_read(reader.can(read))


@given(history=histories(), extra=st.lists(reads(), min_size=6, max_size=6))
def test_every_reader(
    readers: dict[str, Any], storage_door: Door, tenant: Tenant, history: list[Write], extra: list[drawn.Read]
) -> None:
    played = play(storage_door, history)
    tenant.records.write()  # which follow by themselves within a second; SQL looks into their table alone
    check(played, readers["scan_lake"], VIEWS, extra)
    check(played, readers["macros"], [], extra[:2])
    check(played, readers["Spark's"], [], extra[2:4])
    check(played, readers["scan_delta"], [], extra[4:5])
    check(played, readers["delta_scan"], [], extra[5:])
    tenant.maintain()
    check(played, readers["scan_lake"], VIEWS[::2], extra[:4])
    check(played, readers["macros"], VIEWS[:1], extra[4:])
    check(played, readers["scan_delta"], VIEWS[::2], extra[5:])
    check(played, readers["delta_scan"], [], extra[4:5])
    check(played, readers["two tiers"], VIEWS[:1], [])


def test_while_others_write_compact_and_maintain(
    readers: dict[str, Any], tenant: Tenant, lake_uri: str, settings: ServerSettings
) -> None:
    with (
        start_service(settings) as service,
        connect(service.flight_url) as client,
        httpx.Client(base_url=service.rest_url) as http,
    ):
        door = FlightDoor(client, service.flight_url)
        raced = {
            "storage": Served(StorageDoor(tenant)),
            "Flight": Served(door),
            "REST": Served(RestDoor(http, client)),
            "split_read": PartsReader(tenant, lake_uri, read_parts),
            **{name: readers[name] for name in ("scan_lake", "macros", "scan_delta", "delta_scan")},
        }
        # Two servers: one takes the writes, both compact and maintain.
        chores = {"compactor": tenant.compact, "maintenance": client.maintain, "more maintenance": tenant.maintain}
        Race(door, tenant, some_writes(seed=1, count=30), chores).run(raced, every_read())


class Served:
    """A door as a reader."""

    def __init__(self, door: Door) -> None:
        self.read = door.read

    @staticmethod
    def can(read: drawn.Read) -> drawn.Read:
        """The read: doors know them all."""
        return read


def read_parts(split: SplitRead) -> pa.Table:
    """The parts of a read, one after the other, as another process would get them."""
    return pa.concat_tables([part.read_arrow() for part in pickle.loads(pickle.dumps(split.parts))])


def tree(path: str) -> dict[str, int]:
    """Every file and folder with its time of change."""
    return {str(each): each.stat().st_mtime_ns for each in Path(path).rglob("*")}


def test_readers_change_nothing_and_need_one_folder(own_lake: tuple[str, Tenant], tmp_path: Path) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("handed out")
    for number in range(3):
        door.upload([some_row(series, f"r{number}", number, float(number))], run_id=f"r{number}", known_time=number)
    tenant.maintain()
    door.upload([some_row(series, "r9", 9, 9.0)], run_id="r9", known_time=9)
    handed = tmp_path / "handed out" / OPEN_TENANT_ID
    shutil.copytree(Path(path) / "tenants" / OPEN_TENANT_ID, handed)
    for each in sorted(handed.rglob("*"), reverse=True):
        each.chmod(0o555 if each.is_dir() else 0o444)
    before = tree(str(handed.parent))
    columns = ["series_key", "series_unit", "value", "value_id"]
    for address in (str(handed), str(handed) + "/", f"file://{handed}"):
        found = td.scan_lake(address, series_keys="handed out", columns=columns).collect()
        assert found.columns == columns
        assert found.row(0)[:3] == ("handed out", "MW", 9.0)
        assert [part.read()["value"].to_list() for part in td.split_read(address).parts] == [[9.0]]
    assert td.scan_lake(str(handed), OPEN_TENANT_ID.upper()).collect().height == 1
    with duckdb_with_delta() as connection:
        connection.execute(td.duckdb_macros(str(handed), prefix="theirs"))
        joined = "SELECT name, value FROM theirs_latest() JOIN theirs_series() USING (series_id)"
        assert connection.execute(joined).fetchall() == [("handed out", 9.0)]
    assert tree(str(handed.parent)) == before
    for each in [handed, *handed.rglob("*")]:
        each.chmod(0o755 if each.is_dir() else 0o644)


def test_a_query_sees_the_version_of_its_call(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("moving")
    door.upload([some_row(series, "old", 0, 1.0)], run_id="old", known_time=0)
    query = td.scan_lake(path, columns=["value"])
    door.upload([some_row(series, "new", 1, 2.0)], run_id="new", known_time=1)
    tenant.maintain()
    assert query.collect()["value"].to_list() == [1.0]
    assert td.scan_lake(path, columns=["value"]).collect()["value"].to_list() == [2.0]


def test_filters_of_series_and_valid_time_reach_the_files(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("pushed")
    for number in range(2):
        door.upload(
            [some_row(series, f"r{number}", number, 1.0, valid) for valid in range(9)],
            run_id=f"r{number}",
            known_time=number,
        )
    for view in ("flat", "overlapping"):
        query = td.scan_lake(path, view=view, end_known="2025-01-01T00:00:00Z")
        plan = (
            query.filter(pl.col("series_id") == series, pl.col("valid_time").dt.epoch("us") > 6)
            .select("value")
            .explain()
        )
        _, _, scan = plan.partition("Parquet SCAN")
        assert f'"{series}"' in scan, plan
        assert "annotation" not in plan


def test_only_files_that_can_matter_are_opened(own_lake: tuple[str, Tenant]) -> None:
    path, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("settled")
    for number in range(3):
        door.upload([some_row(series, f"r{number}", number, 1.0)], run_id=f"r{number}", known_time=number)
    tenant.compact()
    assert "tier=revised" not in td.scan_lake(path).explain()
    assert "tier=revised" in td.scan_lake(path, end_known="1970-01-01T00:00:00.000002Z").explain()
    door.withdraw_run("r2", None)
    opened = td.scan_lake(path).explain(optimized=False)
    assert "tier=fresh" in opened
    assert td.scan_lake(path, columns=["run_id"]).collect()["run_id"].to_list() == ["r1"]
    with duckdb_with_delta() as connection:
        connection.execute(td.duckdb_macros(path))
        assert connection.execute("SELECT run_id FROM timedb_flat()").fetchall() == [("r1",)]


def test_the_page(own_lake: tuple[str, Tenant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of the page runs, one after the other, but for those that need a cluster."""
    path, tenant = own_lake
    door = StorageDoor(tenant)
    tenant.create_series(CreateSeries(name="load", labels={"site": "north"}), created_by=None)
    series = door.create_series("wind")
    noon = micros(NOON)
    door.upload([some_row(series, "r", noon, 1.0, noon)], run_id="r", known_time=noon)
    monkeypatch.setenv("HOME", str(tmp_path))  # where DuckDB would install extensions
    renamed = tmp_path / "lake"  # without a space, for the block that needs it
    renamed.symlink_to(path)
    namespace: dict[str, Any] = {"lake": str(renamed), "tenant": OPEN_TENANT_ID}
    ran = []
    for kind, text in BLOCKS:
        if kind == "python" and ON_A_CLUSTER not in text:
            exec(text, namespace)
            ran.append(text)
        elif kind == "sql":
            namespace["con"].execute("SET VARIABLE values = $1", [f"{renamed}/tenants/{OPEN_TENANT_ID}/values"])
            namespace["con"].execute(text)
            ran.append(text)
    assert len(ran) == len(BLOCKS) - 2, "one needs a cluster, one is for Spark"
    assert namespace["daily"]["value"].to_list() == [1.0]
    assert namespace["latest"]["value"].to_list() == [1.0]
    (spark,) = [text for kind, text in BLOCKS if kind == "sql spark"]
    assert isinstance(sqlglot.parse_one(spark, read="spark"), expressions.Select)
