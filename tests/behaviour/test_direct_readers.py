"""Polars and DuckDB read the Delta tables past the service and must find what the server's clients find.

The queries by hand and all blocks of code are those of docs/direct-reads.md, taken from the page.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import expressions

import timedb as td
from storage import Lake, Tenant
from storage.cluster import SplitRead
from tests.behaviour import histories as drawn
from tests.behaviour.doors import Door, StorageDoor
from tests.behaviour.histories import Write, histories, reads
from tests.behaviour.oracle import Row, micros
from tests.behaviour.playing import Played, plain, play
from tests.behaviour.racing import Race, Read, some_writes
from tests.behaviour.readers import DuckReader, PartsReader, ScanReader, delta_extension, duckdb_with_delta
from timedb.identity import OPEN_TENANT_ID
from timedb.settings import ServerSettings, load_settings
from timedb.wire import CreateSeries

PAGE = (Path(__file__).parents[2] / "docs" / "direct-reads.md").read_text()
BLOCKS = re.findall(r"```(python|sql spark|sql)\n(.*?)```", PAGE, re.DOTALL)
ON_A_CLUSTER = "from distributed import"
(POLARS,) = [text for kind, text in BLOCKS if kind == "python" and "scan_delta" in text]
(SQL,) = [text for kind, text in BLOCKS if kind == "sql" and "delta_scan" in text]
COLUMNS = ["series_id", "valid_time", "value"]
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
VIEWS = [("flat", False), ("flat", True), ("overlapping", False), ("overlapping", True)]


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with its Delta extension."""
    with duckdb_with_delta() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def lake_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake of its own: what engines read is all of its log."""
    return str(tmp_path_factory.mktemp("direct") / "lake")


@pytest.fixture(scope="module")
def lake(lake_uri: str) -> Iterator[Lake]:
    lake = Lake.open(lake_uri, load_settings(ServerSettings, lake=lake_uri))
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
def readers(tenant: Tenant, lake_uri: str, folder: str) -> Iterator[tuple[ScanReader, DuckReader, DuckReader]]:
    """``td.scan_lake``, the macros made from the tenant's folder alone, and DuckDB in place of Spark."""
    with duckdb_with_delta() as one, duckdb_with_delta() as other:
        macros = DuckReader(tenant, one, td.duckdb_macros(folder))
        yield ScanReader(tenant, lake_uri), macros, DuckReader(tenant, other, spark_in_duckdb(lake_uri))


def spark_in_duckdb(lake: str) -> str:
    """The views of the SQL for Spark as DuckDB's macros; the sources and the clocks are DuckDB's own."""
    statements = [each for each in td.duckdb_macros(lake).split(";\n") if "AS TABLE\nSELECT" not in each]
    for statement in filter(None, sqlglot.parse(td.spark_functions(lake), read="spark")):
        assert isinstance(statement, expressions.Create), "what sqlglot does not understand is a command to it"
        body = statement.expression.this
        if statement.kind == "FUNCTION" and isinstance(body, expressions.Select):
            name, columns = statement.this.this.sql(), statement.this.expressions
            parameters = ", ".join(f"{each.name} := {each.constraints[0].kind.this.sql('duckdb')}" for each in columns)
            statements.append(f"CREATE OR REPLACE MACRO {name}({parameters}) AS TABLE {body.sql('duckdb')}")
    return ";\n".join(statements)


def rows(answer: pa.Table, series: list[str]) -> list[tuple[Any, ...]]:
    """The answer's rows of some series, comparable to the bit."""
    data = pl.DataFrame(answer.select(COLUMNS)).with_columns(pl.col("series_id").cast(pl.String))
    found = data.filter(pl.col("series_id").is_in(series)).with_columns(pl.col("valid_time").dt.epoch("us"))
    return sorted((tuple(plain(cell) for cell in row) for row in found.iter_rows()), key=repr)


def in_polars(lake: str, name: str) -> pa.Table:
    """``flat`` or ``standing`` of the page's block that needs Polars alone."""
    namespace: dict[str, Any] = {"lake": lake, "tenant": OPEN_TENANT_ID}
    exec(POLARS, namespace)
    answer: pl.DataFrame = namespace[name].select(COLUMNS).collect()
    return answer.to_arrow()


def in_duckdb(duck: duckdb.DuckDBPyConnection, folder: str, sql: str = SQL) -> pa.Table:
    """The page's SQL block over the values table."""
    duck.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})
    return duck.execute(sql).to_arrow_table()


def check(played: Played, reader: Any, views: list[tuple[str, bool]], extra: list[drawn.Read]) -> None:
    """Some views of everything, then reads that were drawn, through a reader, against the oracle."""
    played.door = reader
    for view, all_versions in views:
        played.check(view, all_versions=all_versions)
    for read in extra:
        played.check_read(reader.can(read))


def check_by_hand(played: Played, lake_uri: str, duck: duckdb.DuckDBPyConnection, folder: str) -> None:
    """The page's own queries, with all tiers and with those that it says are enough, against the oracle."""
    expected = {
        view: sorted(
            ((row.series_id, row.valid_time, plain(row.value)) for row in played.oracle.answer(view)), key=repr
        )
        for view in ("flat", "overlapping")
    }
    assert rows(in_polars(lake_uri, "flat"), played.series) == expected["flat"]
    assert rows(in_polars(lake_uri, "standing"), played.series) == expected["overlapping"]
    scan = "delta_scan(getvariable('values'))"
    narrowed = SQL.replace(scan, f"{scan} WHERE tier IN ('fresh', 'current')")
    assert narrowed != SQL
    for sql in (SQL, narrowed):
        assert rows(in_duckdb(duck, folder, sql), played.series) == expected["flat"]


@given(history=histories(), extra=st.lists(reads(), min_size=5, max_size=5))
def test_every_reader(
    readers: tuple[ScanReader, DuckReader, DuckReader],
    storage_door: Door,
    tenant: Tenant,
    lake_uri: str,
    folder: str,
    duck: duckdb.DuckDBPyConnection,
    history: list[Write],
    extra: list[drawn.Read],
) -> None:
    scan, macros, functions = readers
    played = play(storage_door, history)
    check(played, scan, VIEWS, extra)
    check(played, macros, [], extra[:2])
    check(played, functions, [], extra[3:4])
    tenant.maintain()
    check(played, scan, VIEWS[::2], extra[:3])
    check(played, macros, VIEWS[:1], extra[4:])
    check_by_hand(played, lake_uri, duck, folder)


def test_while_uploads_and_compactions_run(storage_door: Door, tenant: Tenant, lake_uri: str, folder: str) -> None:
    with duckdb_with_delta() as one, duckdb_with_delta() as other:
        one.execute(td.duckdb_macros(lake_uri))
        one.execute("SET TimeZone = 'UTC'; SET threads = 1")
        other.execute("SET TimeZone = 'UTC'")
        other.execute("SET VARIABLE values = $folder", {"folder": f"{folder}/values"})
        by_hand = SQL.replace("series_id, valid_time, value FROM", "* FROM")

        def polars(view: str, series: list[str]) -> pa.Table:
            namespace: dict[str, Any] = {"lake": lake_uri, "tenant": OPEN_TENANT_ID}
            exec(POLARS, namespace)
            rows: pl.LazyFrame = namespace["flat" if view == "flat" else "standing"]
            answer: pa.Table = rows.filter(pl.col("series_id").is_in(series)).collect().to_arrow()
            return answer

        def macros(view: str, series: list[str]) -> pa.Table:
            query = f"SELECT * FROM timedb_{view}() WHERE list_contains($series, series_id)"
            return one.execute(query, {"series": series}).to_arrow_table()

        def sql(view: str, series: list[str]) -> pa.Table:
            query = by_hand if view == "flat" else by_hand.rpartition("QUALIFY")[0]
            query = f"SELECT * FROM ({query}) WHERE list_contains($series, series_id)"
            return other.execute(query, {"series": series}).to_arrow_table()

        scanning, splitting = ScanReader(tenant, lake_uri), PartsReader(tenant, lake_uri, read_parts)
        readers: dict[str, Read] = {
            "the service": lambda view, series: storage_door.read(view, series_ids=series),
            "scan_lake": lambda view, series: scanning.read(view, series_ids=series),
            "split_read": lambda view, series: splitting.read(view, series_ids=series),
            "scan_delta": polars,
            "macros": macros,
            "delta_scan": sql,
        }
        Race(storage_door, some_writes(seed=1, count=30)).run(readers)


def read_parts(split: SplitRead) -> pa.Table:
    """The parts of a read, one after the other, as another process would get them."""
    return pa.concat_tables([part.read_arrow() for part in pickle.loads(pickle.dumps(split.parts))])


@pytest.fixture
def own_lake(tmp_path: Path) -> Iterator[tuple[str, Tenant]]:
    """The path and the tenant of a lake for one test; the path has all that a shell would stumble on."""
    path = str(tmp_path / "Åsa's lake #[1]")
    lake = Lake.open(path, load_settings(ServerSettings, lake=path, maintenance_seconds=10_000.0))
    yield path, lake.tenant(OPEN_TENANT_ID)
    lake.close()


def some_row(series: str, run_id: str, known: int, value: float, valid: int = 0) -> Row:
    """A row to upload."""
    return Row(series, valid, None, known, run_id, 0, value, None, None, retracted=False)


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


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"tenant": "11111111-1111-4111-8111-111111111111"}, td.NotFound, "tenant: there is no tenant '11111111"),
        ({"tenant": "somebody"}, td.InvalidRequest, "tenant: 'somebody' is not a UUID"),
        ({"series_keys": "nobody"}, td.NotFound, "series_key: there is no series 'nobody'"),
        ({"series_ids": ["x"]}, td.NotFound, "series_ids: there is no series 'x'"),
        ({"view": "latest"}, td.InvalidRequest, "view: 'latest' is not flat or overlapping"),
        ({"columns": ["speed"]}, td.InvalidRequest, "columns: unknown column 'speed'"),
        ({"start_valid": "yesterday"}, td.InvalidRequest, "start_valid: 'yesterday'"),
        ({"start_known": "2025-01-02T00:00:00Z", "end_known": "2025-01-01T00:00:00Z"}, td.InvalidRequest, "end_known"),
    ],
)
def test_what_cannot_be_scanned(
    lake_uri: str, tenant: Tenant, asked: dict[str, Any], error: type[Exception], says: str
) -> None:
    assert tenant.tenant_id == OPEN_TENANT_ID
    with pytest.raises(error, match=re.escape(says)):
        td.scan_lake(lake_uri, **asked)


@pytest.mark.parametrize("read", [td.scan_lake, td.split_read, td.duckdb_macros, td.spark_functions])
def test_where_there_is_no_lake(read: Callable[..., Any], tmp_path: Path, own_lake: tuple[str, Tenant]) -> None:
    (tmp_path / "notes").mkdir()
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
    marker.write_text(marker.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(td.InvalidRequest, match=r"^path: .*has format version 99, this reader knows"):
        read(lake)
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "notes").iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "Time", "1st", "a b", "x;drop", "é"])
def test_prefixes_that_are_no_names(prefix: str, own_lake: tuple[str, Tenant]) -> None:
    with pytest.raises(td.InvalidRequest, match=r"^prefix: "):
        td.duckdb_macros(own_lake[0], prefix=prefix)


def test_the_page(own_lake: tuple[str, Tenant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of the page runs, one after the other, but for those that need a cluster."""
    path, tenant = own_lake
    door = StorageDoor(tenant)
    tenant.create_series(CreateSeries(name="load", labels={"site": "north"}), created_by=None)
    series = door.create_series("wind")
    noon = micros(NOON)
    door.upload([some_row(series, "r", noon, 1.0, noon)], run_id="r", known_time=noon)
    monkeypatch.setenv("HOME", str(tmp_path))  # where DuckDB installs extensions
    with duckdb.connect() as connection:
        connection.execute(f"INSTALL '{delta_extension()}'")
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
