"""Options and files that nobody means, thrown at every command: an error of one line at most, never a traceback."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from tests.commands import COMMANDS
from tests.timedb.cli.test_cli import timedb
from tests.timedb.conftest import frame
from timedb.cli.freshness import STALE
from timedb.run.launch import Service

CASES = int(os.environ.get("TIMEDB_CLI_CASES", "120"))
SEED = int(os.environ.get("TIMEDB_CLI_SEED", "1"))
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "x",
        "0",
        "1",
        "-1",
        "99999999999999999999",
        "1e309",
        "nan",
        "1h",
        "-PT1H",
        "P1M",
        "P1D",
        "0s",
    ),
    *("10:00", "25:00", "UTC", "Europe/Stockholm", "Mars/Base", "2025-01-01", "2025-01-01T00:00Z", "9999-12-31T23:59Z"),
    *("0001-01-01", "2025-10-26 02:30", "2025-02-30", "valid_time", "value", "known_time", "series_key", "labels", "t"),
    *(
        "a=b",
        "=",
        "a=",
        "=b",
        "a=valid_time",
        "'",
        '"',
        "\\",
        ";",
        "tab",
        "\t",
        "\n",
        "ü",
        "\udcff",
        "🌊",
        "{}",
        "[]",
        "[1]",
    ),
    *(
        "%s",
        "%00",
        "../x",
        "/",
        "/dev/null",
        "/nowhere/x",
        "mean",
        "flat",
        "csv",
        "json",
        "parquet",
        "MW",
        "kW",
        "read",
    ),
    *("00000000-0000-0000-0000-000000000000", "grpc://127.0.0.1:1", "http://x", "x" * 5000),
)
CELLS = (
    "",
    "1",
    "x",
    "nan",
    "inf",
    "1e309",
    "1,5",
    '"',
    '"a',
    "2025-01-01",
    "2025-01-01T00:00Z",
    "\r",
    "\x00",
    "ü",
    "-",
    "[1]",
    "{}",
)
HEADS = (
    "valid_time",
    "value",
    "series_key",
    "series_id",
    "known_time",
    "labels",
    "tags",
    "annotation",
    "t",
    "",
    "issue",
    "valid_time_end",
)


def random_file(chance: random.Random, folder: Path) -> Path:
    """A file that is almost, or not at all, a table."""
    names = chance.sample(HEADS, chance.randint(1, 6))
    if chance.random() < 0.7:
        names = list(dict.fromkeys(["valid_time", "value", *names]))
    rows = [{name: chance.choice(CELLS) for name in names} for _ in range(chance.randint(0, 4))]
    kind = chance.choice(("csv", "csv", "json", "ndjson", "parquet", "arrow", "raw"))
    path = folder / f"in.{chance.choice((kind, kind, 'csv', 'xlsx', 'gz', 'dat'))}"
    match kind:
        case "csv":
            text = chance.choice((",", ",", ";", "\t")).join(names) + "\n"
            path.write_text(
                text + "".join(",".join(row.values()) + chance.choice(("\n", "\r\n", "")) for row in rows), newline=""
            )
        case "json":
            path.write_text(json.dumps(chance.choice((rows, rows, {"data": rows}, [rows], 1))))
        case "ndjson":
            path.write_text("\n".join(json.dumps(chance.choice((row, row, [], None))) for row in rows))
        case "raw":
            path.write_bytes(
                chance.choice(
                    (
                        b"",
                        b"PAR1",
                        b"ARROW1",
                        b"\xff\xff\xff\xff",
                        b"PK\x03\x04",
                        b"\x1f\x8b",
                        b"BZh",
                        chance.randbytes(40),
                    )
                )
            )
        case _:
            table = pl.DataFrame(rows or [{"value": 1}])
            table.write_parquet(path) if kind == "parquet" else table.write_ipc(path)
    content = path.read_bytes()
    if content and chance.random() < 0.2:  # damaged
        place = chance.randrange(len(content))
        path.write_bytes(
            content[:place] + chance.choice((b"", b"\x00", b"\xff", b"\n")) + content[place + chance.randint(0, 3) :]
        )
    return path


def random_arguments(chance: random.Random, command: Any, folder: Path) -> Iterator[str]:
    """Arguments of a command: usual words where the option has some, others where it has none."""
    for each in command.params:
        if each.param_type_name == "argument":
            file = random_file(chance, folder)
            yield chance.choice((str(file), str(file), str(file), chance.choice(WORDS), str(folder), "-"))
            continue
        if each.opts[0] in ("--help", "--lake", "--flight-url", "--rest-port", "--host", "--flight-port", "--port"):
            continue
        if not each.required and chance.random() < 0.75:
            continue
        for _ in range(2 if each.multiple and chance.random() < 0.3 else 1):
            yield chance.choice([*each.opts, *each.secondary_opts])
            if not each.is_flag:
                yield chance.choice((chance.choice(WORDS), chance.choice(HEADS)))


@pytest.fixture(scope="module")
def known(service: Service) -> str:
    """A service that has something to read."""
    with td.connect(service.flight_url) as client:
        client.upload(frame("typed by hand", [1.0, 2.0]))
    return service.flight_url


@pytest.mark.parametrize("name", sorted(name for name, each in COMMANDS.items() if not hasattr(each, "commands")))
def test_whatever_is_typed_is_answered_in_one_line(name: str, known: str, service: Service, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {name}")
    command, taken = COMMANDS[name], service.rest_url.rpartition(":")[2]
    options = {option for each in command.params for option in each.opts}
    for number in range(max(1, CASES // len(COMMANDS))):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [*name.split(), *random_arguments(chance, command, folder)]
        if name == "watch":
            arguments.append("--once")
        if name in ("serve", "api"):  # they would run until they are stopped
            arguments += ["--rest-port" if name == "serve" else "--port", taken]
        if "--lake" in options:
            arguments += ["--lake", chance.choice((str(folder), str(folder / "lake"), str(folder / "in.csv"), ""))]
        if "--yes" in options and "--help" not in arguments and chance.random() < 0.5:
            arguments.append("--yes")
        done = timedb(
            *arguments, cwd=folder, TIMEDB_FLIGHT_URL=known, TIMEDB_FLIGHT_PORT="0", TIMEDB_LAKE=str(folder / "lake")
        )
        said = f"{arguments}: {done}"
        assert "Traceback" not in done.stdout + done.stderr, said
        assert "internal" not in done.stderr, said
        assert done.returncode in (*range(13), STALE), said
        if done.returncode and "╭─" not in done.stderr + done.stdout and name != "doctor":
            assert done.stderr.splitlines()[-1].startswith(("error: ", "Aborted", "stale", "there is no such")), said
        shutil.rmtree(folder)
