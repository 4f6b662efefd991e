"""Forecasts against what came: known answers, and DuckDB over all stored rows as the oracle."""

from __future__ import annotations

import math
import random
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import polars as pl
import pytest

from tests.storage.correcting import correct_some, withdraw
from tests.storage.lakes import Sent, hour, open_tenant, tenant_folder, tiny_settings, upload
from timedb.contract.errors import InvalidRequest, NotFound, TooLarge
from timedb.contract.times import from_micros
from timedb.contract.wire import AccuracyTicket, CreateSeries, UpdateValues, WithdrawRun, parse, parse_object
from timedb.storage import Lake, Tenant
from timedb.storage.read.accuracy import AccuracyPlan
from timedb.storage.read.accuracy_rows import accuracy_schema

NAN = float("nan")


def plan(tenant: Tenant, **fields: Any) -> AccuracyPlan:
    """A comparison with the series ``actual`` by hours, unless it says otherwise."""
    usual = {} if "actual_id" in fields else {"actual_key": "actual"}
    return tenant.plan_accuracy(parse_object(AccuracyTicket, {"horizon": "1h", **usual, **fields}))


def figures(tenant: Tenant, **fields: Any) -> list[tuple[Any, ...]]:
    """(lead in hours, count, bias, mae, rmse) of a single forecast series."""
    table = plan(tenant, **fields).reader().read_all()
    assert len(set(table["series_id"].to_pylist())) <= 1
    return pl.DataFrame(table).select(pl.col("lead_seconds") / 3600, "count", "bias", "mae", "rmse").rows()


def series(tenant: Tenant, name: str, unit: str | None = None) -> str:
    """Create a series: its id."""
    return str(tenant.create_series(CreateSeries(name=name, unit=unit), created_by=None)["series_id"])


def some_forecasts(tenant: Tenant) -> None:
    """Actual values 10 to 15 in the hours 0 to 5; two runs of forecasts."""
    upload(tenant, [Sent("actual", hour(n), None, hour(n), 10.0 + n) for n in range(6)])
    upload(tenant, [Sent("forecast", hour(n), None, hour(0), 12.0 + n) for n in range(6)], "first")
    upload(tenant, [Sent("forecast", hour(n), None, hour(3), 9.0 + n) for n in range(6)], "second")


def test_known_answers_by_lead_time(tenant: Tenant) -> None:
    some_forecasts(tenant)
    too_high, too_low = (1, 2.0, 2.0, 2.0), (1, -1.0, 1.0, 1.0)
    both = (2, 0.5, 1.5, math.sqrt(2.5))
    assert figures(tenant) == [
        (-3.0, *too_low),
        (-2.0, *too_low),
        (-1.0, *too_low),
        (0.0, *both),
        (1.0, *both),
        (2.0, *both),
        (3.0, *too_high),
        (4.0, *too_high),
        (5.0, *too_high),
    ]
    third = (3, -1.0, 1.0, 1.0)
    assert figures(tenant, horizon="3h") == [
        (-3.0, *third),
        (0.0, 6, 0.5, 1.5, math.sqrt(2.5)),
        (3.0, 3, 2.0, 2.0, 2.0),
    ]
    assert [lead for lead, *_ in figures(tenant, horizon="7d")] == [-168.0, 0.0]
    table = plan(tenant, horizon="90min").reader().read_all()
    assert (table["lead_seconds_end"].to_numpy() - table["lead_seconds"].to_numpy() == 5400.0).all()


def test_what_bounds_which_side(tenant: Tenant) -> None:
    some_forecasts(tenant)
    early = {"horizon": "7d", "start_known": from_micros(hour(0)), "end_known": from_micros(hour(3))}
    assert figures(tenant, **early) == [(0.0, 6, 2.0, 2.0, 2.0)]  # though the actual values were known later
    assert figures(tenant, horizon="7d", start_valid=from_micros(hour(4)), end_valid=from_micros(hour(5))) == [
        (0.0, 2, 0.5, 1.5, math.sqrt(2.5))
    ]


def test_withdrawn_and_corrected_revisions(tenant: Tenant) -> None:
    some_forecasts(tenant)
    before = plan(tenant, horizon="7d")
    tenant.withdraw_run(WithdrawRun(run_id="first"), changed_by=None)
    assert figures(tenant, horizon="7d") == [(-168.0, 3, -1.0, 1.0, 1.0), (0.0, 3, -1.0, 1.0, 1.0)]
    actual_id = series(tenant, "actual")
    change = {"series_id": actual_id, "valid_time": from_micros(hour(5)), "value": 24.0}
    tenant.update_values(parse_object(UpdateValues, {"updates": [change]}), changed_by=None)
    assert figures(tenant, horizon="7d")[1] == (0.0, 3, -4.0, 4.0, math.sqrt(34.0))
    # As it was written then, by its token and by the moment itself.
    then = [(-168.0, 3, -1.0, 1.0, 1.0), (0.0, 9, 1.0, pytest.approx(5 / 3), math.sqrt(3.0))]
    assert figures(tenant, horizon="7d", token=before.token) == then
    assert figures(tenant, horizon="7d", as_of=before.as_of) == then
    tenant.compact()
    assert figures(tenant, horizon="7d", token=before.token) == then


def test_only_numbers_at_the_same_interval_are_compared(tenant: Tenant) -> None:
    upload(
        tenant,
        [
            Sent("actual", hour(0), None, hour(0), 1.0),
            Sent("actual", hour(1), hour(2), hour(0), 2.0),
            Sent("actual", hour(2), None, hour(0), None),
            Sent("actual", hour(3), None, hour(0), NAN),
            Sent("actual", hour(4), None, hour(0), 5.0),
            Sent("actual", hour(5), None, hour(0), 6.0),
        ],
    )
    upload(
        tenant,
        [
            Sent("forecast", hour(0), hour(1), hour(0), 100.0),
            Sent("forecast", hour(1), hour(2), hour(0), 4.0),
            Sent("forecast", hour(1), None, hour(0), 100.0),
            Sent("forecast", hour(2), None, hour(0), 100.0),
            Sent("forecast", hour(3), None, hour(0), 100.0),
            Sent("forecast", hour(4), None, hour(0), None),
            Sent("forecast", hour(5), None, hour(0), NAN),
            Sent("forecast", hour(6), None, hour(0), 100.0),
        ],
    )
    assert figures(tenant) == [(1.0, 1, 2.0, 2.0, 2.0)]


def test_actual_values_are_brought_to_the_unit_of_the_forecast(tenant: Tenant) -> None:
    series(tenant, "actual", "kW")
    upload(tenant, [Sent("actual", hour(0), None, hour(0), 1500.0)])
    upload(tenant, [Sent("megawatts", hour(0), None, hour(0), 2.0)], unit="MW")
    upload(tenant, [Sent("kilowatts", hour(0), None, hour(0), 2000.0)], unit="kW")
    found = {name: figures(tenant, series_keys=[name])[0][2:] for name in ("megawatts", "kilowatts")}
    assert found == {"megawatts": (0.5, 0.5, 0.5), "kilowatts": (500.0, 500.0, 500.0)}
    temperature = series(tenant, "temperature", "degC")
    mixed: list[dict[str, Any]] = [{}, {"series_ids": [temperature]}, {"labels": {}}]
    for fields in mixed:
        with pytest.raises(InvalidRequest, match=r"^actual_key: 'kW' and 'degC' are .* \(series 'temperature'\)"):
            plan(tenant, **fields)


def test_the_actual_series_is_compared_with_itself_only_by_name(tenant: Tenant) -> None:
    some_forecasts(tenant)
    actual_id = series(tenant, "actual")

    def compared(**fields: Any) -> list[str]:
        return sorted(set(plan(tenant, horizon="7d", **fields).reader().read_all()["series_id"].to_pylist()))

    forecast_id = series(tenant, "forecast")
    assert compared() == compared(labels={}) == compared(actual_id=actual_id) == [forecast_id]
    assert compared(series_keys=["actual"]) == compared(series_ids=[actual_id]) == [actual_id]
    assert compared(series_keys=["actual", "forecast"]) == sorted([actual_id, forecast_id])


def test_series_that_do_not_exist_are_named(tenant: Tenant) -> None:
    some_forecasts(tenant)
    for labels in ({"site": "a"}, {"site": "b"}):
        tenant.create_series(CreateSeries(name="twice", labels=labels), created_by=None)
    absent = str(uuid4())
    for fields, error, text in [
        ({"actual_key": "nobody"}, NotFound, "^actual_key: there is no series 'nobody'"),
        ({"actual_id": absent}, NotFound, f"^actual_id: there is no series '{absent}'"),
        ({"actual_key": "twice"}, InvalidRequest, "^actual_key: 'twice' is the name of 2 series"),
        ({"series_keys": ["nobody"]}, NotFound, "^series_key: there is no series 'nobody'"),
        ({"series_ids": [absent]}, NotFound, "^series_ids: there is no series"),
    ]:
        with pytest.raises(error, match=text):
            plan(tenant, **fields)  # type: ignore[arg-type] # fields of several types


def test_more_actual_values_than_may_be_held(lake_dir: Path) -> None:
    for most in (5, 6):
        with closing(Lake.open(str(lake_dir / str(most)), tiny_settings(max_sorted_rows=most))) as lake:
            tenant = open_tenant(lake)
            some_forecasts(tenant)
            if most == 5:
                with pytest.raises(TooLarge, match="actual_key: the series has more than 5 values"):
                    plan(tenant).reader().read_all()
            else:
                assert plan(tenant).reader().read_all().num_rows == 9


def test_an_empty_answer_has_its_schema(tenant: Tenant) -> None:
    upload(tenant, [Sent("actual", hour(0), None, hour(0), 1.0)])
    empty = plan(tenant)
    assert empty.reader().read_all().num_rows == 0
    assert empty.schema.equals(accuracy_schema(skills=False))
    assert set(empty.schema.metadata or {}) == {b"table_version", b"as_of", b"token", b"series_version"}
    assert [part.rows for part in empty.parts] in ([-1], [])


def test_the_parts_are_the_answer_in_its_order(tenant: Tenant) -> None:
    names = [f"forecast {number}" for number in range(12)]
    upload(tenant, [Sent("actual", hour(n), None, hour(n), float(n)) for n in range(4)])
    upload(tenant, [Sent(name, hour(n), None, hour(0), n + 0.1) for name in names for n in range(4)])
    whole = plan(tenant)
    answer = pl.DataFrame(whole.reader().read_all()).cast({"series_id": pl.String})
    assert answer.height == 48
    assert answer.equals(answer.sort("series_id", "lead_seconds"))
    assert whole.ordered
    tickets = [parse(AccuracyTicket, part.ticket.to_bytes(), what="ticket", max_bytes=10_000) for part in whole.parts]
    assert len({ticket.bucket for ticket in tickets}) == len(tickets) > 1
    upload(tenant, [Sent(name, hour(1), None, hour(1), 1e6) for name in names])
    tenant.compact()
    parts = [pl.DataFrame(tenant.plan_accuracy(ticket).reader().read_all()) for ticket in tickets]
    assert pl.concat([part.cast({"series_id": pl.String}) for part in parts]).equals(answer)


def test_series_longer_than_a_batch(lake_dir: Path) -> None:
    """Batches of the read end within series; no series may be cut in two by that."""
    counts = {"one": 70_000, "two": 20, "three": 140_000, "four": 65_536}
    minutes = np.arange(max(counts.values()), dtype=np.int64) * 60_000_000 + hour(0)
    rng = np.random.default_rng(7)
    errors = {name: rng.normal(size=count) for name, count in counts.items()}

    def frame(name: str, value: np.ndarray[Any, Any]) -> pl.DataFrame:
        times = pl.Series("valid_time", minutes[: len(value)]).cast(pl.Datetime("us", "UTC"))
        return pl.DataFrame({"series_key": [name] * len(value), "valid_time": times, "value": value})

    settings = tiny_settings(upload_chunk_rows=1_000_000, bulk_rows=1_000_000, read_slice_rows=1_000_000)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        known = {"known_time": from_micros(hour(0))}
        for name, value in {"actual": np.zeros(len(minutes)), **errors}.items():
            upload(tenant, frame(name, value).to_arrow(), batch_rows=200_000, **known)
        found = pl.DataFrame(plan(tenant, horizon="36500d").reader().read_all()).cast({"series_id": pl.String})
        ids = {series(tenant, name): name for name in counts}
    assert found.height == len(counts)
    for row in found.iter_rows(named=True):
        error = errors[ids[row["series_id"]]]
        assert row["count"] == len(error)
        expected = (error.mean(), np.abs(error).mean(), np.sqrt((error**2).mean()))
        assert (row["bias"], row["mae"], row["rmse"]) == pytest.approx(expected, rel=1e-12, abs=1e-15)


ORACLE = """
WITH seen AS (
    SELECT *, coalesce(retracted, false) AS gone FROM stored
    WHERE ($start_valid IS NULL OR valid_time >= $start_valid) AND ($end_valid IS NULL OR valid_time < $end_valid)
), standing AS (
    SELECT * FROM seen
    QUALIFY row_number() OVER (
        PARTITION BY series_id, valid_time, valid_time_end, known_time, run_id ORDER BY change_time DESC
    ) = 1
), actual AS (
    SELECT * FROM standing WHERE name = 'actual' AND NOT gone
    QUALIFY row_number() OVER (
        PARTITION BY valid_time, valid_time_end ORDER BY known_time DESC, change_time DESC, run_id DESC
    ) = 1
), pairs AS (
    SELECT forecast.series_id, forecast.value - actual.value AS error,
        floor((forecast.valid_time - forecast.known_time) / $horizon) AS bucket
    FROM standing AS forecast JOIN actual ON forecast.valid_time = actual.valid_time
        AND forecast.valid_time_end IS NOT DISTINCT FROM actual.valid_time_end
    WHERE forecast.name <> 'actual' AND NOT forecast.gone AND NOT isnan(forecast.value) AND NOT isnan(actual.value)
        AND ($start_known IS NULL OR forecast.known_time >= $start_known)
        AND ($end_known IS NULL OR forecast.known_time < $end_known)
)
SELECT series_id, bucket * $horizon / 1e6, (bucket + 1) * $horizon / 1e6, count(*), avg(error), avg(abs(error)),
    sqrt(avg(error * error))
FROM pairs GROUP BY series_id, bucket ORDER BY ALL
"""


def stored(folder: Path) -> pl.DataFrame:
    """All versions of all rows, as a direct reader sees them, times as integers."""
    names = pl.scan_delta(str(folder / "series")).select("series_id", "name").unique()
    rows = pl.scan_delta(str(folder / "values")).join(names, on="series_id")
    times = ["valid_time", "valid_time_end", "known_time", "change_time"]
    return rows.with_columns(pl.col(times).to_physical()).drop("tags").collect(engine="in-memory")


def some_history(tenant: Tenant, folder: Path, dice: random.Random) -> None:
    """Runs of forecasts and actual values at few times, some of them corrected, one withdrawn."""
    for number in range(4):
        rows = {
            (name, at, length, known): dice.choice([None, NAN, -1.5, 0.0, 2.25, 10.0, 3.5, 7.0])
            for name in ("actual", "south", "east")
            for at in range(4)
            for length in (None, 1)
            for known in dice.sample(range(-2, 5), 2)
        }
        sent = [
            Sent(name, hour(at), None if length is None else hour(at + length), hour(known), value)
            for (name, at, length, known), value in rows.items()
            if dice.random() < 0.7
        ]
        upload(tenant, sent, f"run {number}")
    revisions = stored(folder).select("run_id", "series_id", "valid_time", "valid_time_end", "known_time").rows()
    correct_some(tenant, dice.sample(revisions, 20), dice)
    withdraw(tenant, f"run {dice.randrange(4)}")


@pytest.mark.parametrize("seed", range(3))
def test_against_duckdb_before_and_after_compaction(tenant: Tenant, lake_dir: Path, seed: int) -> None:
    dice, folder = random.Random(seed), tenant_folder(lake_dir)
    some_history(tenant, folder, dice)
    names = ("start_valid", "end_valid", "start_known", "end_known")
    asked = [dict.fromkeys(names)] + [
        {
            name: dice.choice([None, hour(later), hour(later + 1)])
            for name, later in zip(names, (0, 3, -1, 2), strict=True)
        }
        for _ in range(4)
    ]
    horizons = [3_600, 5_400, 86_400, 1_800, 25_200]
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("stored", stored(folder))
        expected = [
            engine.execute(ORACLE, {**bounds, "horizon": horizon * 1_000_000}).fetchall()
            for bounds, horizon in zip(asked, horizons, strict=True)
        ]
    assert len(expected[0]) > 10
    tickets = [
        {"horizon": f"{horizon}s", **{name: None if at is None else from_micros(at) for name, at in bounds.items()}}
        for bounds, horizon in zip(asked, horizons, strict=True)
    ]
    before = [plan(tenant, **ticket).reader().read_all() for ticket in tickets]
    tenant.compact()
    assert [plan(tenant, **ticket).reader().read_all() for ticket in tickets] == before
    columns = ("series_id", "lead_seconds", "lead_seconds_end", "count", "bias", "mae", "rmse")
    for table, oracle in zip(before, expected, strict=True):
        found = pl.DataFrame(table).cast({"series_id": pl.String}).select(columns).rows()
        assert [row[:4] for row in found] == [row[:4] for row in oracle]
        for mine, other in zip(found, oracle, strict=True):
            assert mine[4:] == pytest.approx(other[4:], rel=1e-12, abs=1e-12)
