"""Imports that are killed, and run again: every row once, and what is there is not sent again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.timedb.cli.test_cli import ask
from tests.timedb.imports.test_imports import PLAIN_TABLES
from timedb.client import Client
from timedb.imports import loading
from timedb.run.launch import Service

__all__ = ["ask"]

START = datetime(2025, 1, 1, tzinfo=UTC)
RUNS, ROWS, CORRECTED = 6, 40, 3
KILLED = """
import os, signal, sys
from pathlib import Path
import timedb as td
from timedb.imports.loading import load
from timedb.imports.timedb_0_8 import TimeDB08

url, folder, prefix, rows = sys.argv[1:]

def progress(done):
    if done >= int(rows):
        os.kill(os.getpid(), signal.SIGKILL)

with td.connect(url) as client, TimeDB08([Path(folder, "values.parquet")], Path(folder, "series.csv")) as origin:
    load(client, origin, prefix=prefix, progress=progress)
"""


def written(folder: Path, name: str) -> None:
    """Runs of TimeDB 0.8, the third of which is corrected three times before the fourth is written."""
    times = pa.timestamp("us", "UTC")
    rows = [
        (run, START + timedelta(hours=hour), START + timedelta(days=run), float(100 * run + hour))
        for run in range(RUNS)
        for hour in range(ROWS)
    ]
    rows += [(3, START, START + timedelta(days=2, hours=hour), 1000.0 + hour) for hour in range(1, CORRECTED + 1)]
    runs, valid, change, values = zip(*rows, strict=True)
    known = [START + timedelta(days=2 if value > 1000 else run) for run, value in zip(runs, values, strict=True)]
    wrote = [2 if value > 1000 else run for run, value in zip(runs, values, strict=True)]
    table = {
        "series_id": pa.array([1] * len(rows), pa.uint64()),
        "valid_time": pa.array(valid, times),
        "knowledge_time": pa.array(known, times),
        "change_time": pa.array(change, times),
        "value": pa.array(values, pa.float64()),
        "run_id": pa.array(wrote, pa.uint64()),
    }
    parquet.write_table(pa.table(table), folder / "values.parquet")
    (folder / "series.csv").write_text(f"series_id,name\n1,{name}\n")


@pytest.mark.parametrize(
    ("kill_after", "runs_there", "corrections_there"),
    [
        (ROWS + 1, 1, 0),  # before the second run is sent
        (3 * ROWS + 2, 3, 1),  # among the corrections
        (RUNS * ROWS + CORRECTED, 5, CORRECTED),  # before the last is
    ],
)
def test_an_import_that_is_killed_goes_on_where_it_was(
    service: Service,
    ask: Any,
    client: Client,
    name: str,
    tmp_path: Path,
    kill_after: int,
    runs_there: int,
    corrections_there: int,
) -> None:
    written(tmp_path, name)
    prefix = f"{name}-"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, service.flight_url, str(tmp_path), prefix, str(kill_after)], check=False
    )
    assert killed.returncode == -signal.SIGKILL

    def versions() -> list[tuple[Any, ...]]:
        found = client.read_arrow(
            series_keys=name, view="overlapping", all_versions=True, columns=["run_id", "valid_time", "value"]
        )
        return sorted(tuple(row.values()) for row in found.to_pylist())

    assert len(versions()) == runs_there * ROWS + corrections_there
    files = (str(tmp_path / "values.parquet"), "--catalog", str(tmp_path / "series.csv"))
    said = ("import", "timedb-0.8", *files, "--prefix", prefix, "--json")
    done = json.loads(ask(*said))
    assert (done["runs"], done["runs_already_loaded"]) == (RUNS - runs_there, runs_there)
    whole = [
        (f"{prefix}{run}", START + timedelta(hours=hour), 100.0 * run + hour)
        for run in range(RUNS)
        for hour in range(ROWS)
    ]
    whole += [(f"{prefix}2", START, 1000.0 + hour) for hour in range(1, CORRECTED + 1)]
    assert versions() == sorted(whole)
    again = json.loads(ask(*said))
    assert (again["runs"], again["runs_already_loaded"]) == (0, RUNS)
    assert versions() == sorted(whole)


_BELIEFS = (
    PLAIN_TABLES
    + """
INSERT INTO sensor VALUES (1, '{name}', 'kW', 'UTC', '0', 'ex_post', '{{"ex_post_horizon": "PT0H"}}');
INSERT INTO belief_source VALUES (1, 'model');
INSERT INTO timed_beliefs
  SELECT timestamptz '2025-01-01 00:00Z' + n * interval '1 minute', '0', 0.5, n, 1, 1 FROM generate_series(0, 9) AS n
"""
)


def test_a_long_run_without_a_name_is_cut_alike_each_time(
    database: Callable[[str], str], ask: Any, client: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order in which the database has its rows, and the pieces in which they come."""
    monkeypatch.setattr(loading, "_MAX_ROWS", 4)
    url = database(_BELIEFS.format(name=name))
    assert json.loads(ask("import", "timely-beliefs", url, "--json"))["runs"] == 3
    database(
        "CREATE TABLE other AS SELECT * FROM timed_beliefs ORDER BY event_value DESC; TRUNCATE timed_beliefs; "
        "INSERT INTO timed_beliefs SELECT * FROM other"
    )
    again = json.loads(ask("import", "timely-beliefs", url, "--json"))
    assert (again["runs"], again["runs_already_loaded"]) == (0, 3)
    assert client.read(series_keys=name, view="overlapping").height == 10
