"""Periods without a value: grids that are walked day by day with zoneinfo, and what becomes of them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.behaviour.oracle import first_instant
from tests.storage.lakes import Sent, hour, open_tenant, read_table, tiny_settings, upload
from tests.storage.read.test_resample import frame, utc
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.times import from_micros, to_micros
from timedb.contract.wire import Resample, parse_object
from timedb.storage import Lake
from timedb.storage.read.filling import Grid
from timedb.storage.read.resample import resample

ZONES = ["Europe/Stockholm", "Australia/Lord_Howe", "Pacific/Apia"]
NAN = float("nan")
Cells = dict[int, float | None]


def midnights(first: int, last: int, zone: ZoneInfo) -> list[int]:
    """The starts of the local days that reach from one instant to another, and of the next; a day that a zone has left
    out starts when the next does, and is none.
    """
    begin = from_micros(first).astimezone(zone).date()
    end = from_micros(last).astimezone(zone).date()
    days = [begin + timedelta(days=number) for number in range((end - begin).days + 2)]
    starts = [first_instant(datetime(day.year, day.month, day.day), zone) for day in days]
    return sorted(set(starts))


def naively_filled(values: Cells, starts: list[int], fill: Any, limit: int | None) -> Cells:
    """The values of the days of a grid, looked at one after the other."""
    filled: Cells = {}
    before: int | None = None
    gap = 0
    for start in starts:
        value = values.get(start)
        gap = 0 if value is not None else gap + 1
        if value is not None:
            before = start
        elif fill != "null" and (limit is None or gap <= limit):
            after = next((each for each in starts if each > start and values.get(each) is not None), None)
            if fill == "previous":
                value = None if before is None else values[before]
            elif fill != "linear":
                value = fill
            elif before is not None and after is not None:
                low, high = values[before], values[after]
                assert low is not None
                assert high is not None
                value = low + (high - low) * ((start - before) / (after - before))
        filled[start] = value
    return filled


def same(left: Cells, right: Cells) -> bool:
    """Equal, NaN with NaN."""
    return left.keys() == right.keys() and all(
        (left[key] is None) == (right[key] is None)
        and (left[key] is None or left[key] == right[key] or (math.isnan(left[key]) and math.isnan(right[key])))  # type: ignore[arg-type]
        for key in left
    )


# Around changes of the clocks by an hour, by half an hour, and by a day that Samoa left out.
_BEGIN = [utc("2025-03-27 13:30"), utc("2025-04-03 01:00"), utc("2011-12-28 05:00")]


@given(
    zone=st.sampled_from(ZONES),
    hours=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 190)), min_size=1, max_size=8, unique=True),
    values=st.lists(st.sampled_from([None, NAN, 1.0, -2.5, 1e9]), min_size=8, max_size=8),
    bounds=st.tuples(st.booleans(), st.booleans()),
    fill=st.sampled_from(["null", "previous", "linear", 3.5]),
    limit=st.sampled_from([None, None, 1, 2]),
)
def test_grids_are_filled_as_by_hand(
    zone: str,
    hours: list[tuple[str, int]],
    values: list[float | None],
    bounds: tuple[bool, bool],
    fill: Any,
    limit: int | None,
) -> None:
    begin = _BEGIN[ZONES.index(zone)]
    rows = [
        (group, begin + timedelta(hours=hour), None, value) for (group, hour), value in zip(hours, values, strict=False)
    ]
    start, end = begin - timedelta(hours=30), begin + timedelta(hours=200)
    grid = Grid(to_micros(start) if bounds[0] else None, to_micros(end) if bounds[1] else None, 1000)
    how = {"period": "P1D", "aggregate": "max", "time_zone": zone}
    plain = cells(resample(frame(rows), parse_object(Resample, how)))
    found = cells(resample(frame(rows), parse_object(Resample, how | {"fill": fill, "fill_limit": limit}), grid=grid))
    assert found.keys() == plain.keys()
    for group, its in plain.items():
        instants = [to_micros(time) for each, time, *_ in rows if each == group]
        first = to_micros(start) if bounds[0] else min(instants)
        last = to_micros(end) - 1 if bounds[1] else max(instants)
        *starts, _ = midnights(first, last, ZoneInfo(zone))
        assert same(found[group], naively_filled(its, starts, fill, limit)), group


def cells(rows: pl.DataFrame) -> dict[str, Cells]:
    """Of each group the values by the start of their periods."""
    found: dict[str, Cells] = {}
    for row in rows.iter_rows(named=True):
        assert to_micros(row["valid_time"]) not in found.setdefault(row["series_id"], {})
        found[row["series_id"]][to_micros(row["valid_time"])] = row["value"]
    return found


def test_intervals_reach_beyond_the_grid_and_counts_of_nothing_are_nought() -> None:
    noon = utc("2025-01-01 12:00")
    rows = frame([("a", noon, noon + timedelta(days=2), 4.0), ("b", noon, None, None)])
    how = parse_object(Resample, {"period": "P1D", "aggregate": "count", "fill": 9})
    grid = Grid(to_micros(noon - timedelta(days=1)), to_micros(noon + timedelta(hours=1)), 100)
    assert resample(rows, how, grid=grid)["value"].to_list() == [9.0, 1.0, 1.0, 1.0, 9.0, 0.0]


def test_a_read_adds_no_more_rows_than_it_may(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    lake = Lake.open(path, tiny_settings(lake=path, max_fill_rows=20))
    tenant = open_tenant(lake)
    for number, name in enumerate(("south", "east")):
        upload(tenant, [Sent(name, hour(valid), None, hour(0), 1.0) for valid in (number, 9)], name)
    how: dict[str, Any] = {"period": "PT1H", "aggregate": "mean", "fill": "previous"}
    asked = {"resample": how, "ordered": True, "columns": ["series_key", "value"]}
    assert read_table(tenant, **asked).num_rows == 19
    assert read_table(tenant, **asked, limit=12).num_rows == 12, "pages are cut out of it"
    assert read_table(tenant, **asked, view="overlapping").num_rows == 19
    day = {"start_valid": "2025-01-01T00:00:00Z", "end_valid": "2025-01-01T12:00:00Z"}
    assert read_table(tenant, **asked, **day).num_rows == 24
    with pytest.raises(TooLarge, match=r"^resample.fill: the periods without a value are more than 20, the limit"):
        read_table(tenant, **asked, **{**day, "end_valid": "2025-01-01T13:00:00Z"})
    how["period"] = "1us"
    with pytest.raises(TooLarge, match="more than 20"):
        read_table(tenant, **asked, start_valid="0001-01-01T00:00:00Z", end_valid="9999-12-31T00:00:00Z")
    how["fill"] = "none"
    assert read_table(tenant, **asked).num_rows == 4
    lake.close()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fill": "next"}, 'fill: \'next\' is not "none", "null", "previous", "linear" or a finite number'),
        ({"fill": None}, "fill: None is not"),
        ({"fill": NAN}, "fill: nan is not"),
        ({"fill": True}, "fill: True is not a number"),
        ({"fill_limit": 3}, "fill_limit goes with fill"),
        ({"fill": "linear", "fill_limit": 0}, "fill_limit: 0"),
    ],
)
def test_faults_are_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_object(Resample, {"period": "P1D", "aggregate": "mean", **fields})
    assert says in str(refused.value)
