"""Answers of ``timedb read`` and ``export`` in files: what is written can be uploaded again, and nothing is lost."""

from __future__ import annotations

import json
import math
import os
import pty
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from tests.commands import COMMANDS
from tests.timedb.cli.test_cli import ask, timedb
from tests.timedb.conftest import T0
from timedb.cli.exit_codes import EXIT_CODES
from timedb.cli.output import show
from timedb.client import Client
from timedb.run.launch import Service

__all__ = ["ask"]

FORMATS = ("csv", "json", "ndjson", "arrow", "parquet")
HOUR = timedelta(hours=1)
COLUMNS = ["series_key", "valid_time", "valid_time_end", "known_time", "value", "annotation", "tags"]


def odd_rows(name: str) -> pl.DataFrame:
    """Values, texts and lists that files have lost before."""
    values = [1.5, None, math.nan, math.inf, -math.inf, 5e-324, 0.1 + 0.2, -0.0]
    notes = [None, "", 'q"uote', "two\r\nlines", "Größe, é", " spaces ", "NaN", "null"]
    tags = [None, [], ["a"], ["a", "b,c"], ['"', ""], ["é"], ["x\ny"], ["NULL"]]
    count = len(values)
    return pl.DataFrame(
        {
            "series_key": [name] * count,
            "labels": [None if row % 2 else json.dumps({"site": "nörd, 1", "b": '"'}) for row in range(count)],
            "valid_time": [T0 + row * HOUR for row in range(count)],
            "valid_time_end": [None if row % 3 else T0 + (row + 1) * HOUR for row in range(count)],
            "known_time": [T0 + timedelta(microseconds=row) for row in range(count)],
            "value": values,
            "annotation": notes,
            "tags": tags,
        },
        schema_overrides={"value": pl.Float64, "tags": pl.List(pl.String)},
    )


def rows_of(client: Client, name: str) -> list[str]:
    """All that is stored under a name, as text, in which NaN equals NaN."""
    labels = {each["series_id"]: json.dumps(each["labels"]) for each in client.list_series(name=name)}
    table = client.read_arrow(series_ids=list(labels), view="overlapping", columns=["series_id", *COLUMNS[1:]])
    return sorted(repr({**row, "series_id": labels[row["series_id"]]}) for row in table.to_pylist())


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_goes_in_again_whole(ask: Any, client: Client, name: str, tmp_path: Path, suffix: str) -> None:
    client.upload(odd_rows(name))
    path, again = tmp_path / f"history.{suffix}", f"{name}-again"
    ids = [flag for each in client.list_series(name=name) for flag in ("--series-id", each["series_id"])]
    ask("export", str(path), *ids)
    refused = timedb("upload", str(path), TIMEDB_FLIGHT_URL="grpc://127.0.0.1:1")
    assert "run_id" in refused.stderr
    before = rows_of(client, name)
    ask("upload", str(path), "--ignore", "run_id", "--run-id", f"{name}-2")
    assert rows_of(client, name) == sorted([*before, *before]), "into the same series"
    if suffix in ("csv", "ndjson", "json"):
        path.write_bytes(path.read_bytes().replace(name.encode(), again.encode()))
        ask("upload", str(path), "--ignore", "run_id", "--ignore", "series_id")
        assert rows_of(client, again) == before, "into series of another name"


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_answer_goes_in_again_whole(ask: Any, client: Client, name: str, tmp_path: Path, suffix: str) -> None:
    client.upload(odd_rows(name).drop("labels"))
    path = tmp_path / f"answer.{suffix}"
    ask("read", "--series", name, "--view", "overlapping", "--columns", ",".join(COLUMNS), "-o", str(path))
    ask("upload", str(path), "--run-id", f"{name}-2")
    before = rows_of(client, name)
    assert before[::2] == before[1::2]
    assert len(before) == 16


def test_a_file_that_is_there_is_replaced_only_with_a_yes(
    ask: Any, client: Client, service: Service, name: str, tmp_path: Path
) -> None:
    client.upload(odd_rows(name).drop("labels"))
    path = tmp_path / "a.csv"
    path.write_text("precious")
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    for command in (("export", str(path)), ("export", str(link)), ("read", "-o", str(path))):
        done = timedb(*command, "--series", name, TIMEDB_FLIGHT_URL=service.flight_url)
        assert done.returncode == EXIT_CODES[td.InvalidRequest]
        assert "--yes" in done.stderr
        assert path.read_text() == "precious"
    ask("export", str(link), "--series", name, "--yes")
    assert link.is_symlink()
    assert path.read_text().startswith("labels,series_key")


def test_a_person_is_asked_before_a_file_is_replaced(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("precious")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "timedb", "export", str(path), "--flight-url", service.flight_url]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, b"n\n")
        said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 1
    assert b"Replace it?" in said
    assert path.read_text() == "precious"


@pytest.mark.parametrize("command", [("export",), ("read", "-o")])
@pytest.mark.parametrize("file", ["x.xlsx", "x.csv.gz", "x", "history.dat"])
def test_an_ending_that_says_no_format_is_refused(tmp_path: Path, command: tuple[str, ...], file: str) -> None:
    done = timedb(*command, file, cwd=tmp_path, TIMEDB_FLIGHT_URL="grpc://127.0.0.1:1")
    assert done.returncode == EXIT_CODES[td.InvalidRequest]
    assert f"'{file}' ends with none of .csv, .json," in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_standard_output_is_no_file_of_that_name(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    client.upload(odd_rows(name).drop("labels"))
    before = sorted(Path.cwd().glob("-"))
    assert ask("export", "-", "--series", name).startswith("labels,series_key")
    assert len(ask("read", "-o", "-", "--series", name).splitlines()) == 9
    assert sorted(Path.cwd().glob("-")) == before


def test_a_device_is_written_and_not_replaced(ask: Any, client: Client, name: str) -> None:
    client.upload(odd_rows(name).drop("labels"))
    ask("export", os.devnull, "--format", "csv", "--series", name)
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read", "--start-valid", "2025-01-01 12:00"], "--start-valid: .* has no time zone; .*--time-zone"),
        (["export", "-", "--end-known", "soon"], "--end-known: 'soon' is not"),
        (["accuracy", "--actual", "x", "--as-of", "2025-01-01 12:00"], "--as-of: .* has no time zone"),
        (["read", "--time-zone", "Mars/Base"], "--time-zone: 'Mars/Base' is not a time zone"),
        (["read", "--start-valid", "2025-10-26 02:30", "--time-zone", "Europe/Paris"], "--start-valid: .* comes twice"),
        (["read", "--window-length", "1h"], "--issue-offset is missing"),
        (["read", "--since", "x"], "--since goes with view changes"),
        (
            ["read", "--view", "changes", "--lead-time", "1h"],
            "--days-ahead and --window-length and --lead-time go with",
        ),
        (["read", "--period", "x"], "--period: 'x'"),
        (["read", "--columns", "valu"], "--columns: unknown column 'valu'; did you mean value[?] there are"),
        (["read", "--flight-url", "http://x"], "--flight-url: 'http://x'"),
        (["read", "--json", "--format", "csv"], "--json, --format: say one of them"),
        (["read", "--series", "there is none"], "--series: there is no series"),
        (["accuracy"], "needs either --actual-id or --actual"),
        (["accuracy", "--actual", "x", "--horizon", "0h"], "--horizon: PT0S is not a length"),
        (["read", "--view", "latest", "--all-versions"], "invalid_request: --all-versions goes with the views flat"),
        (["read", "--all-versions", "--period", "1h"], "--period would mix versions of one value"),
        (["withdraw", "no such run"], "RUN: there is no run 'no such run'"),
        (["restore-run", "no such run"], "RUN: there is no run 'no such run'"),
        (["update-series", "49c45b07-7910-5f85-add4-1d77bf80d487", "--name", "x"], "SERIES: there is no series"),
        (["update-series", "x", "--unit", "kW"], "--unit: --declare beside it says .* --convert converts"),
        (["update-series", "x", "--declare"], "--declare: .* goes with --unit"),
        (["update-series", "x", "--convert"], "--convert: .* goes with --unit"),
        (["update-series", "x", "--unit", "kW", "--declare", "--convert"], "--convert: .* say one of them"),
        (["serve", "--rest-port", "99999"], "--rest-port: 99999"),
        (["sql", "--tenant", "x"], "--tenant: 'x'"),
    ],
)
def test_errors_speak_of_options(service: Service, arguments: list[str], said: str) -> None:
    done = timedb(*arguments, TIMEDB_FLIGHT_URL=service.flight_url)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert pl.Series([line]).str.contains(said).item(), line


def test_series_of_one_name_are_told_apart_by_an_option(
    client: Client, service: Service, name: str, tmp_path: Path
) -> None:
    for site in ("a", "b"):
        client.create_series(name, labels={"site": site})
    path = tmp_path / "a.csv"
    path.write_text("valid_time,value\n2025-01-01T00:00Z,1\n")
    for arguments, option in (
        (("read", "--series", name), "--label KEY=VALUE"),
        (("accuracy", "--actual", name), "--actual-id"),
        (("upload", str(path), "--series", name), "--label-value KEY=TEXT or --label KEY=COLUMN"),
    ):
        done = timedb(*arguments, TIMEDB_FLIGHT_URL=service.flight_url)
        assert f"say which with {option}" in done.stderr


@pytest.mark.parametrize("name", sorted(name for name, each in COMMANDS.items() if not hasattr(each, "commands")))
def test_every_help_has_an_example_that_could_be_typed(name: str) -> None:
    command = COMMANDS[name]
    text = f"{command.help or ''}\n{command.epilog or ''}"
    line = text.partition("Example: ")[2].partition("\n")[0]
    assert line.startswith(f"timedb {name}"), text
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    assert {word for word in shlex.split(line) if word.startswith("-")} <= options


def test_a_long_answer_is_cut_for_people_and_whole_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"series_ids": [f"{number:036}" for number in range(4000)]}
    show(answer, as_json=False)
    assert len(said := capsys.readouterr().out) < 700
    assert "--json shows them all" in said
    show(answer, as_json=True)
    assert json.loads(capsys.readouterr().out) == answer


def test_times_without_an_offset_are_of_the_zone_that_is_said(ask: Any, client: Client, name: str) -> None:
    client.upload(odd_rows(name).drop("labels"))
    bounds = ("--start-valid", "2025-01-01 02:00", "--end-valid", "2025-01-01T04:00")
    rows = json.loads(ask("read", "--series", name, *bounds, "--time-zone", "Europe/Paris", "--json"))
    assert [row["valid_time"][:16] for row in rows] == ["2025-01-01T01:00", "2025-01-01T02:00"]
