"""``adbc_ingest`` into ``values``: an upload, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import act, eventually, fails, read, rows_of
from tests.flight_server.sql_client import ask, column, connected, descriptor, refused
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.sql.ingest import IngestOption, TableDefinitionOptions
from timedb.flight_server.sql.messages import CommandStatementIngest, DoPutUpdateResult
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

APPEND = TableDefinitionOptions(if_not_exist=2, if_exists=2).to_bytes()


def ingest(url: str, table: pa.Table | pa.RecordBatchReader, key: str | None = None, **options: Any) -> int:
    """The driver's own ingestion."""
    with connected(url, key) as connection, connection.cursor() as cursor:
        return int(cursor.adbc_ingest(options.pop("table_name", "values"), table, **{"mode": "append", **options}))


def put(client: flight.FlightClient, command: CommandStatementIngest, table: pa.Table) -> int:
    """The bare messages of an ingestion."""
    writer, reader = client.do_put(descriptor(command), table.schema)
    with writer:
        writer.write_table(table)
        writer.done_writing()
        return DoPutUpdateResult.from_bytes(reader.read().to_pybytes(), what="-").record_count


def test_rows_of_the_driver_are_an_upload(flight_service: FlightService) -> None:
    table = rows_of("ingested", 5, annotation=["a", None, "", "ü", "a"])
    assert ingest(flight_service.url, table) == 5
    with flight.connect(flight_service.url) as client:
        assert read(client, series_keys=["ingested"], ordered=True)["value"].to_pylist() == table["value"].to_pylist()
        (run,) = act(client, "list_runs", {"workflow_id": "flight-sql-ingest", "limit": 1})["runs"]
        assert run["rows"] == 5
    with connected(flight_service.url) as connection:
        assert column(connection, "SELECT annotation FROM flat WHERE series_key = 'ingested' ORDER BY valid_time") == [
            "a",
            None,
            None,
            "ü",
            "a",
        ]


def test_what_pandas_makes_goes_in(flight_service: FlightService) -> None:
    import pandas as pd

    frame = pd.DataFrame({"series_key": ["of pandas"] * 3, "value": [1.5, float("nan"), 2.5]})
    frame["valid_time"] = pd.date_range("2025-03-30", periods=3, freq="h", tz="Europe/Berlin")
    assert ingest(flight_service.url, pa.Table.from_pandas(frame, preserve_index=False)) == 3
    with connected(flight_service.url) as connection:
        found = ask(connection, "SELECT * FROM flat WHERE series_key = 'of pandas' ORDER BY valid_time").to_pylist()
    start = datetime(2025, 3, 29, 23, tzinfo=UTC)
    assert [row["valid_time"] for row in found] == [start + timedelta(hours=number) for number in range(3)]
    assert [str(row["value"]) for row in found] == ["1.5", "None", "2.5"]  # as pyarrow takes the NaN of pandas


def test_options_are_fields_of_the_upload(client: flight.FlightClient) -> None:
    fields = {"run_id": "ingest-06", "workflow_id": "etl", "known_time": "2024-12-31T06:00:00Z", "unit": "MW"}
    options = tuple(IngestOption(name, value).to_bytes() for name, value in fields.items())
    command = CommandStatementIngest(APPEND, "values", "main", "timedb", options=options)
    assert put(client, command, rows_of("ingested with options")) == 3
    run = act(client, "get_run", {"run_id": "ingest-06"})
    assert (run["workflow_id"], run["known_time"], run["rows"]) == ("etl", "2024-12-31T06:00:00.000000+00:00", 3)
    assert put(client, command, rows_of("ingested with options")) == 3  # a retry
    with fails("conflict", "ingest-06"):
        put(client, command, rows_of("ingested with options", 2))


WRONG: dict[str, tuple[str, str, dict[str, Any]]] = {
    "another table": ("unimplemented", "append to values", {"table": "runs"}),
    "another schema": ("unimplemented", "append to values", {"schema": "temp"}),
    "to be made": (
        "unimplemented",
        "mode append",
        {"table_definition_options": TableDefinitionOptions(1, 1).to_bytes()},
    ),
    "to be replaced": (
        "unimplemented",
        "mode append",
        {"table_definition_options": TableDefinitionOptions(2, 3).to_bytes()},
    ),
    "of a session": ("unimplemented", "mode append", {"temporary": True}),
    "in a transaction": ("unimplemented", "transaction_id", {"transaction_id": b"t"}),
    "an unknown option": ("invalid_request", "'run'", {"options": (IngestOption("run", "x").to_bytes(),)}),
    "a wrong time": ("invalid_request", "known_time", {"options": (IngestOption("known_time", "noon").to_bytes(),)}),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_an_upload_is_refused(client: flight.FlightClient, case: str) -> None:
    code, says, fields = WRONG[case]
    with fails(code, says):
        put(
            client,
            CommandStatementIngest(**{"table_definition_options": APPEND, "table": "values", **fields}),
            rows_of("no ingest"),
        )
    assert not act(client, "list_series", {"name": "no ingest"})["series"]


def test_the_driver_is_told_why(flight_service: FlightService) -> None:
    with refused("unimplemented", "mode append"):
        ingest(flight_service.url, rows_of("no ingest"), mode="create")
    with refused("invalid_request", "valid_time"):
        ingest(flight_service.url, rows_of("no ingest").drop_columns("valid_time"))
    with refused("invalid_request", "power"):
        ingest(flight_service.url, rows_of("no ingest", power=[1, 2, 3]))


def test_a_source_that_fails_in_the_middle_writes_nothing(flight_service: FlightService) -> None:
    table = rows_of("half ingested", 1000)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=100)[:5]
        raise ValueError("the source broke")

    with pytest.raises(adbc_driver_manager.Error):
        ingest(flight_service.url, pa.RecordBatchReader.from_batches(table.schema, batches()))
    with flight.connect(flight_service.url) as client:
        eventually(lambda: flight_service._server.uploads.taken == 0)
        assert not act(client, "list_series", {"name": "half ingested"})["series"]


KILLED = """
import os, sys
import pyarrow as pa
import adbc_driver_flightsql.dbapi as adbc
sys.path.insert(0, sys.argv[2])
from tests.flight_server.flights import rows_of
table = rows_of("killed ingestion", 100_000)
def batches():
    for number, batch in enumerate(table.to_batches(max_chunksize=1000)):
        if number == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
        yield batch
with adbc.connect(sys.argv[1], autocommit=True) as connection, connection.cursor() as cursor:
    cursor.adbc_ingest("values", pa.RecordBatchReader.from_batches(table.schema, batches()), mode="append")
"""


@pytest.mark.parametrize("after", [1, 40, 99])
def test_a_client_that_is_killed_writes_nothing(flight_service: FlightService, after: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, flight_service.url, ".", str(after)], check=False)
    assert done.returncode == -9
    with flight.connect(flight_service.url) as client:
        eventually(lambda: flight_service._server.uploads.taken == 0)
        assert not act(client, "list_series", {"name": "killed ingestion"})["series"]


def test_it_needs_the_scope_of_uploads(tmp_path_factory: pytest.TempPathFactory) -> None:
    uri = str(tmp_path_factory.mktemp("ingest") / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=2.0)
    lake = Lake.open(uri, settings)
    keys = {}
    for scope in ("read", "write"):
        new = {"email": f"{scope}@one.example", "scopes": [scope]}
        keys[scope] = str(lake.create_user(parse_object(NewUser, new))["api_key"])
    service = start_flight_server(lake, settings)
    with refused("forbidden", "'write'"):
        ingest(service.url, rows_of("scoped"), keys["read"])
    assert ingest(service.url, rows_of("scoped"), keys["write"]) == 3
    with calling(service.url) as stranger:
        command = CommandStatementIngest(APPEND, "values")
        assert outcome(lambda: put(stranger, command, rows_of("scoped")))[0] == "unauthenticated"
    service.stop()
    lake.close()
