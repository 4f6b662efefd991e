"""Which files a query opens: those of the series that it is about, whichever way it names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from adbc_driver_manager.dbapi import Connection
from pyarrow import flight

from tests.flight_server.flights import act, read, rows_of, send
from tests.flight_server.sql_client import column, connected, refused
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import start_flight_server
from timedb.storage import Lake

NORTH = pa.array(['{"site": "north"}'] * 3)


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A lake of which every file but those of the series ``here`` is gone; who opens another one is told."""
    folder = tmp_path_factory.mktemp("opened") / "lake"
    settings = load_settings(
        ServerSettings, lake=str(folder), flight_port=0, bucket_digits="full", shutdown_seconds=2.0
    )
    lake = Lake.open(str(folder), settings)
    service = start_flight_server(lake, settings)
    try:
        with flight.connect(service.url) as client:
            (first,) = send(client, rows_of("here", labels=NORTH), rows=3, unit="MW")
            (kept,) = first["series_ids"].values()
            for name in ("gone", "lost"):
                send(client, rows_of(name), rows=3, unit="kW")
            act(client, "compact")
            assert read(client, series_ids=[kept]).num_rows == 3
        gone = [each for each in data_files(folder) if kept not in str(each)]
        assert len(gone) >= 2
        for each in gone:
            each.rename(each.with_suffix(".away"))
        with connected(service.url) as connection:
            yield connection
    finally:
        service.stop()
        lake.close()


def data_files(folder: Path) -> list[Path]:
    """The Parquet files of values."""
    return sorted(folder.glob("tenants/*/values/series_bucket=*/**/*.parquet"))


ONE_SERIES = [
    "FROM flat WHERE series_key = 'here'",
    "FROM flat JOIN series USING (series_id) WHERE series.name = 'here'",
    "FROM overlapping f JOIN series s ON f.series_id = s.series_id AND s.name = 'here'",
    "FROM main.values v, series s WHERE v.series_id = s.series_id AND s.unit = 'MW'",
    "FROM flat JOIN series USING (series_id) WHERE (labels ->> 'site') = 'north'",
]


@pytest.mark.parametrize("rest", ONE_SERIES)
def test_a_query_about_one_series_opens_its_files_alone(sql: Connection, rest: str) -> None:
    assert column(sql, f"SELECT value {rest} ORDER BY valid_time") == [0.0, 1.0, 2.0]


def test_a_query_about_all_would_open_them_all(sql: Connection) -> None:
    with sql.cursor() as cursor, refused("damaged"):
        cursor.execute("SELECT value FROM flat JOIN series USING (series_id)")
        cursor.fetchall()
