"""Imports from real databases and files: runs, known times, corrections, units; once, also when repeated."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.timedb.cli.test_cli import ask, timedb
from timedb.client import Client

__all__ = ["ask"]

Database = Callable[[str], str]
BATCH = "6f1c3c0a-0000-4000-8000-00000000000"
_EARLY = """
CREATE TABLE batches_table (batch_id uuid PRIMARY KEY, tenant_id uuid NOT NULL, workflow_id text,
  batch_start_time timestamptz, batch_finish_time timestamptz, known_time timestamptz NOT NULL, batch_params jsonb,
  inserted_at timestamptz NOT NULL);
CREATE TABLE series_table (series_id uuid PRIMARY KEY, name text NOT NULL, unit text NOT NULL,
  labels jsonb NOT NULL DEFAULT '{{}}', description text);
CREATE TABLE values_table (value_id bigserial PRIMARY KEY, batch_id uuid NOT NULL, tenant_id uuid NOT NULL,
  series_id uuid NOT NULL, valid_time timestamptz NOT NULL, valid_time_end timestamptz, value double precision,
  annotation text, metadata jsonb, tags text[], changed_by text, change_time timestamptz NOT NULL,
  is_current boolean NOT NULL);
INSERT INTO series_table VALUES ('{batch}a', '{name}', 'MW', '{{"site": "north"}}', 'measured');
INSERT INTO batches_table VALUES
  ('{batch}1', '{batch}0', 'day-ahead', '2024-12-31 05:00Z', '2024-12-31 05:10Z', '2024-12-31 06:00Z', '{{"m": 2}}',
   '2024-12-31 06:01Z'),
  ('{batch}2', '{batch}0', NULL, NULL, NULL, '2024-12-31 12:00Z', NULL, '2024-12-31 12:01Z');
INSERT INTO values_table VALUES
  (1, '{batch}1', '{batch}0', '{batch}a', '2025-01-01 00:00Z', '2025-01-01 01:00Z', 1, 'first', NULL, NULL, NULL,
   '2024-12-31 06:01Z', false),
  (2, '{batch}1', '{batch}0', '{batch}a', '2025-01-01 01:00Z', '2025-01-01 02:00Z', 2, NULL, NULL, '{{a,b}}', NULL,
   '2024-12-31 06:01Z', true),
  (3, '{batch}1', '{batch}0', '{batch}a', '2025-01-01 00:00Z', '2025-01-01 01:00Z', 1.5, 'meter', NULL, '{{fixed}}',
   'ann', '2024-12-31 09:00Z', false),
  (4, '{batch}1', '{batch}0', '{batch}a', '2025-01-01 00:00Z', '2025-01-01 01:00Z', NULL, NULL, NULL, NULL, 'bob',
   '2025-01-02 00:00Z', true),
  (5, '{batch}2', '{batch}0', '{batch}a', '2025-01-01 01:00Z', '2025-01-01 02:00Z', 'NaN', NULL, NULL, NULL, NULL,
   '2024-12-31 12:01Z', true)
"""
VERSIONS = ["run_id", "valid_time", "known_time", "value", "annotation", "tags"]


def early(name: str) -> tuple[str, str]:
    """A database of an early release, and what its UUIDs begin with: their first digits are of this test alone."""
    batch = name.removeprefix("series-")[:8] + BATCH[8:]
    return _EARLY.format(name=name, batch=batch), batch


def test_timedb_0_1_with_its_corrections_once(database: Database, ask: Any, client: Client, name: str) -> None:
    sql, batch = early(name)
    url = database(sql)
    looked = json.loads(ask("import", "timedb-0.1", url, "--dry-run", "--json"))
    assert (looked["series"], looked["runs"], looked["rows"], looked["corrections"]) == (1, 2, 3, 2)
    assert client.list_series(name=name) == []
    done = json.loads(ask("import", "timedb-0.1", url, "--json"))
    assert done == looked
    (series,) = client.list_series(name=name, labels={"site": "north"})
    assert (series["unit"], series["description"]) == ("MW", "measured")
    run = client.get_run(f"{batch}1")
    assert (run["workflow_id"], run["known_time"][:16], run["rows"]) == ("day-ahead", "2024-12-31T06:00", 2)
    assert run["run_params"]["m"] == 2
    assert run["run_params"]["timedb_import"]["change_time"].startswith("2024-12-31T06:01")
    rows = client.read_arrow(
        series_ids=series["series_id"], view="overlapping", all_versions=True, ordered=True, columns=VERSIONS
    ).to_pylist()
    assert [(row["valid_time"].hour, row["known_time"].hour, row["value"], row["annotation"]) for row in rows] == [
        (0, 6, 1.0, "first"),
        (0, 6, 1.5, "meter"),
        (0, 6, None, None),
        (1, 6, 2.0, None),
        (1, 12, pytest.approx(float("nan"), nan_ok=True), None),
    ]
    assert rows[0]["tags"] is None
    assert sorted(rows[1]["tags"]) == ["change_time:2024-12-31 09:00:00.000000+00:00", "changed_by:ann", "fixed"]
    assert sorted(rows[2]["tags"]) == ["change_time:2025-01-02 00:00:00.000000+00:00", "changed_by:bob"]

    again = json.loads(ask("import", "timedb-0.1", url, "--json"))
    assert (again["runs"], again["runs_already_loaded"]) == (0, 2)
    database(
        f"INSERT INTO values_table VALUES (6, '{batch}2', '{batch}0', '{batch}a', '2025-01-01 01:00Z', "
        "'2025-01-01 02:00Z', 7, NULL, NULL, NULL, NULL, '2025-01-03 00:00Z', true)"
    )
    ask("import", "timedb-0.1", url)
    found = client.read(series_ids=series["series_id"], view="overlapping", all_versions=True)
    assert found.height == len(rows) + 1
    assert client.read(series_ids=series["series_id"], start_valid="2025-01-01T01:00Z")["value"].to_list() == [7.0]
    database(f"DELETE FROM values_table WHERE batch_id = '{batch}1'")
    database(
        f"INSERT INTO values_table VALUES (9, '{batch}1', '{batch}0', '{batch}a', '2025-01-01 05:00Z', NULL, 7, NULL, "
        "NULL, NULL, NULL, '2025-01-03 00:00Z', true)"
    )
    changed = timedb("import", "timedb-0.1", url, TIMEDB_FLIGHT_URL=client._connection.url)
    assert f"--prefix: run '{batch}1' is there with other content" in changed.stderr


def test_what_has_no_place_here_is_not_left_out_in_silence(database: Database, name: str) -> None:
    sql, batch = early(name)
    url = database(sql)
    database("UPDATE values_table SET metadata = '{}' WHERE value_id = 1")
    refused = timedb("import", "timedb-0.1", url, "--dry-run")
    assert "--ignore: 1 rows of values_table have metadata, which has no place here" in refused.stderr
    assert timedb("import", "timedb-0.1", url, "--dry-run", "--ignore", "metadata").returncode == 0
    database(f"UPDATE values_table SET tenant_id = '{batch}b' WHERE value_id = 1")
    refused = timedb("import", "timedb-0.1", url, "--dry-run", "--ignore", "metadata")
    assert "--tenant-id: say whose data of 2 tenants" in refused.stderr
    refused = timedb("import", "flexmeasures", url)
    assert "the database has no tables of FlexMeasures" in refused.stderr
    refused = timedb("import", "timedb-0.1", url.replace("of_test", "no"))
    assert (refused.returncode != 0, "unavailable" in refused.stderr) == (True, True)


_LATE = """
CREATE TABLE batches_table (batch_id bigserial PRIMARY KEY, workflow_id text, batch_start_time timestamptz,
  batch_finish_time timestamptz, knowledge_time timestamptz NOT NULL, batch_params jsonb,
  inserted_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE series_table (series_id bigserial PRIMARY KEY, name text, unit text, labels jsonb DEFAULT '{{}}',
  description text, overlapping boolean, retention text);
CREATE TABLE flat (flat_id bigserial, series_id bigint, valid_time timestamptz, valid_time_end timestamptz,
  value double precision, knowledge_time timestamptz, annotation text, metadata jsonb, tags text[], changed_by text,
  change_time timestamptz, inserted_at timestamptz);
CREATE TABLE overlapping_medium (overlapping_id bigserial, batch_id bigint, series_id bigint, valid_time timestamptz,
  valid_time_end timestamptz, value double precision, knowledge_time timestamptz, annotation text, metadata jsonb,
  tags text[], changed_by text, change_time timestamptz);
INSERT INTO series_table VALUES (1, '{name}', 'kW'), (2, '{name}-actual', 'dimensionless');
INSERT INTO batches_table VALUES (7, 'w', '2025-01-01 00:00Z', NULL, '2025-01-01 06:00Z', NULL, '2025-01-01 06:01Z');
INSERT INTO overlapping_medium VALUES (1, 7, 1, '2025-01-01 12:00Z', NULL, 4.5, '2025-01-01 06:00Z', NULL, NULL, NULL,
  NULL, '2025-01-01 06:01Z');
INSERT INTO flat VALUES
  (1, 2, '2025-01-01 12:00Z', NULL, 4, '2025-01-01 12:05Z', NULL, NULL, NULL, NULL, '2025-01-01 12:06Z', now()),
  (2, 2, '2025-01-02 12:00Z', NULL, 5, '2025-01-02 12:05Z', 'x', NULL, NULL, NULL, '2025-01-02 12:06Z', now())
"""


def test_later_releases_of_0_1(database: Database, ask: Any, client: Client, name: str) -> None:
    url = database(_LATE.format(name=name))
    prefix = f"{name}-"
    done = json.loads(ask("import", "timedb-0.1", url, "--prefix", prefix, "--json"))
    assert (done["series"], done["runs"], done["rows"], done["corrections"]) == (2, 3, 3, 0)
    assert client.get_run(f"{prefix}7")["workflow_id"] == "w"
    assert client.list_series(name=name)[0]["unit"] == "kW"
    found = client.read(series_keys=[name, f"{name}-actual"], columns=["valid_time", "known_time", "value"])
    assert sorted(found.rows()) == [
        (datetime(2025, 1, 1, 12, tzinfo=UTC), datetime(2025, 1, 1, 6, tzinfo=UTC), 4.5),
        (datetime(2025, 1, 1, 12, tzinfo=UTC), datetime(2025, 1, 1, 12, 5, tzinfo=UTC), 4.0),
        (datetime(2025, 1, 2, 12, tzinfo=UTC), datetime(2025, 1, 2, 12, 5, tzinfo=UTC), 5.0),
    ]
    database(
        "INSERT INTO flat VALUES (3, 2, '2025-01-02 13:00Z', NULL, 6, '2025-01-02 13:05Z', NULL, NULL, NULL, NULL, "
        "'2025-01-03 00:00Z', now())"
    )
    again = json.loads(ask("import", "timedb-0.1", url, "--prefix", prefix, "--json"))
    assert (again["runs"], again["runs_already_loaded"]) == (1, 3)


_BELIEFS = """
CREATE TABLE generic_asset (id int, name text);
CREATE TABLE sensor (id int, name text, unit text, timezone text, event_resolution interval,
  knowledge_horizon_fnc text, knowledge_horizon_par json, generic_asset_id int);
CREATE TABLE data_source (id int, name text, type text, model text, version text);
CREATE TABLE timed_belief (event_start timestamptz, belief_horizon interval, cumulative_probability float,
  event_value float, sensor_id int, source_id int);
INSERT INTO generic_asset VALUES (1, 'park');
INSERT INTO sensor VALUES
  (1, '{name}', 'MW', 'UTC', '15 minutes', 'ex_post', '{{"ex_post_horizon": "PT0H"}}', 1),
  (2, '{name}-price', 'EUR/MWh', 'UTC', '1 hour', 'x_days_ago_at_y_oclock', '{{"x": 1, "y": 12, "z": "Europe/Paris"}}',
   1),
  (3, '{name}-tariff', '', 'UTC', '0', 'ex_ante', '{{"ex_ante_horizon": "-PT1H"}}', 1);
INSERT INTO data_source VALUES (1, 'meter', 'gateway', NULL, NULL), (2, 'model', 'forecaster', 'LGBM', '2');
INSERT INTO timed_belief VALUES
  ('2025-01-01 00:00Z', '0', 0.5, 1, 1, 1),
  ('2025-01-01 00:00Z', '1 day', 0.1, 0.8, 1, 2), ('2025-01-01 00:00Z', '1 day', 0.5, 0.9, 1, 2),
  ('2025-01-01 00:00Z', '2 days', 0.5, 0.7, 1, 2),
  ('2025-07-02 00:00Z', '-2 hours', 0.5, 80, 2, 1),
  ('2025-01-01 00:00Z', '0', 0.5, 5, 3, 1)
"""


def test_beliefs_of_flexmeasures(database: Database, ask: Any, client: Client, name: str) -> None:
    url = database(_BELIEFS.format(name=name))
    done = json.loads(ask("import", "flexmeasures", url, "--json"))
    assert (done["origin"], done["series"], done["rows"], done["corrections"]) == ("flexmeasures", 5, 6, 0)
    again = json.loads(ask("import", "flexmeasures", url, "--json"))
    assert (again["runs"], again["runs_already_loaded"]) == (0, done["runs"])

    def of(name: str, **labels: str) -> list[tuple[Any, ...]]:
        columns = ["valid_time", "valid_time_end", "known_time", "value", "series_unit"]
        found = client.read(series_keys=name, labels=labels, view="overlapping", columns=columns, ordered=True)
        return [(*(each and f"{each:%m-%dT%H:%M}" for each in row[:3]), *row[3:]) for row in found.rows()]

    meter = {"asset": "park", "source": "meter", "source_id": "1", "sensor": "1"}
    model = {"asset": "park", "source": "model", "source_id": "2", "sensor": "1", "model": "LGBM", "version": "2"}
    assert of(name, **meter) == [("01-01T00:00", "01-01T00:15", "01-01T00:15", 1.0, "MW")]
    assert of(name, **model, quantile="0.1") == [("01-01T00:00", "01-01T00:15", "12-31T00:15", 0.8, "MW")]
    assert [row[2:4] for row in of(name, **model, quantile="0.5")] == [("12-30T00:15", 0.7), ("12-31T00:15", 0.9)]
    # Knowable at noon of the day before in Paris, of a day that begins there two hours before midnight UTC.
    price = of(f"{name}-price", **meter | {"sensor": "2"})
    assert price == [("07-02T00:00", "07-02T01:00", "07-01T12:00", 80.0, "EUR/MWh")]
    tariff = of(f"{name}-tariff", **meter | {"sensor": "3"})
    assert tariff == [("01-01T00:00", None, "01-01T01:00", 5.0, "dimensionless")]
    database("UPDATE sensor SET knowledge_horizon_fnc = 'at_noon' WHERE id = 2")
    refused = timedb("import", "flexmeasures", url, "--dry-run")
    assert "sensor 2: its knowledge horizon is of the kind 'at_noon'" in refused.stderr


def test_timedb_0_8_by_parquet(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    rows = [
        # series, valid, knowledge, change, value, end, run, who, annotation
        (1, "2025-01-01 00:00", "2024-12-31 06:00", "2024-12-31 06:01", 1.0, "2025-01-01 01:00", 10, "", ""),
        (1, "2025-01-01 00:00", "2024-12-31 06:00", "2024-12-31 09:00", 1.5, "2025-01-01 01:00", 12, "ann", "meter"),
        (1, "2025-01-01 00:00", "2024-12-31 12:00", "2024-12-31 12:01", 2.0, "2025-01-01 01:00", 11, "", ""),
        (2, "2025-01-01 00:00", "2024-12-31 12:00", "2024-12-31 12:01", float("nan"), "2200-01-01 00:00", 11, "", ""),
    ]
    names = ["series_id", "valid_time", "knowledge_time", "change_time", "value", "valid_time_end", "run_id"]
    times = pa.timestamp("us", "UTC")
    kinds = [pa.uint64(), times, times, times, pa.float64(), times, pa.uint64(), pa.binary(), pa.binary()]
    columns = [
        pa.array([at(str(row[place])) if kind == times else row[place] for row in rows], kind)
        for place, kind in enumerate(kinds)
    ]
    path, catalog = tmp_path / "values.parquet", tmp_path / "series.csv"
    parquet.write_table(pa.table(dict(zip([*names, "changed_by", "annotation"], columns, strict=True))), path)
    catalog.write_text(f'series_id,name,unit,labels\n1,{name},MW,"{{""site"": ""a""}}"\n2,{name}-b,,\n')
    said = ("import", "timedb-0.8", str(path), "--catalog", str(catalog), "--prefix", f"{name}-", "--json")
    done = json.loads(ask(*said))
    assert (done["series"], done["runs"], done["rows"], done["corrections"]) == (2, 2, 3, 1)
    again = json.loads(ask(*said))
    assert (again["runs"], again["runs_already_loaded"]) == (0, 2)
    found = client.read_arrow(
        series_keys=name, labels={"site": "a"}, view="overlapping", all_versions=True, ordered=True, columns=VERSIONS
    ).to_pylist()
    assert [(row["run_id"], row["known_time"].hour, row["value"], row["annotation"]) for row in found] == [
        (f"{name}-10", 6, 1.0, None),
        (f"{name}-10", 6, 1.5, "meter"),
        (f"{name}-11", 12, 2.0, None),
    ]
    columns_read = ["valid_time_end", "value", "series_unit"]
    assert client.read(series_keys=f"{name}-b", columns=columns_read).rows()[0][0] is None
    catalog.write_text("series_id,name\n1,a\n")
    assert "--catalog: there is no series_id 2" in timedb(*said).stderr
    assert "FILE: cannot be read" in timedb("import", "timedb-0.8", str(catalog)).stderr


def test_lines_of_influxdb(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "export.lp.gz"
    lines = (
        "# exported\n"
        f"{name},site=no\\ rth,kind=a temperature=21.5,humidity=40i 1735689600000000000\n"
        f'{name},kind=a,site=no\\ rth temperature=-1e1,state="on, \\"x\\"" 1735689660000000000\n'
        f"{name},site=no\\ rth,kind=a temperature=21.5 1735689600000000000\n\n"
    )
    path.write_bytes(gzip.compress(lines.encode()))
    refused = timedb("import", "influxdb", str(path))
    assert "line 3: " in refused.stderr
    assert "which is no number; --ignore state leaves that field out" in refused.stderr
    said = (
        "import",
        "influxdb",
        str(path),
        "--ignore",
        "state",
        "--known-after",
        "5min",
        "--unit",
        "celsius",
        "--json",
    )
    looked = json.loads(timedb(*said, "--preview").stdout)
    assert (looked["rows"], looked["dropped"], looked["series"]) == (3, 1, 2)
    first, again = (json.loads(ask(*said)) for _ in range(2))
    assert (first["rows"], again["already_loaded"], again["run_id"]) == (3, True, first["run_id"])
    columns = ["valid_time", "known_time", "value", "series_unit"]
    labels = {"site": "no rth", "kind": "a"}
    found = client.read(series_keys=f"{name}.temperature", labels=labels, columns=columns, ordered=True)
    assert [(f"{row[0]:%H:%M}", f"{row[1]:%H:%M}", row[2], row[3]) for row in found.rows()] == [
        ("00:00", "00:05", 21.5, "celsius"),
        ("00:01", "00:06", -10.0, "celsius"),
    ]
    for line, reason in [
        ("m v=1", "has no timestamp"),
        ("m v=1 1735689600000000001", "finer than a microsecond"),
        ("m v= 1", "is not MEASUREMENT,TAG=VALUE FIELD=NUMBER TIME"),
        ("m,t v=1 1", "is not MEASUREMENT,TAG=VALUE FIELD=NUMBER TIME"),
        ("m v=t 1000", "v=t, which is no number"),
        ("m v=9007199254740993i 1000", "an integer that a float64 cannot hold"),
        ("m v=1 1000\nm v=2 1000", "contradict each other: 1.0 and 2.0"),
    ]:
        (tmp_path / "a.lp").write_text(line + "\n")
        refused = timedb("import", "influxdb", str(tmp_path / "a.lp"), "--preview")
        assert (refused.returncode, reason in refused.stderr) == (2, True), refused.stderr


PLAIN_TABLES = """
CREATE TABLE sensor (id int, name text, unit text, timezone text, event_resolution interval,
  knowledge_horizon_fnc text, knowledge_horizon_par json);
CREATE TABLE belief_source (id int, name text);
CREATE TABLE timed_beliefs (event_start timestamptz, belief_horizon interval, cumulative_probability float,
  event_value float, sensor_id int, source_id int);
"""
_PLAIN_BELIEFS = (
    PLAIN_TABLES
    + """
INSERT INTO sensor VALUES
  (1, '{name}', 'kW', 'UTC', '1 hour', 'at_date', '{{"knowledge_time": "2024-12-01T00:00:00Z"}}');
INSERT INTO belief_source VALUES (1, 'model');
INSERT INTO timed_beliefs VALUES ('2025-01-01 00:00Z', '1 hour', 0.5, 1, 1, 1), ('2025-01-01 00:00Z', '0', 1, 2, 1, 1)
"""
)


def test_beliefs_of_timely_beliefs_alone(database: Database, ask: Any, client: Client, name: str) -> None:
    done = json.loads(ask("import", "timely-beliefs", database(_PLAIN_BELIEFS.format(name=name)), "--json"))
    assert (done["origin"], done["rows"], done["runs"]) == ("timely-beliefs", 2, 2)
    labels = {"source": "model", "source_id": "1", "sensor": "1"}
    columns = ["known_time", "value"]
    found = client.read(series_keys=name, labels=labels, view="overlapping", columns=columns).sort("known_time")
    assert [(f"{known:%m-%dT%H:%M}", value) for known, value in found.rows()] == [
        ("11-30T23:00", 1.0),
        ("12-01T00:00", 2.0),
    ]
