"""Rows that share a text hold it once: in uploads, files, reads, withdrawals and compaction."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.storage.lakes import open_tenant
from tests.storage.peak_memory import peak_growth
from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ReadTicket, RestoreRun, UploadCommand, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant

ROWS, RUNS = 20_000, 3
TEXT = "an annotation " * 700
TAGS = [f"{number:0200d}" for number in range(20)]
UNPACKED = ROWS * RUNS * (len(TEXT) + sum(map(len, TAGS)))
"""Bytes of text that the answer of a read has: far more than any step may take."""


def shared(run: int) -> pa.RecordBatch:
    """Rows of one run, all of which have the same annotation and the same tags."""
    zeros, places = pa.array(np.zeros(ROWS, np.int32)), np.arange(ROWS)
    items = pa.DictionaryArray.from_arrays(np.tile(np.arange(len(TAGS), dtype=np.int32), ROWS), TAGS)
    times = pa.array((places + run * ROWS) * 3_600_000_000).cast(pa.timestamp("us", "UTC"))
    offsets = pa.array(np.arange(ROWS + 1) * len(TAGS), pa.int32())
    return pa.RecordBatch.from_pydict(
        {
            "series_key": pa.DictionaryArray.from_arrays(zeros, ["load"]),
            "valid_time": times,
            "value": pa.array(places, pa.float64()),
            "annotation": pa.DictionaryArray.from_arrays(zeros, [TEXT]),
            "tags": pa.ListArray.from_arrays(offsets, items),
        }
    )


def send(tenant: Tenant, run: int) -> None:
    batch = shared(run)
    command = parse_object(UploadCommand, {"run_id": f"run {run}", "known_time": "2025-01-01T00:00:00Z"})
    upload = tenant.begin_upload(command, batch.schema, created_by=None)
    upload.add(batch)
    assert upload.commit(ROWS)["rows"] == ROWS


def read(tenant: Tenant, **fields: object) -> int:
    """Bytes of text in the answer."""
    ticket = parse_object(ReadTicket, {"columns": ["valid_time", "annotation", "tags"], **fields})
    found = 0
    for batch in tenant.plan_read(ticket).reader():
        found += batch.column("annotation").nbytes + batch.column("tags").nbytes
        assert batch.column("annotation")[0].as_py() == TEXT
        assert batch.column("tags")[0].as_py() == TAGS
        assert batch.nbytes < 8 << 20
    return found


def test_no_step_writes_shared_texts_out(tmp_path: Path) -> None:
    with closing(Lake.open(str(tmp_path / "lake"), load_settings(ServerSettings, maintenance_seconds=1e6))) as lake:
        tenant = open_tenant(lake)

        def every_step() -> None:
            for run in range(RUNS):
                send(tenant, run)
            assert read(tenant) > UNPACKED
            tenant.compact()
            tenant.withdraw_run(parse_object(WithdrawRun, {"run_id": "run 1"}), changed_by=None)
            assert read(tenant, as_of="2100-01-01T00:00:00Z") > UNPACKED * 0.6
            back = tenant.restore_run(parse_object(RestoreRun, {"run_id": "run 1"}), changed_by=None)
            assert back["restored"] == ROWS
            assert read(tenant, ordered=True, order_by="valid_time", view="overlapping") > UNPACKED
            tenant.compact()

        # Unpacked, each of these steps took the 836 MB of the texts two to seven times.
        assert peak_growth(every_step) < UNPACKED // 3


@pytest.mark.parametrize("count", [1001, 3_000_000])
def test_a_row_has_so_many_tags(tenant: Tenant, count: int) -> None:
    tags = pa.ListArray.from_arrays([0, 1, count + 1], pa.nulls(count + 1, pa.string()))
    batch = shared(0).slice(0, 2).select(["series_key", "valid_time", "value"]).append_column("tags", tags)
    upload = tenant.begin_upload(parse_object(UploadCommand, {}), batch.schema, created_by=None)

    def written() -> None:
        upload.add(batch)
        upload.commit(2)  # rows of a small upload are looked at together, in their turn

    with pytest.raises(InvalidRequest, match=f"tags: row 1: {count} tags are more than 1000"):
        written()
    upload.abort()
