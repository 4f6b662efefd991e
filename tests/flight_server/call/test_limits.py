"""Slots, their time, and the gate; and the calls that they hold back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyarrow import flight

from tests.flight_server.flights import (
    Connect,
    Start,
    act,
    commit_marker,
    eventually,
    fails,
    read,
    read_ticket,
    rows_of,
    send,
    series_named,
    upload_command,
)
from timedb.contract.errors import Busy, Timeout
from timedb.flight_server.call.slots import Gate, Slots


def test_one_more_than_the_limit_is_refused_and_a_slot_given_back_is_free() -> None:
    slots = Slots("reads", 2, 60.0)
    first, _ = slots.lease(), slots.lease()
    with pytest.raises(Busy, match="2 reads"):
        slots.lease()
    first.release()
    first.release()
    with slots.lease():
        assert slots.taken == 2
    assert slots.taken == 1


def test_a_lease_over_its_time_counts_no_longer() -> None:
    slots = Slots("reads", 1, 0.01)
    stalled = slots.lease()
    stalled.check()
    time.sleep(0.02)
    with slots.lease():
        assert slots.taken == 1
        with pytest.raises(Timeout, match=r"0\.01 seconds"):
            stalled.check()
        stalled.release()
        assert slots.taken == 1, "the slot is another's by now"


def test_many_threads_never_hold_more_than_the_limit() -> None:
    slots, most, lock = Slots("reads", 3, 60.0), [0], threading.Lock()

    def work() -> None:
        for _ in range(200):
            try:
                with slots.lease(), lock:
                    most[0] = max(most[0], slots.taken)
            except Busy:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slots.taken == 0
    assert 1 <= most[0] <= 3


def test_the_gate_waits_for_those_inside() -> None:
    gate = Gate()
    gate.enter()
    assert not gate.close(0.0)
    with pytest.raises(Busy, match="stopping"):
        gate.enter()
    gate.leave()
    assert gate.close(0.0)


def test_reads_over_the_limit_are_busy_until_one_ends(
    start: Start, connect: Connect, wide_read: dict[str, Any]
) -> None:
    client = connect(start(max_concurrent_reads=1))
    stalled = client.do_get(read_ticket(**wide_read))
    stalled.read_chunk()
    with fails("busy", "1 reads"):
        read(client, series_keys=["wide-0"])
    assert client.get_flight_info(flight.FlightDescriptor.for_command(read_ticket(**wide_read).ticket)).endpoints
    stalled.cancel()
    eventually(lambda: _answers(lambda: read(client, series_keys=["wide-0"])))
    with fails("not_found"):
        read(client, series_keys=["there is no such series"])
    assert read(client, series_keys=["wide-0"]).num_rows == 4000, "a read that fails gives its slot back"


def test_a_read_over_its_time_fails_and_a_stalled_one_blocks_nobody(
    start: Start, connect: Connect, wide_read: dict[str, Any]
) -> None:
    client = connect(start(max_concurrent_reads=1, max_call_seconds=1.0))
    stalled = client.do_get(read_ticket(**wide_read))
    stalled.read_chunk()
    eventually(lambda: _answers(lambda: read(client, series_keys=["wide-0"])))
    with fails("timeout", "1 seconds"):
        stalled.read_all()


def test_uploads_over_the_limit_are_busy_until_one_ends(start: Start, connect: Connect, name: str) -> None:
    client = connect(start(max_concurrent_uploads=1))
    rows = rows_of(name)
    writer, reader = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows)
    other = rows_of(f"{name}-other")
    # Whoever asks first has the slot, so the other one waits until it is taken.
    eventually(lambda: 'timedb_flight_slots_taken{kind="uploads"} 1.0' in act(client, "metrics")["text"])
    with fails("busy", "1 uploads"):
        send(client, other, rows=3)
    writer.write_metadata(commit_marker(3))
    writer.done_writing()
    assert reader.read() is not None
    writer.close()
    assert send(client, other, rows=3)[-1]["rows"] == 3


def test_an_upload_over_its_time_fails_and_writes_nothing(start: Start, connect: Connect, name: str) -> None:
    client = connect(start(max_call_seconds=0.2))
    rows = rows_of(name)
    writer, _ = client.do_put(upload_command(), rows.schema)
    writer.write_table(rows)
    time.sleep(0.4)
    with fails("timeout"):
        writer.write_metadata(commit_marker(3))
        writer.done_writing()
        writer.close()
    assert series_named(client, name) == []


def test_a_message_over_the_limit_is_too_large_everywhere(start: Start, connect: Connect, name: str) -> None:
    client = connect(start(max_message_bytes=1000))
    big = "x" * 1000
    with fails("too_large", "1000"):
        act(client, "create_series", {"name": name, "description": big})
    with fails("too_large", "ticket"):
        read(client, series_ids=[big])
    with fails("too_large", "command"):
        client.get_flight_info(flight.FlightDescriptor.for_command(read_ticket(series_ids=[big]).ticket))
    with fails("too_large", "criteria"):
        list(client.list_flights(b'{"name": "' + big.encode() + b'"}'))
    with fails("too_large", "command"):
        send(client, rows_of(name), rows=3, run_params={"a": big})
    with fails("too_large", "metadata"):
        send(client, rows_of(name), marker=b'{"commit": true, "rows": 3' + b" " * 1000 + b"}")
    assert series_named(client, name) == []


def test_fifty_megabytes_of_garbage_are_too_large_and_the_server_goes_on(client: flight.FlightClient) -> None:
    for action in ("create_series", "health"):
        with fails("too_large", "50000000"):
            act(client, action, b"\xff" * 50_000_000)
    assert act(client, "health") == {"ok": True}


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except flight.FlightUnavailableError:
        return False
    return True
