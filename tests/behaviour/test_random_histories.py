"""Random histories through every door, each answer compared row for row with the oracle's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.behaviour.doors import Door
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.playing import Played, play


def check_battery(played: Played, extra: list[Read]) -> None:
    """Every view of everything, then the reads that were drawn."""
    for view in ("flat", "overlapping"):
        for all_versions in (False, True):
            played.check(view, all_versions=all_versions)
    for read in extra:
        played.check_read(read)


@given(history=histories(), extra=st.lists(reads(), min_size=2, max_size=6))
def test_storage(storage_door: Door, history: list[Write], extra: list[Read]) -> None:
    check_battery(play(storage_door, history), extra)


@given(history=histories(), extra=st.lists(reads(), min_size=2, max_size=6))
def test_flight(flight_door: Door, history: list[Write], extra: list[Read]) -> None:
    check_battery(play(flight_door, history), extra)


@given(history=histories(skips=False), extra=st.lists(reads(), min_size=2, max_size=6))
def test_rest(rest_door: Door, history: list[Write], extra: list[Read]) -> None:
    check_battery(play(rest_door, history), extra)


@given(
    history=histories(),
    read=reads(),
    order_by=st.sampled_from(["series", "valid_time", "known_time"]),
    limit=st.integers(1, 5),
)
def test_pages_are_the_ordered_answer_cut_up(
    storage_door: Door, history: list[Write], read: Read, order_by: str, limit: int
) -> None:
    played = play(storage_door, history)
    fields: dict[str, Any] = {**played.fields(read), "ordered": True, "order_by": order_by}
    whole = storage_door.read(read.view, all_versions=read.all_versions, **fields)
    pages = played.pages(read, {**fields, "limit": limit})
    assert all(page.num_rows <= limit for page in pages)
    # Serialised, because NaN is not equal to itself.
    assert [repr(row) for page in pages for row in page.to_pylist()] == [repr(row) for row in whole.to_pylist()]
    assert played.in_order(whole, order_by)
