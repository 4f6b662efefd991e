"""Scores over random histories, with every option, against DuckDB SQL over all stored rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from tests.storage.correcting import correct_some, withdraw
from tests.storage.lakes import hour, open_tenant, tenant_folder, tiny_settings, upload
from tests.storage.read.test_accuracy import plan
from tests.storage.read.test_scores import Said, table_of
from timedb.contract.times import from_micros
from timedb.contract.wire import AccuracyTicket, parse
from timedb.storage import Lake, Tenant

SCORES = ("count", "skipped", "wis", "crps")
SITES = ("a", "b")
QUANTILES, MEMBERS = ("0.1", "0.25", "0.5", "0.9"), ("0", "1", "2")
NAN = float("nan")
HOUR = 3_600_000_000

# Of each side of the comparison the versions that count, the revisions that stand, then one of each point, or all.
STANDING = """
WITH seen AS (
    SELECT *, coalesce(retracted, false) AS gone, min(change_time) OVER (PARTITION BY run_id) AS uploaded,
        min(change_time) OVER revision AS published
    FROM stored
    WHERE ($start_valid IS NULL OR valid_time >= $start_valid) AND ($end_valid IS NULL OR valid_time < $end_valid)
    WINDOW revision AS (PARTITION BY series_id, valid_time, valid_time_end, known_time, run_id)
), gated AS (
    SELECT *, floor((valid_time - $origin) / $window) * $window + $origin - $offset AS gate FROM seen
), counted AS (
    SELECT * FROM gated
    WHERE ($start_known IS NULL OR known_time >= $start_known) AND ($end_known IS NULL OR known_time < $end_known)
        AND (NOT $relative OR known_time <= gate)
        AND CASE $corrections WHEN 'all' THEN true WHEN 'none' THEN change_time = published ELSE
            change_time = uploaded OR ((NOT $relative OR change_time <= gate)
                AND ($end_known IS NULL OR change_time < $end_known)) END
), standing AS (
    SELECT * FROM (SELECT * FROM counted QUALIFY row_number() OVER (
        PARTITION BY series_id, valid_time, valid_time_end, known_time, run_id ORDER BY change_time DESC) = 1)
    WHERE NOT gone
), forecast AS (
    SELECT *, row_number() OVER (PARTITION BY series_id, valid_time, valid_time_end
            ORDER BY known_time DESC, change_time DESC, run_id DESC) AS latest,
        row_number() OVER (PARTITION BY series_id, valid_time, valid_time_end
            ORDER BY known_time, published, run_id) AS earliest
    FROM standing WHERE name <> 'actual' AND ($run_ids IS NULL OR name <> 'wind' OR list_contains($run_ids, run_id))
    QUALIFY CASE $forecast_view WHEN 'overlapping' THEN true WHEN 'flat' THEN latest = 1 ELSE earliest = 1 END
), measured AS (
    SELECT * FROM (SELECT * FROM seen WHERE name = 'actual' AND ($lead IS NULL OR known_time <= valid_time - $lead)
        QUALIFY row_number() OVER (PARTITION BY series_id, valid_time, valid_time_end, known_time, run_id
            ORDER BY change_time DESC) = 1) WHERE NOT gone
), actual AS (
    SELECT * FROM measured QUALIFY row_number() OVER (PARTITION BY site, valid_time, valid_time_end ORDER BY
        CASE WHEN $first_release THEN -known_time ELSE known_time END DESC,
        CASE WHEN $first_release THEN -published ELSE change_time END DESC,
        CASE WHEN $first_release THEN run_id END, run_id DESC) = 1
), pairs AS (
    SELECT forecast.*, coalesce(forecast.valid_time_end, 0) AS until, actual.value AS came,
        floor((forecast.valid_time - forecast.known_time) / $horizon) AS bucket
    FROM forecast JOIN actual ON forecast.site = actual.site AND forecast.valid_time = actual.valid_time
        AND forecast.valid_time_end IS NOT DISTINCT FROM actual.valid_time_end
    WHERE NOT isnan(actual.value)
), lone AS (
    SELECT name, site, quantile, member, valid_time, until, bucket, value - came AS error,
        abs(value - came) AS absolute,
        greatest(quantile::double * (came - value), (quantile::double - 1) * (came - value)) AS pinball,
        (came <= value)::int AS below
    FROM pairs WHERE NOT isnan(value)
), issued AS (
    SELECT * FROM (SELECT * FROM pairs WHERE quantile IS NOT NULL OR member IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY series_id, valid_time, until, known_time
            ORDER BY change_time DESC, run_id DESC) = 1) WHERE NOT isnan(value)
), together AS (
    SELECT name, site, quantile IS NULL AS ensemble, valid_time, until, known_time, bucket, any_value(came) AS came,
        list(value ORDER BY quantile, member) AS x, count(*) AS size
    FROM issued GROUP BY ALL
), scored AS (
    SELECT *, CASE WHEN ensemble THEN size >= 2 ELSE size = 4 END AS whole,
        CASE WHEN ensemble THEN list_avg(list_transform(x, v -> abs(v - came))) - list_sum(list_transform(
            flatten(list_transform(x, v -> list_transform(x, w -> abs(v - w)))), d -> d)) / (2 * size * (size - 1))
        ELSE 2 * list_avg(list_transform([0.1, 0.25, 0.5, 0.9], (q, i) ->
            CASE WHEN came >= x[i] THEN q * (came - x[i]) ELSE (1 - q) * (x[i] - came) END)) END AS crps,
        CASE WHEN NOT ensemble THEN (0.5 * abs(came - x[3]) + 0.1 * (x[4] - x[1]
            + 10 * greatest(x[1] - came, 0) + 10 * greatest(came - x[4], 0))) / 1.5 END AS wis
    FROM together
)
"""
OF_SERIES = """
SELECT name, site, quantile, member, bucket, count(*) AS n, avg(error), avg(absolute), sqrt(avg(error * error)),
    avg(pinball), avg(CASE WHEN quantile IS NOT NULL THEN below END)
FROM lone GROUP BY ALL ORDER BY ALL
"""
OF_SIBLINGS = """
SELECT name, site, ensemble, bucket, count(*) FILTER (whole), count(*) FILTER (NOT whole),
    avg(wis) FILTER (whole), avg(crps) FILTER (whole)
FROM scored GROUP BY ALL ORDER BY ALL
"""
SKILLS = """
, naive AS (
    SELECT site, valid_time, until, bucket, sum(absolute) AS theirs, sum(error * error) AS squares, count(*) AS of
    FROM lone WHERE name = 'naive' GROUP BY ALL
), own AS (
    SELECT name, site, quantile, member, NULL::boolean AS ensemble, valid_time, until, bucket, absolute AS ours,
        error * error AS square FROM lone
    UNION ALL
    SELECT name, site, NULL, NULL, ensemble, valid_time, until, bucket, crps, 0 FROM scored WHERE whole
), common AS (
    SELECT own.*, theirs, squares, of, row_number() OVER (
        PARTITION BY name, site, quantile, member, ensemble, valid_time, until, bucket) AS turn
    FROM own JOIN naive USING (site, valid_time, until, bucket)
), sums AS (
    SELECT name, site, quantile, member, ensemble, bucket, avg(ours) AS ours, avg(square) AS square,
        sum(theirs) FILTER (turn = 1) / sum(of) FILTER (turn = 1) AS theirs,
        sum(squares) FILTER (turn = 1) / sum(of) FILTER (turn = 1) AS squares
    FROM common GROUP BY ALL
)
SELECT name, site, quantile, member, ensemble, bucket, CASE WHEN theirs <> 0 THEN 1 - ours / theirs END,
    CASE WHEN squares <> 0 AND ensemble IS NULL THEN 1 - sqrt(square) / sqrt(squares) END
FROM sums ORDER BY ALL
"""


def labels_of(folder: Path) -> pl.DataFrame:
    """Of each series its name, and its labels as columns."""
    rows = pl.scan_delta(str(folder / "series")).select("series_id", "name", "labels").unique().collect()
    said = [{"quantile": None, "member": None, "site": None} | json.loads(each) for each in rows["labels"]]
    schema = dict.fromkeys(("quantile", "member", "site"), pl.String())
    return rows.drop("labels").hstack(pl.DataFrame(said, schema=schema))


def stored(folder: Path) -> pl.DataFrame:
    """All versions of all rows, times as integers."""
    rows = pl.scan_delta(str(folder / "values")).collect(engine="in-memory").join(labels_of(folder), on="series_id")
    return rows.with_columns(pl.col(pl.Datetime).to_physical()).drop("tags")


def some_history(tenant: Tenant, folder: Path, dice: random.Random) -> None:
    """Runs of quantiles, members, a reference and actual values at few times; some corrected, one withdrawn."""
    kinds = [
        *(("wind", {"quantile": each}) for each in QUANTILES),
        *(("wind", {"member": each}) for each in MEMBERS),
        ("naive", {}),
        ("actual", {}),
    ]
    for number in range(4):
        issued = {site: dice.sample(range(-3, 9), 2) for site in SITES}
        rows: list[Said] = [
            (name, labels | {"site": site}, 3 * at, length, known, dice.choice([None, NAN, -1.5, 0.25, 2.0, 10.0, 3.5]))
            for name, labels in kinds
            for site in SITES
            for at in range(3)
            for length in (None, 1)
            for known in issued[site]
            if dice.random() < 0.85
        ]
        upload(tenant, table_of(rows), f"run {number}")
    revisions = stored(folder).select("run_id", "series_id", "valid_time", "valid_time_end", "known_time").rows()
    correct_some(tenant, dice.sample(revisions, 60), dice)
    withdraw(tenant, f"run {dice.randrange(4)}")


def some_question(dice: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a comparison, and the oracle's parameters."""
    bounds = {
        "start_valid": dice.choice([None, hour(3)]),
        "end_valid": dice.choice([None, hour(9)]),
        "start_known": dice.choice([None, None, hour(-2)]),
        "end_known": dice.choice([None, None, hour(6)]),
    }
    relative, horizon = dice.random() < 0.5, dice.choice([1, 3, 24])
    cut = relative or bounds["end_known"] is not None
    corrections = dice.choice(["all", "none", "by_cutoff"] if cut else ["all", "none"])
    view, actual_view = dice.choice(["overlapping", "flat", "first"]), dice.choice(["flat", "first", "-2h", "1h"])
    run_ids = dice.choice([None, None, ["run 0", "run 1", "run 2", "run 9"]])
    asked: dict[str, Any] = {name: None if at is None else from_micros(at) for name, at in bounds.items()} | {
        "actual_key": "actual",
        "match_labels": ["site"],
        "horizon": f"{horizon}h",
        "corrections": corrections,
        "forecast_view": view,
        "actual_view": actual_view,
        "run_ids": run_ids,
    }
    if relative:
        window = {"window_length": "6h", "issue_offset": "-1h", "start_window": from_micros(hour(0))}
        asked["relative"] = window
    leads = {"-2h": -2 * HOUR, "1h": HOUR}
    return asked, bounds | {
        "relative": relative,
        "origin": hour(0),
        "window": 6 * HOUR,
        "offset": HOUR,
        "corrections": corrections,
        "forecast_view": view,
        "first_release": actual_view == "first",
        "lead": leads.get(actual_view),
        "run_ids": run_ids,
        "horizon": horizon * HOUR,
    }


def answer(tenant: Tenant, asked: dict[str, Any]) -> pl.DataFrame:
    """An answer with the labels as columns, and the number of the bucket of lead times."""
    found = pl.DataFrame(plan(tenant, **asked).reader().read_all()).with_columns(pl.col(pl.Categorical).cast(pl.String))
    said = [{"quantile": None, "member": None} | json.loads(each) for each in found["labels"]]
    schema = dict.fromkeys(("quantile", "member", "site"), pl.String())
    return found.hstack(pl.DataFrame(said, schema=schema)).with_columns(
        bucket=pl.col("lead_time") / (pl.col("lead_time_end") - pl.col("lead_time")),
        ensemble=pl.when(pl.col("siblings").is_not_null()).then(pl.col("siblings") == "member"),
    )


def same(found: pl.DataFrame, keys: int, oracle: list[tuple[Any, ...]]) -> None:
    """The same rows, but for the last digits of sums."""
    rows = sorted(found.rows(), key=lambda row: str(row[:keys]))
    wanted = sorted(oracle, key=lambda row: str(row[:keys]))
    assert [row[:keys] for row in rows] == [row[:keys] for row in wanted]
    for mine, other in zip(rows, wanted, strict=True):
        near = [None if each is None else pytest.approx(each, rel=1e-12, abs=1e-12) for each in other[keys:]]
        assert list(mine[keys:]) == near, mine[:keys]


def compare(engine: duckdb.DuckDBPyConnection, found: pl.DataFrame, parameters: dict[str, Any]) -> None:
    """An answer with the oracle's: of series, of siblings, and the skills of both."""
    # Where runs are named, the reference as a forecast has other rows than as a reference.
    names = {"wind"} if parameters["run_ids"] else {"wind", "naive"}
    found = found.filter(pl.col("series_key").is_in(names))

    def oracle(text: str) -> list[tuple[Any, ...]]:
        return [row for row in engine.execute(STANDING + text, parameters).fetchall() if row[0] in names]

    lone = found.filter(pl.col("series_id").is_not_null())
    figures = ("count", "bias", "mae", "rmse", "pinball", "coverage")
    same(lone.select("series_key", "site", "quantile", "member", "bucket", *figures), 5, oracle(OF_SERIES))
    together = found.filter(pl.col("series_id").is_null())
    same(together.select("series_key", "site", "ensemble", "bucket", *SCORES), 6, oracle(OF_SIBLINGS))
    skill = pl.coalesce("skill_mae", "skill_crps")
    columns = ("series_key", "site", "quantile", "member", "ensemble", "bucket")
    skills = found.filter(skill.is_not_null()).select(*columns, skill, "skill_rmse")
    same(skills, 6, [row for row in oracle(SKILLS) if row[6] is not None])


@pytest.fixture
def tenant(lake_dir: Path) -> Iterator[Tenant]:
    """The tenant of a lake whose reads are cut into slices; siblings have more rows than one."""
    with closing(
        Lake.open(str(lake_dir), tiny_settings(read_slice_rows=300, bulk_rows=10_000, compact_file_rows=400))
    ) as lake:
        yield open_tenant(lake)


@pytest.mark.parametrize("seed", range(2))
def test_scores_against_duckdb_before_and_after_compaction(tenant: Tenant, lake_dir: Path, seed: int) -> None:
    dice, folder = random.Random(seed), tenant_folder(lake_dir)
    some_history(tenant, folder, dice)
    questions = [some_question(dice) for _ in range(2)]
    forecasts = {"series_keys": ["wind", "naive"], "labels": {"site": list(SITES)}, "reference_key": "naive"}
    tickets = [asked | forecasts for asked, _ in questions]
    before = [answer(tenant, ticket) for ticket in tickets]
    tenant.compact()
    for ticket, found in zip(tickets, before, strict=True):
        assert answer(tenant, ticket).equals(found)
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("stored", stored(folder))
        for found, (_, parameters) in zip(before, questions, strict=True):
            compare(engine, found, parameters)


def test_the_parts_are_the_answer_siblings_last(tenant: Tenant, lake_dir: Path) -> None:
    some_history(tenant, tenant_folder(lake_dir), random.Random(7))
    asked = {"actual_key": "actual", "match_labels": ["site"], "series_keys": ["wind"], "labels": {"site": ["a", "b"]}}
    whole = plan(tenant, **asked)
    expected = pl.DataFrame(whole.reader().read_all())
    tickets = [parse(AccuracyTicket, part.ticket.to_bytes(), what="ticket", max_bytes=10_000) for part in whole.parts]
    tenant.compact()
    parts = [pl.DataFrame(tenant.plan_accuracy(ticket).reader().read_all()) for ticket in tickets]
    assert parts[-1]["series_id"].null_count() == parts[-1].height > 0
    assert not any(part["series_id"].null_count() for part in parts[:-1])
    texts = pl.col(pl.Categorical).cast(pl.String)
    assert pl.concat(part.with_columns(texts) for part in parts).equals(expected.with_columns(texts))
