"""Scores of quantiles and ensembles, and skill: public numbers, known answers, and DuckDB as the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.storage.lakes import MICROS, hour, upload
from tests.storage.read.test_accuracy import plan
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.wire import (
    CreateSeries,
    UpdateSeries,
)
from timedb.storage import Tenant
from timedb.storage.read.scores import interval_score, member_crps, pinball, quantile_crps

# Of scoringrules 0.10.0: crps_ensemble(estimator="fair"), quantile_score, crps_quantile and interval_score.
CAME = np.array([12.0, -3.5, 7.25])
MEMBERS = np.array([[10.0, 11.5, 14.0, 12.5, 9.0], [-1.0, 0.5, -4.0, 2.0, -2.5], [7.0, 7.0, 7.5, 6.0, 8.25]])
FAIR_CRPS = [0.35, 1.2, 0.1]
LEVELS = ["0.1", "0.25", "0.5", "0.75", "0.9"]
QUANTILES = np.array([[8.0, 10.0, 11.0, 12.5, 15.0], [-3.0, -2.0, -1.0, 0.5, 1.0], [6.5, 7.0, 7.5, 8.0, 9.0]])
PINBALL = [[0.4, 0.45, 0.075], [0.5, 1.125, 0.0625], [0.5, 1.25, 0.125], [0.125, 1.0, 0.1875], [0.3, 0.45, 0.175]]
QUANTILE_CRPS = [0.73, 1.71, 0.25]
INTERVAL_80, INTERVAL_50 = np.array([7.0, 9.0, 2.5]), np.array([2.5, 8.5, 1.0])

ZONE = {"window_length": "6h", "issue_offset": "-1h", "start_window": "2025-01-01T00:00:00Z"}


def test_scores_are_those_of_a_public_implementation() -> None:
    np.testing.assert_allclose(member_crps(MEMBERS, CAME), FAIR_CRPS, rtol=1e-12)
    for place, level in enumerate(LEVELS):
        np.testing.assert_allclose(pinball(QUANTILES[:, place], CAME, float(level)), PINBALL[place], rtol=1e-12)
    np.testing.assert_allclose(quantile_crps(QUANTILES, CAME, LEVELS), QUANTILE_CRPS, rtol=1e-12)
    weighted = (0.5 * np.abs(CAME - QUANTILES[:, 2]) + 0.1 * INTERVAL_80 + 0.25 * INTERVAL_50) / 2.5
    np.testing.assert_allclose(interval_score(QUANTILES, CAME, LEVELS), weighted, rtol=1e-12)
    np.testing.assert_allclose(weighted, QUANTILE_CRPS, rtol=1e-12)  # as all quantiles are paired
    outer = (0.1 * INTERVAL_80) / 1.0
    np.testing.assert_allclose(interval_score(QUANTILES[:, [0, 1, 4]], CAME, ["0.1", "0.25", "0.9"]), outer, rtol=1e-12)
    absolute = np.abs(CAME - QUANTILES[:, 2])
    np.testing.assert_allclose(interval_score(QUANTILES[:, [1, 2]], CAME, ["0.25", "0.5"]), absolute, rtol=1e-12)


def test_members_that_are_missing_are_as_if_there_were_fewer() -> None:
    some = np.array([[np.nan, 3.0, np.nan, 5.0, 4.0]])
    whole = member_crps(np.array([[3.0, 5.0, 4.0]]), np.array([4.5]))
    np.testing.assert_array_equal(member_crps(some, np.array([4.5])), whole)


Said = tuple[str, dict[str, str], int, int | None, int, float | None]
"""Name, labels, hour, hours of the interval, hour when it was known, value."""


def table_of(rows: Iterable[Said]) -> pa.Table:
    """Rows of labelled series as an upload."""
    names, labels, at, length, known, values = zip(*rows, strict=True)
    ends = [None if each is None else hour(start + each) for start, each in zip(at, length, strict=True)]
    times: dict[str, Iterable[int | None]] = {
        "valid_time": [hour(each) for each in at],
        "valid_time_end": ends,
        "known_time": map(hour, known),
    }
    columns = {each: pa.array(list(micros), pa.int64()).cast(MICROS) for each, micros in times.items()}
    texts = {"series_key": pa.array(names), "labels": pa.array([json.dumps(each) for each in labels])}
    return pa.table({**texts, **columns, "value": pa.array(values, pa.float64())})


def figures(tenant: Tenant, *names: str, **fields: Any) -> list[tuple[Any, ...]]:
    """Some columns of an answer, as rows."""
    found = pl.DataFrame(plan(tenant, horizon="7d", **fields).reader().read_all())
    return found.with_columns(pl.col(pl.Categorical).cast(pl.String)).select(names or found.columns).rows()


def some_bands(tenant: Tenant) -> None:
    """Two hours with actual values 10 and 20; quantiles of both, of which one lacks the median at the second."""
    upload(tenant, table_of([("actual", {}, n, None, n, 10.0 * n) for n in (1, 2)]))
    bands = [
        ("wind", {"quantile": level}, n, None, 0, 10.0 * n + add)
        for level, add in (("0.1", -4.0), ("0.5", 1.0), ("0.9", 2.0))
        for n in (1, 2)
        if not (level == "0.5" and n == 2)
    ]
    upload(tenant, table_of(bands), "bands")


def test_known_answers_of_quantiles(tenant: Tenant) -> None:
    some_bands(tenant)
    wanted = ("siblings", "labels", "mae", "pinball", "coverage", "wis", "crps", "count", "skipped")
    rows = figures(tenant, "series_id", *wanted, series_keys=["wind"])
    assert sorted(row[1:] for row in rows if row[0] is not None) == [
        (None, '{"quantile":"0.1"}', 4.0, pytest.approx(0.4), 0.0, None, None, 2, None),
        (None, '{"quantile":"0.5"}', 1.0, 0.5, 1.0, None, None, 1, None),
        (None, '{"quantile":"0.9"}', 2.0, pytest.approx(0.2), 1.0, None, None, 2, None),
    ]
    score = pytest.approx((0.5 * 1 + 0.1 * 6) / 1.5)
    assert rows[-1] == (None, "quantile", "{}", None, None, None, score, score, 1, 1)
    # Without the median both hours count, and one pair makes half as many intervals more.
    pair = figures(tenant, "wis", "crps", "count", "skipped", labels={"quantile": ["0.1", "0.9"]})[-1]
    assert pair == (pytest.approx(0.6), pytest.approx(0.6), 2, 0)
    assert [row[0] for row in figures(tenant, "siblings", labels={"quantile": "0.5"})] == [None]
    unpaired = figures(tenant, "wis", "crps", "count", labels={"quantile": ["0.1", "0.5"]})[-1]
    assert unpaired == (1.0, pytest.approx(0.4 + 0.5), 1)


def test_names_units_and_lead_times_come_along(tenant: Tenant) -> None:
    some_bands(tenant)
    answer = plan(tenant, horizon="90min", series_keys=["wind"]).reader().read_all()
    assert answer.schema.field("lead_time").type == pa.duration("us")
    found = pl.DataFrame(answer)
    assert found["series_key"].unique().to_list() == ["wind"]
    assert found["series_unit"].unique().to_list() == ["dimensionless"]
    assert (found["lead_time"].dt.total_seconds() == found["lead_seconds"]).all()
    assert (found["lead_time_end"] - found["lead_time"]).dt.total_minutes().unique().to_list() == [90]


def test_members_are_scored_from_two_on_whoever_wrote_them(tenant: Tenant) -> None:
    upload(tenant, table_of([("actual", {}, n, None, n, 5.0) for n in range(3)]))
    said: dict[str, list[float | None]] = {"a": [4.0, 4.0, 4.0], "b": [7.0, 7.0, None], "c": [5.5, None, None]}
    for member, values in said.items():
        rows = [("wind", {"member": member}, n, None, 0, value) for n, value in enumerate(values)]
        upload(tenant, table_of(rows), f"member {member}")
    upload(tenant, table_of([("wind", {"member": "a"}, 0, None, 0, 3.0)]), "member a once more")
    fair = (2 + 2 + 0.5) / 3 - (4 + 2.5 + 1.5) / 6, 1.5 - 3 / 2
    assert figures(tenant, "siblings", "wis", "crps", "count", "skipped", series_keys=["wind"])[-1] == (
        "member",
        None,
        pytest.approx(sum(fair) / 2),
        2,
        1,
    )


def test_skill_is_over_what_both_have(tenant: Tenant) -> None:
    some_bands(tenant)
    # Of the second hour there is no reference; and one of the first in another bucket of lead times.
    upload(tenant, table_of([("naive", {}, 1, None, 0, 14.0), ("naive", {}, 1, None, 9, 99.0)]))
    wanted = ("labels", "skill_mae", "skill_rmse", "skill_pinball", "skill_wis", "skill_crps")
    rows = figures(tenant, *wanted, series_keys=["wind"], reference_key="naive")
    assert sorted(rows[:-1]) == [
        ('{"quantile":"0.1"}', 0.0, 0.0, None, None, None),
        ('{"quantile":"0.5"}', 0.75, 0.75, None, None, None),
        ('{"quantile":"0.9"}', 0.5, 0.5, None, None, None),
    ]
    better = pytest.approx(1 - (1.1 / 1.5) / 4)
    assert rows[-1] == ("{}", None, None, None, better, better)
    # Against itself nothing is better; where the reference is right there is no skill.
    own = figures(tenant, *wanted, series_keys=["wind"], reference_key="wind")
    assert {row[1:] for row in own[:-1]} == {(0.0, 0.0, 0.0, None, None)}
    assert own[-1] == ("{}", None, None, None, 0.0, 0.0)
    assert {row[1:] for row in figures(tenant, *wanted, series_keys=["wind"], reference_key="actual")} == {(None,) * 5}


def test_each_forecast_meets_its_own_actual_in_its_own_unit(tenant: Tenant) -> None:
    for name, labels, unit in [
        ("load", {"site": "a"}, "MW"),
        ("load", {"site": "b"}, "kW"),
        ("naive", {"site": "a", "model": "x"}, "kW"),
        ("naive", {"site": "b"}, "MW"),
        ("wind", {"site": "a", "quantile": "0.1"}, "kW"),
        ("wind", {"site": "a", "quantile": "0.9"}, "MW"),
        ("wind", {"site": "b"}, "MW"),
    ]:
        tenant.create_series(CreateSeries(name=name, labels=labels, unit=unit), created_by=None)
    upload(tenant, table_of([("load", {"site": "a"}, 0, None, 0, 5.0), ("load", {"site": "b"}, 0, None, 0, 7000.0)]))
    upload(
        tenant,
        table_of(
            [
                ("naive", {"site": "a", "model": "x"}, 0, None, 0, 9000.0),
                ("naive", {"site": "b"}, 0, None, 0, 8.0),
                ("wind", {"site": "a", "quantile": "0.1"}, 0, None, 0, 4000.0),
                ("wind", {"site": "a", "quantile": "0.9"}, 0, None, 0, 7.0),
                ("wind", {"site": "b"}, 0, None, 0, 7.5),
            ]
        ),
    )
    asked: dict[str, Any] = {"actual_key": "load", "match_labels": ["site"], "labels": {"site": ["a", "b"]}}
    unmatched = r"^match_labels: no series 'load' has \{\"site\": null\}, as the forecast 'wind'"
    tenant.create_series(CreateSeries(name="wind"), created_by=None)
    with pytest.raises(NotFound, match=unmatched):
        figures(tenant, **asked | {"labels": None, "series_keys": ["wind"]})
    wanted = ("series_key", "labels", "series_unit", "bias", "skill_mae", "skill_wis")
    rows = figures(tenant, *wanted, **asked, reference_key="naive", series_keys=["wind"])
    assert sorted(rows, key=str) == [
        ("wind", '{"quantile":"0.1","site":"a"}', "kW", -1000.0, 0.75, None),
        ("wind", '{"quantile":"0.9","site":"a"}', "MW", 2.0, 0.5, None),
        ("wind", '{"site":"a"}', "kW", None, None, pytest.approx(1 - 300 / 4000)),
        ("wind", '{"site":"b"}', "MW", 0.5, 0.5, None),
    ]
    assert figures(tenant, "labels", "bias", **asked | {"labels": {"site": "b"}}, series_keys=["wind"]) == [
        ('{"site":"b"}', 0.5)
    ]
    one = {"actual_key": "load", "actual_labels": {"site": "b"}, "series_keys": ["wind"], "labels": {"site": "b"}}
    assert figures(tenant, "bias", **one) == [(0.5,)]


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        (
            {"actual_key": "twice"},
            InvalidRequest,
            r"^actual_key: 'twice' is the name of 2 series; add labels: \{",
        ),
        ({"actual_key": "twice", "actual_labels": {"site": "c"}}, NotFound, "^actual_key: .* 'twice' with labels"),
        ({"reference_key": "twice"}, InvalidRequest, "^reference_key: 'twice' is the .* add reference_labels: "),
        ({"reference_key": "nobody"}, NotFound, "^reference_key: there is no series 'nobody'"),
        ({"reference_key": "heat"}, InvalidRequest, "^reference_key: 'dimensionless' and 'degC' .* 'heat'"),
        ({"relative": {"time_zone": "Mars/Base"}}, InvalidRequest, "^relative.time_zone: 'Mars/Base'"),
        ({"actual_view": "P1M"}, InvalidRequest, "^actual_view: P1M has months"),
        ({"actual_view": "latest"}, InvalidRequest, "^actual_view: 'latest' is neither flat, nor first, nor a lead"),
        (
            {"corrections": "by_cutoff"},
            InvalidRequest,
            "^corrections: by_cutoff needs a cut-off: relative or end_known",
        ),
        ({"forecast_view": "latest"}, InvalidRequest, "^forecast_view: 'latest' "),
        ({"match_labels": ["quantile"]}, InvalidRequest, "^match_labels.0: 'quantile' tells the siblings"),
        ({"actual_id": "x", "match_labels": ["site"]}, InvalidRequest, "^match_labels: goes with actual_key"),
        ({"actual_id": "x", "actual_labels": {}}, InvalidRequest, "^actual_labels: goes with actual_key"),
        ({"reference_labels": {}}, InvalidRequest, "^reference_labels: goes with reference_key"),
    ],
)
def test_what_does_not_fit_is_named(tenant: Tenant, fields: dict[str, Any], error: type[Exception], text: str) -> None:
    some_bands(tenant)
    for site in ("a", "b"):
        tenant.create_series(CreateSeries(name="twice", labels={"site": site}), created_by=None)
    tenant.create_series(CreateSeries(name="heat", unit="degC"), created_by=None)
    with pytest.raises(error, match=text):
        plan(tenant, series_keys=["wind"], **fields)


def test_a_retired_quantile_is_none_of_the_siblings(tenant: Tenant) -> None:
    some_bands(tenant)
    known = {series.labels: series.series_id for series in tenant.catalog.known().by_id.values()}
    tenant.update_series(UpdateSeries(series_id=known['{"quantile":"0.5"}'], retired=True))
    every = {"labels": {"quantile": ["0.1", "0.5", "0.9"]}}
    assert figures(tenant, "count", "skipped", **every)[-1] == (2, 0)
    assert figures(tenant, "count", "skipped", series_ids=list(known.values()))[-1] == (1, 1)
