"""Retention as a job: its files and commits, others at work meanwhile, and what is refused after it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from tests.storage.lakes import SERIES, Sent, open_tenant, read, read_table, tenant_folder, tiny_settings, upload
from tests.storage.retaining import MOMENT, ZONE, apply, assert_readers_agree, correct, day, forecasts, retention, rule
from timedb.contract.errors import Busy, InvalidRequest, OutcomeUnknown
from timedb.contract.identity import series_bucket
from timedb.contract.times import format_time, from_micros, now, parse_time, to_micros
from timedb.contract.wire import ApplyRetention, ReadTicket, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.commit.writes import ReplacementWrite
from timedb.storage.direct.duckdb_extension import load_delta
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.maintain.retention import Retention
from timedb.storage.tables.commit_marks import bucket_transaction


def values_folder(lake_dir: Path) -> str:
    return str(tenant_folder(lake_dir) / "values")


# How it is done


def test_a_dry_run_changes_no_file(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant)
    version = tenant.values.snapshot().version

    told = apply(tenant, rule(thin_after_days=0, keep_last=1), dry_run=True)

    assert (told["rows"], told["files"], told["files_after"]) == (5, 5, None)
    assert told["rules"][0]["series"][0]["files"] == 5
    assert tenant.values.snapshot().version == version


def test_only_files_that_lose_rows_are_written_anew(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant)
    forecasts(tenant, series="south")  # in the same bucket
    forecasts(tenant, series="east")
    tenant.compact()
    files = tenant.values.snapshot().files

    done = apply(tenant, rule(name="a", thin_after_days=0, keep_last=1))

    after = tenant.values.snapshot()
    gone = [files[path] for path in files.keys() - after.files.keys()]
    assert [file.partition["tier"] for file in gone] == ["revised"]
    assert (done["files"], done["files_after"]) == (1, 1)
    actions = [json.loads(line) for line in log_lines(lake_dir, after.version)]
    assert {action["remove"]["dataChange"] for action in actions if "remove" in action} == {True}
    assert {action["add"]["dataChange"] for action in actions if "add" in action} == {True}
    told = next(action["commitInfo"] for action in actions if "commitInfo" in action)
    assert (told["operation"], told["timedb"]["retention"][0]["rows"]) == ("DELETE", 5)


def log_lines(lake_dir: Path, version: int) -> list[str]:
    return (Path(values_folder(lake_dir)) / "_delta_log" / f"{version:020d}.json").read_text().splitlines()


def test_other_engines_see_the_rows_that_are_left(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant)
    forecasts(tenant, series="east")
    apply(tenant, rule(thin_after_days=0, keep_last=2), rule(name="east", drop_after_days=1))
    expected = {"a-4", "a-5"}

    folder = values_folder(lake_dir)
    assert set(pl.scan_delta(folder).collect(engine="in-memory")["run_id"]) == expected
    assert set(DeltaTable(folder).to_pyarrow_table(columns=["run_id"]).column("run_id").to_pylist()) == expected
    with duckdb.connect() as connection:
        load_delta(connection)
        assert {
            row[0] for row in connection.execute("SELECT run_id FROM delta_scan(?)", [folder]).fetchall()
        } == expected


def test_every_commit_carries_the_transaction_of_its_bucket(tenant: Tenant) -> None:
    forecasts(tenant)
    tenant.compact()
    guard = bucket_transaction(series_bucket(tenant.catalog.known().find("a")[0].series_id))
    before = tenant.values.snapshot().transactions[guard]

    apply(tenant, rule(thin_after_days=0, keep_last=1))

    assert tenant.values.snapshot().transactions[guard] == before + 1


def test_a_run_that_lost_its_rows_is_still_in(tenant: Tenant) -> None:
    rows = [Sent("a", day(1), None, day(1), 1.0)]
    first = upload(tenant, rows, "run")
    apply(tenant, rule(drop_after_days=1))

    assert upload(tenant, rows, "run") == first
    assert read(tenant) == []


def test_the_tenant_counts_ages_from_now(tenant: Tenant) -> None:
    old, young = (to_micros(now() - timedelta(days=days)) for days in (9, 2))
    upload(tenant, [Sent("a", valid, None, old, 1.0) for valid in (old, young)], "run")

    assert tenant.apply_retention([rule(drop_after_days=5)], dry_run=True)["rows"] == 1
    assert tenant.apply_retention([rule(drop_after_days=5)], dry_run=False)["rows"] == 1
    assert [row.valid_time for row in read(tenant)] == [young]


# Others at work meanwhile


class Interrupted(Compactor):
    """A compactor after whose work something else happens, as another client or server might do it."""

    def __init__(self, tenant: Tenant, then: Callable[[int], None]) -> None:
        super().__init__(tenant.values, tenant.lane, bucket_digits=1, file_rows=24, input_rows=30)
        self._then = then
        self.calls = 0

    def compact(self, bucket: str) -> dict[str, int]:
        done = super().compact(bucket)
        self._then(self.calls)
        self.calls += 1
        return done


def test_a_run_that_comes_between_a_repeat_and_what_it_repeats_meanwhile_keeps_it(tenant: Tenant) -> None:
    for number, value in enumerate([1.0, 1.0, 2.0, 2.0, 3.0]):
        upload(tenant, [Sent("a", day(85), None, day(80 + number), value)], f"a-{number}")

    def arrives_late(call: int) -> None:
        if call == 0:
            upload(tenant, [Sent("a", day(85), None, day(80.5), 5.0)], "late")

    compactor = Interrupted(tenant, arrives_late)
    kept = rule(collapse_repeats_after_days=0)
    done = retention(tenant, compactor).apply([kept], moment=MOMENT, dry_run=False)

    assert compactor.calls == 2
    assert done["rows"] == 1
    assert sorted(row.run_id for row in read(tenant)) == ["a-0", "a-1", "a-2", "a-4", "late"]


def test_a_revision_that_a_withdrawal_makes_the_winner_meanwhile_stays(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    kept = rule(thin_after_days=0, keep_last=1)

    def withdraw(call: int) -> None:
        if call == 0:
            tenant.withdraw_run(WithdrawRun(run_id="a-2"), changed_by=None)

    compactor = Interrupted(tenant, withdraw)
    done = retention(tenant, compactor).apply([kept], moment=MOMENT, dry_run=False)

    assert compactor.calls == 2
    assert done["rows"] == 1
    assert [row.run_id for row in read(tenant, "flat", all_versions=False)] == ["a-1"]
    assert_readers_agree(tenant, lake_dir, read(tenant))


def test_a_correction_of_what_goes_goes_with_it(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    first = read(tenant)[0]

    def change(call: int) -> None:
        if call == 0:
            correct(tenant, first, value=9.0)

    done = retention(tenant, Interrupted(tenant, change)).apply(
        [rule(thin_after_days=0, keep_last=1)], moment=MOMENT, dry_run=False
    )

    assert done["rows"] == 3
    assert [row.run_id for row in read(tenant)] == ["a-2"]


def test_uploads_and_corrections_of_other_values_do_not_hold_it_up(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    upload(tenant, [Sent("a", day(99), None, day(1), 1.0)], "other")

    def write(call: int) -> None:
        upload(tenant, [Sent("a", day(85), None, day(95 + call), 9.0)], f"more-{call}")
        row = next(row for row in read(tenant) if row.run_id == "other")
        correct(tenant, row, value=float(call + 2))

    compactor = Interrupted(tenant, write)
    retention(tenant, compactor).apply([rule(thin_after_days=0, keep_last=1)], moment=MOMENT, dry_run=False)

    assert compactor.calls == 1
    assert sorted(row.run_id for row in read(tenant)) == ["a-2", "more-0", "other", "other"]
    assert_readers_agree(tenant, lake_dir, read(tenant))


class Lane:
    """A commit lane before and after whose turns something happens."""

    def __init__(
        self, tenant: Tenant, before: Callable[[], object] = lambda: None, after: Callable[[], object] = lambda: None
    ) -> None:
        self._lane = tenant.lane
        self._before = before
        self._after = after

    def replace_files(self, write: ReplacementWrite) -> bool:
        self._before()
        done = self._lane.replace_files(write)
        self._after()
        return done


def test_a_compaction_of_other_files_of_the_bucket_meanwhile(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    compactor = Interrupted(tenant, lambda call: None)
    bucket = series_bucket(tenant.catalog.known().find("a")[0].series_id)

    def others() -> None:
        if compactor.calls == 1:
            upload(tenant, [Sent("a", day(99), None, day(1), 1.0)], "other")
            Compactor.compact(compactor, bucket)

    lane: Any = Lane(tenant, before=others)
    job = Retention(tenant.values, lane, compactor, tenant.catalog, bucket_digits=1, file_rows=24)
    job.apply([rule(thin_after_days=0, keep_last=1)], moment=MOMENT, dry_run=False)

    assert compactor.calls == 2
    assert sorted(row.run_id for row in read(tenant)) == ["a-2", "other"]
    assert_readers_agree(tenant, lake_dir, read(tenant))


def test_no_file_is_deleted_that_an_unknown_commit_may_refer_to(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)

    def lose_sight() -> None:
        raise OutcomeUnknown

    lane: Any = Lane(tenant, after=lose_sight)
    compactor = Compactor(tenant.values, tenant.lane, bucket_digits=1, file_rows=24, input_rows=30)
    job = Retention(tenant.values, lane, compactor, tenant.catalog, bucket_digits=1, file_rows=24)
    with pytest.raises(OutcomeUnknown):
        job.apply([rule(thin_after_days=0, keep_last=2)], moment=MOMENT, dry_run=False)

    assert_readers_agree(tenant, lake_dir, read(tenant))
    assert sorted(row.run_id for row in read(tenant)) == ["a-1", "a-2"]


def test_it_gives_up_where_a_bucket_never_rests(tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    first = read(tenant)[0]
    files = set(Path(tenant.values.store.url()).rglob("*.parquet"))

    def change(call: int) -> None:
        correct(tenant, first, value=float(call + 100))

    with pytest.raises(Busy, match="rules: bucket"):
        retention(tenant, Interrupted(tenant, change)).apply(
            [rule(thin_after_days=0, keep_last=1)], moment=MOMENT, dry_run=False
        )
    live = {Path(tenant.values.store.url(path)) for path in tenant.values.snapshot().files}
    replaced = {Path(tenant.values.store.url(path)) for path in tenant.values.log.removed_since(0.0)}
    assert len(read(tenant)) == 3 + 20
    assert set(Path(tenant.values.store.url()).rglob("*.parquet")) <= files | live | replaced


def test_two_servers_and_a_writer(lake_dir: Path, tenant: Tenant) -> None:
    other_lake = Lake.open(str(lake_dir), tiny_settings())
    other = open_tenant(other_lake)
    kept = rule(thin_after_days=0, keep_last=2)
    written = threading.Event()

    def write() -> None:
        for count in range(10):
            known = day(80) + count
            rows = [Sent(name, day(85 + each), None, known, float(count)) for name in SERIES for each in range(4)]
            upload(other, rows, f"run {count}")

    def compact() -> None:
        while not written.is_set():
            other.compact()

    try:
        with ThreadPoolExecutor() as pool:
            writing, compacting = pool.submit(write), pool.submit(compact)
            while not writing.done():
                apply(tenant, kept)
            written.set()
            writing.result()
            compacting.result()
    finally:
        written.set()
        other_lake.close()
    apply(tenant, kept)
    rows = read(tenant)
    assert Counter(row.run_id for row in rows) == {"run 8": 12, "run 9": 12}
    assert_readers_agree(tenant, lake_dir, rows)


# What is no longer known is not made up


def test_an_answer_as_of_before_the_removal_is_refused(lake_dir: Path, tenant: Tenant) -> None:
    forecasts(tenant)
    asked = tenant.plan_read(ReadTicket()).as_of
    done = apply(tenant, rule(thin_after_days=0, keep_last=1))
    since = parse_time(done["change_time"])

    with pytest.raises(InvalidRequest) as refused:
        read_table(tenant, as_of=asked)

    assert refused.value.detail == (
        f"as_of: {format_time(asked)} is before {done['change_time']}, when retention removed values of valid_time "
        f"up to {format_time(from_micros(day(85)))}; ask for a later as_of, or start after it"
    )
    for as_of in (None, since, since + timedelta(days=1)):
        assert read_table(tenant, as_of=as_of).num_rows == 1
    assert tenant.plan_read(ReadTicket()).as_of == since


def test_what_lost_no_rows_is_still_answered_as_of_any_time(tenant: Tenant) -> None:
    forecasts(tenant)
    forecasts(tenant, valid=86, tag=" of day 86")
    forecasts(tenant, series="east")
    asked = tenant.plan_read(ReadTicket()).as_of
    apply(tenant, rule(name="a", drop_after_days=14))

    with pytest.raises(InvalidRequest, match="as_of"):
        read_table(tenant, as_of=asked, start_valid=from_micros(day(85)))
    assert read_table(tenant, as_of=asked, start_valid=from_micros(day(85) + 1)).num_rows == 1
    assert read_table(tenant, as_of=asked, series_keys=["east"]).num_rows == 1


def test_a_ticket_and_a_page_from_before_the_removal_are_refused(tenant: Tenant) -> None:
    forecasts(tenant)
    forecasts(tenant, valid=84, tag=" of day 84")
    parts = tenant.plan_read(ReadTicket()).parts
    first_page = read_table(tenant, limit=1)
    apply(tenant, rule(thin_after_days=0, keep_last=1))

    with pytest.raises(InvalidRequest, match="as_of"):
        tenant.plan_read(parts[0].ticket)
    with pytest.raises(InvalidRequest, match="as_of"):
        read_table(tenant, limit=1, after=first_page.schema.metadata[b"cursor"].decode())
    assert [
        tenant.plan_read(part.ticket).reader().read_all().num_rows for part in tenant.plan_read(ReadTicket()).parts
    ] == [2]


def test_the_refusal_outlives_checkpoints_and_servers(lake_dir: Path, lake: Lake, tenant: Tenant) -> None:
    forecasts(tenant)
    asked = tenant.plan_read(ReadTicket()).as_of
    apply(tenant, rule(thin_after_days=0, keep_last=1))
    tenant.maintain()
    other_lake = Lake.open(str(lake_dir), tiny_settings())
    try:
        other = open_tenant(other_lake)
        upload(other, [Sent("a", day(99), None, day(99), 1.0)], "later")
        with pytest.raises(InvalidRequest, match="as_of"):
            read_table(other, as_of=asked)
    finally:
        other_lake.close()


def test_a_later_removal_does_not_shorten_the_refusal(tenant: Tenant) -> None:
    forecasts(tenant, valid=85)
    asked = tenant.plan_read(ReadTicket()).as_of
    apply(tenant, rule(drop_after_days=14))
    forecasts(tenant, series="south", valid=70)
    apply(tenant, rule(drop_after_days=29))  # removes younger rows, of older valid_times

    with pytest.raises(InvalidRequest, match="valid_time up to"):
        read_table(tenant, as_of=asked, start_valid=from_micros(day(80)))


def test_removing_nothing_refuses_nothing(tenant: Tenant) -> None:
    forecasts(tenant, revisions=1)
    asked = tenant.plan_read(ReadTicket()).as_of
    upload(tenant, [Sent("a", day(99), None, day(99), 1.0)], "later")

    assert apply(tenant, rule(thin_after_days=0, keep_last=1))["change_time"] is None
    assert read_table(tenant, as_of=asked).num_rows == 1


def test_values_from_before_1970(tenant: Tenant) -> None:
    forecasts(tenant, valid=-36_500)
    asked = tenant.plan_read(ReadTicket()).as_of
    apply(tenant, rule(drop_after_days=1))

    assert read(tenant) == []
    with pytest.raises(InvalidRequest, match="as_of"):
        read_table(tenant, as_of=asked)


# The words of a rule


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "rules: is missing"),
        ({"rules": []}, "rules: [] list should have at least 1 item"),
        ({"rules": [{"labels": {}, "drop_after_days": 1}]}, "dry_run: is missing"),
        ({"rules": [{"drop_after_days": 1}]}, "rules.0: needs name or labels"),
        (
            {"rules": [{"name": "a"}]},
            "rules.0: needs one of drop_after_days, thin_after_days and collapse_repeats_after_days",
        ),
        ({"rules": [{"name": "a", "drop_after_days": 1, "thin_after_days": 1}]}, "rules.0: needs one of"),
        ({"rules": [{"name": "a", "drop_after_days": 0}]}, "rules.0.drop_after_days: 0 "),
        ({"rules": [{"name": "a", "drop_after_days": 1.5}]}, "rules.0.drop_after_days: 1.5 "),
        ({"rules": [{"name": "a", "drop_after_days": 10**9}]}, "rules.0.drop_after_days: 1000000000 "),
        (
            {"rules": [{"name": "a", "drop_after_days": 1, "keep_last": 1}]},
            "rules.0: keep_last and keep_known_at go with",
        ),
        ({"rules": [{"name": "a", "thin_after_days": 1}]}, "rules.0: thin_after_days needs keep_last"),
        ({"rules": [{"name": "a", "thin_after_days": 1, "keep_last": 0}]}, "rules.0.keep_last: 0 "),
        ({"rules": [{"name": "a", "thin_after_days": -1, "keep_last": 1}]}, "rules.0.thin_after_days: -1 "),
        ({"rules": [{"name": "", "drop_after_days": 1}]}, "rules.0.name: '' "),
        ({"rules": [{"name": "a", "drop_after_days": 1, "after": 1}]}, "rules.0.after: unknown field"),
        (
            {
                "rules": [
                    {"name": "a", "thin_after_days": 1, "keep_known_at": {"time_of_day": "24:00", "time_zone": ZONE}}
                ]
            },
            "rules.0.keep_known_at.time_of_day: '24:00' ",
        ),
    ],
)
def test_a_rule_at_fault_is_named(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_object(ApplyRetention, fields)
    assert refused.value.detail.startswith(fault)


def test_a_time_zone_that_does_not_exist_is_named_before_anything_is_done(tenant: Tenant) -> None:
    forecasts(tenant)
    nowhere = rule(thin_after_days=0, keep_known_at={"time_of_day": "10:00", "time_zone": "Mars/Base"})

    with pytest.raises(InvalidRequest, match=r"rules\.1\.keep_known_at\.time_zone: 'Mars/Base' is not"):
        apply(tenant, rule(thin_after_days=0, keep_last=1), nowhere)
    assert len(read(tenant)) == 6
