"""Retention: what goes is what the rules say, what stays is answered as before, and what is gone is not made up."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from storage import Lake, Tenant
from storage.compaction import Compactor, bucket_transaction
from storage.retention import Retention
from tests.storage.lakes import (
    DAY,
    SERIES,
    Sent,
    Stored,
    hour,
    open_tenant,
    read,
    read_table,
    scan_delta,
    tenant_folder,
    tiny_settings,
    upload,
)
from tests.storage.model import Model
from timedb.errors import Busy, InvalidRequest
from timedb.identity import series_bucket
from timedb.times import format_time, from_micros, now, parse_time, to_micros
from timedb.wire import (
    ApplyRetention,
    CreateSeries,
    ReadTicket,
    RetentionRule,
    UpdateSeries,
    UpdateValues,
    ValueUpdate,
    WithdrawRun,
    parse_object,
)

ZONE = "Europe/Stockholm"
MOMENT = DAY + timedelta(days=100)
"""What ages are counted back from: the history lies on days 80 to 96, around the change to summer time."""


def rule(**fields: Any) -> RetentionRule:
    """A rule; for all series where it does not say for which."""
    return parse_object(RetentionRule, fields if "name" in fields else {"labels": {}, **fields})


def day(number: float) -> int:
    """Microseconds of a day of 2025."""
    return hour(0) + round(number * 86_400_000_000)


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    lake = Lake.open(str(lake_dir), tiny_settings())
    yield lake
    lake.close()


@pytest.fixture
def tenant(lake: Lake) -> Tenant:
    return open_tenant(lake)


def retention(tenant: Tenant, compactor: Compactor | None = None, *, file_rows: int = 24) -> Retention:
    """The retention of a tenant."""
    compactor = compactor or Compactor(tenant.values, tenant.lane, file_rows=file_rows, input_rows=30)
    return Retention(
        tenant.values,
        tenant.lane,
        compactor,
        tenant.catalog,
        bucket_digits=tenant.bucket_digits,
        file_rows=file_rows,
    )


def apply(tenant: Tenant, *rules: RetentionRule, dry_run: bool = False) -> dict[str, Any]:
    """Apply rules as of :data:`MOMENT`."""
    return retention(tenant).apply(rules, moment=MOMENT, dry_run=dry_run)


def forecasts(
    tenant: Tenant, *, series: str = "a", revisions: int = 6, valid: float = 85, first: float = 80, tag: str = ""
) -> None:
    """One value, forecast anew each day."""
    for number in range(revisions):
        upload(tenant, [Sent(series, day(valid), None, day(first + number), float(number))], f"{series}-{number}{tag}")


def values_folder(lake_dir: Path) -> str:
    return str(tenant_folder(lake_dir) / "values")


# The model: what a rule keeps, from its words alone.


@cache
def gate(local_day: date, clock: str, zone: str) -> int:
    """The first minute at which the local clock has reached a time of a day; by trying all of them."""
    target = datetime.combine(local_day, time.fromisoformat(clock))
    first = datetime.combine(local_day, time(0), UTC) - timedelta(days=1)
    minutes = (first + timedelta(minutes=count) for count in range(4 * 24 * 60))
    return next(
        to_micros(minute) for minute in minutes if minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None) >= target
    )


def beats(one: Stored, other: Stored) -> bool:
    return (one.known_time, one.change_time, one.run_id) > (other.known_time, other.change_time, other.run_id)


def stays(rows: Sequence[Stored], row: Stored, kept: RetentionRule, cut: int) -> bool:
    """Whether a rule keeps a row, told by all rows of its point."""
    if kept.drop_after_days is not None:
        return row.valid_time >= cut
    latest: dict[Any, Stored] = {}
    for each in sorted(rows, key=lambda each: each.change_time):
        latest[each.revision] = each
    own = latest[row.revision]
    better = [each for each in latest.values() if not each.retracted and beats(each, own)]
    if not better or row.known_time >= cut:
        return True
    if kept.keep_last is not None and len(better) < kept.keep_last:
        return True
    if kept.keep_known_at is None:
        return False
    successor = min(each.known_time for each in better)
    first, last = (from_micros(moment).date() for moment in (row.known_time, successor))
    days = [first + timedelta(days=count) for count in range(-2, (last - first).days + 3)]
    gates = (gate(each, kept.keep_known_at.time_of_day, kept.keep_known_at.time_zone) for each in days)
    return any(row.known_time <= moment < successor for moment in gates)


def left_by(rows: Sequence[Stored], kept: RetentionRule, moment: datetime = MOMENT) -> list[Stored]:
    """The rows that a rule leaves."""
    days = kept.thin_after_days if kept.drop_after_days is None else kept.drop_after_days
    cut = to_micros(moment - timedelta(days=days or 0))
    points: dict[Any, list[Stored]] = {}
    for row in rows:
        points.setdefault(row.point, []).append(row)
    return [row for row in rows if kept.name not in (None, row.series) or stays(points[row.point], row, kept, cut)]


def assert_readers_agree(tenant: Tenant, folder: Path, expected: Sequence[Stored]) -> None:
    """The views of a tenant, which use tiers, and a direct reader, which does not, say what the model says."""
    model = Model()
    model.rows = list(expected)
    assert Counter(read(tenant)) == Counter(expected)
    assert Counter(scan_delta(folder)) == Counter(expected)
    for view in ("flat", "overlapping"):
        assert Counter(read(tenant, view, all_versions=False)) == Counter(model.answer(view))
    chains = Counter(read(tenant, "flat", all_versions=True))
    assert chains == Counter(model.answer("flat", all_versions=True))


# Random histories and rules


@dataclass(frozen=True)
class Run:
    """An upload: (series, valid, length, known) of each row."""

    rows: list[tuple[int, int, int | None, int]]


@dataclass(frozen=True)
class Correction:
    """A new version of some row."""

    target: int
    changes: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Withdrawal:
    """A run taken back."""

    target: int


@dataclass(frozen=True)
class Compaction:
    """All fresh rows get their tiers."""


# Around the change to summer time (2025-03-30, day 88), on the gates of 02:30 and 10:00 local time and beside them.
VALID = [day(84), day(88), day(88) + 3_600_000_000, day(90), day(95) + 1]
KNOWN = [
    day(80),
    day(85.5),
    *(gate(date(2025, 3, 29), clock, ZONE) + aside for clock in ("02:30", "10:00") for aside in (0, 1)),
    *(gate(date(2025, 3, 30), clock, ZONE) + aside for clock in ("02:30", "10:00") for aside in (-1, 0)),
    gate(date(2025, 3, 31), "10:00", ZONE),
    day(90),
    day(96),
]


def histories() -> st.SearchStrategy[list[Any]]:
    """Writes, in order."""
    row = st.tuples(
        st.integers(0, len(SERIES) - 1),
        st.sampled_from(VALID),
        st.sampled_from([None, None, 3_600_000_000]),
        st.sampled_from(KNOWN),
    )
    run = st.builds(Run, st.lists(row, min_size=1, max_size=14, unique=True))
    changes = st.sampled_from([{"value": 7.5}, {"annotation": "x"}, {"retracted": True}, {"retracted": False}])
    writes = st.one_of(
        run,
        run,
        st.builds(Correction, st.integers(0, 99), changes),
        st.builds(Withdrawal, st.integers(0, 99)),
        st.just(Compaction()),
    )
    return st.tuples(run, run, st.lists(writes, min_size=2, max_size=9)).map(lambda drawn: [*drawn[:2], *drawn[2]])


def rules() -> st.SearchStrategy[list[RetentionRule]]:
    """One to three rules."""
    series = st.sampled_from([{"labels": {}}, {"labels": {}}, {"name": "a"}, {"name": "south"}, {"name": "nobody"}])
    # A hundred days back is the beginning of the year; the history begins 20 and ends 4 days before the moment.
    days = st.sampled_from([4, 5, 10, 12, 16, 30])
    gates = st.sampled_from(["02:30", "10:00"]).map(lambda clock: {"time_of_day": clock, "time_zone": ZONE})
    keeps = st.one_of(
        st.builds(lambda count: {"keep_last": count}, st.integers(1, 3)),
        st.builds(lambda each: {"keep_known_at": each}, gates),
        st.builds(lambda count, each: {"keep_last": count, "keep_known_at": each}, st.integers(1, 2), gates),
    )
    thin = st.builds(lambda own, age, keep: {**own, "thin_after_days": age, **keep}, series, days, keeps)
    drop = st.builds(lambda own, age: {**own, "drop_after_days": age}, series, days)
    drawn = st.one_of(thin, thin, drop).map(lambda fields: parse_object(RetentionRule, fields))
    return st.lists(drawn, min_size=1, max_size=3)


def play(tenant: Tenant, writes: Sequence[Any]) -> None:
    """Make a history."""
    runs = 0
    for write in writes:
        if isinstance(write, Run):
            sent = [
                Sent(SERIES[series], valid, None if length is None else valid + length, known, float(runs))
                for series, valid, length, known in write.rows
            ]
            upload(tenant, sent, f"run {runs}")
            runs += 1
        elif isinstance(write, Correction):
            rows = sorted(read(tenant), key=lambda row: (row.change_time, str(row)))
            correct(tenant, rows[write.target % len(rows)], **write.changes)
        elif isinstance(write, Withdrawal):
            tenant.withdraw_run(WithdrawRun(run_id=f"run {write.target % runs}"), changed_by=None)
        else:
            tenant.compact()


def correct(tenant: Tenant, row: Stored, **changes: Any) -> None:
    """A new version of a row."""
    item = {
        "series_id": tenant.catalog.find(row.series)[0].series_id,
        "run_id": row.run_id,
        "valid_time": from_micros(row.valid_time),
        "valid_time_end": None if row.valid_time_end is None else from_micros(row.valid_time_end),
        "known_time": from_micros(row.known_time),
        **changes,
    }
    tenant.update_values(UpdateValues(updates=[parse_object(ValueUpdate, item)]), changed_by=None)


@given(writes=histories(), wanted=rules(), file_rows=st.sampled_from([1, 7, 1000]))
def test_what_stays_is_what_the_rules_keep(writes: list[Any], wanted: list[RetentionRule], file_rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "lake"
        lake = Lake.open(str(folder), tiny_settings())
        try:
            tenant = open_tenant(lake)
            play(tenant, writes)
            before = read(tenant)
            expected, lost = list(before), []
            for each in wanted:
                left = left_by(expected, each)
                lost.append(Counter(row.series for row in expected) - Counter(row.series for row in left))
                expected = left
            job = retention(tenant, file_rows=file_rows)

            told = job.apply(wanted, moment=MOMENT, dry_run=True)
            assert [{one["name"]: one["rows"] for one in each["series"]} for each in told["rules"]] == lost
            assert told["change_time"] is None
            assert_readers_agree(tenant, folder, before)

            done = job.apply(wanted, moment=MOMENT, dry_run=False)
            assert [{one["name"]: one["rows"] for one in each["series"]} for each in done["rules"]] == lost
            assert done["rows"] == told["rows"] == len(before) - len(expected)
            assert_readers_agree(tenant, folder, expected)
            if all(each.thin_after_days is not None for each in wanted):
                model = Model()
                model.rows = before
                assert Counter(read(tenant, "flat", all_versions=False)) == Counter(model.answer("flat"))

            assert job.apply(wanted, moment=MOMENT, dry_run=False)["rows"] == 0
            tenant.maintain()
            assert_readers_agree(tenant, folder, expected)
        finally:
            lake.close()


@given(writes=histories(), clock=st.sampled_from(["02:30", "10:00"]))
def test_thinning_to_a_gate_leaves_the_reads_of_that_gate_as_they_were(writes: list[Any], clock: str) -> None:
    kept = rule(thin_after_days=0, keep_known_at={"time_of_day": clock, "time_zone": ZONE})

    def gate_reads(tenant: Tenant) -> list[Counter[Stored]]:
        relative = [{"days_ahead": days, "time_of_day": clock, "time_zone": ZONE} for days in (0, 1, 2, 6)]
        return [Counter(read(tenant, "flat", all_versions=False, relative=each)) for each in relative]

    with tempfile.TemporaryDirectory() as name:
        lake = Lake.open(str(Path(name) / "lake"), tiny_settings())
        try:
            tenant = open_tenant(lake)
            play(tenant, writes)
            before = gate_reads(tenant)
            apply(tenant, kept)
            assert gate_reads(tenant) == before
        finally:
            lake.close()


# What a rule means, by example


def test_dropping_by_age_takes_whole_valid_times_and_begins_at_the_cut(tenant: Tenant) -> None:
    rows = [
        Sent("a", day(90) + aside, end, day(known), 1.0)
        for aside in (-1, 0)
        for end in (None, day(91))
        for known in (1, 99)
    ]
    upload(tenant, rows, "run")

    done = apply(tenant, rule(drop_after_days=10))

    assert done["rules"][0]["before"] == format_time(from_micros(day(90)))
    assert {row.valid_time for row in read(tenant)} == {day(90)}
    assert done["rows"] == 4


def test_the_last_revisions_of_each_value_stay(tenant: Tenant) -> None:
    forecasts(tenant)
    forecasts(tenant, series="south", revisions=1)

    done = apply(tenant, rule(thin_after_days=0, keep_last=2))

    assert sorted(row.run_id for row in read(tenant)) == ["a-4", "a-5", "south-0"]
    assert [one["name"] for one in done["rules"][0]["series"]] == ["a"]


def test_a_revision_younger_than_the_age_stays_whatever_beats_it(tenant: Tenant) -> None:
    forecasts(tenant)  # known on days 80 to 85

    apply(tenant, rule(thin_after_days=17, keep_last=1))

    assert sorted(row.run_id for row in read(tenant)) == ["a-3", "a-4", "a-5"]


def test_what_was_the_newest_known_at_the_gate_of_a_day_stays(tenant: Tenant) -> None:
    clocks = ["08:59", "09:00", "09:01", "15:00", "23:00"]  # 10:00 in Stockholm's winter is 09:00 UTC
    rows = [
        Sent("a", day(80), None, day(40) + to_micros(parse_time(f"1970-01-01T{clock}Z")), float(number))
        for number, clock in enumerate(clocks)
    ]
    upload(tenant, rows, "run")

    apply(tenant, rule(thin_after_days=0, keep_known_at={"time_of_day": "10:00", "time_zone": ZONE}))

    assert sorted(row.known_time for row in read(tenant)) == [rows[1].known_time, rows[4].known_time]


def test_a_revision_goes_and_stays_with_all_its_versions(tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    for row in read(tenant):
        correct(tenant, row, value=row.known_time / 1e15)
        correct(tenant, row, annotation="checked")

    assert apply(tenant, rule(thin_after_days=0, keep_last=1))["rows"] == 6

    assert [row.run_id for row in read(tenant)] == ["a-2"] * 3


def test_a_withdrawn_revision_supersedes_nothing(tenant: Tenant) -> None:
    forecasts(tenant, revisions=4)
    tenant.withdraw_run(WithdrawRun(run_id="a-3"), changed_by=None)

    apply(tenant, rule(thin_after_days=0, keep_last=1))

    assert sorted({row.run_id for row in read(tenant)}) == ["a-2", "a-3"]
    assert [row.run_id for row in read(tenant, "flat", all_versions=False)] == ["a-2"]


def test_a_value_whose_revisions_are_all_withdrawn_is_left_alone(tenant: Tenant) -> None:
    forecasts(tenant, revisions=3)
    for number in range(3):
        tenant.withdraw_run(WithdrawRun(run_id=f"a-{number}"), changed_by=None)

    assert apply(tenant, rule(thin_after_days=0, keep_last=1))["rows"] == 0
    assert len(read(tenant)) == 6


def test_rules_work_one_after_the_other(tenant: Tenant) -> None:
    forecasts(tenant)
    gates = rule(thin_after_days=0, keep_known_at={"time_of_day": "10:00", "time_zone": ZONE})

    done = apply(tenant, gates, rule(thin_after_days=17, keep_last=2), rule(name="a", drop_after_days=14))

    assert [each["rows"] for each in done["rules"]] == [0, 3, 3]
    assert read(tenant) == []


def test_series_are_chosen_by_name_and_labels_retired_ones_too(tenant: Tenant) -> None:
    made = [("a", {"site": "x"}), ("a", {"site": "y"}), ("b", {"site": "x"})]
    ids = [
        tenant.create_series(CreateSeries(name=name, labels=labels), created_by=None)["series_id"]
        for name, labels in made
    ]
    table = pl.DataFrame(
        {"series_id": ids, "valid_time": [from_micros(day(1))] * 3, "value": [1.0, 2.0, 3.0]},
        schema_overrides={"valid_time": pl.Datetime("us", "UTC")},
    ).to_arrow()
    upload(tenant, table, "run", known_time=from_micros(day(1)))
    tenant.update_series(UpdateSeries(series_id=ids[0], retired=True))

    told = apply(
        tenant,
        rule(name="a", labels={"site": "x"}, drop_after_days=1),
        rule(labels={"site": ["x", "z"]}, drop_after_days=1),
        rule(name="a", drop_after_days=1),
        rule(name="c", drop_after_days=1),
        dry_run=True,
    )

    assert [each["matched_series"] for each in told["rules"]] == [1, 2, 2, 0]
    assert [[one["series_id"] for one in each["series"]] for each in told["rules"]] == [
        [ids[0]],
        [ids[2]],
        [ids[1]],
        [],
    ]
    assert told["rules"][0]["series"][0]["labels"] == {"site": "x"}


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
        connection.execute("LOAD delta")
        assert {
            row[0] for row in connection.execute("SELECT run_id FROM delta_scan(?)", [folder]).fetchall()
        } == expected


def test_every_commit_carries_the_transaction_of_its_bucket(tenant: Tenant) -> None:
    forecasts(tenant)
    tenant.compact()
    guard = bucket_transaction(series_bucket(tenant.catalog.find("a")[0].series_id))
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
        super().__init__(tenant.values, tenant.lane, file_rows=24, input_rows=30)
        self._then = then
        self.calls = 0

    def compact(self, bucket: str) -> dict[str, int]:
        done = super().compact(bucket)
        self._then(self.calls)
        self.calls += 1
        return done


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
        for count in range(20):
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
    assert Counter(row.run_id for row in rows) == {"run 18": 12, "run 19": 12}
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
        ({"rules": [{"name": "a"}]}, "rules.0: needs either drop_after_days or thin_after_days"),
        ({"rules": [{"name": "a", "drop_after_days": 1, "thin_after_days": 1}]}, "rules.0: needs either"),
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
