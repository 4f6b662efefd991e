"""What is kept of files goes with them."""

from __future__ import annotations

from tests.storage.lakes import open_tenant, read_table, some_rows, upload
from timedb.storage import Lake


def test_what_compaction_has_replaced_is_kept_no_longer(lake: Lake) -> None:
    tenant = open_tenant(lake)
    for number in range(20):
        upload(tenant, some_rows(6, known=number), f"run {number}")
        read_table(tenant)
        read_table(tenant, columns=["valid_time", "value"])
        if number % 5 == 4:
            tenant.compact()
    read_table(tenant)
    live = len(tenant.values.snapshot().files)
    # Two reads of other columns: of each live file they are kept twice, and its last rows.
    assert 0 < lake.memory.cache.entries <= 3 * live
    assert live < 20
