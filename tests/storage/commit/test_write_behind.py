"""A write is one commit: tables of records follow it, and no answer of a service waits for them or lags behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.inspection import disagreements
from tests.storage.lakes import open_tenant, scan_table, some_rows, tiny_settings, upload
from tests.storage.operations import correct
from timedb.contract.errors import Conflict
from timedb.contract.wire import GetRun, ListRuns, WithdrawRun
from timedb.storage import Lake, Tenant


@pytest.fixture
def other(tenant: Tenant, lake_dir: Path) -> Iterator[Tenant]:
    """The same tenant on another server; what the first one knows only its log tells."""
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        yield open_tenant(lake)


def recorded(lake_dir: Path, name: str = "runs") -> list[str]:
    """The keys of the records that a direct reader finds."""
    column = scan_table(lake_dir, name)[:, 0]
    return sorted(column.to_list())


def versions(tenant: Tenant) -> list[int]:
    """How far the tables have come."""
    return [table.snapshot().version for table in (tenant.values, tenant.ledger.runs.table)]


def test_an_upload_is_one_commit_and_every_server_knows_it_at_once(
    tenant: Tenant, other: Tenant, lake_dir: Path
) -> None:
    upload(tenant, some_rows(9), "first")
    values, runs = versions(tenant)
    receipt = upload(tenant, some_rows(9, known=1), "second", workflow_id="flow")
    assert versions(tenant) == [values + 1, runs]
    assert recorded(lake_dir) == []
    for server in (tenant, other):
        assert server.get_run(GetRun(run_id="second"))["receipt"]["rows"] == 9
        assert [run["run_id"] for run in server.list_runs(ListRuns())] == ["second", "first"]
        assert [run["run_id"] for run in server.list_runs(ListRuns(workflow_id="flow"))] == ["second"]
        assert set(server.snapshot().run_rows(["run_id"])["run_id"].to_pylist()) == {"first", "second"}
        assert upload(server, some_rows(9, known=1), "second", workflow_id="flow") == receipt
        with pytest.raises(Conflict):
            upload(server, some_rows(8, known=1), "second", workflow_id="flow")
    assert versions(other) == [values + 1, runs]


def test_batches_of_corrections_and_withdrawals_are_known_at_once(
    tenant: Tenant, other: Tenant, lake_dir: Path
) -> None:
    upload(tenant, some_rows(30), "run")
    answer = correct(tenant, "run", 5.0, "batch")
    assert correct(other, "run", 5.0, "batch") == answer
    with pytest.raises(Conflict):
        correct(other, "run", 6.0, "batch")
    tenant.withdraw_run(WithdrawRun(run_id="run", reason="wrong feed"), changed_by=None)
    assert other.get_run(GetRun(run_id="run"))["withdrawn"]["reason"] == "wrong feed"
    assert not tenant.ledger.updates.table.exists()
    tenant.records.write()
    assert recorded(lake_dir, "updates")[0] == "batch"
    assert list(disagreements(other, lake_dir)) == []


def test_a_clean_stop_writes_what_is_left(lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "run")
        assert recorded(lake_dir) == []
    assert recorded(lake_dir) == ["run"]


def test_the_next_server_writes_what_a_killed_one_has_left(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(3), "run")  # by a server that says nothing more
    written = threading.Event()
    with closing(Lake.open(str(lake_dir), tiny_settings(records_seconds=0.01))) as lake:
        second = open_tenant(lake)
        real = second.ledger.write

        def told() -> None:
            real()
            written.set()

        second.ledger.write = told  # type: ignore[method-assign]
        second.get_run(GetRun(run_id="run"))
        assert written.wait(30) or recorded(lake_dir) == ["run"]
        assert recorded(lake_dir) == ["run"]
    tenant.records.write()
    assert recorded(lake_dir) == ["run"], "once"


def test_two_servers_write_each_record_once(tenant: Tenant, other: Tenant, lake_dir: Path) -> None:
    for number in range(6):
        upload((tenant, other)[number % 2], some_rows(3, known=number), f"run-{number}")
    barrier = threading.Barrier(2)

    def write(server: Tenant) -> None:
        barrier.wait(30)
        server.records.write()

    threads = [threading.Thread(target=write, args=(server,)) for server in (tenant, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded(lake_dir) == [f"run-{number}" for number in range(6)]
    assert not tenant.ledger.is_behind
    assert [run["run_id"] for run in other.list_runs(ListRuns())] == [f"run-{number}" for number in reversed(range(6))]


def test_the_log_is_cleaned_only_behind_the_records(lake_dir: Path) -> None:
    settings = tiny_settings(retention_hours=0, log_retention_hours=0)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        for number in range(4):
            upload(tenant, some_rows(3, known=number), f"run-{number}")
        tenant.maintain()
        tenant.maintain()
        assert recorded(lake_dir) == [f"run-{number}" for number in range(4)]
        upload(tenant, some_rows(3, known=9), "last")
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        assert len(open_tenant(lake).list_runs(ListRuns())) == 5
