"""Files, runs and series at the command line: previews, recipes, several files, watched directories, SQL, freshness."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.timedb.cli.test_cli import ask, timedb
from timedb.client import Client
from timedb.run.launch import Service

__all__ = ["ask"]

NOWHERE = "grpc://127.0.0.1:1"
GERMAN = "Zeit;Wert\n01.01.2025 00:00;1.234,56\n01.01.2025 00:15;-0,50\n"
FLAGS = ("--valid-time", "Zeit", "--value", "Wert", "--time-format", "%d.%m.%Y %H:%M", "--time-zone", "Europe/Berlin")
NUMBERS = ("--decimal", ",", "--thousands", ".")


@pytest.fixture
def german(tmp_path: Path) -> Path:
    path = tmp_path / "german.csv"
    path.write_text(GERMAN)
    return path


def test_a_preview_says_what_would_be_stored_and_sends_nothing(german: Path) -> None:
    flags = ("--series", "s", "--label-value", "site=north", "--unit", "MW", "--known-after", "15min", *NUMBERS)
    done = timedb("upload", str(german), *FLAGS, *flags, "--preview", "--json", TIMEDB_FLIGHT_URL=NOWHERE)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["first_rows"][0] == {
        "series": "s",
        "labels": '{"site": "north"}',
        "valid_time": "2024-12-31T23:00:00.000000+00:00",
        "valid_time_local": "2025-01-01 00:00:00+01:00",
        "known_time": "2024-12-31T23:15:00.000000+00:00",
        "known_time_local": "2025-01-01 00:15:00+01:00",
        "value": 1234.56,
        "unit": "MW",
    }
    assert (said["rows"], said["series"], said["found_out"]) == (2, 1, {"delimiter": ";"})
    people = timedb("upload", str(german), *FLAGS, *flags, "--preview", TIMEDB_FLIGHT_URL=NOWHERE)
    assert "2025-01-01 00:00:00+01:00" in people.stdout
    assert "--delimiter ';': found out" in people.stderr
    assert "nothing was sent" in people.stderr


def test_options_are_kept_in_a_recipe_and_what_is_typed_goes_first(
    ask: Any, client: Client, german: Path, name: str, tmp_path: Path
) -> None:
    recipe = str(tmp_path / "german.toml")
    told = timedb("upload", str(german), *FLAGS, *NUMBERS, "--series", "x", "--save-recipe", recipe, "--preview")
    assert told.returncode == 0, told.stderr
    first = json.loads(ask("upload", str(german), "--recipe", recipe, "--series", name, "--json"))
    assert (first["rows"], first["series_made"], first["series_found"]) == (2, 1, 0)
    assert first["valid_time"] == ["2024-12-31T23:00:00.000000+00:00", "2024-12-31T23:15:00.000000+00:00"]
    again = json.loads(ask("upload", str(german), "--recipe", recipe, "--series", name, "--json"))
    assert (again["already_loaded"], again["run_id"]) == (True, first["run_id"])
    assert "already_loaded:" in ask("upload", str(german), "--recipe", recipe, "--series", name)
    assert client.read(series_keys=name)["value"].to_list() == [1234.56, -0.5]


def test_several_files_and_patterns_are_a_run_each(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        (tmp_path / f"day-{day}.csv").write_text(f"valid_time,value\n2025-01-0{day},{day}\n")
    done = json.loads(
        ask("upload", str(tmp_path / "day-*.csv"), "--series", name, "--run-id", f"{name}-{{file}}", "--json")
    )
    assert [each["run_id"] for each in done] == [f"{name}-day-{day}" for day in (1, 2, 3)]
    refused = timedb("upload", str(tmp_path / "none-*.csv"), "--series", name)
    assert (refused.returncode, "finds no file" in refused.stderr) == (2, True)


def test_a_directory_is_watched(service: Service, client: Client, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.csv").write_text("valid_time,value\n2025-01-01,1\n")
    (folder / "bad.csv").write_text("valid_time,value\n2025-01-01,x\n")
    (folder / "growing.csv.part").write_text("valid_time")
    flags = ("--series", name, "--known-after", "0h", "--once", "--every", "0.05")
    away = timedb("watch", str(folder), "--pattern", "good*", *flags, TIMEDB_FLIGHT_URL=NOWHERE)
    assert "good.csv: left for later: unavailable" in away.stderr
    done = timedb("watch", str(folder), *flags, TIMEDB_FLIGHT_URL=service.flight_url)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["faulty", "growing.csv.part", "loaded"]
    assert "value: line 2: 'x' is not a number" in (folder / "faulty" / "bad.csv.txt").read_text()
    assert [path.name for path in (folder / "loaded").iterdir()] == ["good.csv"]
    (folder / "good.csv").write_text("valid_time,value\n2025-01-01,1\n")
    again = timedb("watch", str(folder), *flags, TIMEDB_FLIGHT_URL=service.flight_url)
    assert "good.csv: already loaded" in again.stderr
    assert client.read(series_keys=name, view="overlapping").height == 1


@pytest.fixture
def runs(ask: Any, name: str, tmp_path: Path) -> list[str]:
    """Two runs of a series, the second of which changes a value, leaves one out and adds one."""
    made = []
    for number, rows in enumerate(
        ("2025-01-01,1\n2025-01-02,2\n2025-01-03,3\n", "2025-01-01,1\n2025-01-02,5\n2025-01-04,4\n")
    ):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"valid_time,value\n{rows}")
        known = f"2024-12-3{number}T00:00Z"
        made.append(
            json.loads(
                ask("upload", str(path), "--series", name, "--known-time", known, "--workflow-id", name, "--json")
            )["run_id"]
        )
    return made


def test_runs_are_listed_shown_and_compared(ask: Any, name: str, runs: list[str]) -> None:
    listed = json.loads(ask("runs", "--workflow-id", name, "--json"))
    assert sorted(each["run_id"] for each in listed) == sorted(runs)
    assert runs[0] in ask("runs", "--workflow-id", name)
    shown = json.loads(ask("show", runs[0], "--json"))
    assert shown["rows"] == 3
    assert [(each["series_key"], each["rows"], each["first"][:10], each["last"][:10]) for each in shown["series"]] == [
        (name, 3, "2025-01-01", "2025-01-03")
    ]
    rows = json.loads(ask("diff", *runs, "--json"))
    assert [(each["valid_time"][:10], each["value"], each["other_value"], each["what"]) for each in rows] == [
        ("2025-01-02", 2.0, 5.0, "changed"),
        ("2025-01-03", 3.0, None, "only in the first"),
        ("2025-01-04", None, 4.0, "only in the second"),
    ]
    assert ask("diff", runs[0], runs[0]) == ""
    refused = timedb("show", "no such run's")
    assert refused.returncode != 0


def test_sql_is_asked_of_the_service(ask: Any, name: str, runs: list[str]) -> None:
    query = f"SELECT valid_time, value FROM flat WHERE series_key = '{name}' ORDER BY valid_time"
    rows = json.loads(ask("sql", query, "--json"))
    assert [row["value"] for row in rows] == [1.0, 5.0, 3.0, 4.0]
    assert rows[0]["valid_time"].startswith("2025-01-01T00:00:00")
    assert [row["value"] for row in csv.DictReader(io.StringIO(ask("sql", query, "--format", "csv")))] == [
        "1.0",
        "5.0",
        "3.0",
        "4.0",
    ]
    assert "valid_time" in ask("sql", query).splitlines()[0]


def test_series_say_how_fresh_they_are(service: Service, ask: Any, name: str, runs: list[str]) -> None:
    (row,) = json.loads(ask("series", "--name", name, "--figures", "--json"))
    assert (row["rows"], row["first"][:10], row["last"][:10]) == (6, "2025-01-01", "2025-01-04")
    assert row["age_seconds"] < 3600
    assert "last_upload" in ask("series", "--name", name)
    fresh = timedb("series", "--name", name, "--stale", "2h", TIMEDB_FLIGHT_URL=service.flight_url)
    assert fresh.returncode == 0, fresh.stderr
    late = timedb("series", "--name", name, "--stale", "0s", TIMEDB_FLIGHT_URL=service.flight_url)
    assert (late.returncode, late.stderr) == (17, f"stale, as nothing came for 0s: {name}\n")
    none = timedb("series", "--name", f"{name}-none", "--stale", "2h", TIMEDB_FLIGHT_URL=service.flight_url)
    assert none.returncode == 17
    assert timedb("series", "--stale", "soon").returncode == 2


def test_what_is_written_for_a_german_spreadsheet_is_taken_again(
    ask: Any, client: Client, name: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text('valid_time,value,annotation,tags\n2025-10-26T00:00Z,1234.5,=1+1,"[""a""]"\n2025-10-26T01:00Z,,,\n')
    ask("upload", str(path), "--series", name, "--known-time", "2025-10-25T00:00Z")
    flags = ("--delimiter", ";", "--decimal", ",", "--local-times", "--time-zone", "Europe/Berlin")
    ask("read", "--series", name, *flags, "--columns", "valid_time,value", "-o", str(out))
    assert out.read_text().splitlines() == ["valid_time;value", "2025-10-26 02:00:00;1234,5", "2025-10-26 02:00:00;"]
    ask("export", str(out), "--series", name, *flags, "--without-formulas", "--yes")
    assert ";'=1+1;" in out.read_text()
    ask("export", str(out), "--series", name, *flags, "--yes")
    told = ("--decimal", ",", "--time-zone", "Europe/Berlin", "--series", f"{name}-b", "--ignore", "run_id")
    ask("upload", str(out), *told)
    columns = ["valid_time", "known_time", "value", "annotation", "tags"]
    first, second = (client.read(series_keys=each, view="overlapping", columns=columns) for each in (name, f"{name}-b"))
    assert first.sort("valid_time").equals(second.sort("valid_time"))
    for wrong, reason in [
        (("--delimiter", "ab"), "--delimiter: 'ab' is not one character"),
        (("--decimal", ";"), "--decimal: ';' is neither"),
        (("--local-times",), "--local-times: of which zone?"),
        (("--decimal", ",", "--format", "json"), "are about CSV"),
    ]:
        refused = timedb("read", "--series", name, *wrong)
        assert (refused.returncode, reason in refused.stderr) == (2, True), refused.stderr
