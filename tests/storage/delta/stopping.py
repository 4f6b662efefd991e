"""A server in a process of its own, which stands still while another one cleans the log, and then goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.storage import Lake

__all__ = ["stop_and_wake"]

_SERVER = """
import sys
from datetime import timedelta
from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.contract.times import now
from timedb.storage import Lake
from timedb.storage.commit import lane
from timedb.storage.delta import table
wrong = timedelta(seconds=float(sys.argv[2]))
lane.now = lambda: now() + wrong
table._UNSEEN_SECONDS = 0.0  # the other one keeps no commit for even a second
lake = Lake.open(sys.argv[1], tiny_settings())
tenant = open_tenant(lake)
for run in sys.stdin:
    print(upload(tenant, some_rows(3), run.strip())["rows"], len(read(tenant)), flush=True)
"""


def stop_and_wake(uri: str, commits: Callable[[], set[int]], *, clock_seconds: float = 0.0, turns: int = 2) -> None:
    """Stop a server, let another write and clean the log until the name of the first one's next commit is free again.

    Whatever the first does as soon as it wakes, nothing that either has acknowledged is lost.

    Args:
        uri: Where the lake is made.
        commits: The versions of which the log of the values has a commit.
        clock_seconds: How far the clock that stamps is wrong in the server that is stopped.
        turns: How often.
    """
    settings = tiny_settings(log_retention_hours=0, retention_hours=0)
    command = [sys.executable, "-c", _SERVER, uri, str(clock_seconds)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    with server, closing(Lake.open(uri, settings)) as other:
        expected = Counter({"asleep/0": 3})
        server.stdin.write("asleep/0\n")
        server.stdin.flush()
        assert server.stdout.readline() == "3 3\n"
        try:
            for turn in range(1, turns + 1):
                server.send_signal(signal.SIGSTOP)
                following = max(commits()) + 1
                server.stdin.write(f"asleep/{turn}\n")  # what it will do as soon as it wakes
                server.stdin.flush()
                for run in range(4):
                    upload(open_tenant(other), some_rows(3), f"awake/{turn}/{run}")
                    open_tenant(other).maintain()
                    expected[f"awake/{turn}/{run}"] = 3
                assert following not in commits(), "the name of its next commit is free again"
                server.send_signal(signal.SIGCONT)
                expected[f"asleep/{turn}"] = 3
                assert server.stdout.readline() == f"3 {expected.total()}\n"
                audit = read(open_tenant(other))
                assert Counter(row.run_id for row in audit) == expected
                stamps = {row.run_id: row.change_time for row in audit}
                assert stamps[f"asleep/{turn}"] > stamps[f"awake/{turn}/3"], "whatever the clocks say"
        except BaseException:
            server.kill()
            raise
        server.stdin.close()
    assert Lake.doctor(uri) == []
