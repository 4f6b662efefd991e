"""A file that is stamped after it was encoded is read by everybody as if it had been written so."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.storage.lakes import (
    hour,
)
from timedb.contract.times import from_micros
from timedb.storage.delta.parquet import UPLOAD_PREFIX, restamp, stage_file
from timedb.storage.delta.store import LocalStore
from timedb.storage.rows.rows import ROWS
from timedb.storage.rows.stamping import StampedRun, stamped


@pytest.mark.parametrize("count", [1, 1000, 300_000], ids=lambda count: f"{count} rows")
def test_a_restamped_file_is_read_by_everybody(tmp_path: Path, count: int) -> None:
    frame = pl.DataFrame(
        {
            "series": pl.int_range(count, dtype=pl.Int32, eager=True) // 1000,
            "valid_time": pl.int_range(count, eager=True).cast(pl.Datetime("us", "UTC")),
            "valid_time_end": pl.Series([None] * count, dtype=pl.Datetime("us", "UTC")),
            "known_time": pl.Series([7] * count).cast(pl.Datetime("us", "UTC")),
            "value": pl.int_range(count, eager=True).cast(pl.Float64),
        }
    )
    ids = [f"{number:036d}" for number in range(count // 1000 + 1)]
    store, old, new = LocalStore(tmp_path), hour(0), hour(5) + 123_456
    rows = frame.to_arrow()
    for name in ("annotation", "tags"):
        rows = rows.append_column(name, pa.nulls(count, ROWS.field(name).type))
    table = stamped([StampedRun(rows, ids, old, "run", None)])
    file = stage_file(store, table, {"series_bucket": "0", "tier": "fresh"}, UPLOAD_PREFIX)
    before = pq.read_table(tmp_path / file.path, partitioning=None)
    restamped = restamp(store, file, old, new)

    assert (restamped.path, restamped.rows, restamped.size) == (file.path, count, (tmp_path / file.path).stat().st_size)
    assert int(restamped.minimum["change_time"]) <= new <= int(restamped.maximum["change_time"])
    path = str(tmp_path / file.path)
    by_pyarrow = pq.read_table(path, partitioning=None)
    assert by_pyarrow.drop(["change_time"]).equals(before.drop(["change_time"]))
    for stamps in (
        by_pyarrow.column("change_time").cast(pa.int64()).unique().to_pylist(),
        pl.scan_parquet(path, hive_partitioning=False)
        .select(pl.col("change_time").to_physical())
        .unique()
        .collect(engine="in-memory")["change_time"]
        .to_list(),
        [row[0] for row in duckdb.sql(f"SELECT DISTINCT epoch_us(change_time) FROM '{path}'").fetchall()],
    ):
        assert stamps == [new]
    found = pl.scan_parquet(path, hive_partitioning=False).filter(change_time=from_micros(new))
    assert found.select(pl.len()).collect(engine="in-memory").item() == count
    query = f"SELECT count(*) FROM '{path}' WHERE change_time >= TIMESTAMPTZ '{from_micros(new).isoformat()}'"
    assert duckdb.sql(query).fetchall() == [(count,)]
