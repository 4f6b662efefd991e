"""Calls get what memory there is, one after the other, and are told where there is none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from timedb.contract.errors import Busy, TooLarge
from timedb.storage.memory.budget import Memory
from timedb.storage.memory.machine import available_bytes


def memory(limit: int, **fields: object) -> Memory:
    """A budget of which the process takes nothing itself."""
    return Memory(limit, 0.0, **{"measure": lambda: 0, **fields})  # type: ignore[arg-type]  # of whatever fields


def test_more_than_there_is_can_never_fit() -> None:
    with pytest.raises(TooLarge, match=r"ticket: the call takes about 65 MiB .* 64 MiB .*TIMEDB_MEMORY_LIMIT_MB"):
        memory(64 << 20).share("ticket", 65 << 20)


def test_a_share_is_another_calls_once_it_is_given_back() -> None:
    budget = memory(100)
    with budget.share("a", 60) as share:
        share.grow(30)
        assert budget.taken == 90
        with pytest.raises(Busy, match="retry"):
            budget.share("b", 11)
        with pytest.raises(TooLarge):
            share.grow(11)
    assert budget.taken == 0
    budget.share("b", 100).release()


def test_who_came_first_is_first_and_small_calls_pass() -> None:
    budget = Memory(1000, 60.0, measure=lambda: 0)
    first = budget.share("first", 900)
    order: list[str] = []

    def call(name: str, size: int) -> None:
        with budget.share(name, size):
            order.append(name)

    threads = []
    for name, size in (("large", 1000), ("middle", 50)):
        threads.append(threading.Thread(target=call, args=(name, size)))
        threads[-1].start()
        while budget.waiting < len(threads):
            pass
    call("small", 15)
    first.release()
    for thread in threads:
        thread.join()
    assert order == ["small", "large", "middle"]


def test_what_is_really_taken_counts_more_than_estimates() -> None:
    taken, spared = [0], []
    budget = memory(100, measure=lambda: taken[0], spare=lambda: spared.append(taken[0]))
    share = budget.share("a", 10)
    taken[0] = 95
    with pytest.raises(Busy):
        budget.share("b", 10)
    assert spared
    share.release()
    budget.share("b", 10).release()  # alone: what is taken now is nobody's


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/app", {"app/memory.max": "1048576\n", "memory.max": "max\n"}, 1 << 20),
        ("0::/../outside", {"memory.max": "2097152\n"}, 2 << 20),
        ("4:memory:/a/b\n0::/", {"memory/a/memory.limit_in_bytes": "4194304\n"}, 4 << 20),
    ],
)
def test_the_limit_of_the_control_group_is_the_machines(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "process").mkdir()
    (tmp_path / "process/cgroup").write_text(cgroup)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path, tmp_path / "process") == expected
    assert available_bytes(tmp_path / "none", tmp_path / "none") > 1 << 28
