"""Compaction works slice by slice, settles each row as if it had seen all of them at once, and checks what it wrote."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import (
    Sent,
    hour,
    open_tenant,
    read,
    scan_table,
    some_rows,
    tiny_settings,
    upload,
)
from tests.storage.operations import copy_lake, correct
from timedb.contract.errors import Internal
from timedb.contract.times import from_micros
from timedb.contract.wire import WithdrawRun
from timedb.storage import Lake, Tenant
from timedb.storage.maintain import compaction
from timedb.storage.rows.rows import in_file_order
from timedb.storage.rows.scan import scan
from timedb.storage.rows.settling import Tiers, assign_tiers
from timedb.storage.rows.slices import Slice, cut_slices

ROWS_AT_ONCE = 12
LARGE = 1_000_000


def history(tenant: Tenant) -> None:
    """Revisions, corrections and a withdrawal before and after a first compaction; one hour has very many revisions."""
    upload(tenant, some_rows(60, known=0, value=0.0), "first")
    upload(tenant, some_rows(60, known=10, value=10.0), "second", known_time=from_micros(hour(10)))
    upload(tenant, some_rows(30, known=5, value=5.0), "wrong")
    tenant.compact()
    correct(tenant, "second", 11.5, "of settled rows")
    tenant.withdraw_run(WithdrawRun(run_id="wrong", reason="bad weather"), changed_by=None)
    intervals = [Sent(row[0], row[1], hour(99), *row[3:]) for row in some_rows(12, known=10, value=3.0)]
    upload(tenant, intervals, "third")
    crowded = [Sent(f"crowd-{number}", hour(3), None, hour(number % 3), float(number)) for number in range(120)]
    upload(tenant, crowded, "crowd")
    revisions = [Sent("east", hour(8), None, hour(known), float(known)) for known in range(3 * ROWS_AT_ONCE)]
    upload(tenant, revisions, "one point")
    upload(tenant, some_rows(40, known=20, value=20.0, first=4), "third of all")
    correct(tenant, "third of all", 7.0, "of fresh rows")


@pytest.fixture(scope="module")
def uncompacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with that history."""
    folder = tmp_path_factory.mktemp("history") / "lake"
    with closing(Lake.open(str(folder), tiny_settings(compact_input_rows=LARGE, upload_chunk_rows=500))) as lake:
        history(open_tenant(lake))
    return folder


def test_slices_are_settled_as_the_whole_is(uncompacted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights: list[int] = []

    def watched(rows: pa.Table, tiers: Tiers) -> Tiers:
        heights.append(rows.num_rows)
        return assign_tiers(rows, tiers)

    monkeypatch.setattr(compaction, "assign_tiers", watched)
    tiers, most = [], []
    for input_rows in (LARGE, ROWS_AT_ONCE):
        folder = tmp_path / str(input_rows)
        copy_lake(uncompacted, folder)
        settings = tiny_settings(compact_input_rows=input_rows, compact_file_rows=30)
        with closing(Lake.open(str(folder), settings)) as lake:
            tenant = open_tenant(lake)
            before = {view: Counter(read(tenant, view, all_versions=False)) for view in ("flat", "overlapping")}
            audit = Counter(read(tenant))
            heights.clear()
            assert tenant.compact()["rows"] > 100
            assert {view: Counter(read(tenant, view, all_versions=False)) for view in before} == before
            assert Counter(read(tenant)) == audit
            assert list(disagreements(tenant, folder)) == []
            assert left_behind(folder) == []
        tiers.append(Counter(scan_table(folder, "values").select(pl.exclude("tags")).iter_rows()))
        most.append(max(heights))
    assert tiers[0] == tiers[1], "the tiers are the same"
    assert most[0] > 10 * ROWS_AT_ONCE
    assert most[1] <= 5 * ROWS_AT_ONCE, "only one point's rows were held at once beyond the limit"


def test_files_have_about_the_rows_that_they_should(uncompacted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    copy_lake(uncompacted, folder)
    with closing(Lake.open(str(folder), tiny_settings(compact_input_rows=8, compact_file_rows=16))) as lake:
        tenant = open_tenant(lake)
        tenant.compact()
        files = tenant.values.snapshot().files.values()
        assert max(file.rows for file in files) <= 32
        tiers = Counter((file.partition["series_bucket"], file.partition["tier"]) for file in files if file.rows < 4)
        assert max(tiers.values(), default=0) <= 3, "slices are gathered into files"


def test_rows_that_would_be_lost_are_noticed(
    uncompacted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lake"
    copy_lake(uncompacted, folder)
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        audit = Counter(read(tenant))
        for wrong in (
            lambda rows: in_file_order(rows).slice(1),
            lambda rows: pa.concat_tables([in_file_order(rows), rows.slice(0, 1)]),
            lambda rows: in_file_order(rows).set_column(5, "value", pc.add(in_file_order(rows)["value"], 1.0)),
            lambda rows: in_file_order(rows).set_column(3, "known_time", in_file_order(rows)["change_time"]),
        ):
            monkeypatch.setattr(compaction, "in_file_order", wrong)
            with pytest.raises(Internal, match="would change its rows"):
                tenant.compact()
            assert left_behind(folder) == []
        monkeypatch.setattr(compaction, "in_file_order", in_file_order)
        assert Counter(read(tenant)) == audit
        assert tenant.compact()["rows"] > 0


@pytest.mark.parametrize("most_rows", [5, 17, 1000])
def test_each_row_is_in_one_slice(uncompacted: Path, most_rows: int) -> None:
    with closing(Lake.open(str(uncompacted), tiny_settings())) as lake:
        table = open_tenant(lake).values
        files = list(table.snapshot().files.values())
        slices = cut_slices(table.store, files, most_rows)
        found = []
        for piece in slices:
            rows = scan(table.store, [file for file in files if piece.may_hold(file)], piece.predicates()).collect(
                engine="in-memory"
            )
            points = rows.select("series_id", "valid_time").n_unique()
            assert rows.height <= most_rows or points == 1
            found.append(rows)
        everything = scan(table.store, files).collect(engine="in-memory")
        keys = ["series_id", "valid_time", "valid_time_end", "known_time", "change_time", "run_id"]
        assert pl.concat(found).select(keys).sort(keys).equals(everything.select(keys).sort(keys))
        assert (slices == [Slice()]) is (most_rows == 1000)
