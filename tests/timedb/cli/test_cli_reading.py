"""``timedb read``, ``export`` and ``accuracy``, and what goes through pipes."""

from __future__ import annotations

import io
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.timedb.cli.test_cli import ask, timedb
from tests.timedb.conftest import T0, frame
from timedb.cli import main
from timedb.client import Client

__all__ = ["ask"]

HOUR = timedelta(hours=1)


@pytest.fixture
def revised(client: Client, name: str) -> str:
    """A series with two runs, known eight hours before and at the first of its times, and what came."""
    client.upload(frame(name, [1.0, 2.0, 3.0]), known_time=T0 - 8 * HOUR, run_id=f"{name}-early")
    client.upload(frame(name, [11.0, 12.0, 13.0]), known_time=T0, run_id=f"{name}-late")
    client.upload(frame(f"{name}-actual", [2.0, 2.0, 2.0]), known_time=T0 + 8 * HOUR)
    return name


def test_windows_and_lead_times_are_read(ask: Any, revised: str) -> None:
    values = ("read", "--series", revised, "--columns", "value", "--json")
    assert json.loads(ask(*values)) == [{"value": 11.0}, {"value": 12.0}, {"value": 13.0}]
    windows = ("--window-length", "1h", "--issue-offset", "-PT1H", "--start-window", "2025-01-01T00:00:00Z")
    assert [row["value"] for row in json.loads(ask(*values, *windows))] == [1.0, 12.0, 13.0]
    assert [row["value"] for row in json.loads(ask(*values, "--lead-time", "2h"))] == [1.0, 2.0, 13.0]
    gate = ("--days-ahead", "1", "--time-of-day", "18:00", "--time-zone", "UTC")
    assert [row["value"] for row in json.loads(ask(*values, *gate))] == [1.0, 2.0, 3.0]
    missing = timedb("read", "--window-length", "1h")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "--issue-offset is missing" in missing.stderr


def test_the_first_release_is_read(ask: Any, client: Client, revised: str) -> None:
    told = json.loads(ask("read", "--series", revised, "--columns", "value", "--json", "--view", "first"))
    assert [row["value"] for row in told] == [1.0, 2.0, 3.0]
    assert sorted(client.read(series_keys=revised, view="first")["value"]) == [1.0, 2.0, 3.0]


def test_the_newest_run_is_read_with_the_number_of_each_revision(ask: Any, client: Client, revised: str) -> None:
    columns = ("--columns", "value,revision", "--newest-run")
    told = json.loads(ask("read", "--series", revised, "--json", *columns, "--end-valid", "2025-01-01T02:00:00Z"))
    assert told == [{"value": 11.0, "revision": 2}, {"value": 12.0, "revision": 2}]
    assert sorted(client.read(series_keys=revised, newest_run=True)["value"]) == [11.0, 12.0, 13.0]


def test_the_newest_rows_are_read(ask: Any, client: Client, revised: str) -> None:
    def told(*options: str) -> list[float]:
        asked = ("read", "--series", revised, "--series", f"{revised}-actual", "--columns", "value", "--json", *options)
        return [row["value"] for row in json.loads(ask(*asked))]

    assert sorted(told("--last", "1")) == [2.0, 13.0]
    assert sorted(told("--order-by", "valid_time", "--descending", "--limit", "2")) == [2.0, 13.0]
    assert sorted(told("--view", "overlapping", "--last", "1")) == [2.0, 3.0, 13.0]
    newest = client.read(series_keys=revised, last=2, descending=True)
    assert newest["value"].to_list() == [13.0, 12.0]
    page = client.read_arrow(series_keys=revised, order_by="valid_time", descending=True, limit=2)
    after = (page.schema.metadata or {})[b"cursor"].decode()
    asked: dict[str, Any] = {"order_by": "valid_time", "descending": True, "limit": 2, "after": after}
    assert client.read(series_keys=revised, **asked)["value"].to_list() == [11.0]


def test_series_stand_side_by_side_and_gaps_are_filled(ask: Any, client: Client, revised: str) -> None:
    actual = f"{revised}-actual"
    table = ask("read", "--series", revised, "--series", actual, "--pivot", "series_key")
    assert table.splitlines()[0] == f"valid_time,valid_time_end,{revised},{actual}"
    assert client.read(series_keys=[revised, actual], pivot="series_key").columns[2:] == [revised, actual]
    how = ("--period", "1h", "--fill", "previous", "--fill-limit", "1", "--end-valid", "2025-01-01T05:00:00Z")
    told = json.loads(ask("read", "--series", revised, "--columns", "value", "--json", *how))
    assert [row["value"] for row in told] == [11.0, 12.0, 13.0, 13.0, None]
    quantile = ("--period", "P1D", "--aggregate", "quantile:0.75")
    assert json.loads(ask("read", "--series", revised, "--columns", "value", "--json", *quantile)) == [{"value": 12.5}]


def test_runs_are_chosen(ask: Any, client: Client, revised: str) -> None:
    values = ("--series", revised, "--json")
    told = json.loads(ask("read", *values, "--columns", "value", "--run-id", f"{revised}-early"))
    assert [row["value"] for row in told] == [1.0, 2.0, 3.0]
    both = ("--run-ids", f"{revised}-early", "--run-ids", f"{revised}-late")
    assert len(json.loads(ask("read", *values, "--view", "overlapping", *both))) == 6
    assert json.loads(ask("read", *values, "--workflow-id", "of no run")) == []
    assert client.read(series_keys=revised, run_ids=f"{revised}-early")["value"].to_list() == [1.0, 2.0, 3.0]
    assert client.read(series_keys=revised, run_ids=[]).is_empty()
    actual = ("--actual", f"{revised}-actual", "--horizon", "12h", "--run-id", f"{revised}-late")
    (row,) = json.loads(ask("accuracy", *values, *actual))
    assert (row["count"], row["bias"]) == (3, 10.0)


def test_accuracy_is_told(ask: Any, revised: str) -> None:
    asked = ("accuracy", "--actual", f"{revised}-actual", "--series", revised, "--horizon", "12h")
    (row,) = json.loads(ask(*asked, "--json"))
    assert (row["lead_seconds"], row["lead_seconds_end"], row["count"]) == (0.0, 43_200.0, 6)
    assert row["bias"] == pytest.approx(5.0)
    header, line = ask(*asked).splitlines()
    assert header.split() == list(row)
    assert len(line.split()) == len(row)
    assert timedb("accuracy").returncode == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_what_was_exported_can_be_uploaded(ask: Any, client: Client, revised: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"history.{suffix}"
    assert ask("export", str(path), "--series", revised) == ""
    ask("upload", str(path), "--series", f"{revised}-again", "--run-id", f"{revised}-{suffix}", "--ignore", "run_id")
    columns = ["valid_time", "known_time", "value"]
    both = [
        client.read(series_keys=name, view="overlapping", columns=columns, ordered=True)
        for name in (revised, f"{revised}-again")
    ]
    assert both[0].height == 6
    assert both[0].equals(both[1])


def test_every_format_goes_to_files_and_pipes(ask: Any, revised: str, tmp_path: Path) -> None:
    for suffix in ("json", "ndjson", "arrow", "parquet", "csv"):
        assert ask("read", "--series", revised, "-o", str(tmp_path / f"out.{suffix}")) == ""
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["value"] for row in rows] == [11.0, 12.0, 13.0]
    assert [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()] == rows
    table = pa.ipc.open_stream((tmp_path / "out.arrow").read_bytes()).read_all()
    assert parquet.read_table(tmp_path / "out.parquet").equals(table)
    assert table["value"].to_pylist() == pl.read_csv(tmp_path / "out.csv")["value"].to_list()
    versions = ("export", str(tmp_path / "all.ndjson"), "--series", revised, "--all-versions")
    assert ask(*versions) == ""
    assert {"changed_by", "retracted", "value_id"} <= json.loads(
        (tmp_path / "all.ndjson").read_text().splitlines()[0]
    ).keys()
    unclear = timedb("export", str(tmp_path / "history.dat"))
    assert "'history.dat' ends with none of" in unclear.stderr


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "feather", "json", "ndjson"])
def test_standard_input_is_uploaded(
    client: Client,
    name: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    data, sink = frame(name, [1.5, None]), io.BytesIO()
    match kind:
        case "csv":
            data.write_csv(sink)
        case "json" | "ndjson":
            data = data.with_columns(pl.col("valid_time").dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
            data.write_json(sink) if kind == "json" else data.write_ndjson(sink)
        case "parquet":
            data.write_parquet(sink)
        case "arrow":
            data.write_ipc_stream(sink)
        case _:
            data.write_ipc(sink)
    (tmp_path / "stdin").write_bytes(sink.getvalue())
    monkeypatch.setattr(sys, "argv", ["timedb", "upload", "-", "--json", "--flight-url", client._connection.url])
    with (tmp_path / "stdin").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    assert client.read(series_keys=name, ordered=True)["value"].to_list() == [1.5, None]


def test_what_makes_and_deletes_a_lake_speaks_json(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    made = timedb("create", "--lake", lake, "--json")
    assert json.loads(made.stdout) == {"lake": lake, "users": False}
    assert "Creating" in made.stderr
    gone = timedb("delete", "--lake", lake, "--yes", "--json")
    assert json.loads(gone.stdout) == {"lake": lake, "deleted": True}
    assert not Path(lake).exists()


def test_csv_for_spreadsheets_has_no_formulas(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    client.upload(frame(f"=1+1 {name}", [-1.0]), known_time=T0, run_id=f"-{name}")
    asked = ("read", "--series", f"=1+1 {name}", "--columns", "series_key,value,run_id")
    assert ask(*asked).splitlines()[1] == f"=1+1 {name},-1.0,-{name}"
    assert ask(*asked, "--without-formulas").splitlines()[1] == f"'=1+1 {name},-1.0,'-{name}"
    refused = timedb(*asked, "--without-formulas", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--without-formulas: is about CSV" in refused.stderr


def test_what_is_written_is_printed_and_its_place_kept(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    def follow(*arguments: str) -> list[float]:
        lines = ask("follow", "--series", name, "--no-wait", *arguments).splitlines()
        return [json.loads(line)["value"] for line in lines]

    state = tmp_path / "wind.token"
    client.upload(frame(name, [1.0, 2.0]), run_id=f"{name}-1")
    assert follow("--state", str(state)) == [1.0, 2.0]
    client.upload(frame(name, [3.0]), run_id=f"{name}-2")
    assert follow("--since", "now") == []
    assert follow("--state", str(state), "--columns", "value") == [3.0]
    assert follow("--state", str(state)) == []
    assert follow("--since", state.read_text().strip()) == []
    assert follow("--run-id", f"{name}-1") == [1.0, 2.0]
