"""What is known of series and runs is taken once a call or turn: its cost does not grow with the items of the call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.storage.commit.test_lane import Gate
from tests.storage.lakes import MICROS, Sent, by_itself, hour, open_tenant, read_table, some_rows, upload
from tests.storage.operations import copy_lake
from timedb.contract.columns import LOOKUP_COLUMNS
from timedb.contract.identity import OPEN_TENANT_ID, RevisionKey, canonical_labels, series_id_for
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import (
    AccuracyTicket,
    CreateManySeries,
    ListRuns,
    LookupCommand,
    ReadTicket,
    RetentionRule,
    SeriesLabels,
    UpdateValues,
    WithdrawRun,
    parse_object,
)
from timedb.storage import Lake, Tenant
from timedb.storage.delta.log import DeltaLog
from timedb.storage.delta.store import LocalStore

MANY = 1000
LANE = "timedb-commit-lane"
REQUESTS = ("read", "open", "exists", "list", "put_if_absent", "replace", "publish", "sync", "delete")
SOUTH = series_id_for(OPEN_TENANT_ID, "south", None)
LABELS = {"site": "a"}


# What follows a write behind it would be counted with the call that it falls into.
SETTINGS = load_settings(ServerSettings, maintenance_seconds=10_000.0, records_seconds=10_000.0)


def names() -> Iterator[str]:
    """Names of series that share a bucket with ``south``, so that files and parts do not grow with their number."""
    for number in count():
        if series_id_for(OPEN_TENANT_ID, f"s-{number}", None)[0] == SOUTH[0]:
            yield f"s-{number}"


KNOWN = list(islice(names(), MANY))


def new_names() -> Iterator[str]:
    """Further ones."""
    return islice(names(), MANY, None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake to be copied: a run of many hours of one series and others of a few, and many series with a value each."""
    folder = tmp_path_factory.mktemp("written") / "lake"
    with closing(Lake.open(str(folder), SETTINGS)) as lake:
        tenant = open_tenant(lake)
        upload(tenant, [Sent(name, hour(0), None, hour(0), 1.0) for name in KNOWN], unit="MW")
        for run in range(10):
            upload(tenant, some_rows(3 if run else 3 * MANY, series=["south"], known=run), f"run-{run}")
    return folder


@pytest.fixture
def tenant(written: Path, lake_dir: Path) -> Iterator[Tenant]:
    """Its tenant."""
    copy_lake(written, lake_dir)
    with closing(Lake.open(str(lake_dir), SETTINGS)) as lake:
        yield open_tenant(lake)


@contextmanager
def counted(thread: str | None = None) -> Iterator[Counter[str]]:
    """Count looks at the logs of tables, scans of Parquet files and requests to the store; of one thread, or of all."""
    found: Counter[str] = Counter()

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not by_itself() if thread is None else threading.current_thread().name == thread:
                found[name] += 1
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, kind, names in (
            (DeltaLog, "log", ("refresh", "load")),
            (pl, "parquet", ("scan_parquet", "read_parquet")),
            (LocalStore, "store", REQUESTS),
        ):
            for name in names:
                patch.setattr(owner, name, wrapped(f"{kind}.{name}", getattr(owner, name)))
        yield found


def check(call: Callable[[int], object], many: int = MANY, thread: str | None = None) -> Counter[str]:
    """See that a call costs the same for one item and for many, but for the first time; what it costs."""
    call(1)
    with counted(thread) as one:
        call(1)
    with counted(thread) as all_of_them:
        call(many)
    assert one == all_of_them
    assert one["log.refresh"] > 0, "what is counted is there"
    return one


def correct(tenant: Tenant, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Correct values; all of them change."""
    answer = tenant.update_values(parse_object(UpdateValues, {"updates": items}), changed_by=None)
    assert len(answer["updated"]) == len(items)
    return answer


def time(number: int) -> str:
    """Some hour as text."""
    return format_time(from_micros(hour(number)))


def value_id(number: int) -> str:
    """Of the first run's value at some hour."""
    key = RevisionKey(SOUTH, from_micros(hour(number)), None, from_micros(hour(0)), "run-0")
    return key.to_value_id()


ADDRESSES: dict[str, Callable[[int], dict[str, Any]]] = {
    "by series": lambda i: {"series_id": SOUTH, "valid_time": time(i)},
    "by value_id": lambda i: {"value_id": value_id(i)},
    "by run": lambda i: {"series_id": SOUTH, "valid_time": time(i), "run_id": "run-0"},
    "new rows of many runs": lambda i: {"series_id": SOUTH, "valid_time": time(3 + i), "run_id": f"run-{1 + i % 9}"},
}


@pytest.mark.parametrize("limited", [False, True], ids=["any key", "a limited key"])
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_corrections(tenant: Tenant, address: Callable[[int], dict[str, Any]], *, limited: bool) -> None:
    numbers = count()
    seen = tenant.limited_to({"site": None}, "somebody@example.com") if limited else tenant  # type: ignore[dict-item]

    def call(items: int) -> None:
        number = next(numbers)
        correct(seen, [{**address(number * MANY + i), "value": number + 0.5} for i in range(items)])

    cost = check(call)
    scans = 1 + (address is ADDRESSES["new rows of many runs"]) * (2 if limited else 1)
    assert cost["parquet.scan_parquet"] == scans, "of the rows; of the runs; of the rows that a limited key may see"


def test_corrections_under_an_update_id(tenant: Tenant) -> None:
    numbers = count()

    def call(items: int) -> None:
        number = next(numbers)
        updates = [{"value_id": value_id(i), "value": number + 0.5} for i in range(items)]
        message = parse_object(UpdateValues, {"updates": updates, "update_id": f"batch-{number}"})
        assert tenant.update_values(message, changed_by=None) == tenant.update_values(message, changed_by=None)

    call(1)  # makes the table of batches
    check(call)


def test_new_series_of_an_upload(tenant: Tenant) -> None:
    fresh = new_names()

    def call(items: int) -> None:
        upload(tenant, [Sent(name, hour(0), None, hour(1), 1.0) for name in islice(fresh, items)], unit="MW")

    check(call)


def test_new_series_of_uploads_that_share_a_commit(tenant: Tenant) -> None:
    fresh = new_names()

    def call(uploads: int) -> None:
        gate, receipts = Gate(), []

        def send(name: str) -> None:
            receipts.append(upload(tenant, [Sent(name, hour(0), None, hour(1), 1.0)], f"of-{name}", unit="MW"))

        threads = [threading.Thread(target=tenant.lane.submit, args=[gate])]
        threads[0].start()
        assert gate.entered.wait(60)
        threads += [threading.Thread(target=send, args=[name]) for name in islice(fresh, uploads)]
        for thread in threads[1:]:
            thread.start()
        while tenant.lane.queued < uploads:
            gate.opened.wait(0.001)
        gate.opened.set()
        for thread in threads:
            thread.join()
        assert len({receipt["table_version"] for receipt in receipts}) == 1
        assert len(receipts) == uploads

    check(call, 20, thread=LANE)


def test_series_that_are_made_by_a_call(tenant: Tenant) -> None:
    fresh = new_names()

    def call(items: int) -> None:
        series = [{"name": name, "labels": LABELS} for name in islice(fresh, items)]
        tenant.create_many_series(parse_object(CreateManySeries, {"series": series}), created_by=None)

    check(call)


def test_names_in_a_read(tenant: Tenant) -> None:
    def call(items: int) -> None:
        assert read_table(tenant, series_keys=KNOWN[:items]).num_rows == items

    assert check(call)["log.refresh"] == 2, "of the values, and of the series"


@pytest.mark.parametrize("view", ["flat", "overlapping"])
def test_a_few_rows_of_small_files_need_no_engine(tenant: Tenant, view: str) -> None:
    hours = {"start_valid": from_micros(hour(4)), "end_valid": from_micros(hour(6))}
    with counted() as first:
        found = read_table(tenant, view=view, series_ids=[SOUTH], **hours)
    with counted() as again:
        assert read_table(tenant, view=view, series_ids=[SOUTH], **hours).equals(found)
    assert found.num_rows == 2
    assert first["parquet.scan_parquet"] == again["parquet.scan_parquet"] == 0
    assert (first["store.open"] > 0, again["store.open"]) == (True, 0), "what was decoded is kept"


def test_names_in_a_look_up(tenant: Tenant) -> None:
    schema = pa.schema([("series_key", pa.string()), ("valid_time", MICROS)])
    assert set(schema.names) <= set(LOOKUP_COLUMNS)

    def call(items: int) -> None:
        times = pa.array([hour(0)] * items, MICROS)
        batch = pa.record_batch([pa.array(KNOWN[:items]), times], schema=schema)
        lookup = tenant.begin_lookup(parse_object(LookupCommand, {}), schema)
        assert lookup.answer(batch).column("found").to_pylist() == [True] * items

    check(call)


def test_names_in_accuracy_figures(tenant: Tenant) -> None:
    usual = {"horizon": "1h", "actual_id": series_id_for(OPEN_TENANT_ID, KNOWN[0], None)}

    def call(items: int) -> None:
        ticket = parse_object(AccuracyTicket, {**usual, "series_keys": KNOWN[:items]})
        assert tenant.plan_accuracy(ticket).reader().read_all().num_rows == items

    check(call)


def test_labels(tenant: Tenant) -> None:
    made = count()

    def call(items: int) -> None:
        found = tenant.series_labels(parse_object(SeriesLabels, {"name": "labelled"}))
        values = found["site"]
        ticket = parse_object(ReadTicket, {"labels": {"site": values}})
        tenant.plan_read(ticket)
        assert len(values) == items

    def make(items: int) -> None:
        series = [{"name": "labelled", "labels": {"site": f"{next(made)}"}} for _ in range(items)]
        tenant.create_many_series(parse_object(CreateManySeries, {"series": series}), created_by=None)

    make(1)
    call(1)
    with counted() as one:
        call(1)
    make(MANY - 1)
    tenant.catalog.known()
    with counted() as all_of_them:
        call(MANY)
    assert one == all_of_them
    assert canonical_labels({"site": "0"}) in {one.labels for one in tenant.catalog.known().by_id.values()}


def test_a_list_of_withdrawn_runs(tenant: Tenant) -> None:
    for run in range(1, 10):
        tenant.withdraw_run(WithdrawRun(run_id=f"run-{run}", reason="wrong"), changed_by=None)

    def call(items: int) -> None:
        runs = tenant.list_runs(ListRuns(limit=items))
        assert [run["withdrawn"]["reason"] for run in runs] == ["wrong"] * items

    check(call, 9)


def test_retention_rules(tenant: Tenant) -> None:
    def call(items: int) -> None:
        rules = [parse_object(RetentionRule, {"name": name, "drop_after_days": 1}) for name in KNOWN[:items]]
        assert tenant.apply_retention(rules, dry_run=True)["rows"] == items

    check(call, 100)
