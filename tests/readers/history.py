"""A small lake with all that a direct reader can meet: tiers, corrections, a withdrawn run, intervals, far times."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.storage.lakes import Sent, hour, open_tenant, tiny_settings, upload
from tests.storage.operations import correct, write_history
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import MAX_MICROS
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

__all__ = ["EMAIL", "write_lake"]

EMAIL = "ann@example.com"


def write_lake(folder: Path) -> str:
    """Make the lake: compacted files, a checkpoint, fresh ones after it; the API key of its user."""
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        write_history(tenant)
        intervals = [
            Sent("hydro", hour(at), hour(at + 1) if at % 3 else None, hour(2), at / 4, f"note {at}" if at % 2 else None)
            for at in range(9)
        ]
        upload(
            tenant,
            [*intervals, Sent("hydro", MAX_MICROS - 400, MAX_MICROS, hour(3), 7.25, None, ("far",))],
            "intervals",
        )
        tenant.maintain()
        upload(
            tenant,
            [Sent("hydro", hour(at), None, hour(4), at * 10.0, None, ("fresh", "two")) for at in range(3)],
            "fresh",
        )
        correct(tenant, "third", 12.5, "after compaction")
        return str(
            lake.create_user(NewUser(email=EMAIL, tenant_id=OPEN_TENANT_ID, scopes=["read", "write", "admin"]))[
                "api_key"
            ]
        )
