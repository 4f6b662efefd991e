"""The command line, as a shell sees it: output, errors, exit codes, signals."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from tests.timedb.conftest import T0, frame
from timedb.cli import main
from timedb.cli.exit_codes import EXIT_CODES, exit_code
from timedb.cli.output import show, show_error
from timedb.client import Client
from timedb.contract.errors import error_classes
from timedb.contract.wire import ReadCommand
from timedb.run.launch import Service


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def timedb(*arguments: str, cwd: Path | None = None, **settings: str) -> Done:
    """Run a command as its console script does, but in this process: each interpreter costs a second to start."""
    streams = {
        name: io.TextIOWrapper(io.BytesIO(), "utf-8", errors, write_through=True)
        for name, errors in (("stdout", "strict"), ("stderr", "backslashreplace"))
    }
    with pytest.MonkeyPatch.context() as patch, open(os.devnull) as nothing:
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in {"COLUMNS": "200", **settings}.items():
            patch.setenv(name, value)
        for name, stream in {"stdin": nothing, **streams}.items():
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["timedb", *arguments])
        patch.setattr(os, "nice", lambda _: 0)  # it would hold for all tests that come after in this process
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Done(code, *(stream.buffer.getvalue().decode() for stream in streams.values()))


@pytest.fixture
def ask(service: Service) -> Any:
    """Run a command against the session's service; it has to succeed."""

    def run(*arguments: str) -> str:
        done = timedb(*arguments, TIMEDB_FLIGHT_URL=service.flight_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@contextmanager
def serving(*command: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A server command in a process of its own, and the addresses that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "timedb", *command],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Docs"):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        addresses = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in lines)
        yield process, addresses
    finally:
        process.kill()
        process.communicate()


# Serving


def test_serve_prints_where_it_is_and_ends_well_at_a_signal(lake_dir: Path) -> None:
    command = ("serve", "--lake", str(lake_dir), "--flight-port", "0", "--rest-port", "0")
    for number, stop in enumerate((signal.SIGTERM, signal.SIGINT)):
        with serving(*command, TIMEDB_FLIGHT_URL="grpc://127.0.0.1:1") as (process, urls):
            assert list(urls) == ["Lake", "Arrow Flight", "REST", "Page", "Docs"]
            made = "" if number else ", made now"
            assert urls["Lake"] == f"{lake_dir}{made}; open: calls need no key (timedb users create)"
            assert timedb("status", "--flight-url", urls["Arrow Flight"]).returncode == 0
            with td.connect(urls["Arrow Flight"]) as client:
                client.upload(frame("load", [float(number)]))
                assert client.read(series_keys="load")["value"].to_list() == [float(number)]
                assert client.read(series_keys="load", view="overlapping").height == number + 1
            process.send_signal(stop)
            assert process.wait(30) == 0
    assert td.scan_lake(lake_dir, view="overlapping").collect()["value"].sort().to_list() == [0.0, 1.0]


def test_serve_ends_although_a_reader_stalls(lake_dir: Path) -> None:
    command = ("serve", "--lake", str(lake_dir), "--flight-port", "0", "--rest-port", "0")
    with (
        serving(*command, TIMEDB_SHUTDOWN_SECONDS="0.5") as (process, urls),
        td.connect(urls["Arrow Flight"]) as client,
    ):
        client.upload(frame("load", [float(i) for i in range(500_000)]))
        # More bytes than the connection's buffers hold.
        stalled = client.stream(ReadCommand(columns=["value_id"]))
        rows = next(stalled).num_rows
        process.terminate()
        assert process.wait(30) == 0
        try:
            rows += stalled.read_all().num_rows
        except td.Busy:
            return
        assert rows == 500_000  # now and then gRPC has buffered all of it; a part must never pass for the whole


def test_api_runs_alone_and_with_a_server(lake_dir: Path, service: Service) -> None:
    with serving("api", "--port", "0", TIMEDB_LAKE=str(lake_dir), TIMEDB_FLIGHT_PORT="0") as (process, urls):
        assert td.check_api(urls["REST"])
        process.terminate()
        assert process.wait(30) == 0
    with serving("api", "--port", "0", "--flight-url", service.flight_url) as (process, urls):
        assert urls["Arrow Flight"] == service.flight_url
        assert td.check_api(urls["REST"])
        process.terminate()
        assert process.wait(30) == 0


def test_a_taken_port_ends_serve_with_one_line(lake_dir: Path, service: Service) -> None:
    port = service.rest_url.rpartition(":")[2]
    done = timedb("serve", "--lake", str(lake_dir), "--flight-port", "0", "--rest-port", port)
    assert done.returncode == EXIT_CODES[td.InvalidRequest]
    assert re.fullmatch(rf"error: invalid_request: .*TIMEDB_REST_PORT.*{port}.*\n", done.stderr)


# The lake


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "timedb", "delete"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 2
    reason = "--yes: is needed where nobody can be asked, as standard input is no terminal"
    question = "Delete the lake at ./timedb-data with everything in it?"
    assert done.stderr == f"error: invalid_request: {reason}; the question is: {question}\n"


def test_a_lake_is_made_and_deleted(tmp_path: Path) -> None:
    assert "created successfully" in timedb("create", cwd=tmp_path).stdout
    assert "exists already" in timedb("create", cwd=tmp_path).stdout
    unasked = timedb("delete", cwd=tmp_path)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    assert (tmp_path / "timedb-data").exists()
    assert "is gone" in timedb("delete", "--yes", cwd=tmp_path).stdout
    assert "Nothing to delete" in timedb("delete", "--yes", cwd=tmp_path).stdout
    assert not (tmp_path / "timedb-data").exists()


def test_a_folder_that_is_no_lake_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    done = timedb("delete", "--yes", "--lake", str(tmp_path))
    assert done.returncode == EXIT_CODES[td.InvalidRequest]
    assert (tmp_path / "thesis.txt").exists()


# Values


def test_a_run_is_withdrawn_and_restored(ask: Any, name: str, tmp_path: Path, service: Service) -> None:
    frame(name, [1.0, 2.0]).write_csv(tmp_path / "in.csv")
    loading = ("upload", str(tmp_path / "in.csv"), "--run-id", name, "--known-time", "2025-01-01T00:00:00Z")
    ask(*loading)
    assert json.loads(ask("withdraw", name, "--reason", "wrong weather", "--json")) == {"withdrawn": 2}
    again = timedb(*loading, TIMEDB_FLIGHT_URL=service.flight_url)
    assert again.returncode == 0
    assert "withdrawn_rows:" in again.stdout
    assert re.search(rf"^warning: run {name} was in already and is withdrawn since .* \(wrong weather\)", again.stderr)
    assert f"until it is restored (timedb restore-run {name})" in again.stderr
    assert json.loads(ask("restore-run", name, "--json")) == {"restored": 2, "left_retracted": 0}
    assert "withdrawn" not in ask(*loading)


def test_parquet_goes_in_and_every_format_comes_out(ask: Any, name: str, tmp_path: Path) -> None:
    data = frame(name, [1.5, None, float("nan")]).with_columns(tags=pl.Series([["a"], None, None]))
    data.write_parquet(tmp_path / "in.parquet")
    receipt = json.loads(ask("upload", str(tmp_path / "in.parquet"), "--json", "--run-id", name))
    assert receipt["run_id"] == name
    assert receipt["rows"] == 3
    columns = ("--columns", "valid_time,value,tags", "--series", name)
    assert ask("read", *columns).splitlines() == [
        "valid_time,value,tags",
        '2025-01-01T00:00:00.000000+00:00,1.5,"[""a""]"',
        "2025-01-01T01:00:00.000000+00:00,,",
        "2025-01-01T02:00:00.000000+00:00,NaN,",
    ]
    assert json.loads(ask("read", *columns, "--format", "json")) == [
        {"valid_time": "2025-01-01T00:00:00.000000+00:00", "value": 1.5, "tags": ["a"]},
        {"valid_time": "2025-01-01T01:00:00.000000+00:00", "value": None, "tags": None},
        {"valid_time": "2025-01-01T02:00:00.000000+00:00", "value": "NaN", "tags": None},
    ]
    out = tmp_path / "out.parquet"
    assert ask("read", *columns, "--format", "parquet", "--output", str(out)) == ""
    assert pl.read_parquet(out).equals(data.drop("series_key"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_an_empty_answer_is_whole_in_every_format(ask: Any, client: Client, name: str) -> None:
    client.create_series(name)
    assert ask("read", "--series", name) == "series_key,series_id,valid_time,value\n"
    assert json.loads(ask("read", "--series", name, "--format", "json")) == []


def test_a_csv_with_names_of_its_own_is_mapped(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "forecast.csv"
    path.write_text(
        "hour,what,mw,issued,remark\n"
        f"2025-01-01 01:00,{name}-a,1,2024-12-31T12:00:00Z,x\n"
        f"2025-01-01 02:00:00,{name}-b,,2024-12-31T13:00:00Z,y\n"
    )
    flags = ["--valid-time", "hour", "--value", "mw", "--series-column", "what", "--known-time", "issued"]
    flags += ["--ignore", "remark"]
    refused = timedb("upload", str(path), *flags)
    assert refused.returncode == 2
    assert "hour: its times have no time zone; say which with --time-zone" in refused.stderr
    text = ask("upload", str(path), *flags, "--time-zone", "Europe/Stockholm")
    assert re.search(r"^rows: +2$", text, re.MULTILINE)
    back = client.read(
        series_keys=[f"{name}-a", f"{name}-b"], view="overlapping", columns=["valid_time", "known_time", "value"]
    )
    day_before = T0 - timedelta(hours=12)
    assert sorted(back.rows()) == [
        (T0, day_before, 1.0),
        (T0 + timedelta(hours=1), day_before + timedelta(hours=1), None),
    ]


def test_one_series_and_one_known_time_for_a_whole_file(ask: Any, client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "load.csv.gz"
    frame("ignored", [1.0, float("nan")]).write_csv(path.with_suffix(""))
    subprocess.run(["gzip", str(path.with_suffix(""))], check=True)
    known = "2024-12-31T12:00:00Z"
    done = timedb("upload", str(path), "--series", name, "--known-time", known, "--flight-url", client._connection.url)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "not the file's column series_key, but what --series says\n"
    rows = client.read(series_keys=name, view="overlapping", ordered=True, columns=["known_time", "value"]).rows()
    assert [time for time, _ in rows] == [T0 - timedelta(hours=12)] * 2
    assert str([value for _, value in rows]) == "[1.0, nan]"


@pytest.mark.parametrize(
    ("text", "flags", "reason"),
    [
        ("valid_time,value\n2025-01-01T00:00Z,1\n", [], "--series: say which"),
        ("time,value\n2025-01-01T00:00Z,1\n", ["--series", "x"], "--valid-time: the file has no column valid_time"),
        (
            "valid_time,value\n2025-01-01T00:00Z,1\n",
            ["--value", "mw"],
            "--value: the file has no column 'mw'; there are valid_time, value",
        ),
        ("valid_time,value\n2025-01-01T00:00Z,high\n", ["--series", "x"], "high"),
        ("valid_time,value\nnoon,1\n", ["--series", "x"], "valid_time: .*noon"),
        ("valid_time,value\n", ["--series", "x"], "holds no rows"),
        ("", ["--series", "x"], "mapped.csv: is empty"),
        ("valid_time,value\n2025-01-01 00:00,1\n", ["--series", "x", "--time-zone", "Mars/Base"], "Mars/Base"),
        (
            "valid_time,value\n2025-01-01T00:00Z,1\n",
            ["--series", "x", "--known-time", "soon"],
            "--known-time: 'soon' is neither a time .* nor a column",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, flags: list[str], reason: str) -> None:
    path = tmp_path / "mapped.csv"
    path.write_text(text)
    done = timedb("upload", str(path), *flags, TIMEDB_FLIGHT_URL="grpc://127.0.0.1:1")
    assert done.returncode == EXIT_CODES[td.InvalidRequest]
    assert re.match(f"error: invalid_request: .*{reason}", done.stderr), done.stderr


def test_versions_and_filters_are_read(ask: Any, client: Client, name: str) -> None:
    (series_id,) = client.upload(frame(name, [1.0, 2.0, 3.0]), known_time=T0).series_ids.values()
    client.update_values([{"series_id": series_id, "valid_time": T0, "value": 9.0, "changed_by": "me"}])
    until = ("--end-valid", "2025-01-01T01:00:00Z")
    rows = json.loads(ask("read", "--series-id", series_id, *until, "--all-versions", "--format", "json"))
    assert [(row["value"], row["changed_by"], row["series_key"]) for row in rows] == [
        (1.0, None, name),
        (9.0, "me", name),
    ]
    assert json.loads(ask("read", "--series", name, "--limit", "1", "--columns", "value", "--format", "json")) == [
        {"value": 9.0}
    ]


# Looking at it


def test_series_and_status_are_shown_as_text_and_json(ask: Any, client: Client, name: str) -> None:
    series_id = client.create_series(name, unit="MW", labels={"site": "north"})
    (found,) = json.loads(ask("series", "--name", name, "--json"))
    assert found["series_id"] == series_id
    header, line = ask("series", "--label", "site=north", "--name", name).splitlines()
    assert header.split()[:3] == ["series_id", "name", "labels"]
    assert line.split()[:2] == [series_id, name]
    assert ask("series", "--name", name, "--label", "site=south") == ""
    assert ask("series", "--search", f"{name} north", "--limit", "1") == f"{header}\n{line}\n"
    assert ask("series", "--search", f"{name} south") == ""
    assert json.loads(ask("status", "--json"))["series"] >= 1
    assert re.search(r"^series: +\d+$", ask("status"), re.MULTILINE)
    assert json.loads(ask("maintain", "--json")).keys() >= {"compacted", "checkpoints", "vacuumed_files"}


# Errors


def test_every_error_has_an_exit_code_of_its_own() -> None:
    assert set(EXIT_CODES) == set(error_classes())
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert 0 not in EXIT_CODES.values()
    assert exit_code(td.TimeDBError("of a later release")) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["read", "--start-valid", "yesterday"], "invalid_request"),
        (["read", "--series", "there is none"], "not_found"),
        (["series", "--label", "no-equals"], "invalid_request"),
        (["read", "--columns", "a,,b"], "invalid_request"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(service: Service, arguments: list[str], error: str) -> None:
    done = timedb(*arguments, TIMEDB_FLIGHT_URL=service.flight_url)
    (code,) = (number for cls, number in EXIT_CODES.items() if cls.code == error)
    assert done.returncode == code
    assert done.stdout == ""
    assert re.fullmatch(f"error: {error}: .+\n", done.stderr)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    done = timedb("status", "--flight-url", "grpc://127.0.0.1:1")
    assert done.returncode == EXIT_CODES[td.Unavailable]
    remedy = "start a server there (timedb serve), or name another (--flight-url, TIMEDB_FLIGHT_URL, td.connect(URL))"
    assert done.stderr == f"error: unavailable: nothing listens at grpc://127.0.0.1:1; {remedy}\n"


def test_a_fault_of_the_service_says_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(td.Internal("it\nbroke", request_id="request-1"))
    show_error(td.NotFound("gone", request_id="request-2"))
    assert capsys.readouterr().err.splitlines() == [
        "error: internal: it broke",
        "the server's log has more under request id request-1",
        "error: not_found: gone",
    ]


def test_text_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "a", "unit": None}, {"name": "longer", "unit": "MW"}], as_json=False)
    show({"rows": 1, "tiers": {"fresh": 2}}, as_json=False)
    assert capsys.readouterr().out == 'name    unit\na\nlonger  MW\nrows:   1\ntiers:  {"fresh": 2}\n'


def test_usage() -> None:
    assert timedb("--version").stdout == f"timedb {td.__version__}\n"
    commands = timedb("--help").stdout
    for command in (
        "serve",
        "api",
        "create",
        "delete",
        "status",
        "series",
        "upload",
        "read",
        "maintain",
        "doctor",
        "upgrade",
        "backup",
        "export",
        "accuracy",
    ):
        assert re.search(rf"\b{command}\b", commands)
    assert timedb("dance").returncode == 2
    assert timedb("upload", "no-such-file.csv").returncode == 2


def test_output_that_nobody_reads_is_no_accident(ask: Any, client: Client, name: str) -> None:
    client.upload(frame(name, [float(i) for i in range(100_000)]))
    process = subprocess.Popen(
        [sys.executable, "-m", "timedb", "read", "--series", name, "--flight-url", client._connection.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is not None
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
