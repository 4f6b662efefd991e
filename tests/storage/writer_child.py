"""A server process of its own that writes to a shared lake: ``FOLDER NAME RUNS``, or ``FOLDER compactor``.

Waits for a line on standard input, then prints a line of JSON after each acknowledged run; a compactor compacts until
its standard input ends.
"""

from __future__ import annotations

import json
import sys
import threading

from tests.storage.lakes import Sent, hour, open_tenant, tiny_settings, upload
from timedb.contract.errors import Conflict
from timedb.contract.wire import CreateSeries
from timedb.storage import Lake, Tenant

ROWS = 3
SHARED = [f"shared-{number}" for number in range(4)]
UNITS = ("W", "kW", "MW", "GW", "Wh", "kWh", "MWh", "V", "A", "Hz")


def rows_of(name: str, run: int) -> list[Sent]:
    """The rows of a run: of one series of the writer's own, and of two that all writers share."""
    series = (name, SHARED[run % len(SHARED)], f"auto-{run}")
    return [Sent(one, hour(run), None, hour(0), float(index)) for index, one in enumerate(series)]


def disputed_unit(name: str) -> str:
    """The unit that a writer wants for a series that all of them make, each another one."""
    return UNITS[int(name.rpartition("-")[2])]


def write(tenant: Tenant, name: str, runs: int) -> None:
    """Make the shared series at the same time as everybody else, then upload run after run."""
    for series in SHARED:
        tenant.create_series(CreateSeries(name=series, unit="MW"), created_by=name)
    try:
        tenant.create_series(CreateSeries(name="disputed", unit=disputed_unit(name)), created_by=name)
    except Conflict:
        print(json.dumps({"conflict": name}), flush=True)
    for run in range(runs):
        receipt = upload(tenant, rows_of(name, run), f"{name}/{run}")
        print(json.dumps({"run_id": receipt["run_id"], "change_time": receipt["change_time"]}), flush=True)


def compact(tenant: Tenant) -> None:
    """Compact all the while."""
    done = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        done.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    buckets = 0
    while not done.wait(0.05):
        buckets += tenant.compact()["buckets"]
    print(json.dumps({"buckets": buckets}), flush=True)


def main(folder: str, name: str, runs: str = "0") -> None:
    """Open the lake, wait for the others, work."""
    lake = Lake.open(folder, tiny_settings())
    tenant = open_tenant(lake)
    print(json.dumps({"ready": name}), flush=True)
    sys.stdin.readline()
    if name == "compactor":
        compact(tenant)
    else:
        write(tenant, name, int(runs))
    lake.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
