"""A lake that release 0.1.0 wrote, kept as it was: read by server and past it, before and after ``timedb upgrade``.

``tests/data/lake-0.1.0.json`` holds what that release read in it, and the API key of its user.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import timedb as td
from tests.readers import probe
from tests.readers.expected import FEW, expectations, tables_of
from tests.storage.lakes import AUDIT, tenant_folder
from timedb.contract.errors import Conflict, InvalidRequest
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import from_micros
from timedb.run.launch import start_service
from timedb.storage import Lake
from timedb.storage.delta.standing import Standing, identity_of
from timedb.storage.delta.store import LocalStore
from timedb.storage.tables.layout import MARKER
from timedb.storage.tables.lease import Lease

DATA = Path(__file__).parents[1] / "data"
KEPT = json.loads((DATA / "lake-0.1.0.json").read_text())
READS: dict[str, dict[str, Any]] = {
    "flat": {"view": "flat"},
    "overlapping": {"view": "overlapping"},
    "audit": {"view": "overlapping", "all_versions": True},
}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The lake, unpacked."""
    with tarfile.open(DATA / "lake-0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "lake-0.1.0"


def rows_of(frame: pl.DataFrame) -> list[list[object]]:
    """Rows as the file has them: times as microseconds, an absent mark of retraction as False."""
    plain = frame.select(AUDIT).with_columns(
        pl.col("^.*_time(_end)?$").dt.epoch("us"),
        pl.col("series_key", "run_id", "changed_by").cast(pl.String),
        pl.col("retracted").fill_null(False),
    )
    return sorted((list(row) for row in plain.rows()), key=str)


def assert_read_past_the_server(lake: Path) -> None:
    for name, filters in READS.items():
        assert rows_of(td.scan_lake(lake, **filters, columns=AUDIT).collect()) == KEPT[name]
        parts = [part.read() for part in td.split_read(lake, **filters, columns=AUDIT).parts]
        assert rows_of(pl.concat(parts, how="vertical_relaxed")) == KEPT[name]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(td.duckdb_macros(lake))
        for view, name in (("flat", "flat"), ("overlapping", "overlapping"), ("overlapping_versions", "audit")):
            found = connection.execute(
                f"SELECT * RENAME (name AS series_key) FROM timedb_{view}() JOIN timedb_series() USING (series_id)"
            ).pl()
            assert rows_of(found) == KEPT[name]


def wrong_filters(lake: Path) -> set[tuple[str, str]]:
    """The tables and columns by which delta-rs does not find what is there."""
    wrong = set()
    for name, table in tables_of(lake).items():
        found = probe.run(expectations(table, FEW), ("deltalake, pyarrow dataset", "deltalake, filters"))
        wrong |= {(name, each["column"]) for reader in found.values() for each in reader["wrong"]}
    return wrong


def versions(lake: Path) -> dict[str, int]:
    """The versions of the tables."""
    return {
        name: max(int(file.stem) for file in (table / "_delta_log").glob("*.json"))
        for name, table in tables_of(lake).items()
    }


def faults(lake: Path, *, repair: bool = False) -> list[dict[str, Any]]:
    """What the doctor finds but notices; that its pages have no checksums and others may read it is none."""
    found = Lake.doctor(str(lake), repair=repair)
    unchecked = [each for each in found if each["fault"] == "files without checksums"]
    assert unchecked
    return [each for each in found if not each["notice"] and each not in unchecked and "others" not in each["fault"]]


def data_files(lake: Path) -> dict[str, bytes]:
    """All files of the lake's tables but their logs."""
    return {
        str(path.relative_to(lake)): path.read_bytes()
        for path in lake.rglob("*.parquet")
        if path.parent.name != "_delta_log"
    }


def test_a_server_asks_for_the_upgrade_and_readers_past_it_do_not(lake: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has format version 1, this service knows 2; timedb upgrade lifts it"):
        Lake.open(str(lake), load_settings(ServerSettings))
    assert_read_past_the_server(lake)
    assert {("values", "run_id"), ("values", "value"), ("values", "valid_time"), ("series", "name")} <= wrong_filters(
        lake
    )
    names = [f"{tenant_folder(lake).name}/{name}" for name in ("values", "series", "runs", "updates")]
    outdated = {(name, "filters of delta-rs find nothing") for name in [*names, "users"]}
    assert {(each["table"], each["fault"]) for each in faults(lake)} == outdated


def test_a_lake_that_is_served_is_not_lifted(lake: Path) -> None:
    store, marker = LocalStore(lake), json.loads((lake / MARKER).read_text())
    standing = Standing(store, MARKER, identity_of(marker), max_age_seconds=0.0)
    lease = Lease(store, standing, "grpc://127.0.0.1:1")
    try:
        with pytest.raises(Conflict, match="a server is running"):
            Lake.upgrade(str(lake))
    finally:
        lease.close()
    assert json.loads((lake / MARKER).read_text()) == marker


def test_it_is_lifted_read_and_written_to(lake: Path) -> None:
    before, files = versions(lake), data_files(lake)
    assert Lake.upgrade(str(lake)) == {"from": 1, "to": 2, "tables": 5}
    assert Lake.upgrade(str(lake)) == {"from": 2, "to": 2, "tables": 0}
    assert versions(lake) == {name: version + 1 for name, version in before.items()}
    assert data_files(lake) == files
    assert wrong_filters(lake) == set()
    assert faults(lake) == []
    assert_read_past_the_server(lake)
    service = start_service(load_settings(ServerSettings, lake=str(lake), flight_port=0, rest_port=0))
    try:
        with td.connect(service.flight_url, api_key=KEPT["api_key"]) as client:

            def served() -> dict[str, list[list[object]]]:
                return {name: rows_of(client.read(**filters, columns=AUDIT)) for name, filters in READS.items()}

            assert served() == {name: KEPT[name] for name in READS}
            receipt = client.upload(
                pl.DataFrame({"series_key": ["hydro"], "valid_time": [from_micros(0)], "value": [1.0]}), run_id="newer"
            )
            assert receipt.rows == 1
            assert (tenant_folder(lake) / "values" / "series_bucket=mixed").is_dir()
            written = served()
            assert len(written["audit"]) == len(KEPT["audit"]) + 1
            for name, filters in READS.items():
                assert rows_of(td.scan_lake(lake, **filters, columns=AUDIT).collect()) == written[name]
            client.compact()
            assert served() == written
            assert faults(lake) == []
    finally:
        service.stop()


def test_the_doctor_lifts_it_too(lake: Path) -> None:
    assert all(each["repaired"] for each in faults(lake, repair=True))
    assert faults(lake) == []
    assert Lake.upgrade(str(lake))["tables"] == 0
    assert wrong_filters(lake) == set()
