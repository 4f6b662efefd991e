"""Corrections in tests: two runs that they are about, short to write and to look at."""

from __future__ import annotations

import random
from typing import Any

from tests.storage.lakes import (
    Sent,
    Stored,
    hour,
    read,
    read_table,
    upload,
)
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.times import from_micros
from timedb.contract.wire import UpdateValues, WithdrawRun, parse_object
from timedb.storage import Tenant

SOUTH, EAST = (series_id_for(OPEN_TENANT_ID, name, None) for name in ("south", "east"))
OTHER_TENANT = "11111111-1111-1111-1111-111111111111"
T1, T2 = from_micros(hour(1)), from_micros(hour(2))


def update(tenant: Tenant, *updates: dict[str, Any], changed_by: str | None = None, **fields: Any) -> dict[str, Any]:
    """Correct values."""
    message = parse_object(UpdateValues, {"updates": list(updates), **fields})
    return tenant.update_values(message, changed_by=changed_by)


def withdraw(tenant: Tenant, run_id: str, changed_by: str | None = None, **fields: Any) -> int:
    """Withdraw a run."""
    message = parse_object(WithdrawRun, {"run_id": run_id, **fields})
    return int(tenant.withdraw_run(message, changed_by=changed_by)["withdrawn"])


def correct_some(tenant: Tenant, revisions: list[tuple[Any, ...]], dice: random.Random) -> None:
    """Correct or retract revisions; each is (run_id, series_id, valid_time, valid_time_end, known_time)."""
    updates = []
    for run_id, series_id, *times in revisions:
        names = ("valid_time", "valid_time_end", "known_time")
        address = {name: None if time is None else from_micros(time) for name, time in zip(names, times, strict=True)}
        change: dict[str, Any] = dice.choice([{"value": 4.5}, {"value": None}, {"retracted": True}])
        updates.append({"run_id": run_id, "series_id": series_id, **address, **change})
    update(tenant, *updates)


def flat(tenant: Tenant) -> dict[tuple[str, int], float | None]:
    """The values of the flat view by series and hour, intervals left out."""
    columns = ["series_key", "valid_time", "valid_time_end", "value"]
    rows = [row for row in read_table(tenant, columns=columns).to_pylist() if row["valid_time_end"] is None]
    start = from_micros(hour(0))
    return {(row["series_key"], (row["valid_time"] - start).seconds // 3600): row["value"] for row in rows}


def write_two_runs(tenant: Tenant) -> None:
    """Upload them."""
    for run, known in (("old", 0), ("new", 10)):
        rows = [
            Sent(series, hour(number), None, hour(known), float(known + number), "noted", ("t",))
            for series in ("south", "east")
            for number in (1, 2)
        ]
        upload(tenant, rows, run, known_time=from_micros(hour(known)))
    upload(tenant, [Sent("south", hour(1), hour(2), None, 50.0)], "interval", known_time=from_micros(hour(5)))


def versions(tenant: Tenant, run_id: str, number: int = 1, series: str = "south") -> list[Stored]:
    """The chain of one row, oldest first."""
    rows = [row for row in read(tenant) if (row.run_id, row.valid_time, row.series) == (run_id, hour(number), series)]
    return sorted(rows, key=lambda row: row.change_time)


# Which row
