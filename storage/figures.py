"""The figures of a tenant: how much it holds, and what upkeep has yet to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from timedb.contract.times import format_time, from_micros, now
from timedb.storage.catalog.catalog import KnownSeries
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.log import Snapshot
from timedb.storage.maintain.maintenance import Maintenance
from timedb.storage.rows.scan import is_mixed
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.schemas import TIERS

__all__ = ["figures"]


def figures(
    snapshot: Snapshot, series: KnownSeries, ledger: Ledger, upkeep: Maintenance, clock: Clock, queued: int
) -> dict[str, Any]:
    """What ``status`` says of a tenant.

    Args:
        snapshot: Of its values.
        series: All of them.
        ledger: Its runs and updates.
        upkeep: What looks after its tables.
        clock: What stamps its writes.
        queued: Writes that wait for their turn.
    """
    tiers = {tier: {"files": 0, "rows": 0, "bytes": 0} for tier in TIERS}
    for file in snapshot.files.values():
        counted = tiers[file.partition["tier"]]
        counted["files"] += 1
        counted["rows"] += max(file.rows, 0)
        counted["bytes"] += file.size
    mixed = [file for file in snapshot.files.values() if is_mixed(file)]
    newest = snapshot.transactions.get(CHANGE_TIME)
    compacted = upkeep.last_compaction
    return {
        "series": sum(not one.retired for one in series.by_id.values()),
        "rows": sum(counted["rows"] for counted in tiers.values()),
        "files": len(snapshot.files),
        "bytes": sum(counted["bytes"] for counted in tiers.values()),
        "tiers": tiers,
        "table_version": snapshot.version,
        "debts": {
            "mixed_files": len(mixed),
            "mixed_rows": sum(file.rows for file in mixed),
            "fresh_files": tiers["fresh"]["files"],
            "fresh_rows": tiers["fresh"]["rows"],
            "unwritten_records": ledger.behind,
        },
        "disk": upkeep.disk_use(),
        "commits_since_checkpoint": snapshot.version - max(snapshot.checkpoint, 0),
        "change_time": None if newest is None else format_time(from_micros(newest)),
        "change_time_ahead_seconds": 0.0 if newest is None else max(0.0, newest / 1e6 - now().timestamp()),
        "clock_fault": clock.fault,
        "clock_warning": clock.warning,
        "queued_writes": queued,
        "last_compaction": None if compacted is None else format_time(datetime.fromtimestamp(compacted, UTC)),
    }
