"""The retention rule that collapses repeats: what goes, and that what was known when is answered as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.behaviour.complete import said
from tests.behaviour.doors import StorageDoor
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.oracle import Row
from tests.behaviour.playing import Played, play
from tests.behaviour.test_tokens import token_of
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import RetentionRule
from timedb.storage import Tenant

NOON = 1_735_732_800_000_000
EXAMPLES = max(3, settings().max_examples // 5)


def collapse(tenant: Tenant, played: Played) -> dict[str, Any]:
    """Collapse the repeats of a history's series, whatever their age."""
    names = [f"{played.name}-{index}" for index in range(len(played.series))]
    rules = [RetentionRule(name=name, collapse_repeats_after_days=0) for name in names]
    told = tenant.apply_retention(rules, dry_run=True)
    done = tenant.apply_retention(rules, dry_run=False)
    assert done["rows"] == told["rows"]
    return done


def known_by(played: Played, moments: Sequence[int]) -> list[Any]:
    """What was known by some moments of a history, with all corrections, those in time, and none."""
    times = {rank: time for time, rank in played.ranks.items()}
    return [
        said(played.oracle, end_known=moment, corrections=corrections, times=times)
        for moment in moments
        for corrections in ("all", "by_cutoff", "none")
    ]


def test_collapsing_changes_no_answer_to_what_was_known_when(own_lake: tuple[str, Tenant]) -> None:
    door = StorageDoor(own_lake[1])
    collapsed = []

    @settings(max_examples=EXAMPLES)
    @given(histories(), st.lists(reads(), min_size=1, max_size=2))
    def holds(history: list[Write], extra: list[Read]) -> None:
        played = play(door, history)
        every = sorted({row.known_time + 1 for row in played.oracle.rows} | set(played.ranks))
        moments = every[:: len(every) // 6 + 1]
        before = known_by(played, moments)
        rows = collapse(door.tenant, played)["rows"]

        assert rows == played.oracle.collapse()
        collapsed.append(rows)
        assert known_by(played, moments) == before
        for view in ("flat", "overlapping"):
            for all_versions in (False, True):
                played.check(view, all_versions=all_versions)
        for read in extra:
            if read.view != "first":
                played.check_read(replace(read, as_of=None, revision=False))
        door.compact()
        played.check("overlapping", all_versions=True)

    holds()
    assert any(collapsed), "some history has repeats"


def test_what_needs_every_revision_is_refused_where_one_went(own_lake: tuple[str, Tenant]) -> None:
    _, tenant = own_lake
    door = StorageDoor(tenant)
    series = door.create_series("repeated")
    tokens = []
    for number, value in enumerate([1.0, 1.0, 2.0]):
        row = Row(series, NOON, None, NOON + number, f"r{number}", 0, value, None, None, retracted=False)
        door.upload([row], run_id=row.run_id, known_time=row.known_time)
        tokens.append(token_of(door.read("changes")))
    written = max(door.read("overlapping")["change_time"].cast(pa.int64()).to_pylist())

    tenant.apply_retention([RetentionRule(name="repeated", collapse_repeats_after_days=0)], dry_run=False)

    assert sorted(door.read("overlapping")["run_id"].to_pylist()) == ["r0", "r2"]
    for view, fields, named in (
        ("first", {}, "view"),
        ("flat", {"columns": ["value", "revision"]}, "columns"),
        ("flat", {"as_of": written}, "as_of"),
        ("changes", {"since": tokens[0]}, "since"),
    ):
        with pytest.raises(InvalidRequest, match=f"^{named}: "):
            door.read(view, **fields)
    assert door.read("first", start_valid=NOON + 1).num_rows == 0
    assert door.read("changes", since=tokens[1])["run_id"].to_pylist() == ["r2"]
