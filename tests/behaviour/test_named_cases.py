"""The cases that deserve a name, through every door."""

from __future__ import annotations

import math
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.behaviour.doors import Door, FlightDoor, instant, iso
from tests.behaviour.histories import utc
from tests.behaviour.oracle import Row, float_bits
from timedb.contract.columns import META_AS_OF
from timedb.contract.times import parse_time
from timedb.contract.wire import ReadTicket, parse_object

HOUR = 3_600_000_000
NOON = utc("2025-01-01 12:00")


class Story:
    """One series behind one door, written to step by step."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.name = f"story-{uuid4()}"
        self.series = door.create_series(self.name)

    def upload(self, run: str, known_time: int, values: dict[int, float | None], **options: Any) -> int:
        """One run of values by valid_time; return how many rows were skipped."""
        run_id = self.run_id(run)
        rows = [
            Row(self.series, valid_time, None, known_time, run_id, 0, value, None, None, retracted=False)
            for valid_time, value in values.items()
        ]
        return self.door.upload(rows, run_id=run_id, known_time=known_time, **options)

    def run_id(self, run: str) -> str:
        """The run's id, which no other story has."""
        return f"{self.name}-{run}"

    def read(self, view: str = "flat", **filters: Any) -> pa.Table:
        """A read of the series."""
        return self.door.read(view, series_ids=[self.series], **filters)

    def values(self, view: str = "flat", **filters: Any) -> list[float | None]:
        """The values of a read, sorted by valid_time, known_time and change_time as far as they are there."""
        answer = self.read(view, **filters)
        order = [name for name in ("valid_time", "known_time", "change_time") if name in answer.column_names]
        values: list[float | None] = answer.sort_by([(name, "ascending") for name in order]).column("value").to_pylist()
        return values

    def change_times(self) -> list[int]:
        """All change_times of the series, in order."""
        audit = self.read("overlapping", all_versions=True)
        return sorted(set(audit.column("change_time").cast(pa.int64()).to_pylist()))


@pytest.fixture
def story(door: Door) -> Story:
    return Story(door)


def test_a_backtest_sees_no_later_correction(story: Story) -> None:
    """Corrections keep their known_time, so a cut-off alone lets them through."""
    six = NOON - 6 * HOUR
    story.upload("a", six, {NOON: 10.0})
    address = {"run_id": story.run_id("a"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "value": 11.0}])
    story.door.update_values([{**address, "valid_time": iso(NOON + HOUR), "value": 5.0}])
    story.door.withdraw_run(story.run_id("a"), "wrong weather")
    _, corrected, created, withdrawn = story.change_times()
    assert story.values(end_known=corrected) == []

    def by_cutoff(end_known: int, **filters: Any) -> list[float | None]:
        return story.values(corrections="by_cutoff", end_known=end_known, **filters)

    for compacted in (False, True):
        if compacted:
            story.door.compact()
        assert by_cutoff(six) == []
        assert by_cutoff(six + 1) == by_cutoff(corrected) == [10.0]
        assert by_cutoff(corrected + 1) == by_cutoff(created) == [11.0]
        assert by_cutoff(created + 1) == by_cutoff(withdrawn) == [11.0, 5.0]
        assert by_cutoff(withdrawn + 1) == []
        assert by_cutoff(withdrawn + 1, as_of=created) == [11.0, 5.0]
        assert by_cutoff(withdrawn, view="latest") == [5.0]
        assert by_cutoff(corrected + 1, view="overlapping", all_versions=True) == [10.0, 11.0]
        assert story.values(corrections="none") == [10.0, 5.0]
        assert story.values("overlapping", corrections="none", lead_time="PT6H") == [10.0, 5.0]
        assert story.values(corrections="by_cutoff", lead_time="PT6H") == [10.0]
        assert story.values(corrections="by_cutoff", lead_time="-P36500D") == []


def test_the_value_as_known_some_days_afterwards(story: Story) -> None:
    day = 24 * HOUR
    story.upload("first", NOON + day, {NOON: 1.0})
    story.upload("revised", NOON + 45 * day, {NOON: 2.0})
    story.upload("later", NOON + 45 * day + 1, {NOON: 3.0})
    assert story.values(lead_time="0s") == []
    assert story.values(lead_time="-P1D") == story.values(lead_time="-P44D") == [1.0]
    assert story.values(lead_time="-P45D") == story.values(lead_time="-1080h") == [2.0]
    assert story.values() == [3.0]


def test_the_worked_example_of_the_contract(story: Story) -> None:
    six, seven = NOON - 6 * HOUR, NOON - 5 * HOUR
    story.upload("a", six, {NOON: 10.0})
    story.upload("b", seven, {NOON: 20.0})
    address = {"run_id": story.run_id("a"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "value": 11.0}])
    _, c2, c3 = story.change_times()
    assert story.values() == [20.0]
    assert story.values(end_known=seven) == [11.0]
    assert story.values(end_known=seven, as_of=c2) == [10.0]
    assert story.values("overlapping") == [11.0, 20.0]
    assert story.values("overlapping", all_versions=True) == [10.0, 11.0, 20.0]
    assert story.values(all_versions=True) == [20.0]
    assert story.door.withdraw_run(story.run_id("b"), "wrong weather") == 1
    assert story.values() == [11.0]
    assert story.values(as_of=c3) == [20.0]


def test_a_tie_in_known_time_goes_to_the_later_change(story: Story) -> None:
    story.upload("a", NOON, {NOON: 1.0})
    story.upload("b", NOON, {NOON: 2.0})
    assert story.values() == [2.0]
    story.door.update_values(
        [{"run_id": story.run_id("a"), "series_id": story.series, "valid_time": iso(NOON), "value": 3.0}]
    )
    assert story.values() == [3.0]


def test_the_first_release_stays_the_first_when_it_is_corrected(story: Story) -> None:
    story.upload("z", NOON, {NOON: 1.0})
    story.upload("b", NOON, {NOON: 2.0})
    story.upload("c", NOON + HOUR, {NOON: 3.0})
    address = {"run_id": story.run_id("z"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "value": 1.5}])
    for _ in range(2):
        assert story.values("first") == [1.5]
        assert story.values("first", as_of=story.change_times()[2]) == [1.0]
        assert story.values("first", start_known=NOON + 1) == [3.0]
        story.door.compact()
    story.door.withdraw_run(story.run_id("z"), None)
    assert story.values("first") == [2.0]
    story.upload("late", NOON - HOUR, {NOON: 4.0})
    assert story.values("first") == [4.0]


def test_the_newest_run_is_the_forecast_as_it_was_issued(story: Story) -> None:
    """Runs of a weather model: the flat view stitches them where the newest is shorter."""
    hour = [NOON + number * HOUR for number in range(3)]
    story.upload("m-00", NOON - 7 * HOUR, {hour[0]: 1.0, hour[1]: 2.0, hour[2]: 3.0})
    story.upload("m-06", NOON - HOUR, {hour[0]: 10.0, hour[1]: 20.0})
    address = {"run_id": story.run_id("m-00"), "series_id": story.series, "valid_time": iso(hour[2])}
    for _ in range(2):
        assert story.values() == [10.0, 20.0, 3.0]
        assert story.values(newest_run=True) == story.values("overlapping", newest_run=True) == [10.0, 20.0]
        assert story.values("latest", newest_run=True) == [20.0]
        assert story.values(newest_run=True, start_valid=hour[2]) == [3.0], "filters come first"
        assert story.values(newest_run=True, end_known=NOON - HOUR) == [1.0, 2.0, 3.0]
        assert story.values(newest_run=True, run_ids=[story.run_id("m-00")]) == [1.0, 2.0, 3.0]
        story.door.update_values([{**address, "value": 3.0, "annotation": "checked"}])
        story.door.compact()
    window = {"window_length": "PT1H", "issue_offset": "PT0S", "start_window": iso(NOON)}
    assert story.values(newest_run=True, relative=window) == [10.0, 20.0, 3.0], "once a window"
    story.door.withdraw_run(story.run_id("m-06"), None)
    assert story.values(newest_run=True) == [1.0, 2.0, 3.0]


def test_revisions_are_counted(story: Story) -> None:
    story.upload("z", NOON, {NOON: 1.0})
    story.upload("b", NOON, {NOON: 2.0})
    story.upload("c", NOON + HOUR, {NOON: 3.0, NOON + HOUR: 4.0})
    address = {"run_id": story.run_id("z"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "value": 1.5}])
    columns = ["valid_time", "known_time", "change_time", "series_id", "value", "revision"]

    def numbers(view: str = "flat", **filters: Any) -> list[tuple[float, int | None]]:
        rows = story.read(view, columns=columns, **filters)
        assert rows.schema.field("revision").type == pa.int32()
        return sorted((row["value"], row["revision"]) for row in rows.to_pylist())

    for _ in range(2):
        assert numbers() == [(3.0, 3), (4.0, 1)]
        assert numbers("overlapping") == [(1.5, 1), (2.0, 2), (3.0, 3), (4.0, 1)]
        assert numbers("overlapping", all_versions=True)[:2] == [(1.0, 1), (1.5, 1)]
        assert numbers("first") == [(1.5, 1), (4.0, 1)]
        assert numbers("latest", newest_run=True) == [(4.0, 1)]
        assert numbers(newest_run=True) == [(3.0, 3), (4.0, 1)], "counted among all, not in the run alone"
        assert numbers(start_known=NOON + 1) == [(3.0, 1), (4.0, 1)], "under the filters"
        story.door.compact()
    story.door.withdraw_run(story.run_id("z"), None)
    assert numbers("overlapping") == [(2.0, 1), (3.0, 2), (4.0, 1)]
    assert (1.5, None) in numbers("overlapping", all_versions=True), "what does not stand has no number"


def test_local_days_without_a_value_are_filled(story: Story) -> None:
    """Two days around a change of the clocks, and a run that says less than another."""
    noons = [utc(f"2025-03-{day} 11:00") for day in (28, 29, 30, 31)]
    story.upload("a", NOON, {noons[0]: 1.0, noons[3]: 4.0})
    story.upload("b", NOON + HOUR, {noons[1]: None, noons[2]: math.nan})
    days: dict[str, Any] = {"period": "P1D", "aggregate": "mean", "time_zone": "Europe/Stockholm"}
    columns = ["series_id", "valid_time", "known_time", "value"]

    def filled(fill: Any, view: str = "flat", bounds: Any = None, **more: Any) -> list[float | None]:
        wanted = [name for name in columns if view == "overlapping" or name != "known_time"]
        how = days | {"fill": fill} | more
        order = [(name, "ascending") for name in ("known_time", "valid_time") if name in wanted]
        found: list[float | None] = (
            story.read(view, resample=how, columns=wanted, **(bounds or {})).sort_by(order).column("value").to_pylist()
        )
        return [None if value is None else -1.0 if math.isnan(value) else value for value in found]

    around = {"start_valid": noons[0] - 24 * HOUR, "end_valid": noons[3] + 24 * HOUR}
    assert filled("none") == filled("null") == [1.0, None, -1.0, 4.0], "NaN is a value"
    assert filled("null", bounds=around) == [None, 1.0, None, -1.0, 4.0, None]
    assert filled("previous", bounds=around) == [None, 1.0, 1.0, -1.0, 4.0, 4.0]
    assert filled("previous", "overlapping", around) == [1.0, 1.0, 1.0, 4.0, None, -1.0]
    assert filled("previous", "overlapping", around, fill_limit=1) == [1.0, 1.0, None, 4.0, None, -1.0]
    linear = filled("linear", "overlapping")
    assert linear[3:] == [4.0, None, -1.0]
    assert linear[1] == pytest.approx(1 + 3 * 24 / 71), "days of 24, 24 and 23 hours"
    assert filled(0, bounds=around) == [0.0, 1.0, 0.0, -1.0, 4.0, 0.0]
    assert filled("null", bounds={"start_valid": noons[3] + 48 * HOUR}) == [], "nothing is made of nothing"


def test_what_was_known_and_written_by_then_never_changes(story: Story) -> None:
    story.upload("a", NOON, {NOON + hour * HOUR: float(hour) for hour in range(5)})
    (then,) = story.change_times()
    question: dict[str, Any] = {"end_known": NOON + 1, "as_of": then}
    before = story.values(**question)
    story.upload("late", NOON - HOUR, {NOON: 100.0})
    story.upload("tie", NOON, {NOON + HOUR: 100.0})
    story.door.update_values([{"series_id": story.series, "valid_time": iso(NOON + 2 * HOUR), "value": None}])
    story.door.withdraw_run(story.run_id("a"), None)
    story.door.compact()
    assert story.values(**question) == before == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert story.values() == [100.0, 100.0]


@pytest.mark.parametrize("door", ["flight"], indirect=True)
def test_as_of_resolves_to_what_the_store_held(story: Story) -> None:
    story.upload("a", NOON, {NOON: 1.0})
    (then,) = story.change_times()
    resolved = parse_time((story.read(as_of=utc("2200-01-01 00:00")).schema.metadata or {})[META_AS_OF].decode())
    assert resolved == instant(then)


@pytest.mark.parametrize(
    ("day", "gate", "time_of_day"),
    [
        ("2025-03-30 10:00", "2025-03-29 09:00", "10:00"),  # the day of 23 hours: its gate lies in winter time
        ("2025-03-31 10:00", "2025-03-30 08:00", "10:00"),
        ("2025-10-26 10:00", "2025-10-25 08:00", "10:00"),  # the day of 25 hours: its gate lies in summer time
        ("2025-10-26 22:59", "2025-10-25 08:00", "10:00"),
        ("2025-10-26 23:00", "2025-10-26 09:00", "10:00"),  # already the next local day
        ("2025-03-31 10:00", "2025-03-30 01:00", "02:30"),  # skipped: the first instant that exists after it
        ("2025-10-27 10:00", "2025-10-26 00:30", "02:30"),  # repeated: the earlier
    ],
)
def test_the_day_ahead_gate_on_days_of_23_and_25_hours(story: Story, day: str, gate: str, time_of_day: str) -> None:
    valid_time, closes = utc(day), utc(gate)
    story.upload("in time", closes, {valid_time: 1.0})
    story.upload("too late", closes + 1, {valid_time: 2.0})
    relative = {"days_ahead": 1, "time_of_day": time_of_day, "time_zone": "Europe/Stockholm"}
    assert story.values() == [2.0]
    assert story.values(relative=relative) == [1.0]


def test_a_withdrawal_after_compaction_lets_the_next_best_win(story: Story) -> None:
    for hour in range(3):
        story.upload(f"run {hour}", NOON + hour * HOUR, {NOON: float(hour)})
    story.door.compact()
    for best in (2, 1):
        assert story.values() == [float(best)]
        assert story.values(end_known=NOON + best * HOUR) == [float(best - 1)]
        story.door.withdraw_run(story.run_id(f"run {best}"), None)
    assert story.values() == [0.0]
    story.door.compact()
    assert story.values() == [0.0]


def test_a_correction_without_a_run_means_the_winner_that_stands(story: Story) -> None:
    story.upload("a", NOON, {NOON: 1.0})
    story.upload("b", NOON + 1, {NOON: 2.0})
    story.upload("c", NOON + 1, {NOON: 3.0})
    story.door.withdraw_run(story.run_id("c"), None)
    story.door.update_values([{"series_id": story.series, "valid_time": iso(NOON), "value": 20.0}])
    assert story.values("overlapping") == [1.0, 20.0]


def test_a_withdrawn_run_that_comes_back_wins_again(story: Story) -> None:
    story.upload("a", NOON, {NOON: 1.0})
    story.upload("b", NOON + 1, {NOON: 2.0})
    story.door.withdraw_run(story.run_id("b"), "wrong weather")
    story.door.compact()
    address = {"run_id": story.run_id("b"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "retracted": False}])
    assert story.values() == [2.0]
    audit = story.read("overlapping", all_versions=True, start_known=NOON + 1).sort_by("change_time")
    assert [bool(cell) for cell in audit.column("retracted").to_pylist()] == [False, True, False]
    assert audit.column("annotation").to_pylist() == [None, "wrong weather", "wrong weather"]


def test_a_withdrawn_run_says_so_and_can_be_restored(story: Story) -> None:
    story.upload("a", NOON, {NOON: 1.0})
    story.upload("b", NOON + 1, {NOON: 2.0, NOON + HOUR: 3.0})
    run = story.run_id("b")
    assert (story.door.get_run(run)["withdrawn"], story.door.get_run(run)["withdrawn_rows"]) == (None, 0)
    story.door.withdraw_run(run, "wrong weather")
    said = story.door.get_run(run)
    assert said["withdrawn_rows"] == 2
    assert (said["withdrawn"]["reason"], said["withdrawn"]["changed_by"]) == ("wrong weather", None)
    assert parse_time(said["withdrawn"]["time"]) == instant(story.change_times()[-1])
    story.door.compact()
    assert story.door.restore_run(run, None) == (2, 0)
    assert story.values() == [2.0, 3.0]
    assert story.values("changes") == [1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    assert story.door.get_run(run)["withdrawn"] is None


def test_null_nan_infinity_and_negative_zero_survive(story: Story) -> None:
    values = [None, math.nan, -0.0, 0.0, math.inf, -math.inf, 5e-324]
    story.upload("a", NOON, {NOON + index * HOUR: value for index, value in enumerate(values)})
    story.door.compact()
    assert [float_bits(value) for value in story.values()] == [float_bits(value) for value in values]


@pytest.mark.parametrize("door", ["storage", "flight"], indirect=True)
def test_skip_unchanged_keeps_what_changes_back(story: Story) -> None:
    assert story.upload("a", NOON, {NOON: 1.0}) == 0
    assert story.upload("b", NOON + 1, {NOON: 2.0}) == 0
    assert story.upload("c", NOON + 2, {NOON: 1.0, NOON + HOUR: 1.0}, skip_unchanged=True) == 0
    assert story.upload("d", NOON + 3, {NOON: 1.0, NOON + HOUR: 2.0}, skip_unchanged=True) == 1
    assert story.values() == [1.0, 2.0]


@pytest.mark.parametrize("door", ["storage", "flight"], indirect=True)
@pytest.mark.parametrize("skip", [True, False], ids=["dropped", "stored"])
def test_a_row_that_was_dropped_is_as_if_never_sent(story: Story, *, skip: bool) -> None:
    six, eight, ten = (NOON - hours * HOUR for hours in (6, 4, 2))
    story.upload("first", six, {NOON: 1.0})
    assert story.upload("said last", ten, {NOON: 1.0}, skip_unchanged=skip) == int(skip)
    assert (story.values(), story.values(end_known=ten)) == ([1.0], [1.0])
    story.upload("late", eight, {NOON: 5.0})
    assert story.values() == ([5.0] if skip else [1.0]), "known in between, and there only now"
    assert story.values(end_known=ten) == [5.0]


@pytest.mark.parametrize("door", ["storage", "flight"], indirect=True)
@pytest.mark.parametrize("skip", [True, False], ids=["dropped", "stored"])
def test_a_row_that_was_dropped_follows_the_one_it_repeats(story: Story, *, skip: bool) -> None:
    story.upload("first", NOON - 2, {NOON: 1.0, NOON + HOUR: 1.0})
    assert story.upload("again", NOON - 1, {NOON: 1.0, NOON + HOUR: 1.0}, skip_unchanged=skip) == 2 * skip
    address = {"run_id": story.run_id("first"), "series_id": story.series, "valid_time": iso(NOON)}
    story.door.update_values([{**address, "value": 7.0}])
    assert story.values() == ([7.0, 1.0] if skip else [1.0, 1.0])
    story.door.withdraw_run(story.run_id("first"), None)
    assert story.values() == ([] if skip else [1.0, 1.0])
    story.door.restore_run(story.run_id("first"), None)
    assert story.values() == ([7.0, 1.0] if skip else [1.0, 1.0])


def test_the_same_run_again_adds_nothing(story: Story) -> None:
    for _ in range(2):
        story.upload("a", NOON, {NOON: 1.0, NOON + HOUR: 2.0})
    assert story.values("overlapping", all_versions=True) == [1.0, 2.0]


def test_nothing_has_columns_too(story: Story) -> None:
    empty = story.read("overlapping", all_versions=True)
    assert empty.num_rows == 0
    story.upload("a", NOON, {NOON: 1.0})
    assert story.read("overlapping", all_versions=True).schema.names == empty.schema.names
    assert story.values(start_valid=NOON + 1) == []
    assert story.values(end_known=NOON) == []


def test_the_endpoints_of_a_flight_are_the_whole_answer(flight_door: FlightDoor) -> None:
    story = Story(flight_door)
    others = [flight_door.create_series(f"{story.name}-{index}") for index in range(40)]
    run_id = story.run_id("a")
    rows = [Row(one, NOON, None, NOON, run_id, 0, 1.0, None, None, retracted=False) for one in others]
    flight_door.upload(rows, run_id=run_id, known_time=NOON)
    read = parse_object(ReadTicket, {"series_ids": others})
    with flight.connect(flight_door.url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(read.to_bytes()))
        flight_door.upload(
            [Row(one, NOON, None, NOON + 1, f"{run_id}-later", 0, 2.0, None, None, retracted=False) for one in others],
            run_id=f"{run_id}-later",
            known_time=NOON + 1,
        )
        parts = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    assert len(parts) > 1
    found = [
        row for part in parts for row in zip(part["series_id"].to_pylist(), part["value"].to_pylist(), strict=True)
    ]
    assert sorted(found) == sorted((one, 1.0) for one in others)
