"""A server that stands still while another cleans the log, and then goes on: nothing acknowledged is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.storage import Lake

_SERVER = """
import sys
from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.storage import Lake
lake = Lake.open(sys.argv[1], tiny_settings())
tenant = open_tenant(lake)
for run in sys.stdin:
    print(upload(tenant, some_rows(3), run.strip())["rows"], len(read(tenant)), flush=True)
"""


def test_a_stopped_server_commits_into_no_hole(lake_dir: Path) -> None:
    settings = tiny_settings(log_retention_hours=0, retention_hours=0)
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(lake_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server, closing(Lake.open(str(lake_dir), settings)) as other:
        expected = Counter({"asleep/0": 3})
        server.stdin.write("asleep/0\n")
        server.stdin.flush()
        assert server.stdout.readline() == "3 3\n"
        log = next((lake_dir / "tenants").rglob("values/_delta_log"))
        try:
            for turn in (1, 2):
                server.send_signal(signal.SIGSTOP)
                following = int(max(log.glob("*.json")).stem) + 1
                server.stdin.write(f"asleep/{turn}\n")  # what it will do as soon as it wakes
                server.stdin.flush()
                for run in range(4):
                    upload(open_tenant(other), some_rows(3), f"awake/{turn}/{run}")
                    open_tenant(other).maintain()
                    expected[f"awake/{turn}/{run}"] = 3
                assert not (log / f"{following:020d}.json").exists(), "the name of its next commit is free again"
                server.send_signal(signal.SIGCONT)
                expected[f"asleep/{turn}"] = 3
                assert server.stdout.readline() == f"3 {expected.total()}\n"
                assert Counter(row.run_id for row in read(open_tenant(other))) == expected
        except BaseException:
            server.kill()
            raise
        server.stdin.close()
    assert Lake.doctor(str(lake_dir)) == []
