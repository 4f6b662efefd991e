"""``do_put``: what is written, and what is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    START,
    TIMESTAMP,
    Connect,
    Start,
    commit_marker,
    eventually,
    fails,
    hours,
    many_rows,
    read,
    rows_of,
    send,
    series_named,
    upload_command,
)


def test_a_million_rows_there_and_back(client: flight.FlightClient, name: str) -> None:
    rows = many_rows(name, 1_000_000)
    *progress, receipt = send(client, rows, marker=1_000_000)
    assert progress == [{"received": message["received"]} for message in progress]
    assert [1_000_000 <= message["received"] < 1_100_000 for message in progress] == [True]
    assert receipt["rows"] == 1_000_000
    assert receipt["skipped"] == 0
    assert set(receipt["series_ids"]) == {f"{name}-{number}" for number in range(100)}
    assert {one["series_key"]: one["series_id"] for one in receipt["series"]} == receipt["series_ids"]
    got = read(client, series_keys=list(receipt["series_ids"]), columns=["series_key", "valid_time", "value"])
    got.validate(full=True)
    order = [("series_key", "ascending"), ("valid_time", "ascending")]
    plain = pa.schema([("series_key", pa.string()), ("valid_time", TIMESTAMP), ("value", pa.float64())])
    assert got.cast(plain).sort_by(order).equals(rows.cast(plain).sort_by(order))


@pytest.mark.parametrize("confirmation", [{"rows": 3}, {"marker": 3}, {"rows": 3, "marker": 3}])
def test_an_upload_counts_when_the_client_says_it_is_whole(
    client: flight.FlightClient, name: str, confirmation: dict[str, Any]
) -> None:
    receipt = send(client, rows_of(name), run_id=name, **confirmation)[-1]
    assert receipt["run_id"] == name
    assert set(receipt) == {
        *("run_id", "rows", "skipped", "series_ids", "series", "change_time", "table_version"),
        *("withdrawn", "withdrawn_rows"),
    }
    assert read(client, series_keys=[name]).column("value").to_pylist() == [0.0, 1.0, 2.0]


def test_the_marker_may_ride_on_the_last_batch(client: flight.FlightClient, name: str) -> None:
    rows = rows_of(name)
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_with_metadata(rows.to_batches()[0], commit_marker(3))
    writer.done_writing()
    assert b'"rows":3' in reader.read().to_pybytes()
    writer.close()


def test_an_upload_of_nothing_is_an_upload(client: flight.FlightClient, name: str) -> None:
    receipt = send(client, rows_of(name, 0), marker=0, run_id=name)[-1]
    assert (receipt["rows"], receipt["run_id"], receipt["series_ids"]) == (0, name, {})


@pytest.mark.parametrize(
    "confirmation",
    [
        {},
        {"rows": 2},
        {"rows": 4},
        {"marker": 2},
        {"marker": 4},
        {"rows": 3, "marker": 2},
        {"rows": 2, "marker": 3},
        {"rows": 2, "marker": 2},
        {"rows": 0},
        {"marker": 0},
    ],
)
def test_a_count_that_does_not_agree_writes_nothing(
    client: flight.FlightClient, name: str, confirmation: dict[str, Any]
) -> None:
    with fails("incomplete_upload", "nothing was written"):
        send(client, rows_of(name), run_id=name, **confirmation)
    assert series_named(client, name) == []
    assert send(client, rows_of(name), run_id=name, rows=3)[-1]["rows"] == 3, "the run_id is still free"


def test_the_marker_must_be_the_last_message(client: flight.FlightClient, name: str) -> None:
    rows = rows_of(name)
    others: tuple[Callable[[Any], None], ...] = (
        lambda writer: writer.write_table(rows),
        lambda writer: writer.write_metadata(commit_marker(3)),
    )
    for after in others:
        with fails("incomplete_upload", "after the commit marker"):
            writer, _ = client.do_put(upload_command(), rows.schema)
            writer.write_table(rows)
            writer.write_metadata(commit_marker(3))
            after(writer)
            writer.done_writing()
            writer.close()
    assert series_named(client, name) == []


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        (b"nonsense", "metadata"),
        (b"{}", "commit"),
        (b'{"commit": true}', "rows"),
        (b'{"rows": 3}', "commit"),
        (b'{"commit": false, "rows": 3}', "commit"),
        (b'{"commit": true, "rows": "3"}', "rows"),
        (b'{"commit": true, "rows": -1}', "rows"),
        (b'{"commit": true, "rows": 3, "digest": "x"}', "digest"),
        (b"\xff\xfe", "metadata"),
    ],
)
def test_malformed_metadata_is_refused(client: flight.FlightClient, name: str, marker: bytes, says: str) -> None:
    with fails("invalid_request", says):
        send(client, rows_of(name), marker=marker)
    assert series_named(client, name) == []


def test_a_writer_that_is_closed_or_dropped_halfway_writes_nothing(client: flight.FlightClient, name: str) -> None:
    rows = rows_of(name)
    with fails("incomplete_upload"):
        writer, _ = client.do_put(upload_command(), rows.schema)
        writer.write_table(rows)
        writer.close()
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows)
    del writer, reader
    with fails("incomplete_upload"):
        writer, _ = client.do_put(upload_command(), rows.schema)
        writer.close()
    assert series_named(client, name) == []


def test_a_client_that_runs_out_of_time_writes_nothing(client: flight.FlightClient, name: str) -> None:
    rows = rows_of(name)
    writer, _ = client.do_put(upload_command(), rows.schema, flight.FlightCallOptions(timeout=0.3))
    writer.write_table(rows)
    time.sleep(0.5)
    with pytest.raises(flight.FlightTimedOutError):
        writer.close()
    assert series_named(client, name) == []


_KILLED = """
import sys
import pyarrow as pa
from pyarrow import flight
from tests.flight_server.flights import commit_marker, many_rows, upload_command
client, rows = flight.connect(sys.argv[1]), many_rows(sys.argv[2], 300_000)
writer, reader = client.do_put(upload_command(run_id=sys.argv[2]), rows.schema)
writer.write_table(rows, max_chunksize=10_000)
print("sent", flush=True)
sys.stdin.read()
"""


def test_a_client_that_is_killed_leaves_nothing_visible(start: Start, connect: Connect, name: str) -> None:
    service = start(max_concurrent_uploads=1)
    client = connect(service)
    killed = subprocess.Popen(
        [sys.executable, "-c", _KILLED, service.url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdin is not None
    assert killed.stdout is not None
    with killed.stdin, killed.stdout:
        assert killed.stdout.readline() == "sent\n"
        with fails("busy"):
            send(client, rows_of(f"{name}-other"), rows=3)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    # Once the only slot is free again, the server is done with the dead client's upload.
    eventually(lambda: _sends(client, rows_of(f"{name}-other")))
    assert series_named(client, f"{name}-0") == []
    with fails("not_found"):
        read(client, series_keys=[f"{name}-0"])
    assert send(client, rows_of(name), rows=3, run_id=name)[-1]["rows"] == 3


def _sends(client: flight.FlightClient, rows: pa.Table) -> bool:
    try:
        return bool(send(client, rows, rows=rows.num_rows))
    except flight.FlightUnavailableError:
        return False


def test_a_client_that_never_reads_metadata_stalls_nobody(client: flight.FlightClient, name: str) -> None:
    rows = pa.table(
        {
            "series_key": pa.array([f"{name}-{number:05d}" for number in range(6_000)]),
            "valid_time": pa.array([START] * 6_000, TIMESTAMP),
            "value": np.zeros(6_000),
        }
    )
    writer, _ = client.do_put(upload_command(rows=6_000, run_id=name), rows.schema)
    writer.write_table(rows)
    writer.close()
    # The receipt of over a megabyte was never read; the retry is answered with it.
    receipt = send(client, rows, rows=6_000, run_id=name)[-1]
    assert len(receipt["series_ids"]) == len(receipt["series"]) == 6_000


def refused(**columns: Any) -> pa.Table:
    """Three rows, some of whose columns are wrong."""
    return rows_of("refused", 3, **columns)


def nameless() -> pa.Table:
    """Three rows that no series is named for."""
    return rows_of("x").drop(["series_key"])


def of_bytes(column: str, name: bytes, zone: bytes | None) -> pa.Table:
    """Three rows with one column renamed or of another time zone: Arrow does not check that they are UTF-8."""
    rows = rows_of("x")
    index = rows.column_names.index(column)
    kind = rows.schema.types[index] if zone is None else pa.timestamp("us", zone)
    columns = [each.cast(kind) if number == index else each for number, each in enumerate(rows.columns)]
    fields = [pa.field(name, kind) if number == index else each for number, each in enumerate(rows.schema)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


NS = pa.timestamp("ns", tz="UTC")
WRONG: dict[str, tuple[pa.Table, str]] = {
    "naive valid_time": (refused(valid_time=hours(3).cast(pa.timestamp("us"))), "valid_time"),
    "naive known_time": (refused(known_time=hours(3).cast(pa.timestamp("us"))), "known_time"),
    "no whole microsecond": (refused(valid_time=pa.array([0, 1_000, 1_001], pa.int64()).cast(NS)), "valid_time"),
    "one nanosecond": (
        refused(valid_time=pa.array([1_735_689_600_000_000_001] * 3, pa.int64()).cast(NS)),
        "valid_time",
    ),
    "valid_time as text": (refused(valid_time=["2025-01-01T00:00:00Z"] * 3), "valid_time"),
    "valid_time as number": (refused(valid_time=[1, 2, 3]), "valid_time"),
    "valid_time as time of day": (refused(valid_time=pa.array([1, 2, 3], pa.time32("s"))), "valid_time"),
    "null valid_time": (refused(valid_time=pa.nulls(3, TIMESTAMP)), "valid_time"),
    "value as text": (refused(value=["1", "2", "3"]), "value"),
    "value as boolean": (refused(value=[True, False, True]), "value"),
    "series_key as number": (refused(series_key=[1, 2, 3]), "series_key"),
    "null series_key": (refused(series_key=pa.nulls(3, pa.string())), "series_key"),
    "empty series_key": (refused(series_key=["", "", ""]), "series_key"),
    "labels that are no JSON": (refused(labels=["{"] * 3), "labels"),
    "labels that are no object": (refused(labels=["[]"] * 3), "labels"),
    "tags as text": (refused(tags=["a", "b", "c"]), "tags"),
    "annotation as number": (refused(annotation=[1, 2, 3]), "annotation"),
    "no name": (nameless(), "series_"),
    "no valid_time": (rows_of("x").drop(["valid_time"]), "valid_time"),
    "no value": (rows_of("x").drop(["value"]), "value"),
    "no column at all": (pa.table({}), ""),
    "an unknown column": (refused(extra=[1, 2, 3]), "extra"),
    "a column twice": (rows_of("x").append_column("value", pa.array([1.0, 2.0, 3.0])), "value"),
    "the same row twice": (refused(valid_time=pa.array([START, START, START], TIMESTAMP)), "twice"),
    "end before start": (refused(valid_time_end=hours(3)), "valid_time_end"),
    "a name of bytes": (of_bytes("value", b"\xff\xfe", None), "UTF-8"),
    "a zone of bytes": (of_bytes("valid_time", b"valid_time", b"\xff\xfe"), "UTF-8"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_rows_get_one_clear_error(client: flight.FlightClient, what: str) -> None:
    rows, says = WRONG[what]
    with fails("invalid_request", says):
        send(client, rows, rows=rows.num_rows)
    assert series_named(client, "refused") == []
    assert series_named(client, "x") == []


def test_an_unknown_series_id_is_not_found(client: flight.FlightClient) -> None:
    for series_id in ("nonsense", "00000000-0000-0000-0000-000000000001"):
        rows = nameless().append_column("series_id", [[series_id] * 3])
        with fails("not_found", "series_id", series_id):
            send(client, rows, rows=3)


def test_whole_microseconds_in_nanoseconds_are_taken(client: flight.FlightClient, name: str) -> None:
    send(client, rows_of(name, 3, valid_time=hours(3).cast(NS)), rows=3)
    assert read(client, series_keys=[name]).column("valid_time").to_pylist() == hours(3).to_pylist()


def test_a_batch_with_bad_offsets_is_refused(client: flight.FlightClient, name: str) -> None:
    offsets = pa.py_buffer(np.array([0, 900, 3, 3], np.int32).tobytes())
    torn = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"abc"))
    columns = [torn, hours(3), pa.array([1.0, 2.0, 3.0])]
    batch = pa.RecordBatch.from_arrays(columns, names=["series_key", "valid_time", "value"])
    with fails("invalid_request"):
        send(client, [batch], rows=3)


def test_a_bad_row_in_the_middle_of_a_million_stops_the_client(client: flight.FlightClient, name: str) -> None:
    rows = many_rows(name, 1_000_000)
    times = rows.column("valid_time").to_numpy().copy()
    times[500_000] = np.datetime64("NaT", "us")
    torn = rows.set_column(1, "valid_time", pa.array(times, TIMESTAMP))
    for _ in range(3):
        with fails("invalid_request", "valid_time", "500000"):
            send(client, torn, marker=1_000_000, chunk_rows=10_000)
    naive = rows.set_column(1, "valid_time", rows.column("valid_time").cast(pa.timestamp("us")))
    with fails("invalid_request", "valid_time"):
        send(client, naive, marker=1_000_000)
    assert series_named(client, f"{name}-0") == []


def test_a_dictionary_that_changes_from_batch_to_batch(client: flight.FlightClient, name: str) -> None:
    batches = [
        rows_of(f"{name}-{key}", 2, series_key=pa.array([f"{name}-{key}"] * 2).dictionary_encode()).to_batches()[0]
        for key in "abc"
    ]
    receipt = send(client, batches, rows=6)[-1]
    assert set(receipt["series_ids"]) == {f"{name}-{key}" for key in "abc"}
    for key in "abc":
        assert read(client, series_keys=[f"{name}-{key}"]).num_rows == 2
