"""What goes by a rule is what its words say, and what stays is answered as before."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.behaviour.oracle import float_bits
from tests.storage.lakes import SERIES, Sent, Stored, open_tenant, read, shuffled, tiny_settings, upload
from tests.storage.model import Model, content
from tests.storage.retaining import MOMENT, ZONE, apply, assert_readers_agree, correct, day, forecasts, retention, rule
from timedb.contract.times import format_time, from_micros, parse_time, to_micros
from timedb.contract.wire import CreateSeries, RetentionRule, UpdateSeries, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.maintain.thinning import KEY_COLUMNS, BoundRule, mark
from timedb.storage.rows.orders import CONTENT
from timedb.storage.rows.scan import VALUES_POLARS

# Lakes are made for each example: few in the quick profile, all that another one asks for.
FEWER = settings(max_examples=5 if settings().max_examples < 100 else settings().max_examples)


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
    if kept.collapse_repeats_after_days is not None:
        return row.known_time >= cut or not repeats(rows, row)
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


def repeats(rows: Sequence[Stored], row: Stored) -> bool:
    """Whether a row is the only version of its revision, the one before it, too, both say the same, and one that
    stands beats it.
    """
    chains: dict[Any, list[Stored]] = {}
    for each in sorted(rows, key=lambda each: each.change_time):
        chains.setdefault(each.revision, []).append(each)
    before = [chain for chain in chains.values() if beats(chains[row.revision][-1], chain[-1])]
    last = max(before, key=lambda chain: (chain[-1].known_time, chain[-1].change_time, chain[-1].run_id), default=[])
    if len(last) != 1 or len(chains[row.revision]) != 1 or last[0].retracted or row.retracted:
        return False
    beaten = any(beats(chain[-1], row) and not chain[-1].retracted for chain in chains.values())
    return beaten and content(row) == content(last[0])


def left_by(rows: Sequence[Stored], kept: RetentionRule, moment: datetime = MOMENT) -> list[Stored]:
    """The rows that a rule leaves."""
    cut = to_micros(moment - timedelta(days=kept.after_days))
    points: dict[Any, list[Stored]] = {}
    for row in rows:
        points.setdefault(row.point, []).append(row)
    return [row for row in rows if kept.name not in (None, row.series) or stays(points[row.point], row, kept, cut)]


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


VALUES = [1.0, 7.5]


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
    collapse = st.builds(lambda own, age: {**own, "collapse_repeats_after_days": age}, series, days)
    drawn = st.one_of(thin, collapse, drop).map(lambda fields: parse_object(RetentionRule, fields))
    return st.lists(drawn, min_size=1, max_size=3)


def play(tenant: Tenant, writes: Sequence[Any]) -> None:
    """Make a history."""
    runs = 0
    for write in writes:
        if isinstance(write, Run):
            sent = [
                Sent(SERIES[series], valid, None if length is None else valid + length, known, VALUES[runs % 3 // 2])
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


SAID: dict[str, float | None] = {"nothing": None, "nan": math.nan, "zero": 0.0, "minus zero": -0.0, "one": 1.0}
BITS = {float_bits(value): value for value in SAID.values()}


def tables_of_rows() -> st.SearchStrategy[list[Stored]]:
    """Rows of two series as they might be stored, several versions of a revision among them."""
    key = st.tuples(
        st.sampled_from(SERIES[:2]),
        st.sampled_from(VALID[:3]),
        st.sampled_from([None, VALID[-1]]),
        st.sampled_from(KNOWN),
        st.sampled_from(["p", "q"]),
    )
    words = st.tuples(
        st.sampled_from(sorted(SAID)), st.sampled_from([None, None, "x"]), st.sampled_from([None, ("x",)])
    )
    drawn = st.lists(st.tuples(key, words, st.booleans()), min_size=1, max_size=40)
    return drawn.map(
        lambda rows: [
            Stored(
                series, valid, end, known, day(97) + number, run, float_bits(SAID[said]), note, tags, None, retracted
            )
            for number, ((series, valid, end, known, run), (said, note, tags), retracted) in enumerate(rows)
        ]
    )


@given(rows=tables_of_rows(), wanted=rules(), seed=st.integers(0, 9))
def test_the_rows_that_a_rule_marks(rows: list[Stored], wanted: list[RetentionRule], seed: int) -> None:
    mixed = shuffled(rows, seed)
    bound = [BoundRule.bind(0, each, {name for name in SERIES if each.name in (None, name)}, MOMENT) for each in wanted]
    names = [*KEY_COLUMNS, *CONTENT]
    columns = {name: [getattr(row, "series" if name == "series_id" else name) for row in mixed] for name in names}
    columns["value"] = [BITS[bits] for bits in columns["value"]]
    frame = pl.DataFrame(columns, schema={name: VALUES_POLARS[name] for name in names})

    marks = mark(frame, bound)

    expected, left = [-1] * len(mixed), list(mixed)
    for index, each in enumerate(wanted):
        kept = left_by(left, each)
        for row in set(left) - set(kept):
            expected[mixed.index(row)] = index
        left = kept
    assert marks.to_list() == expected


@FEWER
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
            if all(each.drop_after_days is None for each in wanted):
                model = Model()
                model.rows = before
                assert Counter(read(tenant, "flat", all_versions=False)) == Counter(model.answer("flat"))

            assert job.apply(wanted, moment=MOMENT, dry_run=False)["rows"] == 0
            tenant.compact()
            assert_readers_agree(tenant, folder, expected)
        finally:
            lake.close()


@FEWER
@given(writes=histories(), clock=st.sampled_from(["02:30", "10:00"]))
def test_thinning_to_a_gate_leaves_the_reads_of_that_gate_as_they_were(writes: list[Any], clock: str) -> None:
    kept = rule(thin_after_days=0, keep_known_at={"time_of_day": clock, "time_zone": ZONE})

    def gate_reads(tenant: Tenant) -> list[Counter[Stored]]:
        relative = [{"days_ahead": days, "time_of_day": clock, "time_zone": ZONE} for days in (1, 2, 6)]
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


# Repeats that are collapsed


def said(tenant: Tenant, values: Sequence[float | None], *, tag: str = "a", first: float = 80) -> None:
    """One value, said anew each day, as of day 85."""
    for number, value in enumerate(values):
        upload(tenant, [Sent("a", day(85), None, day(first + number), value)], f"{tag}-{number}")


def collapse(tenant: Tenant, days: int = 0) -> list[str]:
    """The runs whose row is left."""
    apply(tenant, rule(collapse_repeats_after_days=days))
    return sorted({row.run_id for row in read(tenant)})


def test_of_revisions_that_say_the_same_the_first_stays_and_the_flat_winner(tenant: Tenant) -> None:
    said(tenant, [1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0])

    assert collapse(tenant) == ["a-0", "a-3", "a-5", "a-7"]
    assert collapse(tenant) == ["a-0", "a-3", "a-5", "a-7"]
    assert [row.run_id for row in read(tenant, "flat", all_versions=False)] == ["a-7"]


def test_repeats_younger_than_the_age_stay(tenant: Tenant) -> None:
    said(tenant, [1.0] * 6)  # known on days 80 to 85

    assert collapse(tenant, 17) == ["a-0", "a-3", "a-4", "a-5"]


def test_nulls_and_nan_repeat_and_an_annotation_does_not(tenant: Tenant) -> None:
    said(tenant, [None, None, math.nan, math.nan, 0.0, -0.0, 0.0])
    rows = [Sent("a", day(85), None, day(88 + number), 0.0, "x", ("t",) * (number % 2)) for number in range(3)]
    for number, row in enumerate(rows):
        upload(tenant, [row], f"b-{number}")

    assert collapse(tenant) == ["a-0", "a-2", "a-4", "b-0", "b-1", "b-2"]


def test_points_with_and_without_an_end_are_two(tenant: Tenant) -> None:
    for number, end in enumerate([None, day(86), None, day(86), None, day(86)]):
        upload(tenant, [Sent("a", day(85), end, day(80 + number), 1.0)], f"a-{number}")

    assert collapse(tenant) == ["a-0", "a-1", "a-4", "a-5"]


def test_what_was_corrected_or_withdrawn_stays_and_what_follows_it(tenant: Tenant) -> None:
    said(tenant, [1.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    rows = {row.run_id: row for row in read(tenant)}
    correct(tenant, rows["a-1"], value=1.0)
    tenant.withdraw_run(WithdrawRun(run_id="a-4"), changed_by=None)

    # Without later corrections a-1 says 5 still and a-4 stands, so a-2 and a-5 answer what they would not.
    assert collapse(tenant) == ["a-0", "a-1", "a-2", "a-4", "a-5", "a-7"]


def test_a_late_run_between_a_repeat_and_what_it_repeats_keeps_it(tenant: Tenant) -> None:
    said(tenant, [1.0, 1.0, 2.0])
    upload(tenant, [Sent("a", day(85), None, day(80.5), 5.0)], "late")

    assert collapse(tenant) == ["a-0", "a-1", "a-2", "late"]
