"""Derived ids: the same everywhere, different for everything that differs."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.lakes import Sent, hour, read_table, upload
from timedb.contract.identity import OPEN_TENANT_ID, RevisionKey, canonical_labels, series_bucket, series_id_for
from timedb.storage import Tenant

OTHER_TENANT = "11111111-1111-1111-1111-111111111111"
labels = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)
moments = st.datetimes(timezones=st.just(UTC))


@given(name=st.text(min_size=1, max_size=5), pairs=labels)
def test_the_order_of_labels_is_nothing(name: str, pairs: dict[str, str]) -> None:
    backwards = dict(reversed(pairs.items()))
    assert canonical_labels(pairs) == canonical_labels(backwards)
    assert series_id_for(OPEN_TENANT_ID, name, pairs) == series_id_for(OPEN_TENANT_ID, name, backwards)


@given(one=st.tuples(st.text(max_size=4), labels), other=st.tuples(st.text(max_size=4), labels))
def test_other_names_or_labels_have_other_ids(
    one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]
) -> None:
    assert (series_id_for(OPEN_TENANT_ID, *one) == series_id_for(OPEN_TENANT_ID, *other)) == (one == other)


def test_tenants_do_not_share_ids() -> None:
    assert series_id_for(OPEN_TENANT_ID, "a", {}) != series_id_for(OTHER_TENANT, "a", {})


def test_ids_never_change() -> None:
    # Stored in every lake: a change here makes two series of one.
    assert (
        series_id_for(OPEN_TENANT_ID, "wind", {"site": "Ö", "kind": "forecast"})
        == "382557da-4ae4-5d78-a6a4-517db56fa0c6"
    )
    assert series_id_for(OPEN_TENANT_ID, "wind", None) == series_id_for(OPEN_TENANT_ID, "wind", {})
    assert UUID(series_id_for(OPEN_TENANT_ID, "wind", None)).version == 5


def test_buckets() -> None:
    series_id = series_id_for(OPEN_TENANT_ID, "wind", None)
    assert series_bucket(series_id) == series_id[0]
    assert series_bucket(series_id, 2) == series_id[:2]
    assert series_bucket(series_id, None) == series_id


@given(valid=moments, end=st.one_of(st.none(), moments), known=moments, run_id=st.text(max_size=10))
def test_a_value_id_comes_back(valid: datetime, end: datetime | None, known: datetime, run_id: str) -> None:
    key = RevisionKey(OTHER_TENANT, valid, end, known, run_id)
    assert RevisionKey.from_value_id(key.to_value_id()) == key


@pytest.mark.parametrize(
    "text", ["", "x", "~~~~", "é", "a" * 1000, "MTE~", "bm90LWEtdXVpZH4xfn4yfnJ1bg", "=", "AA==AA"]
)
def test_what_is_no_value_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a value_id"):
        RevisionKey.from_value_id(text)


def test_reads_give_the_value_ids_of_their_rows(tenant: Tenant) -> None:
    rows = [
        Sent("south", hour(1), None, -1, 1.0),
        Sent("south", -3_600_000_000, hour(2), None, None),
        Sent("Ö~east", hour(1), hour(2), hour(3), float("nan")),
    ]
    upload(tenant, rows, "run~1 Ä+/=?")
    for view in ("flat", "overlapping"):
        columns = ["series_id", "valid_time", "valid_time_end", "known_time", "run_id", "value_id"]
        found = read_table(tenant, view=view, columns=columns).to_pylist()
        assert len(found) == 3
        for row in found:
            value_id = row.pop("value_id")
            assert RevisionKey(**row).to_value_id() == value_id
            assert RevisionKey.from_value_id(value_id) == RevisionKey(**row)
