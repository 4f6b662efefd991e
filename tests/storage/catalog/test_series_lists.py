"""Many series: made in one commit, found in the order that people expect, listed page by page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.storage.lakes import Sent, by_itself, hour, read, upload
from timedb.contract.errors import Conflict, InvalidRequest
from timedb.contract.wire import CreateManySeries, CreateSeries, ListSeries, UpdateSeries, parse_object
from timedb.storage import Tenant
from timedb.storage.delta.log import DeltaLog


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A text for each look at a table's log from here on."""
    seen: list[str] = []
    refresh = DeltaLog.refresh

    def counted(self: DeltaLog, snapshot: Any) -> Any:
        if not by_itself():
            seen.append(self.store.url())
        return refresh(self, snapshot)

    monkeypatch.setattr(DeltaLog, "refresh", counted)
    return seen


def make(tenant: Tenant, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """Create many series."""
    message = parse_object(CreateManySeries, {"series": list(items)})
    made: list[dict[str, Any]] = tenant.create_many_series(message, created_by="me")["series"]
    return made


def names(tenant: Tenant, **fields: Any) -> list[str]:
    """The names of a list."""
    return [one["name"] for one in tenant.list_series(parse_object(ListSeries, fields))]


def rows_of(count: int, prefix: str = "") -> list[Sent]:
    """A row of each of so many series."""
    return [Sent(f"{prefix}meter-{number}", hour(0), None, None, 1.0) for number in range(count)]


def test_looks_at_the_log_do_not_grow_with_the_series_of_a_call(tenant: Tenant, looks: list[str]) -> None:
    rows = rows_of(60)
    for work in (
        lambda: upload(tenant, rows),
        lambda: upload(tenant, rows),
        lambda: read(tenant, series_keys=[row.series for row in rows]),
        lambda: make(tenant, *({"name": f"made-{each}"} for each in range(60))),
    ):
        looks.clear()
        work()
        assert len(looks) < 10


def test_many_series_are_made_in_one_commit(tenant: Tenant) -> None:
    before = tenant.catalog.known().snapshot.version
    made = make(tenant, {"name": "a", "unit": "MW"}, {"name": "b", "labels": {"site": "x"}}, {"name": "a"})
    assert tenant.catalog.known().snapshot.version == before + 1
    assert [one["created"] for one in made] == [True, True, False]
    assert made[0]["series_id"] == made[2]["series_id"]
    assert [one["created"] for one in make(tenant, {"name": "b", "labels": {"site": "x"}}, {"name": "c"})] == [
        False,
        True,
    ]
    with pytest.raises(Conflict, match=r"^unit: 'kW', but the series 'a' has 'MW'"):
        make(tenant, {"name": "d"}, {"name": "a", "unit": "kW"})
    with pytest.raises(Conflict, match=r"^unit: 'GW', but the series 'e' has 'W'"):
        make(tenant, {"name": "e", "unit": "W"}, {"name": "e", "unit": "GW"})
    assert names(tenant) == ["a", "b", "c"]


def test_series_that_an_upload_made_are_declared_together(tenant: Tenant) -> None:
    upload(tenant, rows_of(5))
    made = make(tenant, *({"name": f"meter-{number}", "unit": "kWh"} for number in range(5)))
    assert [one["created"] for one in made] == [False] * 5
    assert {one["unit"] for one in tenant.list_series(ListSeries())} == {"kWh"}


def test_each_series_made_alone_is_written_a_few_times(tenant: Tenant) -> None:
    written = 0
    for number in range(80):
        known = tenant.catalog.known().snapshot.files
        tenant.create_series(CreateSeries(name=f"one-{number}"), created_by=None)
        after = tenant.catalog.known().snapshot.files
        written += sum(after[path].rows for path in after.keys() - known.keys())
    assert len(names(tenant)) == 80
    assert sum(file.rows for file in after.values()) == 80
    assert len(after) <= 16
    assert written < 330  # all of them anew at every eighth would be 440, and grow with the square


def test_a_series_that_changes_is_there_once(tenant: Tenant) -> None:
    ids = [one["series_id"] for one in make(tenant, *({"name": f"s{number}"} for number in range(30)))]
    for number in range(12):
        tenant.update_series(UpdateSeries(series_id=ids[number], description=f"text {number}"))
        make(tenant, {"name": f"further-{number}"})
    listed = tenant.list_series(ListSeries())
    assert len(listed) == len({one["series_id"] for one in listed}) == 42
    assert sum(file.rows for file in tenant.catalog.known().snapshot.files.values()) == 42
    assert {one["description"] for one in listed if one["series_id"] in ids[:12]} == {f"text {n}" for n in range(12)}


def test_the_best_answers_come_first(tenant: Tenant) -> None:
    make(
        tenant,
        *({"name": f"farm {number:04d}", "labels": {"kind": "wind"}} for number in range(150)),
        {"name": "wind"},
        {"name": "Wind power"},
        {"name": "offshore wind"},
        {"name": "power of wind", "unit": "MW"},
        {"name": "load"},
    )
    found = names(tenant, search="wind", limit=100)
    assert found[:5] == ["wind", "Wind power", "offshore wind", "power of wind", "farm 0000"]
    assert len(found) == 100
    assert names(tenant, search="WIND power")[:2] == ["Wind power", "power of wind"]
    (one,) = tenant.list_series(ListSeries(name="load"))
    assert names(tenant, search=one["series_id"], limit=1) == ["load"]


@pytest.mark.parametrize("fields", [{}, {"search": "wind"}, {"search": "farm 1"}, {"labels": {"kind": "wind"}}])
def test_pages_together_are_the_whole_list(tenant: Tenant, fields: dict[str, Any]) -> None:
    make(tenant, *({"name": f"farm {n % 7}", "labels": {"kind": "wind", "unit": str(n)}} for n in range(40)))
    make(tenant, {"name": "wind"}, {"name": "windmill"}, {"name": "load"}, {"name": "Ärger"})
    whole = tenant.list_series(parse_object(ListSeries, fields))
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = tenant.page_of_series(parse_object(ListSeries, {**fields, **after, "limit": 7}))
        found += list(page["series"])
        if "cursor" not in page:
            break
        after = {"after": page["cursor"]}
        make(tenant, {"name": "aaa, made meanwhile"})
    assert found == whole
    assert len(whole) > 7


@pytest.mark.parametrize("text", ["", "x", "!!!!", "bnVsbA==", "WzEsMiwzLDRd", "W10=", "eyJhIjoxfQ=="])
def test_what_is_no_cursor_is_refused(tenant: Tenant, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^after: .* is no cursor of a list of series"):
        tenant.page_of_series(ListSeries(after=text, limit=1))
