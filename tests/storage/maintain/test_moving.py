"""Small writes lie together until upkeep moves them: a file whole, a correction never before what it corrects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.storage.inspection import disagreements, left_behind
from tests.storage.lakes import SERIES, Sent, hour, open_tenant, read, some_rows, tiny_settings, upload
from tests.storage.operations import correct
from timedb.contract.errors import Internal
from timedb.contract.identity import OPEN_TENANT_ID, series_bucket, series_id_for
from timedb.contract.times import from_micros
from timedb.contract.wire import ReadTicket, WithdrawRun
from timedb.storage import Lake, Tenant
from timedb.storage.maintain import moving
from timedb.storage.maintain.moving import Mover
from timedb.storage.rows.rows import in_file_order

BUCKETS = {series_bucket(series_id_for(OPEN_TENANT_ID, name, None)) for name in SERIES}


def places(tenant: Tenant) -> Counter[tuple[str, str, str]]:
    """How many files lie where, and what they hold."""
    return Counter(
        (file.partition["series_bucket"], file.partition["tier"], file.path.rpartition("/")[2].partition("-")[0])
        for file in tenant.values.snapshot().files.values()
    )


def mover(tenant: Tenant, *, input_rows: int = 30) -> Mover:
    """The mover of a tenant, on a server of its own."""
    return Mover(tenant.values, tenant.lane, bucket_digits=tenant.bucket_digits, input_rows=input_rows)


def views(tenant: Tenant) -> list[Any]:
    """All that is read of a tenant."""
    return [
        Counter(read(tenant, view, all_versions=every)) for view in ("flat", "overlapping") for every in (False, True)
    ]


def test_small_commits_are_a_file_each_and_large_ones_a_file_a_bucket(lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings(mixed_rows=18, bulk_rows=100, upload_chunk_rows=100))) as lake:
        tenant = open_tenant(lake)
        for number in range(3):
            upload(tenant, some_rows(18, known=number), f"small-{number}")
        upload(tenant, some_rows(19, known=9), "large")
        correct(tenant, "small-0", 5.0, "mistyped")
        assert places(tenant) == {
            ("mixed", "fresh", "upload"): 3,
            ("mixed", "fresh", "correction"): 1,
            **{(bucket, "fresh", "upload"): 1 for bucket in BUCKETS},
        }
        before = views(tenant)
        assert mover(tenant, input_rows=1000).move() == (4, 2 + 1)
        corrected = series_bucket(tenant.catalog.known().find(SERIES[0])[0].series_id)
        assert places(tenant) == {
            **{(bucket, "fresh", "upload"): 2 for bucket in BUCKETS},
            (corrected, "fresh", "correction"): 1,
        }
        assert views(tenant) == before
        assert list(disagreements(tenant, lake_dir)) == []
        assert left_behind(lake_dir) == []


def test_small_files_are_gathered_with_their_like(lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for number in range(4):
            upload(tenant, some_rows(6, known=number, first=4), f"run-{number}")
        correct(tenant, "run-0", 5.0, "mistyped")
        before = views(tenant)
        mover(tenant, input_rows=1000).gather(5)
        assert places(tenant)["mixed", "fresh", "upload"] == 4, "not enough of them"
        mover(tenant, input_rows=1000).gather(4)
        assert places(tenant) == {("mixed", "fresh", "upload"): 1, ("mixed", "fresh", "correction"): 1}
        assert views(tenant) == before
        for number in range(3):
            upload(tenant, some_rows(6, known=10 + number), f"later-{number}")
        mover(tenant, input_rows=20).gather(4)
        assert places(tenant)["mixed", "fresh", "upload"] == 4, "what is worked on at once is one file"
        before = views(tenant)
        mover(tenant, input_rows=1000).gather(4)
        assert views(tenant) == before
        tenant.compact()
        assert views(tenant) == before
        assert not [place for place in places(tenant) if place[0] == "mixed"]
        assert list(disagreements(tenant, lake_dir)) == []
        assert left_behind(lake_dir) == []


def test_no_part_is_mixed_and_each_row_is_in_one(tenant: Tenant) -> None:
    upload(tenant, some_rows(9), "run")
    plan = tenant.plan_read(ReadTicket(view="overlapping"))
    parts = [part.ticket for part in plan.parts]
    assert {ticket.bucket for ticket in parts} == BUCKETS
    assert plan.in_one_part.rows == 9
    found = [tenant.plan_read(ticket).reader().read_all() for ticket in parts]
    assert sum(part.num_rows for part in found) == 9
    for ticket, part in zip(parts, found, strict=True):
        column = part.column("series_id").combine_chunks()
        assert {series_id[0] for series_id in column.dictionary.to_pylist()} == {ticket.bucket}


def test_a_correction_waits_for_the_row_that_it_corrects(lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(mixed_rows=2, bulk_rows=100, compact_input_rows=1000)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        rows = [Sent("a", hour(number), None, hour(0), float(number)) for number in range(4)]
        for number, row in enumerate(rows):
            upload(tenant, [row], f"run-{number}", known_time=from_micros(hour(0)))
        upload(tenant, [row._replace(known_time=hour(5), value=0.0) for row in rows], "later")
        tenant.withdraw_run(WithdrawRun(run_id="later"), changed_by=None)
        before = views(tenant)
        bucket = series_bucket(tenant.catalog.known().find("a")[0].series_id)
        # As where another server's uploads come between a move and the compaction that follows it.
        monkeypatch.setattr(Mover, "move", lambda self: (0, 0))
        tenant.compact()
        assert places(tenant)[bucket, "fresh", "correction"] == 1
        assert views(tenant) == before
        monkeypatch.undo()
        tenant.compact()
        assert not [place for place in places(tenant) if place[1] == "fresh"]
        assert views(tenant) == before
        assert list(disagreements(tenant, lake_dir)) == []


@pytest.mark.parametrize(
    ("step", "work", "answer"),
    [("_write", Mover.move, (0, 0)), ("_write_one", lambda slow: slow.gather(2), None)],
    ids=["a move", "a gathering"],
)
def test_of_two_servers_the_faster_moves_each_row(
    lake_dir: Path, step: str, work: Callable[[Mover], object], answer: object
) -> None:
    with (
        closing(Lake.open(str(lake_dir), tiny_settings())) as lake,
        closing(Lake.open(str(lake_dir), tiny_settings())) as other,
    ):
        tenant, second = open_tenant(lake), open_tenant(other)
        for number in range(4):
            upload(tenant, some_rows(6, known=number), f"run-{number}")
        before = views(tenant)

        def overtaken(self: Mover, *args: Any) -> None:
            getattr(Mover, step)(self, *args)
            mover(second).move()

        slow = type("Overtaken", (Mover,), {step: overtaken})
        assert work(slow(tenant.values, tenant.lane, bucket_digits=1, input_rows=1000)) == answer
        assert not [place for place in places(tenant) if place[0] == "mixed"]
        assert views(tenant) == before
        assert left_behind(lake_dir) == []


def test_rows_that_would_be_lost_are_noticed(tenant: Tenant, lake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(tenant, some_rows(9), "run")
    before = views(tenant)
    monkeypatch.setattr(moving, "in_file_order", lambda rows: in_file_order(rows).slice(1))
    with pytest.raises(Internal, match="nothing was changed"):
        mover(tenant).move()
    upload(tenant, some_rows(9, known=1), "another run")
    before = views(tenant)
    with pytest.raises(Internal, match="nothing was changed"):
        mover(tenant).gather(2)
    assert views(tenant) == before
    assert left_behind(lake_dir) == []


def test_one_series_is_in_few_row_groups(lake_dir: Path) -> None:
    settings = tiny_settings(mixed_rows=20_000, bulk_rows=100_000, upload_chunk_rows=100_000)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        names = [f"series-{number}" for number in range(20)]
        upload(tenant, [Sent(name, hour(at), None, None, 1.0) for name in names for at in range(900)], "wide")
        (file,) = tenant.values.snapshot().files
        with pq.ParquetFile(tenant.values.store.open(file)) as parquet:
            bounds = [parquet.metadata.row_group(group).column(0).statistics for group in range(5)]
        series_id = series_id_for(OPEN_TENANT_ID, "series-7", None)
        assert 1 <= sum(each.min <= series_id <= each.max for each in bounds) <= 2


def test_files_hold_the_texts_of_their_own_rows_and_no_others(lake_dir: Path) -> None:
    """Moved and settled files are made of pieces of what was read together; each run is of two series, far apart."""
    settings = tiny_settings(compact_input_rows=1000, compact_file_rows=20, mixed_rows=1000)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        for number in range(40):
            upload(tenant, some_rows(6, series=SERIES, first=2 * number), f"run-{number}")
        before = views(tenant)
        for work in (mover(tenant, input_rows=1000).move, tenant.compact):
            work()
            files = tenant.values.snapshot().files
            assert len(files) > 1
            for path in files:
                with pq.ParquetFile(tenant.values.store.open(path), read_dictionary=["series_id", "run_id"]) as parquet:
                    for batch in parquet.iter_batches():
                        for name in ("series_id", "run_id"):
                            coded = batch.column(name)
                            assert len(coded.dictionary) == len(set(coded.to_pylist()))
        assert views(tenant) == before
