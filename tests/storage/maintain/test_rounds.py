"""Many tenants have few threads: upkeep has its rounds on some that all share, and an idle lane has none."""

from __future__ import annotations

import threading
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from tests.flight_server.flights import eventually
from tests.storage.lakes import some_rows, tiny_settings, upload
from timedb.storage import Lake
from timedb.storage.commit import lane
from timedb.storage.maintain.rounds import Rounds

TENANTS = 12


def ours(before: set[threading.Thread]) -> list[str]:
    """The threads that have been started since."""
    return sorted(thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("timedb-"))


def test_idle_tenants_have_no_threads_of_their_own(lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_IDLE_SECONDS", 0.05)
    before = set(threading.enumerate())
    with closing(Lake.open(str(lake_dir), tiny_settings(records_seconds=0.01))) as lake:
        tenants = [lake.tenant(str(uuid.UUID(int=number + 1))) for number in range(TENANTS)]
        for tenant in tenants:
            upload(tenant, some_rows(3), "first")
        eventually(lambda: ours(before) == [f"timedb-upkeep-{number}" for number in range(4)])
        assert lake.fault(60.0) is None, "a lane without a thread works"
        for tenant in tenants[:3]:
            upload(tenant, some_rows(3), "second")
            assert tenant.status()["rows"] == 6
            assert tenant.compact()["rows"] == 6
    assert ours(before) == []


def test_a_lane_whose_thread_ends_loses_no_write(lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_IDLE_SECONDS", 0.0)  # it ends whenever it can
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        tenant = lake.tenant(str(uuid.UUID(int=1)))

        def write(writer: int) -> None:
            for run in range(10):
                upload(tenant, some_rows(2), f"{writer}/{run}")

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        assert tenant.status()["rows"] == 4 * 10 * 2


def test_rounds_are_few_at_once_and_none_is_forgotten() -> None:
    rounds, running, most = Rounds(threads=2), [0], [0]
    counts = dict.fromkeys(range(6), 0)
    lock, slow = threading.Lock(), threading.Event()

    def work(number: int) -> float:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if number == 0:
            slow.wait(30)
        with lock:
            running[0] -= 1
            counts[number] += 1
        return 0.0

    added = [rounds.add(lambda number=number: work(number), 0.0) for number in counts]  # type: ignore[misc]
    eventually(lambda: all(counts[number] >= 3 for number in range(1, 6)))
    assert counts[0] == 0, "one that takes long keeps no other waiting"
    slow.set()
    for each in added:
        rounds.end(each)
    rounds.close()
    assert most[0] == 2
    done = dict(counts)
    again = rounds.add(lambda: work(1), 3600.0)
    rounds.wake(again, 0.0)
    eventually(lambda: counts[1] > done[1])
    rounds.end(again)
    rounds.close()
