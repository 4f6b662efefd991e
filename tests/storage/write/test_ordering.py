"""The rows of an upload in order, and what two chunks of one may share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timedb.contract.errors import InvalidRequest
from timedb.storage.rows.normalise import BATCH
from timedb.storage.write.ordering import Extent, extent, sorted_by_series

IDS = ["a", "b", "c"]


class Row(NamedTuple):
    """What an upload's row is about; hours."""

    series: int
    valid: int
    end: int | None
    known: int


small = st.integers(0, 3)
rows_of_chunks = st.lists(st.builds(Row, st.integers(0, 2), small, st.one_of(st.none(), st.integers(4, 5)), small))


def table(rows: list[Row]) -> pa.Table:
    """Rows as an upload holds them; each value is the place of its row."""
    times = {"valid_time": 1, "valid_time_end": 2, "known_time": 3}
    columns = {
        "series": pa.array([row.series for row in rows], pa.int32()),
        **{name: pa.array([row[place] for row in rows], BATCH.field(name).type) for name, place in times.items()},
        "value": pa.array([float(place) for place in range(len(rows))]),
        "annotation": pa.nulls(len(rows), pa.string()),
        "tags": pa.nulls(len(rows), BATCH.field("tags").type),
    }
    return pa.table(columns, schema=BATCH)


@given(rows=rows_of_chunks)
def test_rows_are_grouped_and_none_is_there_twice(rows: list[Row]) -> None:
    if len(set(rows)) < len(rows):
        with pytest.raises(InvalidRequest, match=r"^valid_time: .* is there twice in one upload$"):
            sorted_by_series(table(rows), IDS)
        return
    found, starts = sorted_by_series(table(rows), IDS)
    places = [int(value) for value in found.column("value").to_pylist()]
    assert sorted(places) == list(range(len(rows)))
    assert found.drop_columns("value").equals(table([rows[place] for place in places]).drop_columns("value"))
    series = [rows[place].series for place in places]
    assert series == sorted(series)
    assert [series[start] for start in starts] == sorted(set(series))


@given(rows=st.sets(st.builds(Row, st.integers(0, 2), small, st.none(), small), min_size=2), cut=st.integers(1, 20))
def test_chunks_that_share_a_row_meet_where_it_is(rows: set[Row], cut: int) -> None:
    drawn = sorted(rows, key=hash)
    one, two = drawn[: cut % len(drawn) or 1], drawn[len(drawn) // 2 :]
    shared = set(one) & set(two)
    meeting = extent_of(one).meeting(extent_of(two))
    if meeting is None:
        assert not shared
    else:
        series, low, high = meeting
        assert all(row.series in series and low <= row.known <= high for row in shared)


def test_chunks_apart_do_not_meet() -> None:
    first = [Row(series, valid, None, 1) for series in range(3) for valid in range(3)]
    for other in (
        [row._replace(known=2) for row in first],
        [row._replace(valid=row.valid + 3) for row in first],
        [row._replace(series=row.series + 3) for row in first],
    ):
        assert extent_of(first).meeting(extent_of(other)) is None
    (series, low, high) = extent_of(first).meeting(extent_of([Row(1, 2, None, 1), Row(2, 9, None, 1)])) or ((), 0, 0)
    assert (list(series), low, high) == ([1], 1, 1)


def extent_of(rows: list[Row]) -> Extent:
    """The extent of rows as one chunk."""
    ordered, starts = sorted_by_series(table(rows), [*IDS, "d", "e", "f"])
    return extent(ordered, starts, np.arange(6))
