"""Uploads: whole or not at all, once or not at all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.inspection import left_behind
from tests.storage.lakes import (
    MICROS,
    SERIES,
    UPLOAD_SCHEMA,
    Sent,
    hour,
    open_tenant,
    read,
    scan_delta,
    shuffled,
    some_rows,
    tiny_settings,
    unstamped,
    upload,
    upload_table,
)
from tests.storage.model import Model
from timedb.contract.errors import Conflict, IncompleteUpload, InvalidRequest, NotFound, TooLarge
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.times import from_micros, parse_time, to_micros
from timedb.contract.wire import GetRun, ListRuns, UploadCommand, parse_object
from timedb.storage import Lake, Tenant

SIZES = {"small": 5, "bulk": 14, "in chunks": 50}
sizes = pytest.mark.parametrize("count", SIZES.values(), ids=SIZES.keys())


def begin(tenant: Tenant, schema: pa.Schema = UPLOAD_SCHEMA, **fields: Any) -> Any:
    """Begin an upload."""
    return tenant.begin_upload(parse_object(UploadCommand, fields), schema, created_by=None)


def stamp(receipt: dict[str, Any]) -> int:
    """The change_time of a receipt."""
    return to_micros(parse_time(receipt["change_time"]))


# Whole or not at all


@sizes
def test_a_receipt(tenant: Tenant, count: int) -> None:
    receipt = upload(tenant, some_rows(count), "run", known_time=from_micros(hour(1)))
    ids = {name: series_id_for(OPEN_TENANT_ID, name, None) for name in sorted(SERIES)}
    assert receipt == {
        "run_id": "run",
        "rows": count,
        "skipped": 0,
        "withdrawn": None,
        "withdrawn_rows": 0,
        "series_ids": ids,
        "series": [{"series_key": name, "labels": {}, "series_id": ids[name]} for name in sorted(SERIES)],
        "change_time": receipt["change_time"],
        "table_version": 1,
    }
    assert {row.change_time for row in read(tenant)} == {stamp(receipt)}
    assert unstamped(read(tenant)) == unstamped(Model().upload("run", some_rows(count), 0))


@sizes
@pytest.mark.parametrize("announced", [None, 0, -1, 1], ids=["nothing said", "none", "one too few", "one too many"])
def test_a_count_that_is_not_confirmed(tenant: Tenant, lake_dir: Path, count: int, announced: int | None) -> None:
    said = None if announced is None else 0 if announced == 0 else count + announced
    going = begin(tenant)
    for batch in upload_table(some_rows(count)).to_batches(max_chunksize=10):
        going.add(batch)
    assert going.received == count
    with pytest.raises(IncompleteUpload):
        going.commit(said)
    going.abort()
    assert read(tenant) == []
    assert left_behind(lake_dir) == []


def test_rows_in_the_command_confirm_too(tenant: Tenant) -> None:
    for rows, confirmed, fits in ((3, None, True), (3, 3, True), (2, None, False), (3, 2, False), (2, 3, False)):
        going = begin(tenant, rows=rows)
        going.add(upload_table(some_rows(3)).to_batches()[0])
        if fits:
            assert going.commit(confirmed)["rows"] == 3
        else:
            with pytest.raises(IncompleteUpload, match=r"were announced, 3 arrived"):
                going.commit(confirmed)


def test_an_upload_without_rows_is_a_run(tenant: Tenant) -> None:
    receipt = upload(tenant, [], "empty")
    assert receipt["rows"] == 0
    assert upload(tenant, [], "empty") == receipt
    assert tenant.get_run(GetRun(run_id="empty"))["rows"] == 0
    assert read(tenant) == []


@sizes
def test_an_aborted_upload_leaves_nothing(tenant: Tenant, lake_dir: Path, count: int) -> None:
    going = begin(tenant)
    for batch in upload_table(some_rows(count)).to_batches(max_chunksize=10):
        going.add(batch)
    going.abort()
    going.abort()
    assert read(tenant) == []
    assert left_behind(lake_dir) == []


# Once or not at all


@sizes
def test_a_retry_answers_as_the_first_time(lake_dir: Path, count: int) -> None:
    rows = [row._replace(annotation="x" if index < 20 else None) for index, row in enumerate(some_rows(count))]
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        first = upload(open_tenant(lake), rows, "run", batch_rows=16)
        upload(open_tenant(lake), some_rows(3, known=1), "other")
        assert upload(open_tenant(lake), shuffled(rows), "run", batch_rows=16) == first
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        for batch_rows in (1, 7, 1000):
            assert upload(open_tenant(lake), shuffled(rows, batch_rows), "run", batch_rows=batch_rows) == first
        assert len(read(open_tenant(lake))) == count + 3
    assert left_behind(lake_dir) == []


CHANGES: list[Callable[[Sent], Sent]] = [
    lambda row: row._replace(value=99.0),
    lambda row: row._replace(value=None),
    lambda row: row._replace(value=-0.0),
    lambda row: row._replace(series="other"),
    lambda row: row._replace(valid_time=row.valid_time + 1),
    lambda row: row._replace(valid_time_end=hour(100)),
    lambda row: row._replace(known_time=(row.known_time or 0) + 1),
    lambda row: row._replace(known_time=None),
    lambda row: row._replace(annotation="x"),
    lambda row: row._replace(tags=("x",)),
]


@sizes
def test_other_rows_are_a_conflict(tenant: Tenant, lake_dir: Path, count: int) -> None:
    rows = some_rows(count)
    upload(tenant, rows, "run")
    others = [[change(rows[0]), *rows[1:]] for change in CHANGES]
    for changed in (*others, rows[1:], [*rows, Sent("south", hour(99), None, hour(0), 0.0)]):
        with pytest.raises(Conflict, match=r"^run_id: 'run' has been uploaded already"):
            upload(tenant, changed, "run", batch_rows=10)
    assert unstamped(read(tenant)) == unstamped(Model().upload("run", rows, 0))
    assert left_behind(lake_dir) == []


def test_other_fields_are_a_conflict(tenant: Tenant) -> None:
    fields: dict[str, Any] = {"workflow_id": "daily", "run_params": {"b": 1, "a": [1.5, None]}}
    first = upload(tenant, some_rows(3), "run", **fields)
    assert upload(tenant, some_rows(3), "run", rows=3, **fields) == first
    assert upload(tenant, some_rows(3), "run", workflow_id="daily", run_params={"a": [1.5, None], "b": 1}) == first
    others: list[dict[str, Any]] = [
        {**fields, "workflow_id": "hourly"},
        {**fields, "run_params": {"b": 2, "a": [1.5, None]}},
        {**fields, "known_time": from_micros(hour(0))},
        {**fields, "skip_unchanged": True},
        {"workflow_id": "daily"},
    ]
    for other in others:
        with pytest.raises(Conflict, match=r"^run_id"):
            upload(tenant, some_rows(3), "run", **other)


def test_the_server_names_runs_that_have_no_name(tenant: Tenant) -> None:
    receipts = [upload(tenant, some_rows(3)) for _ in range(3)]
    assert len({receipt["run_id"] for receipt in receipts}) == 3
    assert len(read(tenant)) == 9


@sizes
def test_a_retry_beside_the_original(tenant: Tenant, count: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda seed: upload(tenant, shuffled(some_rows(count), seed), "run"), range(4)))
    assert all(receipt == receipts[0] for receipt in receipts)
    assert len(read(tenant)) == count


# Refused


@pytest.mark.parametrize("ways", ["at once", "in batches", "in chunks"])
def test_the_same_row_twice(tenant: Tenant, lake_dir: Path, ways: str) -> None:
    rows = some_rows(60 if ways == "in chunks" else 9)
    again = rows[4]._replace(value=77.0)
    with pytest.raises(InvalidRequest) as caught:
        upload(tenant, [*rows, again], "run", batch_rows=1000 if ways == "at once" else 4)
    series_id = series_id_for(OPEN_TENANT_ID, again.series, None)
    assert caught.value.detail == (
        f"valid_time: 2025-01-01T01:00:00.000000+00:00 of series {series_id} "
        "at known_time 2025-01-01T00:00:00.000000+00:00 is there twice in one upload"
    )
    assert read(tenant) == []
    assert left_behind(lake_dir) == []


def test_the_same_row_twice_by_two_names_of_one_series(tenant: Tenant) -> None:
    series_id = upload(tenant, some_rows(1, series=["wind"], known=1))["series_ids"]["wind"]
    both = pa.table(
        {
            "series_id": [series_id, None],
            "series_key": ["wind", "wind"],
            "valid_time": pa.array([hour(5), hour(5)], MICROS),
            "value": [1.0, 2.0],
        }
    )
    with pytest.raises(InvalidRequest, match=r"^valid_time: .* is there twice"):
        upload(tenant, both, "run")


def test_rows_that_only_differ_in_an_end_or_a_known_time_are_no_duplicates(tenant: Tenant) -> None:
    row = Sent("south", hour(1), None, hour(0), 1.0)
    rows = [
        row,
        row._replace(valid_time_end=hour(2)),
        row._replace(valid_time_end=hour(3)),
        row._replace(known_time=None),
    ]
    assert upload(tenant, rows, "run", known_time=from_micros(hour(1)))["rows"] == 4
    with pytest.raises(InvalidRequest, match=r"valid_time_end 2025-01-01T02:00"):
        upload(tenant, [*rows, rows[1]], "other")
    with pytest.raises(InvalidRequest, match=r"is there twice"):
        upload(tenant, rows, "third", known_time=from_micros(hour(0)))  # the last row's is filled in now


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_limits(lake_dir: Path, limit: str) -> None:
    settings = tiny_settings(**({"max_upload_rows": 20} if limit == "rows" else {"max_upload_bytes": 2000}))
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(20), "fits")
        with pytest.raises(TooLarge, match="20" if limit == "rows" else "2000"):
            upload(tenant, some_rows(60, known=1), "too large", batch_rows=10)
        assert len(read(tenant)) == 20
    assert left_behind(lake_dir) == []


def test_series_by_id(tenant: Tenant) -> None:
    series_id = upload(tenant, some_rows(1, series=["wind"]))["series_ids"]["wind"]
    columns = {"valid_time": pa.array([hour(5)], MICROS), "value": [1.0]}
    assert upload(tenant, pa.table({"series_id": [series_id], **columns}), "run")["series_ids"] == {"wind": series_id}
    for nobody in ("", "nobody", series_id.upper(), series_id_for(OPEN_TENANT_ID, "nobody", None)):
        with pytest.raises(NotFound, match=r"^series_id: there is no series"):
            upload(tenant, pa.table({"series_id": [nobody], **columns}))


@pytest.mark.parametrize(
    "broken",
    [
        pa.Array.from_buffers(
            pa.string(), 2, [None, pa.array([0, 5, 3], pa.int32()).buffers()[1], pa.py_buffer(b"abcdefgh")]
        ),
        pa.Array.from_buffers(
            pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xff")]
        ),
        pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False),
    ],
    ids=["offsets", "utf-8", "indices"],
)
def test_arrow_data_that_is_none(tenant: Tenant, broken: pa.Array) -> None:
    columns = {"series_key": broken, "valid_time": pa.array([hour(1), hour(2)], MICROS), "value": [1.0, 2.0]}
    with pytest.raises(InvalidRequest, match=r"^batch"):
        upload(tenant, pa.table(columns))
    upload(tenant, some_rows(3))


def test_times_at_the_ends_of_the_calendar(tenant: Tenant, lake_dir: Path) -> None:
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    rows = [Sent("south", first, last, first, 1.0), Sent("a", last - 1, last, last, 2.0), Sent("a", last, None, 0, 3.0)]
    upload(tenant, rows, "run")
    for _ in range(2):
        assert unstamped(read(tenant)) == unstamped(Model().upload("run", rows, 0))
        assert unstamped(scan_delta(lake_dir)) == unstamped(read(tenant))
        assert len(read(tenant, start_valid=last - 1)) == 2
        assert len(read(tenant, end_valid=last)) == 2
        tenant.compact()


# skip_unchanged


def test_skip_unchanged(tenant: Tenant) -> None:
    def send(known: int, value: float | None, run_id: str, **fields: Any) -> tuple[int, int]:
        row = Sent("south", hour(1), None, hour(known), value, **fields)
        receipt = upload(tenant, [row], run_id, skip_unchanged=True)
        return receipt["rows"], receipt["skipped"]

    assert send(10, 1.0, "first") == (1, 0)
    assert send(20, 1.0, "the same") == (0, 1)
    assert send(20, 1.0, "the same") == (0, 1), "a retry"
    assert send(21, 1.0, "another note", annotation="x") == (1, 0)
    assert send(22, 1.0, "the note is gone") == (1, 0)
    assert send(23, None, "null") == (1, 0)
    assert send(24, None, "null again") == (0, 1)
    assert send(25, float("nan"), "nan") == (1, 0)
    assert send(26, float("nan"), "nan again") == (0, 1)
    assert send(5, 1.0, "late, before all") == (1, 0)
    assert send(15, 2.0, "late, between") == (1, 0)
    assert send(16, 2.0, "late, after that") == (0, 1)
    assert len(read(tenant)) == 7


def test_skip_unchanged_within_one_upload(tenant: Tenant) -> None:
    values = [1.0, 1.0, 2.0, 2.0, 2.0, 1.0]
    rows = [Sent("south", hour(1), None, hour(known), value) for known, value in enumerate(values)]
    receipt = upload(tenant, shuffled(rows), "run", skip_unchanged=True)
    assert (receipt["rows"], receipt["skipped"]) == (3, 3)
    assert sorted(row.known_time for row in read(tenant)) == [hour(0), hour(2), hour(5)]


def test_runs(tenant: Tenant) -> None:
    moments: dict[str, Any] = {"run_start_time": from_micros(hour(0)), "known_time": from_micros(hour(1))}
    receipt = upload(tenant, some_rows(3), "run", workflow_id="daily", run_params={"a": 1}, **moments)
    upload(tenant, some_rows(3), "other", run_start_time=from_micros(hour(5)))
    run = tenant.get_run(GetRun(run_id="run"))
    expected = {
        "run_id": "run",
        "workflow_id": "daily",
        "run_start_time": "2025-01-01T00:00:00.000000+00:00",
        "run_finish_time": None,
        "known_time": "2025-01-01T01:00:00.000000+00:00",
        "run_params": {"a": 1},
        "rows": 3,
        "change_time": receipt["change_time"],
    }
    assert {name: run[name] for name in expected} == expected
    assert [one["run_id"] for one in tenant.list_runs(ListRuns())] == ["other", "run"]
    assert [one["run_id"] for one in tenant.list_runs(ListRuns(limit=1))] == ["other"]
    assert [one["run_id"] for one in tenant.list_runs(ListRuns(workflow_id="daily"))] == ["run"]
    assert [one["run_id"] for one in tenant.list_runs(ListRuns(start=from_micros(hour(5))))] == ["other"]
    assert [one["run_id"] for one in tenant.list_runs(ListRuns(end=from_micros(hour(5))))] == ["run"]
    with pytest.raises(NotFound, match=r"^run_id: there is no run 'nobody'"):
        tenant.get_run(GetRun(run_id="nobody"))
