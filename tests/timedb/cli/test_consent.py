"""What changes a lake for good is done after a yes, and after nothing else: every command, every way to be answered."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import typer.main

import timedb as td
from tests.timedb.conftest import frame
from timedb.cli import main
from timedb.cli.main import app
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

HARMLESS = {
    "watch": "adds runs, and moves the files that it was told to take",
    "accuracy": "reads",
    "api": "serves",
    "backup": "fills an empty folder",
    "correct": "appends versions; what was there stays readable",
    "create": "leaves what is there",
    "diff": "reads",
    "export": "reads; of the file that it writes, see test_cli_answers",
    "follow": "reads",
    "import flexmeasures": "adds runs",
    "import influxdb": "adds runs",
    "import timedb-0.1": "adds runs",
    "import timedb-0.8": "adds runs",
    "import timely-beliefs": "adds runs",
    "maintain": "keeps every row",
    "read": "reads; of the file that it writes, see test_cli_answers",
    "restore": "fills an empty folder",
    "restore-run": "is taken back by withdraw",
    "runs": "reads",
    "series": "reads",
    "serve": "serves",
    "show": "reads",
    "sql": "reads, or prints",
    "status": "reads",
    "update-series": "is taken back by another one",
    "upgrade": "keeps every row",
    "upload": "adds",
    "users activate": "is taken back by deactivate",
    "users create": "adds",
    "users list": "reads",
    "users update": "is taken back by another update",
    "withdraw": "is taken back by restore-run",
}
"""Commands that ask nothing, and why they need not."""


@dataclass(frozen=True)
class Destructive:
    """A command that must ask, and what there is for it to destroy in the folder that it runs in."""

    arguments: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    served: bool = False


def _lose_a_file(folder: Path) -> None:
    (lost,) = (folder / "timedb-data").rglob("series_bucket=*/**/*.parquet")
    lost.unlink()


def _make_a_user(folder: Path) -> None:
    td.create_user("ann@example.com", lake=str(folder / "timedb-data"))


def _write_rules(folder: Path) -> None:
    (folder / "rules.json").write_text(json.dumps([{"name": "wind", "drop_after_days": 1}]))


DESTRUCTIVE = {
    "delete": Destructive(("delete",)),
    "doctor": Destructive(("doctor", "--repair", "--accept-loss"), _lose_a_file),
    "retention": Destructive(("retention", "rules.json", "--apply"), _write_rules, served=True),
    "users deactivate": Destructive(("users", "deactivate", "-e", "ann@example.com"), _make_a_user),
    "users regenerate-key": Destructive(("users", "regenerate-key", "-e", "ann@example.com"), _make_a_user),
}


@contextmanager
def no_terminal(content: bytes) -> Iterator[IO[str]]:
    """Standard input with this in it, as a pipe or a file has it."""
    with io.TextIOWrapper(io.BytesIO(content)) as stream:
        yield stream


@contextmanager
def terminal(typed: bytes) -> Iterator[IO[str]]:
    """A terminal at which somebody types this."""
    controller, device = os.openpty()
    try:
        os.write(controller, typed)
        with open(device) as stream:
            yield stream
    finally:
        os.close(controller)


NO: dict[str, Callable[[], AbstractContextManager[IO[str]]]] = {
    "nothing": lambda: no_terminal(b""),
    "piped n": lambda: no_terminal(b"n\n"),
    "piped y": lambda: no_terminal(b"y\n"),
    "typed n": lambda: terminal(b"n\n"),
    "typed return": lambda: terminal(b"\n"),
    "typed end of input": lambda: terminal(b"\x04"),
}


def run(arguments: tuple[str, ...], stdin: IO[str]) -> tuple[object, str]:
    """The exit code and what was printed on standard error."""
    streams = {each: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for each in ("stdout", "stderr")}
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in {"stdin": stdin, **streams}.items():
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["timedb", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    return end.value.code, streams["stderr"].buffer.getvalue().decode()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lake of three old values in it, nobody serving it; the current one."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(ServerSettings, flight_port=0)
    with start_service(settings, rest=False) as service, td.connect(service.flight_url) as client:
        client.upload(frame("wind", [1.0, 2.0, 3.0]), run_id="first")
    return tmp_path


@pytest.mark.parametrize("command", DESTRUCTIVE)
def test_nothing_is_destroyed_without_a_yes(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = DESTRUCTIVE[command]
    case.prepare(folder)
    with closing(_Server(folder, monkeypatch)) if case.served else no_terminal(b""):
        before = contents(folder)
        for name, answered in NO.items():
            with answered() as stdin:
                code, said = run(case.arguments, stdin)
            assert contents(folder) == before, name
            if name.startswith("typed"):
                assert (code, "Aborted" in said) == (1, True), name
            else:
                assert (code, said.startswith("error: invalid_request: --yes: is needed")) == (2, True), name
        with terminal(b"y\n") as stdin:
            code, said = run(case.arguments, stdin)
        assert code in (None, 0), said
        assert contents(folder) != before


@pytest.mark.parametrize("command", DESTRUCTIVE)
def test_a_yes_on_the_command_line_is_enough(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = DESTRUCTIVE[command]
    case.prepare(folder)
    with closing(_Server(folder, monkeypatch)) if case.served else no_terminal(b""), no_terminal(b"n\n") as stdin:
        before = contents(folder)
        code, said = run((*case.arguments, "--yes"), stdin)
        assert code in (None, 0), said
        assert contents(folder) != before


def test_every_command_is_known_to_ask_or_to_need_no_question() -> None:
    def names(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield " ".join(path)
            return
        for name, each in command.commands.items():
            yield from names(each, (*path, name))

    assert sorted(names(typer.main.get_command(app))) == sorted([*HARMLESS, *DESTRUCTIVE])


class _Server:
    """The lake's server, where commands find it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._service = start_service(load_settings(ServerSettings, flight_port=0), rest=False)
        monkeypatch.setenv("TIMEDB_FLIGHT_URL", self._service.flight_url)
        self.close = self._service.stop
