"""Limits that keep a tenant from the slots of others, and a client that stalls from everybody's."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import (
    Connect,
    Start,
    act,
    eventually,
    fails,
    many_rows,
    read,
    read_command,
    read_ticket,
    rows_of,
    send,
    series_named,
    upload_command,
)
from timedb.contract.errors import Busy, Timeout
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import start_flight_server
from timedb.flight_server.call.slots import Slots
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


def test_a_tenant_cannot_take_all_slots() -> None:
    slots = Slots("reads", 3, 60.0, tenant_limit=2)
    taken = [slots.lease(ONE), slots.lease(ONE)]
    with pytest.raises(Busy, match="2 reads of the tenant"):
        slots.lease(ONE)
    with slots.lease(TWO), pytest.raises(Busy, match=r"^3 reads run"):
        slots.lease(TWO)
    taken[0].release()
    with slots.lease(ONE), slots.lease(TWO):
        assert slots.taken == 3


def test_who_has_least_is_next() -> None:
    slots = Slots("sql", 2, 60.0, wait_seconds=60.0)
    taken, served = [slots.lease(ONE), slots.lease(ONE)], []
    threads = []
    for name in (ONE, TWO):
        threads.append(threading.Thread(target=lambda name=name: served.append(slots.lease(name))))
        threads[-1].start()
        while slots.waiting < len(threads):
            time.sleep(0.001)
    taken[0].release()
    while len(served) < 1:
        time.sleep(0.001)
    taken[1].release()
    for thread in threads:
        thread.join()
    assert [lease.tenant_id for lease in served] == [TWO, ONE]


def test_a_lease_that_waits_for_its_client_too_long_counts_no_longer() -> None:
    slots = Slots("reads", 1, 60.0, idle_seconds=0.02)
    lease = slots.lease(ONE)
    time.sleep(0.03)
    lease.check()  # it was at work, and waited for nobody
    lease.wait()
    lease.check()
    lease.wait()
    time.sleep(0.03)
    with slots.lease(TWO), pytest.raises(Timeout, match=r"0\.02 seconds"):
        lease.check()


def test_a_tenant_that_reads_all_it_may_keeps_nobody_else_waiting(lake_dir: Path) -> None:
    settings = load_settings(
        ServerSettings,
        lake=str(lake_dir),
        flight_port=0,
        shutdown_seconds=0.5,
        max_concurrent_reads=3,
        max_concurrent_reads_per_tenant=2,
    )
    lake = Lake.open(settings.lake, settings)
    keys = [
        lake.create_user(parse_object(NewUser, {"email": "a@example.com", "tenant_id": tenant}))["api_key"]
        for tenant in (ONE, TWO)
    ]
    service = start_flight_server(lake, settings)
    with calling(service.url, keys[0]) as one, calling(service.url, keys[1]) as two:
        for client in (one, two):
            send(client, many_rows("wide", 200_000), rows=200_000)
        whole = read_ticket(view="overlapping", columns=["series_id", "valid_time", "value", "value_id", "run_id"])
        stalled = [one.do_get(whole) for _ in range(2)]
        for stream in stalled:
            stream.read_chunk()
        assert outcome(lambda: read(one, series_keys=["wide-0"])) == (
            "busy",
            "2 reads of the tenant run already; retry",
        )
        assert read(two, series_keys=["wide-0"]).num_rows == 2_000
        for stream in stalled:
            stream.cancel()
        eventually(lambda: outcome(lambda: read(one, series_keys=["wide-0"]))[0] == "ok")
    service.stop()
    lake.close()


def test_actions_and_plans_over_the_limit_are_busy(start: Start, connect: Connect, name: str) -> None:
    service = start(max_concurrent_calls=1)
    client = connect(service)
    with service.slots["calls"].lease():
        for call in (
            lambda: act(client, "status"),
            lambda: act(client, "create_series", {"name": name}),
            lambda: client.get_flight_info(read_command()),
            lambda: list(client.list_flights()),
        ):
            with fails("busy", "1 calls run already"):
                call()
        with pytest.raises(pa.ArrowInvalid, match="busy: 1 calls"):
            client.get_schema(read_command())
        assert act(client, "health") == {"ok": True}
    assert series_named(client, name) == []


def test_a_reader_that_stalls_loses_its_place(start: Start, connect: Connect, wide_read: dict[str, Any]) -> None:
    client = connect(start(max_concurrent_reads=1, max_idle_seconds=0.3))
    stalled = client.do_get(read_ticket(**wide_read))
    stalled.read_chunk()
    eventually(lambda: outcome(lambda: read(client, series_keys=["wide-0"]))[0] == "ok")
    with fails("timeout", "neither sent nor took", "0.3 seconds"):
        stalled.read_all()


def test_a_reader_that_takes_its_time_but_takes_is_served(
    start: Start, connect: Connect, wide_read: dict[str, Any]
) -> None:
    stream = connect(start(max_idle_seconds=5.0)).do_get(read_ticket(**wide_read))
    rows = 0
    for _ in range(5):
        time.sleep(0.05)
        rows += stream.read_chunk().data.num_rows
    assert rows + stream.read_all().num_rows == 400_000


@pytest.mark.parametrize("sent", ["nothing", "a batch"])
def test_an_upload_that_stalls_loses_its_place_and_writes_nothing(
    start: Start, connect: Connect, name: str, sent: str
) -> None:
    service = start(max_concurrent_uploads=1, max_idle_seconds=0.5)
    client = connect(service)
    rows = rows_of(name)
    stalled, _ = client.do_put(upload_command(rows=3), rows.schema)
    if sent == "a batch":
        stalled.write_table(rows.slice(0, 1))
    eventually(lambda: service.slots["uploads"].taken == 1)
    eventually(lambda: outcome(lambda: send(client, rows_of(f"{name}-other"), rows=3))[0] == "ok")
    with fails("timeout", "neither sent nor took"):
        stalled.write_table(rows.slice(1) if sent == "a batch" else rows)
        stalled.done_writing()
        stalled.close()
    assert series_named(client, name) == []


def test_a_page_is_no_larger_than_what_may_be_put_together(lake_dir: Path, connect: Connect) -> None:
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, max_sorted_rows=1_000)
    lake = Lake.open(settings.lake, settings)
    service = start_flight_server(lake, settings)
    client = connect(service)
    send(client, many_rows("page", 2_000), rows=2_000)
    assert read(client, limit=1_000).num_rows == 1_000
    with fails("too_large", "limit", "1000"):
        read(client, limit=1_001)
    service.stop()
    lake.close()
