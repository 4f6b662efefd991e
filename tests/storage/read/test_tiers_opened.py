"""Which tiers each option of a read opens, counted in files; what they answer, the oracle says elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.storage.lakes import Sent, hour, open_tenant, read_table, tiny_settings, upload
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import LookupCommand, ReadTicket, RetentionRule, UpdateValues, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.read import lookup
from timedb.storage.rows.scan import scan

WINNING = {"current": 1, "fresh": 1}
STANDING = {**WINNING, "revised": 1}
ALL = {**STANDING, "corrected": 1}
OPENED: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({}, WINNING),
    ({"view": "latest"}, WINNING),
    ({"start_known": "2025-01-01T00:00:00Z"}, WINNING),
    ({"last": 1}, WINNING),
    ({"limit": 1, "order_by": "valid_time", "descending": True}, WINNING),
    ({"view": "overlapping"}, STANDING),
    ({"view": "overlapping", "last": 1}, STANDING),
    ({"resample": {"period": "P1D", "aggregate": "mean", "fill": "previous"}}, WINNING),
    ({"view": "overlapping", "resample": {"period": "P1D", "aggregate": "median", "fill": 0.0}}, STANDING),
    ({"pivot": "series_key"}, WINNING),
    ({"pivot": "series_key", "view": "overlapping"}, STANDING),
    ({"end_known": "2025-01-01T03:00:00Z"}, STANDING),
    ({"run_ids": ["one"]}, STANDING),
    ({"workflow_id": "flight-upload"}, STANDING),
    ({"lead_time": "-P1D"}, STANDING),
    ({"newest_run": True}, STANDING),
    ({"newest_run": True, "view": "first"}, STANDING),
    ({"newest_run": True, "relative": {"time_zone": "UTC"}}, STANDING),
    ({"newest_run": True, "corrections": "none"}, ALL),
    ({"columns": ["value", "revision"]}, ALL),
    ({"view": "first"}, ALL),
    ({"corrections": "none"}, ALL),
    ({"corrections": "by_cutoff", "end_known": "2025-01-03T00:00:00Z"}, ALL),
    ({"view": "changes"}, ALL),
    ({"all_versions": True}, ALL),
]


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """One series with a file in each tier: two runs, a correction, and a run that nobody has looked at."""
    path = str(tmp_path_factory.mktemp("tiers"))
    lake = Lake.open(path, tiny_settings(lake=path))
    tenant = open_tenant(lake)
    for number, run in enumerate(("one", "two")):
        upload(tenant, [Sent("a", hour(30 + valid), None, hour(number), float(number)) for valid in range(3)], run)
    tenant.update_values(parse_object(UpdateValues, {"updates": [_correction(tenant)]}), changed_by=None)
    tenant.compact()
    upload(tenant, [Sent("a", hour(30), None, hour(2), 2.0)], "three")
    yield tenant
    lake.close()


def _correction(tenant: Tenant) -> dict[str, Any]:
    (series_id,) = tenant.catalog.known().by_id
    return {"series_id": series_id, "run_id": "one", "valid_time": "2025-01-02T06:00:00Z", "value": 7.0}


@pytest.mark.parametrize(("fields", "opened"), OPENED, ids=lambda value: str(value) if "view" in value else None)
def test_a_read_opens_the_tiers_that_it_needs(tenant: Tenant, fields: dict[str, Any], opened: dict[str, int]) -> None:
    plan = tenant.plan_read(parse_object(ReadTicket, fields))
    files = [file for bucket in plan.buckets for file in bucket.files]
    assert Counter(file.partition["tier"] for file in files) == opened


@pytest.mark.parametrize(
    ("fields", "opened"),
    [
        ({}, STANDING),
        ({"max_age": "P1D"}, STANDING),
        ({"corrections": "by_cutoff"}, ALL),
        ({"corrections": "none"}, ALL),
    ],
    ids=str,
)
def test_a_lookup_opens_the_tiers_that_it_needs(
    tenant: Tenant, fields: dict[str, Any], opened: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: dict[str, str] = {}

    def watched(store: Store, files: Sequence[DataFile], *predicates: Any) -> pl.LazyFrame:
        scanned.update({file.path: file.partition["tier"] for file in files})
        return scan(store, files, *predicates)

    monkeypatch.setattr(lookup, "scan", watched)
    times = pa.array([hour(30), hour(5)], pa.timestamp("us", "UTC"))
    asked = pa.record_batch({"series_key": ["a"], "valid_time": times[:1], "known_by": times[1:]})
    found = tenant.begin_lookup(parse_object(LookupCommand, fields), asked.schema).answer(asked)
    assert found["value"].to_pylist() == [2.0]
    assert Counter(scanned.values()) == opened


def test_the_last_value_of_a_long_series_is_one_in_any_order(tmp_path: Path) -> None:
    """A series of more rows than a read works on at once is not cut where one row stands for all."""
    path = str(tmp_path / "lake")
    lake = Lake.open(path, tiny_settings(lake=path))
    tenant = open_tenant(lake)
    for number, count in enumerate((60, 50)):
        rows = [Sent("long", hour(valid), None, hour(number), float(number)) for valid in range(count)]
        upload(tenant, rows, f"run {number}")
    orders: list[dict[str, Any]] = [{}, {"ordered": True}, {"ordered": True, "order_by": "valid_time"}, {"limit": 5}]
    for order in orders:
        latest = read_table(tenant, view="latest", columns=["value"], start_known="2025-01-01T00:00:00Z", **order)
        assert latest["value"].to_pylist() == [0.0], order
        newest = read_table(tenant, newest_run=True, columns=["value"], **order)
        assert set(newest["value"].to_pylist()) == {1.0}, order
        assert newest.num_rows == min(50, order.get("limit", 50)), order
    lake.close()


def test_releases_are_not_counted_where_thinning_took_some(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    lake = Lake.open(path, tiny_settings(lake=path))
    tenant = open_tenant(lake)
    for number in range(3):
        rows = [Sent("thinned", hour(valid), None, hour(number), float(number)) for valid in (0, 1)]
        upload(tenant, rows, f"run {number}")
    upload(tenant, [Sent("thinned", hour(2), None, hour(0), 5.0)], "alone")
    columns = ["value", "revision"]
    assert read_table(tenant, view="first", columns=columns, end_valid="2025-01-01T01:00:00Z").to_pylist() == [
        {"value": 0.0, "revision": 1}
    ]
    rule = parse_object(RetentionRule, {"labels": {}, "thin_after_days": 1, "keep_last": 1})
    tenant.apply_retention([rule], dry_run=False)
    for fields, said in (
        ({"view": "first"}, "view: the first release is not known where retention has removed revisions"),
        ({"columns": columns}, "columns: the number of a revision is not known where retention has removed revisions"),
    ):
        with pytest.raises(InvalidRequest, match=rf"^{said}.*up to 2025-01-01T01:00:00.* give a start_valid after it"):
            read_table(tenant, **fields)
        rest = read_table(tenant, start_valid="2025-01-01T01:00:00.000001Z", **{"columns": ["value"], **fields})
        assert rest["value"].to_pylist() == [5.0]
    tenant.withdraw_run(WithdrawRun(run_id="alone"), changed_by=None)
    lake.close()
