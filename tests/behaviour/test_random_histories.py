"""Random histories through every door, each answer compared row for row with the oracle's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tests.behaviour.doors import Door, StorageDoor
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.periods import Resampled, resampled
from tests.behaviour.playing import Played, play

F = TypeVar("F", bound=Callable[..., None])

# Hypothesis varies its tenth example instead of drawing anew, so several short rounds see more than a long one.
ROUNDS = [(door, number) for number in range(2) for door in ("storage", "every")]


def of_round(number: object) -> Callable[[F], F]:
    """Draw the same examples in a round each time, and others in each round, unless the profile wants it otherwise."""
    return seed(str(number)) if settings().derandomize else lambda test: test


def check_battery(played: Played, extra: list[Read], periods: Resampled) -> None:
    """Every view of everything, long or wide, then what was drawn; all that was written has been compared before."""
    played.check("flat", all_versions=True)
    for view in ("latest", "changes", "first"):
        played.check(view)
    for number, view in enumerate(("flat", "overlapping")):
        if (len(played.oracle.rows) + number) % 2:
            played.check_wide(view)
        else:
            played.check(view)
    played.check_periods(periods)
    played.check_runs()
    for read in extra:
        played.check_read(read)


@pytest.mark.parametrize(("door", "number"), ROUNDS, indirect=["door"])
def test_every_answer_is_the_oracles(door: Door, number: int) -> None:
    @of_round((type(door).__name__, number))
    @given(histories(), st.lists(reads(), min_size=3, max_size=6), resampled())
    def holds(history: list[Write], extra: list[Read], periods: Resampled) -> None:
        played = play(door, history, check_each=isinstance(door, StorageDoor) and number == 0)
        check_battery(played, extra, periods)
        if isinstance(door, StorageDoor):  # it is about the contract, and the same behind every door
            complete = played.complete
            assert complete.differs() <= complete.may_differ()

    holds()


def test_pages_are_the_ordered_answer_cut_up(storage_door: Door) -> None:
    orders = st.sampled_from(["series", "valid_time", "known_time"])

    @of_round("pages")
    @given(histories(), reads(), orders, st.booleans(), st.integers(1, 5))
    def holds(history: list[Write], read: Read, order_by: str, descending: bool, limit: int) -> None:
        played = play(storage_door, history)
        fields: dict[str, Any] = {
            **played.fields(read),
            "ordered": True,
            "order_by": order_by,
            "descending": descending,
        }
        whole = storage_door.read(read.view, all_versions=read.all_versions, **fields)
        pages = played.pages(read, {**fields, "limit": limit})
        assert all(page.num_rows <= limit for page in pages)
        # Serialised, because NaN is not equal to itself.
        assert [repr(row) for page in pages for row in page.to_pylist()] == [repr(row) for row in whole.to_pylist()]
        assert played.in_order(whole, order_by, descending=descending)

    holds()
