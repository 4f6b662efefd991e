"""Many tenants of one server, each of which calls once: ``python -m tests.soak.tenants 1000``.

Prints what they cost in threads and memory while they come, a minute after the last call, and once closed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import uuid

from tests.soak.sampling import status_of
from tests.storage.lakes import some_rows, upload
from timedb.contract.settings import ServerSettings, load_settings
from timedb.storage import Lake

_IDLE_SECONDS = 75.0
_WATCHED_SECONDS = 20.0


def main(tenants: int) -> None:
    """Have so many tenants upload 24 rows each, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(f"{folder}/lake", load_settings(ServerSettings, lake=f"{folder}/lake"))
        _tell("before")
        began, most = time.monotonic(), 0
        for number in range(tenants):
            upload(lake.tenant(str(uuid.UUID(int=number + 1))), some_rows(24), "first")
            most = max(most, threading.active_count())
        _tell(f"{tenants} tenants in {time.monotonic() - began:.0f} s, at most {most} threads")
        time.sleep(_IDLE_SECONDS)
        spent = time.process_time()
        time.sleep(_WATCHED_SECONDS)
        _tell(f"idle, {(time.process_time() - spent) / _WATCHED_SECONDS:.1%} of a processor")
        lake.close()
        _tell("closed")


def _tell(when: str) -> None:
    print(f"{when}: {threading.active_count()} threads, {status_of(os.getpid())['VmRSS'] >> 10} MiB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
