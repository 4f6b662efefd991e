"""Runs that are withdrawn and restored: what they say of it, what comes back, and what stays as it is."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.behaviour.oracle import float_bits
from tests.storage.lakes import (
    Sent,
    Stored,
    hour,
    open_tenant,
    read,
    scan_table,
    some_rows,
    tiny_settings,
    upload,
)
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import GetRun, ListRuns, RestoreRun, RetentionRule, UpdateValues, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.catalog.withdrawn import RowsOfRuns
from timedb.storage.commit.writes import Answer, CommitContext, Prepared
from timedb.storage.write.withdrawals import Withdrawal

SOUTH, EAST = (series_id_for(OPEN_TENANT_ID, name, None) for name in ("south", "east"))
NOTED = [row._replace(annotation="own", tags=("t",)) for row in some_rows(4, known=2, value=2.0)]


class UnrecordedWithdrawal(Withdrawal):
    """A withdrawal as release 0.1.0 made it: nothing but rows."""

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The rows, without the record."""
        outcome = super().prepare(context)
        return replace(outcome, info={}) if isinstance(outcome, Prepared) else outcome


@pytest.fixture
def runs(tenant: Tenant) -> Tenant:
    """Two runs of the same points."""
    upload(tenant, some_rows(4, known=1, value=1.0), "old")
    upload(tenant, NOTED, "new")
    return tenant


def withdraw(tenant: Tenant, run_id: str = "new", **fields: Any) -> int:
    """Withdraw a run; how many rows."""
    message = parse_object(WithdrawRun, {"run_id": run_id, **fields})
    return int(tenant.withdraw_run(message, changed_by=None)["withdrawn"])


def withdraw_as_before(tenant: Tenant, run_id: str = "new", **fields: Any) -> None:
    """Withdraw a run without a record of it."""
    message = parse_object(WithdrawRun, {"run_id": run_id, **fields})
    rows = RowsOfRuns(tenant.values, tenant.bucket_digits)
    tenant.lane.submit(
        UnrecordedWithdrawal(message, None, tenant.catalog, rows, lambda _, ids: tenant.ledger.runs.known_all(ids))
    )


def restore(tenant: Tenant, run_id: str = "new", **fields: Any) -> tuple[int, int]:
    """Restore a run; how many rows stand again, and how many stay retracted."""
    answer = tenant.restore_run(parse_object(RestoreRun, {"run_id": run_id, **fields}), changed_by=None)
    return answer["restored"], answer["left_retracted"]


def update(tenant: Tenant, number: int, **changes: Any) -> None:
    """Correct the row of ``south`` in the new run at some hour."""
    address = {"run_id": "new", "series_id": SOUTH, "valid_time": format_time(from_micros(hour(number)))}
    tenant.update_values(parse_object(UpdateValues, {"updates": [{**address, **changes}]}), changed_by=None)


def state(tenant: Tenant, run_id: str = "new") -> tuple[dict[str, Any] | None, int]:
    """What the run says of its withdrawal, alike by both calls."""
    run = tenant.get_run(GetRun(run_id=run_id))
    assert run == next(each for each in tenant.list_runs(ListRuns()) if each["run_id"] == run_id)
    return run["withdrawn"], run["withdrawn_rows"]


def standing(tenant: Tenant, run_id: str = "new") -> list[tuple[Any, ...]]:
    """Value, annotation and tags of the rows of a run that stand."""
    rows = sorted(row for row in read(tenant, all_versions=False) if row.run_id == run_id)
    return [(row.series, row.valid_time, row.value, row.annotation, row.tags) for row in rows]


def stamps(tenant: Tenant) -> list[int]:
    """The change_times there are."""
    return sorted({row.change_time for row in read(tenant)})


@pytest.mark.parametrize("compacted", [False, True])
def test_a_run_says_that_it_is_withdrawn_and_comes_back_as_it_was(runs: Tenant, *, compacted: bool) -> None:
    before = standing(runs)
    assert state(runs) == (None, 0)
    assert withdraw(runs, reason="bad weather", changed_by="me") == 4
    gone = stamps(runs)[-1]
    if compacted:
        runs.compact()
    assert state(runs) == ({"time": format_time(from_micros(gone)), "changed_by": "me", "reason": "bad weather"}, 4)
    assert state(runs, "old") == (None, 0)
    assert standing(runs) == []
    if compacted:
        runs.compact()
    assert restore(runs, changed_by="her") == (4, 0)
    assert state(runs) == (None, 0)
    for _ in range(2):
        assert standing(runs) == before
        assert {row.run_id for row in read(runs, "flat", all_versions=False)} == {"new"}
        assert {row.run_id for row in read(runs, "flat", all_versions=False, as_of=gone)} == {"old"}
        chains = [row for row in read(runs) if row.run_id == "new" and row.series == "east"]
        assert [(row.retracted, row.annotation, row.changed_by) for row in sorted(chains, key=_stamp)] == [
            (False, "own", None),
            (True, "bad weather", "me"),
            (False, "own", "her"),
        ]
        runs.compact()


def test_a_retry_of_a_withdrawn_run_says_so_and_brings_nothing_back(runs: Tenant) -> None:
    receipt = upload(runs, NOTED, "new")
    assert (receipt["withdrawn"], receipt["withdrawn_rows"]) == (None, 0)
    withdraw(runs, series_ids=[EAST])
    assert upload(runs, NOTED, "new") == {**receipt, "withdrawn_rows": 1}
    withdraw(runs, reason="bad")
    again = upload(runs, NOTED, "new")
    assert again == {**receipt, "withdrawn": state(runs)[0], "withdrawn_rows": 4}
    assert again["withdrawn"]["reason"] == "bad"
    assert standing(runs) == []
    restore(runs)
    assert upload(runs, NOTED, "new") == receipt


def test_withdrawals_and_restorations_that_repeat(runs: Tenant) -> None:
    withdraw(runs, reason="first")
    said = state(runs)
    assert withdraw(runs, reason="second") == 0
    assert state(runs) == said, "who comes second changes nothing"
    assert (restore(runs), restore(runs)) == ((4, 0), (0, 0))
    assert withdraw(runs, reason="third") == 4
    assert (said[0] or {})["reason"] == "first"
    assert (state(runs)[0] or {})["reason"] == "third"
    assert restore(runs, reason="right after all") == (4, 0)
    assert {row[3] for row in standing(runs)} == {"right after all"}
    assert len(stamps(runs)) == 6


def test_corrections_before_and_after_a_withdrawal_stay(runs: Tenant) -> None:
    update(runs, 0, value=50.0)
    update(runs, 1, retracted=True)
    assert state(runs) == (None, 1)
    assert withdraw(runs, reason="bad") == 3
    update(runs, 0, value=60.0, tags=["after"])
    assert restore(runs) == (3, 1)
    rows = [row for row in read(runs, all_versions=False) if row.run_id == "new"]
    by_point = {(row.series, row.valid_time): row for row in rows}
    assert set(by_point) == {("south", hour(0)), ("east", hour(0)), ("a", hour(0))}
    corrected = by_point["south", hour(0)]
    assert (corrected.value, corrected.annotation, corrected.tags) == (float_bits(60.0), "own", ("after",))
    assert state(runs) == (None, 1)
    update(runs, 1, retracted=False)
    assert state(runs) == (None, 0)


def test_an_annotation_that_is_corrected_after_the_withdrawal_is_kept(runs: Tenant) -> None:
    withdraw(runs, reason="bad")
    update(runs, 0, annotation="looked at")
    restore(runs)
    assert {(row[0], row[1], row[3]) for row in standing(runs)} >= {("south", hour(0), "looked at")}


def test_a_row_retracted_after_a_restoration_stays_so(runs: Tenant) -> None:
    withdraw(runs)
    update(runs, 0, retracted=False)
    assert state(runs) == (None, 3)
    update(runs, 0, retracted=True)
    gone = state(runs)[0] or {}
    assert gone["time"] == format_time(from_micros(stamps(runs)[-1])), "what took the last row"
    assert restore(runs) == (3, 1)


def test_some_series_of_a_run(runs: Tenant) -> None:
    assert withdraw(runs, series_ids=[EAST]) == 1
    assert state(runs) == (None, 1)
    assert withdraw(runs, reason="the rest") == 3
    assert (state(runs)[0] or {})["reason"] == "the rest"
    assert restore(runs, series_ids=[SOUTH]) == (2, 0)
    assert state(runs) == (None, 2)
    assert restore(runs) == (2, 0), "whatever withdrawal took it"


@pytest.mark.parametrize("compacted", [False, True])
def test_withdrawals_without_a_record(runs: Tenant, *, compacted: bool) -> None:
    """Lakes of release 0.1.0 have them."""
    before = standing(runs)
    update(runs, 1, retracted=True)
    withdraw_as_before(runs, reason="bad weather")
    if compacted:
        runs.compact()
    note, rows = state(runs)
    assert (rows, (note or {})["reason"]) == (4, "bad weather")
    assert restore(runs) == (3, 1), "several of one change_time are a withdrawal, a single one is a correction"
    assert standing(runs) == [row for row in before if row[:2] != ("south", hour(1))]
    upload(runs, [Sent("a", hour(9), None, None, 1.0)], "single")
    withdraw_as_before(runs, "single")
    assert (state(runs, "single")[0] or {"reason": ""})["reason"] is None
    assert restore(runs, "single") == (1, 0), "the only row of a run"


def test_after_a_restart(tmp_path: Path) -> None:
    with closing(Lake.open(str(tmp_path / "lake"), tiny_settings())) as lake:
        upload(open_tenant(lake), NOTED, "new")
        withdraw(open_tenant(lake), series_ids=[EAST], reason="bad")
        withdraw(open_tenant(lake), reason="worse")
        open_tenant(lake).maintain()
    with closing(Lake.open(str(tmp_path / "lake"), tiny_settings())) as lake:
        note, rows = state(open_tenant(lake))
        assert (rows, (note or {})["reason"]) == (4, "worse")
        assert restore(open_tenant(lake)) == (4, 0)
    records = scan_table(tmp_path / "lake", "updates")
    assert sorted(records["rows"].to_list()) == [1, 3]


@pytest.mark.parametrize("at_once", [1, 5, 500_000])
def test_many_withdrawn_runs_are_looked_at_piece_by_piece(
    runs: Tenant, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("timedb.storage.catalog.withdrawn._ROWS_AT_ONCE", at_once)
    upload(runs, some_rows(2, known=3), "third")
    for run_id in ("old", "new", "third"):
        withdraw(runs, run_id, reason=run_id)
    restore(runs, "old")
    told = {run["run_id"]: run["withdrawn"] and run["withdrawn"]["reason"] for run in runs.list_runs(ListRuns())}
    assert told == {"old": None, "new": "new", "third": "third"}


def test_runs_without_rows_and_unknown_ones(runs: Tenant) -> None:
    upload(runs, [], "empty")
    assert withdraw(runs, "empty") == 0
    assert (state(runs, "empty"), restore(runs, "empty")) == ((None, 0), (0, 0))
    with pytest.raises(NotFound, match="run_id: there is no run 'none'"):
        restore(runs, "none")
    with pytest.raises(NotFound, match="series_id"):
        restore(runs, series_ids=["none"])
    with pytest.raises(InvalidRequest, match="update_id"):
        parse_object(UpdateValues, {"updates": [], "update_id": f"withdraw_run\x1f{stamps(runs)[-1]}"})


def test_only_files_that_can_hold_retractions_are_looked_into(runs: Tenant) -> None:
    """Asking for runs opens no file of values on a lake where nothing is withdrawn, and each one once where it is."""
    runs.list_runs(ListRuns())
    assert runs._withdrawn_runs._known == {}
    withdraw(runs)
    runs.compact()
    runs.list_runs(ListRuns())
    known = runs._withdrawn_runs._known
    assert set().union(*known.values()) == {"new"}
    assert all("tier=corrected" in path for path in known)


def test_retention_takes_what_a_restoration_brought_back_as_any_revision(runs: Tenant) -> None:
    withdraw(runs)
    restore(runs)
    rule = parse_object(RetentionRule, {"labels": {}, "thin_after_days": 0, "keep_last": 1})
    went = runs.apply_retention([rule], dry_run=False)
    assert went["rows"] == 4, "the old run, which the restored one beats again"
    assert {row.run_id for row in read(runs)} == {"new"}
    assert (state(runs, "old"), state(runs)) == ((None, 0), (None, 0))


# Change times and known times beside the clock


def test_the_change_times_of_a_batch_end_at_the_clock(runs: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stamps(runs)[-1] + 60_000_000
    monkeypatch.setattr("timedb.storage.commit.lane.now", lambda: from_micros(clock))
    items = [
        {"run_id": "new", "series_id": SOUTH, "valid_time": format_time(from_micros(hour(number))), "value": 70.0}
        for number in (0, 1)
    ]
    runs.update_values(parse_object(UpdateValues, {"updates": items}), changed_by=None)
    assert stamps(runs)[-2:] == [clock - 1, clock]
    assert float_bits(70.0) in {row.value for row in read(runs, "flat", all_versions=False, as_of=clock)}
    upload(runs, some_rows(1, known=9), "next")
    assert stamps(runs)[-1] == clock + 1, "where there is no room, they go on from the last"


def test_a_clock_that_is_behind_makes_no_upload_lose(runs: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(runs, [Sent("a", hour(0), None, None, 1.0)], "before")
    last = stamps(runs)[-1]
    for where in ("timedb.storage.commit.lane.now", "timedb.storage.write.uploads.now"):
        monkeypatch.setattr(where, lambda: from_micros(last - 3_600_000_000))
    upload(runs, [Sent("a", hour(0), None, None, 2.0)], "after")
    (winner,) = read(runs, "flat", all_versions=False, series_keys=["a"])
    assert (winner.run_id, winner.known_time) == ("after", last)
    assert runs.get_run(GetRun(run_id="after"))["known_time"] == format_time(from_micros(last))


def _stamp(row: Stored) -> int:
    return row.change_time
