"""Withdrawals of runs: which rows they hide, what brings these back, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.storage.correcting import EAST, SOUTH, T1, T2, flat, update, versions, withdraw
from tests.storage.lakes import (
    read,
    unstamped,
)
from timedb.contract.errors import InvalidRequest, NotFound, TimeDBError
from timedb.storage import Tenant


@pytest.mark.parametrize("compacted", [False, True])
def test_a_withdrawn_run_and_its_return(two_runs: Tenant, *, compacted: bool) -> None:
    before, rows = flat(two_runs), read(two_runs)
    moment = max(row.change_time for row in rows)
    if compacted:
        two_runs.compact()
    assert withdraw(two_runs, "new", reason="bad weather", changed_by="me") == 4
    for _ in range(2):
        assert flat(two_runs)["south", 1] == 1.0
        assert {row.run_id for row in read(two_runs, "overlapping", all_versions=False)} == {"old", "interval"}
        assert read(two_runs, "flat", all_versions=False, series_ids=[EAST], as_of=moment) != []
        assert unstamped(read(two_runs, as_of=moment)) == unstamped(rows)
        chain = versions(two_runs, "new")
        assert [(row.retracted, row.annotation, row.changed_by) for row in chain] == [
            (False, "noted", None),
            (True, "bad weather", "me"),
        ]
        two_runs.compact()
    assert withdraw(two_runs, "new", reason="again") == 0
    for series in (SOUTH, EAST):
        for time in (T1, T2):
            update(two_runs, {"run_id": "new", "series_id": series, "valid_time": time, "retracted": False})
    for _ in range(2):
        assert flat(two_runs) == before
        two_runs.compact()


def test_some_series_of_a_run(two_runs: Tenant) -> None:
    assert withdraw(two_runs, "new", series_ids=[EAST]) == 2
    assert flat(two_runs)["east", 1] == 1.0
    assert flat(two_runs)["south", 2] == 12.0
    assert withdraw(two_runs, "new") == 2


def test_a_retraction_in_one_bucket_leaves_the_others_alone(two_runs: Tenant) -> None:
    """A bucket that is settled is read from its winners alone, whatever waits in another one."""
    two_runs.compact()
    expected = flat(two_runs)
    assert withdraw(two_runs, "new", series_ids=[EAST]) == 2
    found = flat(two_runs)
    assert {key: value for key, value in found.items() if key[0] == "south"} == {
        key: value for key, value in expected.items() if key[0] == "south"
    }
    assert found["east", 1] == 1.0
    assert len(read(two_runs, "flat", all_versions=False)) == 5


# Refused


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"run_id": "nobody"}, NotFound, "run_id: there is no run 'nobody'"),
        ({"run_id": "new", "series_ids": ["nobody"]}, NotFound, "series_id.*: there is no series 'nobody'"),
        ({"run_id": "new", "why": "x"}, InvalidRequest, "why: unknown field"),
        ({"run_id": "new", "reason": 5}, InvalidRequest, "reason: 5"),
    ],
)
def test_bad_withdrawals(two_runs: Tenant, fields: dict[str, Any], error: type[TimeDBError], message: str) -> None:
    before = read(two_runs)
    with pytest.raises(error, match=f"^{message}"):
        withdraw(two_runs, **fields)
    assert read(two_runs) == before
