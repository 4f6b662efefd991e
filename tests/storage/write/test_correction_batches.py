"""Batches of corrections: a retry of one, what is kept of it, and what is written while it waits for its turn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from tests.behaviour.oracle import float_bits
from tests.storage.correcting import SOUTH, T1, T2, flat, update, versions, withdraw
from tests.storage.lakes import (
    Sent,
    hour,
    open_tenant,
    some_rows,
    tiny_settings,
    upload,
    while_held,
)
from timedb.contract.errors import Conflict
from timedb.contract.times import from_micros
from timedb.storage import Lake, Tenant
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.store import Store
from timedb.storage.rows.scan import scan
from timedb.storage.tables.schemas import UPDATES


def test_an_update_id_makes_a_retry_safe(two_runs: Tenant, lake_dir: Path) -> None:
    items = [
        {"run_id": "new", "series_id": SOUTH, "valid_time": T1, "value": 1.0},
        {"run_id": "new", "series_id": SOUTH, "valid_time": T2, "value": 12.0},
    ]
    first = update(two_runs, *items, update_id="fix")
    assert (len(first["updated"]), len(first["skipped_no_ops"])) == (1, 1)
    update(two_runs, {**items[0], "value": 2.0})
    assert update(two_runs, *items, update_id="fix") == first
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other:
        assert update(open_tenant(other), *items, update_id="fix") == first
    assert [row.value for row in versions(two_runs, "new")] == [float_bits(value) for value in (11.0, 1.0, 2.0)]
    with pytest.raises(Conflict, match=r"^update_id: 'fix' has been used already"):
        update(two_runs, items[0], update_id="fix")


def test_the_record_of_a_batch_does_not_grow_with_it(tenant: Tenant) -> None:
    """A retry is answered from the rows as they were, whatever has become of them since."""
    upload(tenant, some_rows(1000, series=["south"]), run_id="long")
    tenant.records.write()
    items = [
        {"run_id": "long", "series_id": SOUTH, "valid_time": from_micros(hour(time)), "value": float(time % 3)}
        for time in range(1000)
    ]
    first = update(tenant, *items, items[0], {**items[1], "value": -1.0}, update_id="many")
    assert len(first["updated"]) + len(first["skipped_no_ops"]) == 1000
    assert len(first["updated"]) > 600, "so that both lists hold some"
    assert len(first["skipped_no_ops"]) > 0
    (record,) = tenant.ledger.updates.scan().collect().to_dicts()
    assert record["rows"] == len(first["updated"])
    assert sum(len(str(field)) for field in record.values()) < 250
    log = tenant.values.store.read(f"_delta_log/{tenant.values.snapshot().version:020d}.json")
    assert len(log) < 2500, "neither does its commit"
    update(tenant, *({**item, "value": 7.0} for item in items[:500]))
    withdraw(tenant, "long")
    for _ in range(2):
        assert update(tenant, *items, items[0], {**items[1], "value": -1.0}, update_id="many") == first
        tenant.maintain()


def test_a_batch_that_made_rows_is_answered_as_the_first_time(two_runs: Tenant) -> None:
    item = {"run_id": "new", "series_id": SOUTH, "valid_time": from_micros(hour(77)), "value": 5.0}
    first = update(two_runs, item, update_id="new row")
    update(two_runs, {**item, "value": 6.0}, update_id="its correction")
    assert update(two_runs, item, update_id="new row") == first
    assert update(two_runs, {**item, "value": 6.0}, update_id="its correction") == first, "the same row"


def test_a_record_that_holds_the_whole_answer_is_what_a_retry_gets(two_runs: Tenant, lake_dir: Path) -> None:
    """Release 0.1 wrote such ones."""
    item = {"run_id": "new", "series_id": SOUTH, "valid_time": T1, "value": 5.0}
    update(two_runs, item, update_id="old")
    upload(two_runs, some_rows(1), run_id="later")  # so that both tables are beyond the batch
    two_runs.records.write()
    (record,) = two_runs.ledger.updates.scan().collect().to_dicts()
    answer = {"updated": [{"value_id": "kept"}], "skipped_no_ops": []}
    table = two_runs.ledger.updates.table
    rows = pa.Table.from_pylist([{**record, "receipt": json.dumps(answer)}], schema=UPDATES)
    before = table.snapshot()
    adds = [write_file(table.store, rows, {})]
    assert table.commit(before, adds=adds, removes=list(before.files.values())) is not None
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other:
        assert update(open_tenant(other), item, update_id="old") == answer


def test_without_an_update_id_a_repetition_changes_nothing(two_runs: Tenant) -> None:
    item = {"run_id": "new", "series_id": SOUTH, "valid_time": T1, "value": 1.0}
    assert len(update(two_runs, item)["updated"]) == 1
    assert len(update(two_runs, item)["skipped_no_ops"]) == 1
    assert len(versions(two_runs, "new")) == 2


def test_what_is_written_while_a_batch_waits_counts(two_runs: Tenant) -> None:
    newer = Sent("south", hour(1), None, hour(20), 99.0, None, None)
    _, answer = while_held(
        two_runs,
        lambda: upload(two_runs, [newer], "newest"),
        lambda: update(two_runs, {"series_id": SOUTH, "valid_time": T1, "value": 1.5}),
    )
    assert [item["run_id"] for item in answer["updated"]] == ["newest"]
    assert flat(two_runs)["south", 1] == 1.5


def test_rows_whose_files_are_replaced_while_a_batch_waits_are_found(two_runs: Tenant) -> None:
    before = two_runs.values.snapshot().files.keys()
    _, answer = while_held(
        two_runs,
        two_runs.upkeep.compact,
        lambda: update(two_runs, {"series_id": SOUTH, "valid_time": T1, "run_id": "old", "value": 1.5}),
    )
    assert len(answer["updated"]) == 1
    assert not before & two_runs.values.snapshot().files.keys()
    assert [row.value for row in versions(two_runs, "old")] == [float_bits(1.0), float_bits(1.5)]


def test_in_its_turn_a_batch_reads_only_files_that_came_since(
    two_runs: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_then: list[list[str]] = []

    def counted(store: Store, files: Iterable[DataFile], predicates: Sequence[pl.Expr]) -> pl.LazyFrame:
        files = list(files)
        read_then.append([file.path for file in files])
        return scan(store, files, predicates)

    monkeypatch.setattr("timedb.storage.write.corrections.scan", counted)
    change = {"series_id": SOUTH, "valid_time": T1, "value": 1.5}
    update(two_runs, change)
    assert len(read_then) == 1, "before its turn"
    live = two_runs.values.snapshot().files.keys()
    newer = Sent("south", hour(1), None, hour(20), 99.0, None, None)
    read_then.clear()
    while_held(two_runs, lambda: upload(two_runs, [newer], "newest"), lambda: update(two_runs, change))
    ahead, in_turn = read_then
    assert ahead
    assert in_turn
    assert not live & set(in_turn)
