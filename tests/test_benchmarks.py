"""The benchmarks still run; what they measure is nobody's business here, that their answers are right is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.bench import fingerprint
from benchmarks.clickhouse import ClickHouse
from benchmarks.compare import comparison
from benchmarks.growth import AXES, TINY, Point, exponents, measure_point, projection
from benchmarks.history import History
from benchmarks.measuring import Report
from benchmarks.peers import Missing
from benchmarks.report import page
from benchmarks.run import opened

ROOT = Path(__file__).parents[1]


def run(module: str, result: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What a module of the benchmarks printed, and its JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json", str(result)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(result.read_text())


def test_a_tiny_run_checks_its_answers(tmp_path: Path) -> None:
    stdout, report = run("run", tmp_path / "run.json", "--size", "tiny", "--rounds", "1", "--peers", "duckdb")
    assert report["rows"] == 4 * 6 * 48
    assert {one["target"] for one in report["measurements"]} == {
        f"P{n}" for n in (1, 2, 3, 4, 5, 6, 7, "7a", "7b", "7c", "7d", 8, 11, 12, 13)
    }
    ours = [
        one for one in report["measurements"] if one["who"].startswith("TimeDB") and one["work"] != "until compacted"
    ]
    assert all(one["checked"] for one in ours)
    theirs = [one for one in report["measurements"] if one["who"] == "DuckDB over Parquet" and one["checked"]]
    assert {one["target"] for one in theirs} == {"P2", "P3", "P4", "P5", "P11"}
    assert "| P3 | overlapping, speed against raw Flight |" in stdout
    lines = comparison(report, report).splitlines()
    assert len(lines) == 2 + len(report["measurements"])
    assert all(line.endswith("1.00 |") for line in lines[2:])
    text = page(tmp_path)
    assert "| P12 | REST rows, time against orjson dumping dicts |" in text
    assert "- **DuckDB over Parquet**: DuckDB " in text
    assert "## Published workloads" not in text


def test_published_workloads_check_their_answers(tmp_path: Path) -> None:
    arguments = ("--scale", "50", "--rounds", "1", "--no-peer", "--only", "W3")
    _, report = run("published", tmp_path / "published.json", *arguments)
    assert {one["target"] for one in report["measurements"]} == {"W3"}
    assert all(one["checked"] for one in report["measurements"])
    text = page(tmp_path)
    assert "### W3: 500 events x 100 horizons x 2 sources" in text
    assert "(timely-beliefs on PostgreSQL, Jul 2026, pull request 237, dev/bench_search_session.py)" in text


def test_a_steady_load_counts_what_was_acknowledged(tmp_path: Path) -> None:
    picture = tmp_path / "steady.svg"
    arguments = ("--minutes", "0.02", "--every", "0.6", "--clients", "1", "--rate", "20", "--picture", str(picture))
    _, result = run("steady", tmp_path / "steady.json", *arguments)
    assert result["rows"] == 24 * result["uploads"] > 0
    assert [one["live_files"] > 0 for one in result["samples"]] == [True] * 2
    assert "<svg" in picture.read_text()
    assert "| minute | uploads a second |" in page(tmp_path)


def test_growth_measures_every_operation_of_a_lake() -> None:
    point = Point("files", 1, series=2, runs=2, files=2)
    measure_point(point, TINY)
    assert len(point.costs) == 11
    assert all(cost > 0 for cost in point.costs.values())
    assert point.figures["rows"] == 2 * 2 * 48


def test_growth_is_the_slope_of_the_logarithms(tmp_path: Path) -> None:
    power = {"series": 1.0, "revisions": 0.5, "files": 0.0}
    points = []
    for axis in AXES:
        for factor in (1, 10, 100):
            cost = 3 * factor ** power[axis]
            costs = {"flat of all, s": cost, "peak memory of the server, MiB": 100.0}
            figures = {"rows": 100, "bytes": 200, "log bytes": 5000, "commits": 5, "compaction CPU, us a row": 1.0}
            points.append(Point(axis, factor, 10 * factor, 10, 10, costs, figures))
    assert exponents(points)["flat of all, s"] == pytest.approx(power, abs=1e-9)
    year = projection(points, series=16, runs_a_day=24, days=10)
    assert year["rows"] == 16 * 240 * 48
    assert year["GB of live files"] == pytest.approx(2 * year["rows"] / 1e9)
    assert year["commits of values"] == 240 + 10 * 16
    assert year["peak memory, MiB"] == pytest.approx(100)
    result = {"points": [vars(point) for point in points], "exponents": exponents(points), "projection": year}
    (tmp_path / "growth.json").write_text(json.dumps({**result, "method": "By hand."}))
    assert "| flat of all, s | 3 | 9.49 | 30 | 0.50 |" in page(tmp_path)


def test_a_checksum_tells_rows_apart_but_not_their_order() -> None:
    frame = History(3, 4).frame()
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    assert fingerprint(shuffled) == fingerprint(frame)
    numbers = frame["series_key"].cast(pl.String).str.extract(r"(\d+)$").cast(pl.UInt64).alias("series")
    assert fingerprint(frame.drop("series_key").with_columns(numbers)) == fingerprint(frame)
    other = frame.with_columns(value=pl.when(pl.int_range(pl.len()) == 7).then(0.0).otherwise("value"))
    assert fingerprint(other) != fingerprint(frame)
    assert fingerprint(frame.head(-1)) != fingerprint(frame)


def test_a_peer_that_is_not_installed_is_left_out() -> None:
    def missing() -> ClickHouse:
        raise Missing("chdb is not installed")

    report = Report()
    with opened(report, "clickhouse", missing) as peer:
        assert peer is None
    assert report.peers == {"clickhouse": "left out: chdb is not installed"}
