"""Uploads that fail leave no files, also those that were written out while their stream went on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import outcome
from tests.flight_server.flights import commit_marker, eventually, many_rows, read, send, upload_command
from timedb.contract.settings import ServerSettings, load_settings
from timedb.flight_server import start_flight_server
from timedb.storage import Lake

ROWS = 5_000
Fail = Callable[[flight.FlightClient, pa.Table, Callable[[], bool]], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lake is."""
    return tmp_path_factory.mktemp("leftovers") / "lake"


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[flight.FlightClient]:
    """A client of a server that writes each thousand rows out and takes five thousand."""
    settings = load_settings(
        ServerSettings,
        lake=str(folder),
        flight_port=0,
        upload_chunk_rows=1_000,
        max_upload_rows=ROWS,
        max_idle_seconds=1.0,
        maintenance_seconds=10_000.0,
    )
    lake = Lake.open(settings.lake, settings)
    service = start_flight_server(lake, settings)
    with flight.connect(service.url) as client:
        yield client
    service.stop()
    lake.close()


def files(folder: Path) -> set[Path]:
    """All files of the lake but those of the logs, the catalog, and the records that are written behind."""
    elsewhere = {"_delta_log", "series", "runs", "updates"}
    return {path for path in folder.rglob("*") if path.is_file() and elsewhere.isdisjoint(path.parts)}


def test_a_chunk_is_written_out_while_the_stream_goes_on(client: flight.FlightClient, folder: Path) -> None:
    before = files(folder)
    rows = many_rows("whole", ROWS, series=2)
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows, max_chunksize=1_000)
    eventually(lambda: len(files(folder) - before) >= 1)
    writer.write_metadata(commit_marker(ROWS))
    writer.done_writing()
    assert reader.read() is not None
    writer.close()
    assert read(client, series_keys=["whole-0"]).num_rows == ROWS // 2


def drop(client: flight.FlightClient, rows: pa.Table, written: Callable[[], bool]) -> None:
    """Send without an end, and go."""
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows, max_chunksize=1_000)
    eventually(written)
    del writer, reader


def stall(client: flight.FlightClient, rows: pa.Table, written: Callable[[], bool]) -> None:
    """Send all, and the end too late."""
    writer, _ = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows, max_chunksize=1_000)
    eventually(written)
    time.sleep(2.0)
    writer.write_metadata(commit_marker(rows.num_rows))
    writer.done_writing()
    writer.close()


def run_out_of_time(client: flight.FlightClient, rows: pa.Table, _: object) -> None:
    """Send for as long as a deadline of the client's own."""
    writer, _ = client.do_put(upload_command(), rows.schema, flight.FlightCallOptions(timeout=1.0))
    writer.write_table(rows, max_chunksize=1_000)
    time.sleep(1.2)
    writer.close()


def with_null_at_the_end(rows: pa.Table) -> pa.Table:
    """The rows and one that is refused."""
    last = rows.slice(0, 1).set_column(1, "valid_time", pa.nulls(1, rows.schema.field("valid_time").type))
    return pa.concat_tables([rows, last])


BROKEN: dict[str, tuple[str | None, Fail]] = {
    "not confirmed": ("incomplete_upload", lambda client, rows, _: send(client, rows)),
    "wrong count": ("incomplete_upload", lambda client, rows, _: send(client, rows, marker=7)),
    "goes on after the end": (
        "incomplete_upload",
        lambda client, rows, _: send(client, rows, marker=commit_marker(7), rows=8),
    ),
    "over the limit": ("too_large", lambda client, rows, _: send(client, pa.concat_tables([rows] * 3), marker=3)),
    "a bad row": (
        "invalid_request",
        lambda client, rows, _: send(client, with_null_at_the_end(rows), marker=4_001, chunk_rows=1_000),
    ),
    "a row twice": (
        "invalid_request",
        lambda client, rows, _: send(
            client, pa.concat_tables([rows, rows.slice(0, 1)]), marker=4_001, chunk_rows=1_000
        ),
    ),
    "bad metadata": ("invalid_request", lambda client, rows, _: send(client, rows, marker=b"nonsense")),
    "the run is another's": ("conflict", lambda client, rows, _: send(client, rows, marker=4_000, run_id="taken")),
    "dropped": (None, drop),
    "stalled": ("timeout", stall),
    "out of time": ("timeout", run_out_of_time),
}


@pytest.mark.parametrize("how", BROKEN)
def test_nothing_is_left_of_an_upload_that_fails(client: flight.FlightClient, folder: Path, how: str) -> None:
    send(client, many_rows("taken", 10), rows=10, run_id="taken")
    before = files(folder)
    code, fail = BROKEN[how]
    rows = many_rows("broken", 4_000, series=2)

    def written() -> bool:
        return len(files(folder) - before) >= 1

    if code is None:
        fail(client, rows, written)
    else:
        assert outcome(lambda: fail(client, rows, written))[0] == code
    eventually(lambda: files(folder) == before)
    assert outcome(lambda: read(client, series_keys=["broken-0"]))[0] == "not_found"
