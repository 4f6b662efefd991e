"""``client.writer``: many runs over one stream, exactly once each, whatever happens to the connection."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

import timedb as td
from tests.timedb.conftest import T0, frame
from tests.timedb.relay import Relay
from timedb.client import Client
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ReadTicket
from timedb.flight_server import start_flight_server
from timedb.run.launch import Service
from timedb.storage import Lake

WRITERS, RUNS = 3, 60


def test_a_future_a_run(client: Client) -> None:
    with client.writer(workflow_id="metering") as writer:
        receipts = [writer.upload(frame("writer", [float(each)] * 2), known_time=T0) for each in range(20)]
    assert {receipt.result(0).rows for receipt in receipts} == {2}
    assert len({receipt.result(0).run_id for receipt in receipts}) == 20
    times = [receipt.result(0).change_time for receipt in receipts]
    assert times == sorted(times)
    assert client.get_run(receipts[3].result(0).run_id)["workflow_id"] == "metering"
    assert client.read(series_keys="writer")["value"].to_list() in [[float(each)] * 2 for each in range(20)]


def test_the_same_by_upload_is_a_retry(client: Client) -> None:
    rows = frame("writer-retry", [1.0])
    with client.writer(workflow_id="twice") as writer:
        receipt = writer.upload(rows, run_id="writer-retry", known_time=T0, run_params={"a": 1})
    again = client.upload(rows, run_id="writer-retry", known_time=T0, workflow_id="twice", run_params={"a": 1})
    assert again == receipt.result(0)


def test_leaving_raises_the_first_error_after_all_have_ended(client: Client) -> None:
    client.upload(frame("writer-taken", [1.0]), run_id="writer-taken")
    writer = client.writer()
    refused = writer.upload(frame("writer-taken", [2.0]), run_id="writer-taken")
    written = writer.upload(frame("writer-taken", [3.0]), run_id="writer-taken-2")
    with pytest.raises(td.Conflict, match="writer-taken"), writer:
        pass
    assert isinstance(refused.exception(0), td.Conflict)
    assert written.result(0).rows == 1
    with pytest.raises(td.InvalidRequest, match="closed"):
        writer.upload(frame("writer-taken", [3.0]))


def test_an_error_of_the_block_stays_that_error(client: Client) -> None:
    writer = client.writer()
    receipt = writer.upload(frame("writer-block", [1.0]))
    writer.upload(frame("writer-block", [1.0]), run_id="writer-retry")  # of other content
    with pytest.raises(ZeroDivisionError), writer:
        raise ZeroDivisionError
    assert receipt.result(0).rows == 1


def test_columns_may_change_from_run_to_run(client: Client) -> None:
    plain = frame("writer-columns", [1.0])
    with client.writer() as writer:
        receipts = [
            writer.upload(plain, known_time=T0),
            writer.upload(plain.with_columns(annotation=pl.lit("seen")), known_time=T0 + timedelta(hours=1)),
            writer.upload(plain.with_columns(value=pl.lit(3, pl.Int64)), known_time=T0 + timedelta(hours=2)),
            writer.upload(plain.to_pandas(), known_time=T0 + timedelta(hours=3)),
            writer.upload(plain.clear(), known_time=T0),
            writer.upload(plain.to_arrow().to_reader(), known_time=T0 + timedelta(hours=4)),
        ]
    assert [receipt.result(0).rows for receipt in receipts] == [1, 1, 1, 1, 0, 1]
    rows = client.read(series_keys="writer-columns", view="overlapping", columns=["known_time", "value", "annotation"])
    assert rows.sort("known_time")["annotation"].to_list() == [None, "seen", None, None, None]
    assert rows.sort("known_time")["value"].to_list() == [1.0, 1.0, 3.0, 1.0, 1.0]


def test_quantiles_and_members_are_labels_here_too(client: Client) -> None:
    rows = frame("writer-quantiles", [1.0])
    with client.writer() as writer:
        for column in ({"quantile": None}, {"quantile": 0.1}, {"member": "7"}, {"quantile": 0.9}):
            writer.upload(rows.with_columns(**{name: pl.lit(value) for name, value in column.items()}))
    labels = [series["labels"] for series in client.list_series(name="writer-quantiles")]
    assert sorted(map(str, labels)) == ["{'member': '7'}", "{'quantile': '0.1'}", "{'quantile': '0.9'}", "{}"]


@pytest.mark.parametrize("missing", ["value", "valid_time", "series_key"])
def test_a_missing_column_is_an_error_although_the_stream_has_it(client: Client, missing: str) -> None:
    with client.writer() as writer:
        writer.upload(frame("writer-missing", [1.0]))
        with pytest.raises(td.InvalidRequest, match=f"{missing}: the column is missing"):
            writer.upload(frame("writer-missing", [1.0]).drop(missing))


def test_a_run_of_many_batches(client: Client) -> None:
    rows = frame("writer-long", [float(each) for each in range(300_000)])
    with client.writer() as writer:
        receipt = writer.upload(rows, run_id="writer-long")
        short = writer.upload(frame("writer-long-2", [1.0]))
    assert receipt.result(0).rows == 300_000
    assert short.result(0).rows == 1
    assert client.read(series_keys="writer-long").height == 300_000


def test_a_withdrawn_run_warns(client: Client) -> None:
    client.upload(frame("writer-gone", [1.0]), run_id="writer-gone", known_time=T0)
    client.withdraw_run("writer-gone")
    with pytest.warns(UserWarning, match="withdrawn"), client.writer() as writer:
        writer.upload(frame("writer-gone", [1.0]), run_id="writer-gone", known_time=T0)


def test_no_server_is_an_error_of_its_own() -> None:
    with td.connect("grpc://127.0.0.1:1", timeout=0.2) as nobody, pytest.raises(td.Unavailable), nobody.writer() as one:
        one.upload(frame("nobody", [1.0]))


def test_wrong_fields_are_refused_at_once(client: Client) -> None:
    with pytest.raises(td.InvalidRequest, match="workflow_id"):
        client.writer(workflow_id="")
    with client.writer() as writer, pytest.raises(td.InvalidRequest, match="known_time"):
        writer.upload(frame("writer-fields", [1.0]), known_time="yesterday")


def test_a_lost_connection_is_made_anew(service: Service, client: Client) -> None:
    receipts = []
    with Relay(service.flight_url) as relay, td.connect(relay.url) as through, through.writer() as writer:
        for number in range(60):
            receipts.append(writer.upload(frame("writer-lost", [1.0]), run_id=f"writer-lost-{number}", known_time=T0))
            if number % 20 == 10:
                relay.cut()
    assert {receipt.result(0).rows for receipt in receipts} == {1}
    assert client.read(series_keys="writer-lost", view="overlapping").height == 60


@contextmanager
def serving(lake: Path, log: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Flight server in a process of its own, and its address."""
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(lake), "--flight-port", "0"]
    server = subprocess.Popen([*command, "--rest-port", "0"], stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    while (line := server.stdout.readline().decode()) and not (found := re.search(r"grpc://\S+", line)):
        pass
    try:
        yield server, found[0] if found else ""
    finally:
        server.kill()
        server.wait(30)
        server.stdout.close()


def write_runs(url: str, name: str, receipts: dict[str, Future[td.Receipt]]) -> None:
    with td.connect(url) as client, client.writer() as writer:
        for number in range(RUNS):
            run_id = f"{name}-{number}"
            receipts[run_id] = writer.upload(frame(name, [float(number)] * 3), run_id=run_id, known_time=T0)
            time.sleep(0.01)


def rows_by_run(lake_dir: Path) -> dict[str, int]:
    """What the lake holds, by a process that comes after."""
    with closing(Lake.open(str(lake_dir), load_settings(ServerSettings, lake=str(lake_dir)), create=False)) as lake:
        read = ReadTicket(view="overlapping", columns=["run_id"])
        runs = pl.DataFrame(lake.tenant(OPEN_TENANT_ID).plan_read(read).reader().read_all())
        return dict(runs.select(pl.col("run_id").cast(pl.String)).group_by("run_id").len().iter_rows())


def test_a_server_that_is_killed_loses_and_doubles_nothing(lake_dir: Path) -> None:
    receipts: dict[str, Future[td.Receipt]] = {}
    with tempfile.TemporaryFile() as log:
        with serving(lake_dir, log.fileno()) as (server, url):
            threads = [
                threading.Thread(target=write_runs, args=(url, f"killed-{number}", receipts), daemon=True)
                for number in range(WRITERS)
            ]
            for thread in threads:
                thread.start()
            while sum(receipt.done() for receipt in list(receipts.values())) < RUNS // 2:
                time.sleep(0.01)
            server.kill()
        settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=int(url.rpartition(":")[2]))
        with closing(Lake.open(str(lake_dir), settings)) as lake:
            service = start_flight_server(lake, settings)
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            service.stop()
    assert {receipt.result(0).rows for receipt in receipts.values()} == {3}
    assert rows_by_run(lake_dir) == {f"killed-{one}-{run}": 3 for one in range(WRITERS) for run in range(RUNS)}


def test_two_servers_on_one_lake(lake_dir: Path) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0)
    receipts: list[tuple[str, Future[td.Receipt]]] = []
    with ExitStack() as stack:
        writers = []
        for _ in range(2):
            lake = stack.enter_context(closing(Lake.open(str(lake_dir), settings)))
            service = start_flight_server(lake, settings)
            stack.callback(service.stop)
            writers.append(stack.enter_context(stack.enter_context(td.connect(service.url)).writer()))
        for number in range(RUNS):
            for writer in writers:  # each run by both: one of them writes it
                run_id = f"two-{number}"
                receipts.append((run_id, writer.upload(frame("two", [1.0, 2.0]), run_id=run_id, known_time=T0)))
        for writer in writers:
            writer.flush()
        by_run: dict[str, set[td.Receipt | str]] = {}
        for run_id, receipt in receipts:
            by_run.setdefault(run_id, set()).add(repr(receipt.result(0)))
    assert {len(found) for found in by_run.values()} == {1}
    assert rows_by_run(lake_dir) == {f"two-{number}": 2 for number in range(RUNS)}


STREAMS_THAT_ARE_REFUSED = """
import time
from datetime import UTC, datetime
import polars as pl, pyarrow as pa
from pyarrow import flight
import timedb as td
from timedb.client.append_stream import AppendStream
from timedb.client.connection import Connection

class Refusing(flight.FlightServerBase):
    def do_exchange(self, *_):
        raise flight.FlightServerError("refused")

with Refusing("grpc://127.0.0.1:0") as server:
    url = f"grpc://127.0.0.1:{server.port}"
    connection = Connection.open(url, 10, 10)
    pause, told = 0.0005, 0
    for _ in range(200):
        ended = []
        stream = AppendStream(connection, pa.schema([("value", pa.float64())]))
        stream.start(None, lambda _, failure: ended.append((failure, time.perf_counter())))
        time.sleep(pause)
        begun = time.perf_counter()
        stream.finish()
        failure, at = ended[0]
        told += isinstance(failure, td.TimeDBError)
        pause *= 0.95 if at < begun else 1.05  # towards the moment at which the call fails
    question = pl.DataFrame({"series_key": "x", "valid_time": [datetime(2025, 1, 1, tzinfo=UTC)]})
    with td.connect(url) as client:
        for _ in range(50):
            try:
                client.lookup(question)
            except td.TimeDBError:
                told += 1
    assert told == 250, told
"""


def test_a_stream_that_is_refused_while_it_ends_ends_no_process() -> None:
    done = subprocess.run([sys.executable, "-c", STREAMS_THAT_ARE_REFUSED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
