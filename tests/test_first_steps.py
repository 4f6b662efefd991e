"""The page "First steps", followed to the letter as far as "With a key": the same data are read with the key."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.conftest import Served
from tests.test_readme import BLOCK, on_this_service, run_bash
from tests.timedb.cli.test_cli import timedb
from timedb.contract.settings import ServerSettings, load_settings
from timedb.run.launch import start_service

PAGE = (Path(__file__).parents[1] / "docs" / "first-steps.md").read_text()
BEFORE, _, SECTION = PAGE.partition("\n## With a key\n")


def test_with_a_key_the_data_that_were_written_without_one_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(ServerSettings, flight_port=0, rest_port=0, shutdown_seconds=2.0)
    with start_service(settings) as service:
        here = Served(service.flight_url, service.rest_url, Path(settings.lake), os.getpid())
        for language, code in BLOCK.findall(BEFORE):
            if language == "bash":
                run_bash(on_this_service(code, here))
        monkeypatch.setenv("TIMEDB_FLIGHT_URL", service.flight_url)
        block = next(code for language, code in BLOCK.findall(SECTION) if language == "sh")
        printed = {line: follow(line, here, monkeypatch) for line in block.splitlines()}
    made, _, read, rest = printed.values()
    assert "tdb_" in made
    assert [line.rpartition(",")[2] for line in read.splitlines()] == ["value", "5.1", "4.4"]
    assert [line.split(",")[2] for line in rest.splitlines()] == ["value", "5.1", "4.4"]


def follow(line: str, here: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    """Do what a line says; what it printed. A key stands for the one that was printed last."""
    words = line.split()
    if words[0] == "export":
        monkeypatch.setenv(words[1].partition("=")[0], follow.key)  # type: ignore[attr-defined]
        return ""
    if words[0] == "curl":
        return run_bash(on_this_service(line, here))
    done = timedb(*words[1:])
    assert done.returncode == 0, done.stderr
    if key := re.search(r"^api_key:\s+(\S+)$", done.stdout, re.MULTILINE):
        follow.key = key[1]  # type: ignore[attr-defined]
    return done.stdout
