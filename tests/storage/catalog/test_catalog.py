"""Series: one row each, found by name and labels, changed and retired."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.storage.lakes import (
    Sent,
    hour,
    open_tenant,
    read,
    scan_table,
    some_rows,
    tiny_settings,
    upload,
    upload_table,
)
from timedb.contract.errors import Conflict, InvalidRequest, NotFound, TimeDBError
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.wire import CreateSeries, ListSeries, SeriesLabels, UpdateSeries, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.catalog.catalog import StoredCatalog


def create(tenant: Tenant, name: str, **fields: Any) -> dict[str, Any]:
    """Create a series."""
    return tenant.create_series(parse_object(CreateSeries, {"name": name, **fields}), created_by="me")


def series(tenant: Tenant, **fields: Any) -> list[dict[str, Any]]:
    """List series."""
    return tenant.list_series(parse_object(ListSeries, fields))


def test_the_same_series_twice_is_one(tenant: Tenant, lake_dir: Path) -> None:
    labels = {"site": "Ö", "kind": "forecast"}
    first = create(tenant, "wind", unit="MW", description="power", labels=labels)
    assert first == {"series_id": series_id_for(OPEN_TENANT_ID, "wind", labels), "created": True}
    again = create(tenant, "wind", unit="MW", labels=dict(reversed(labels.items())))
    assert again == {**first, "created": False}
    assert create(tenant, "wind", labels=labels)["created"] is False  # no unit said: no other unit
    (one,) = series(tenant)
    assert one == {
        "series_id": first["series_id"],
        "name": "wind",
        "labels": labels,
        "unit": "MW",
        "description": "power",
    }
    assert scan_table(lake_dir, "series").height == 1


def test_another_unit_is_a_conflict(tenant: Tenant) -> None:
    create(tenant, "wind", unit="MW")
    with pytest.raises(Conflict, match=r"^unit: 'GW', but the series 'wind' has 'MW'"):
        create(tenant, "wind", unit="GW")


def test_the_first_creation_of_an_uploaded_series_says_its_unit(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(1, series=["wind"]), "run")
    (before,) = series(tenant)
    assert (before["unit"], before["description"]) == ("dimensionless", None)
    assert create(tenant, "wind", unit="MW", description="power")["created"] is False
    (after,) = series(tenant)
    assert after == {**before, "unit": "MW", "description": "power"}
    with pytest.raises(Conflict, match=r"^unit"):
        create(tenant, "wind", unit="GW")
    assert scan_table(lake_dir, "series")["unit"].to_list() == ["MW"]


def test_an_upload_changes_nothing_of_a_series(tenant: Tenant) -> None:
    create(tenant, "wind", unit="MW", description="power")
    upload(tenant, some_rows(1, series=["wind"]), "run")
    (found,) = series(tenant)
    assert (found["unit"], found["description"]) == ("MW", "power")


def test_created_by_threads_at_once(tenant: Tenant, lake_dir: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create(tenant, f"wind-{number % 5}"), range(40)))
    assert sum(one["created"] for one in made) == 5
    rows = scan_table(lake_dir, "series")
    assert sorted(rows["name"]) == [f"wind-{number}" for number in range(5)]


def test_two_servers_see_each_others_series(tenant: Tenant, lake_dir: Path) -> None:
    create(tenant, "wind")
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other:
        create(open_tenant(other), "sun", unit="kW")
        assert [one["name"] for one in series(open_tenant(other))] == ["sun", "wind"]
    assert [one["name"] for one in series(tenant)] == ["sun", "wind"]


@pytest.fixture
def labelled(tenant: Tenant) -> Tenant:
    """Series that share names."""
    for name, labels in [
        ("load", {}),
        ("load", {"site": "a"}),
        ("wind", {"site": "a", "kind": "x"}),
        ("wind", {"site": "b"}),
        ("sun", {"site": "a"}),
    ]:
        create(tenant, name, labels=labels)
    return tenant


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 5),
        ({"name": "wind"}, 2),
        ({"name": "nobody"}, 0),
        ({"labels": {"site": "a"}}, 3),
        ({"labels": {"site": ["a", "b"]}}, 4),
        ({"labels": {"site": []}}, 0),
        ({"labels": {"site": None}}, 1),
        ({"labels": {"kind": None, "site": "a"}}, 2),
        ({"name": "wind", "labels": {"site": "b"}}, 1),
        ({"series_ids": []}, 0),
    ],
)
def test_listing(labelled: Tenant, fields: dict[str, Any], count: int) -> None:
    assert len(series(labelled, **fields)) == count


def test_labels_and_their_values(labelled: Tenant) -> None:
    assert labelled.series_labels(SeriesLabels()) == {"kind": ["x"], "site": ["a", "b"]}
    assert labelled.series_labels(SeriesLabels(name="sun")) == {"site": ["a"]}
    assert labelled.series_labels(SeriesLabels(name="nobody")) == {}


@pytest.mark.parametrize(
    ("name", "labels"),
    [("load", {}), ("sun", {"site": "a"})],
    ids=["the unlabelled one", "the only one"],
)
def test_a_bare_name(labelled: Tenant, name: str, labels: dict[str, str]) -> None:
    receipt = upload(labelled, some_rows(1, series=[name]), "run")
    assert receipt["series_ids"] == {name: series_id_for(OPEN_TENANT_ID, name, labels)}
    assert receipt["series"][0]["labels"] == labels
    assert len(read(labelled, series_keys=[name])) == 1


def test_a_bare_name_of_several(labelled: Tenant) -> None:
    for work in (
        lambda: upload(labelled, some_rows(1, series=["wind"]), "run"),
        lambda: read(labelled, series_keys=["wind"]),
    ):
        with pytest.raises(InvalidRequest, match=r"^series_key: 'wind' is the name of 2 series") as caught:
            work()
        assert '{"site":"b"}' in caught.value.detail
    assert read(labelled, series_keys=["wind"], labels={"site": "b"}) == []


def test_retired_series(tenant: Tenant) -> None:
    series_id = create(tenant, "wind", unit="MW")["series_id"]
    upload(tenant, some_rows(2, series=["wind"]), "run")
    told = tenant.update_series(UpdateSeries(series_id=series_id, retired=True))
    assert told["retired"] is True
    assert series(tenant) == []
    assert len(read(tenant, series_ids=[series_id])) == 2, "its values stay"
    with pytest.raises(Conflict, match="retired"):
        create(tenant, "wind")
    with pytest.raises(Conflict, match="retired"):
        upload(tenant, some_rows(2, series=["wind"], known=1), "other")
    tenant.update_series(UpdateSeries(series_id=series_id, retired=False))
    upload(tenant, some_rows(2, series=["wind"], known=1), "other")


def test_a_retry_is_answered_although_the_series_is_retired(tenant: Tenant) -> None:
    series_id = create(tenant, "wind", unit="MW")["series_id"]
    first = upload(tenant, some_rows(2, series=["wind"]), "run")
    tenant.update_series(UpdateSeries(series_id=series_id, retired=True))
    assert upload(tenant, some_rows(2, series=["wind"]), "run") == first
    with pytest.raises(Conflict, match=r"^series_id: the series 'wind' .* is retired"):
        upload(tenant, some_rows(2, series=["wind"]), "another run")


def test_a_retry_by_a_name_that_has_become_that_of_several_says_so_and_by_id_is_answered(tenant: Tenant) -> None:
    create(tenant, "wind", labels={"site": "a"})
    first = upload(tenant, some_rows(2, series=["wind"]), "run")
    create(tenant, "wind", labels={"site": "b"})
    with pytest.raises(InvalidRequest, match="is the name of 2 series"):
        upload(tenant, some_rows(2, series=["wind"]), "run")
    rows = upload_table(some_rows(2, series=[first["series_ids"]["wind"]]))
    assert upload(tenant, rows.rename_columns({"series_key": "series_id"}), "run") == first


def test_descriptions(tenant: Tenant) -> None:
    series_id = create(tenant, "wind", unit="MW", description="power")["series_id"]
    assert tenant.update_series(UpdateSeries(series_id=series_id))["description"] == "power"
    assert tenant.update_series(UpdateSeries(series_id=series_id, description="more"))["description"] == "more"
    assert tenant.update_series(UpdateSeries(series_id=series_id, description=None))["description"] is None


def test_many_series_in_few_files(tenant: Tenant, lake_dir: Path) -> None:
    for number in range(40):
        create(tenant, f"series-{number}")
    catalog = tenant.catalog
    assert isinstance(catalog, StoredCatalog)
    assert catalog.table.snapshot().version >= 40
    assert len(catalog.table.snapshot().files) <= 8
    assert len(series(tenant)) == scan_table(lake_dir, "series").height == 40


def test_uploads_may_not_make_series_unless_asked(tenant: Tenant) -> None:
    create(tenant, "wind", labels={"site": "a"})
    rows = [Sent("sun", hour(0), None, None, 1.0)]
    with pytest.raises(NotFound, match=r"^series_key: there is no series 'sun'"):
        upload(tenant, rows, "run", create_series=False)
    assert [one["name"] for one in series(tenant)] == ["wind"]


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda tenant: create(tenant, ""), InvalidRequest, "name: ''"),
        (lambda tenant: create(tenant, "x" * 256), InvalidRequest, "name: 'x+…? string should have at most 255"),
        (lambda tenant: create(tenant, "a\0b"), InvalidRequest, r"name: 'a\\x00b'"),
        (lambda tenant: create(tenant, "a", labels={"k": 1}), InvalidRequest, "labels.k: 1"),
        (lambda tenant: create(tenant, "a", colour="red"), InvalidRequest, "colour: unknown field"),
        (
            lambda tenant: tenant.update_series(UpdateSeries(series_id="nobody", retired=True)),
            NotFound,
            "series_id: there is no series 'nobody'",
        ),
        (lambda tenant: read(tenant, series_ids=["nobody"]), NotFound, "series_ids: there is no series 'nobody'"),
        (lambda tenant: read(tenant, series_keys=["nobody"]), NotFound, "series_key: there is no series 'nobody'"),
    ],
)
def test_bad_input(tenant: Tenant, work: Any, error: type[TimeDBError], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        work(tenant)
    assert series(tenant) == []
