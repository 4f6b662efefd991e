"""The last values of series, and pages in either direction: the same rows as of the whole answer, from few files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.storage.lakes import Sent, hour, open_tenant, read_table, tiny_settings, upload
from timedb.contract.columns import META_CURSOR
from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import ReadTicket, UpdateValues, WithdrawRun, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.direct.scan import scan_lake
from timedb.storage.read.answers import Answers
from timedb.storage.read.buckets import BucketRead

LENGTHS = {"long": 120, "short": 5, "ended": 10, "thin": 12}
"""Points of each series: of one that ended long ago, too, and of one that has one in ten hours."""
VIEWS: list[dict[str, Any]] = [
    {},
    {"view": "overlapping", "all_versions": True},
    {"view": "first", "lead_time": "1h"},
    {"newest_run": True},
    {"view": "overlapping", "start_valid": "2025-01-02T00:00:00Z", "end_valid": "2025-01-05T12:00:00Z"},
    {"resample": {"period": "P1D", "aggregate": "sum", "fill": 0.0}},
]


def points(series: str) -> list[tuple[int, int | None]]:
    """When its values are, some of them intervals beside a point."""
    step = 10 if series == "thin" else 1
    first = 0 if series == "ended" else 120 - LENGTHS[series] * step
    hours = [first + step * number for number in range(LENGTHS[series])]
    return [(hour(each), None) for each in hours] + [(hour(each), hour(each + 1)) for each in hours if each % 7 == 0]


ORDERS = {
    "series": ("series_id", "valid_time", "valid_time_end", "known_time", "run_id"),
    "valid_time": ("valid_time", "series_id", "valid_time_end", "known_time", "run_id"),
    "known_time": ("known_time", "valid_time", "series_id", "valid_time_end", "run_id"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module")
def tenant(folder: str) -> Iterator[Tenant]:
    """Series with settled and unsettled revisions, corrections, and a run that was withdrawn at the end."""
    with closing(Lake.open(folder, tiny_settings(read_slice_rows=100))) as lake:
        tenant = open_tenant(lake)
        for number, run in enumerate(("one", "two")):
            for series in LENGTHS:
                some = points(series)[:: number + 1]
                upload(tenant, [Sent(series, *each, hour(-number), float(number)) for each in some], f"{series} {run}")
        tenant.compact()
        late = [Sent("long", hour(valid), None, hour(5), 9.0) for valid in (80, 119)]
        upload(tenant, late, "late")
        gone = [Sent(series, hour(125), None, hour(5), 9.0) for series in LENGTHS]
        upload(tenant, gone, "gone")
        tenant.withdraw_run(WithdrawRun(run_id="gone"), changed_by=None)
        ids = {one.name: series_id for series_id, one in tenant.catalog.known().by_id.items()}
        correction = {"series_id": ids["long"], "valid_time": "2025-01-05T05:00:00Z", "value": 7.0}
        tenant.update_values(parse_object(UpdateValues, {"updates": [correction]}), changed_by=None)
        yield tenant


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of each piece of a read that is computed, in their order."""
    found: list[str] = []
    original = Answers._rows

    def watched(answers: Answers, bucket: BucketRead) -> Iterator[pa.RecordBatch]:
        found.extend(file.path for file in bucket.files)
        return original(answers, bucket)

    monkeypatch.setattr(Answers, "_rows", watched)
    return found


def last_points(whole: pa.Table, count: int) -> list[dict[str, Any]]:
    """The rows of an answer, in the order of series, at the last so many points of each series."""
    rows = whole.to_pylist()
    places: dict[str, list[Any]] = {}
    for row in rows:
        place, seen = (row["valid_time"], row["valid_time_end"]), places.setdefault(row["series_id"], [])
        if place not in seen:
            seen.append(place)
    return [row for row in rows if (row["valid_time"], row["valid_time_end"]) in places[row["series_id"]][-count:]]


def pages(tenant: Tenant, **asked: Any) -> Iterator[pa.Table]:
    """A read under a limit, page after page."""
    cursor: bytes | None = b""
    while cursor is not None:
        page = read_table(tenant, **asked, **({"after": cursor.decode()} if cursor else {}))
        yield page
        cursor = page.schema.metadata.get(META_CURSOR)


def asked_of(fields: dict[str, Any]) -> dict[str, Any]:
    columns = ["series_id", "valid_time", "valid_time_end", "value"]
    if fields.get("all_versions") or fields.get("view") == "overlapping":
        columns += ["known_time", "run_id"]
    return {"columns": columns, **fields}


@pytest.mark.parametrize("count", [2, 20, 1000])
@pytest.mark.parametrize("fields", VIEWS, ids=str)
def test_the_last_points_of_each_series(tenant: Tenant, folder: str, fields: dict[str, Any], count: int) -> None:
    asked = asked_of(fields)
    expected = last_points(read_table(tenant, ordered=True, **asked), count)
    assert read_table(tenant, last=count, ordered=True, **asked).to_pylist() == expected
    found = read_table(tenant, last=count, **asked).to_pylist()
    assert sorted(map(repr, found)) == sorted(map(repr, expected)), "in any order"
    by_time = {"order_by": "valid_time", "descending": True}
    newest = read_table(tenant, last=count, limit=5, **by_time, **asked).to_pylist()
    assert [row["valid_time"] for row in newest] == sorted((row["valid_time"] for row in expected), reverse=True)[:5]
    if "resample" not in fields:
        ticket = parse_object(ReadTicket, {"last": count, **asked})
        scanned: pl.DataFrame = scan_lake(folder, None, ticket).collect()
        assert sorted(map(repr, scanned.to_dicts())) == sorted(map(repr, expected)), "by a scan of the tables"


@pytest.mark.parametrize(
    ("order_by", "fields"),
    [("series", VIEWS[0]), ("valid_time", VIEWS[2]), ("valid_time", VIEWS[4]), ("known_time", VIEWS[1])],
    ids=str,
)
def test_later_times_come_first(tenant: Tenant, fields: dict[str, Any], order_by: str) -> None:
    """Times go down and names up, as a stable sort by each column says; pages are that answer cut up."""
    asked = {**asked_of(fields), "order_by": order_by, "descending": True}
    whole = read_table(tenant, **asked).to_pylist()
    expected = read_table(tenant, **{**asked, "descending": False, "ordered": True}).to_pylist()
    for name in reversed([name for name in ORDERS[order_by] if name in whole[0]]):
        expected.sort(key=lambda row: row[name] or row["valid_time"], reverse=name not in ("series_id", "run_id"))
    if fields.get("all_versions"):  # of which those of one revision have one change_time each, which is not asked for
        key = [name for name in ORDERS[order_by] if name in whole[0]]
        assert [[row[name] for name in key] for row in whole] == [[row[name] for name in key] for row in expected]
        assert sorted(map(repr, whole)) == sorted(map(repr, expected))
    else:
        assert whole == expected
    assert [row for page in pages(tenant, limit=90, **asked) for row in page.to_pylist()] == whole


def test_no_more_files_are_opened_than_it_takes(tmp_path: Path, opened: list[str]) -> None:
    """Of a settled series of many files the last of them; of a page in either direction those at that end."""
    with closing(Lake.open(str(tmp_path / "lake"), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        upload(tenant, [Sent("long", hour(valid), None, hour(0), float(valid)) for valid in range(240)])
        tenant.compact()
        read_table(tenant)
        assert len(set(opened)) >= 8
        asked_for: list[tuple[dict[str, Any], list[float]]] = [
            ({"last": 3}, [237, 238, 239]),
            ({"limit": 3, "order_by": "valid_time", "descending": True}, [239, 238, 237]),
            ({"limit": 3, "order_by": "valid_time"}, [0, 1, 2]),
            ({"last": 3, "view": "overlapping"}, [237, 238, 239]),
        ]
        for asked, values in asked_for:
            opened.clear()
            found = read_table(tenant, columns=["value"], **asked)["value"].to_pylist()
            assert (sorted(found) if "last" in asked else found) == values
            assert len(set(opened)) <= 2, asked


def test_pages_of_the_newest_run_do_not_fall_back_on_an_older_one(tmp_path: Path) -> None:
    with closing(Lake.open(str(tmp_path / "lake"), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for series in ("a", "b"):
            upload(tenant, [Sent(series, hour(valid), None, hour(-9), 1.0) for valid in range(9)], f"{series} long")
        upload(tenant, [Sent("a", hour(valid), None, hour(-1), 2.0) for valid in range(3)], "a newest, short")
        asked: dict[str, Any] = {"newest_run": True, "order_by": "valid_time", "columns": ["value"]}
        for descending in (False, True):
            cut_up = pages(tenant, limit=4, descending=descending, **asked)
            found = [value for page in cut_up for value in page["value"].to_pylist()]
            assert sorted(found) == [1.0] * 9 + [2.0] * 3, descending


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"last": 0}, "last: "),
        ({"last": 2, "view": "latest"}, "last: goes with the views flat, overlapping and first; latest is"),
        ({"last": 2, "view": "changes"}, "last: goes with the views flat, overlapping and first; changes goes by"),
    ],
)
def test_what_has_no_last_values_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_object(ReadTicket, fields)


def test_a_cursor_goes_one_way(tenant: Tenant) -> None:
    page = read_table(tenant, limit=3, order_by="valid_time", descending=True)
    cursor = page.schema.metadata[META_CURSOR].decode()
    with pytest.raises(InvalidRequest, match=r"after: .* is not a cursor of this read"):
        read_table(tenant, limit=3, order_by="valid_time", after=cursor)
