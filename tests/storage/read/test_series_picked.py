"""Reads of some series out of files that hold others: from the row groups that may hold them, and from kept rows."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.storage.lakes import open_tenant, read_table, tiny_settings, upload
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.storage import Lake, Tenant

ROWS = 45_000  # of a series: a row group of a settled file ends within one
START = datetime(2025, 1, 1, tzinfo=UTC)
COLUMNS = ["series_key", "valid_time", "value"]


def neighbours(wanted: int) -> list[str]:
    """Names of series that share a bucket, in the order of their ids."""
    ids = ((series_id_for(OPEN_TENANT_ID, f"s{number}", {}), f"s{number}") for number in count())
    return [name for _, name in sorted(islice((pair for pair in ids if pair[0].startswith("5")), wanted))]


NAMES = neighbours(4)


@cache
def sent(runs: int) -> pl.DataFrame:
    """Runs of all series, the second of which revises every other value."""
    hours = np.tile(np.arange(ROWS), len(NAMES))
    frames = [
        pl.DataFrame(
            {
                "series_key": np.repeat(NAMES, ROWS),
                "valid_time": hours,
                "known_time": np.full(len(hours), run),
                "value": np.arange(len(hours), dtype=np.float64) + run * 1_000_000,
            }
        ).filter((pl.lit(run) == 0) | (pl.col("valid_time") % 2 == 0))
        for run in range(runs)
    ]
    start = pl.lit(START).dt.cast_time_unit("us")
    return pl.concat(frames).with_columns(
        (start + pl.duration(hours=pl.col(name))).alias(name) for name in ("valid_time", "known_time")
    )


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows, compacted."""
    folder: Path = tmp_path_factory.mktemp("picked") / "lake"
    large = dict.fromkeys(("upload_chunk_rows", "compact_input_rows", "compact_file_rows"), 1 << 20)
    with closing(Lake.open(str(folder), tiny_settings(**large))) as lake:
        tenant = open_tenant(lake)
        upload(tenant, sent(2).to_arrow(compat_level=pl.CompatLevel.oldest()))
        tenant.compact()
        yield tenant


def truth(view: str, names: list[str], start: int, end: int) -> pl.DataFrame:
    """What a read answers."""
    rows = sent(2).filter(
        pl.col("series_key").is_in(names),
        pl.col("valid_time") >= START + timedelta(hours=start),
        pl.col("valid_time") < START + timedelta(hours=end),
    )
    if view == "flat":
        rows = rows.sort("known_time").group_by("series_key", "valid_time").last()
    return rows.select(COLUMNS).sort(COLUMNS)


@pytest.mark.parametrize("view", ["flat", "overlapping"])
@pytest.mark.parametrize("names", [NAMES[:1], NAMES[2:3], NAMES[1:3], [NAMES[0], NAMES[3]]], ids=len)
@pytest.mark.parametrize(("start", "end"), [(0, ROWS), (10_000, 30_000), (100, 200)])
def test_the_rows_of_some_series(tenant: Tenant, view: str, names: list[str], start: int, end: int) -> None:
    bounds: dict[str, Any] = {}
    if end - start < ROWS:
        bounds = {"start_valid": START + timedelta(hours=start), "end_valid": START + timedelta(hours=end)}
    for _ in range(2):  # again from what is kept, where it is
        found: pa.Table = read_table(tenant, view=view, series_keys=names, columns=COLUMNS, **bounds)
        answer = pl.DataFrame(found).with_columns(pl.col("series_key").cast(pl.String)).sort(COLUMNS)
        assert answer.equals(truth(view, names, start, end).cast({"valid_time": answer.schema["valid_time"]}))
        read_table(tenant, view=view, columns=COLUMNS)  # which keeps whole files
