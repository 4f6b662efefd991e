"""The pages for people: blocks run against a service, commands exist, and the site builds without a warning."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import timedb as td
from tests.commands import COMMANDS
from tests.conftest import Served
from tests.test_readme import BLOCK, on_this_service, run_bash, run_python
from tests.timedb.cli.test_cli import timedb
from timedb.contract.wire import ApplyRetention, parse_object

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *(DOCS / name for name in ("first-steps.md", "flight-sql.md", "operations.md", "three-times.md")),
        *DOCS.glob("how-to/*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_and_prints_what_it_says(
    page: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    printed = ""
    for number, match in enumerate(BLOCK.finditer(page.read_text()), 1):
        language, code = match[1], on_this_service(match[2], served)
        match language:
            case "python":
                printed = run_python(code, f"{page.name}, block {number}", namespace)
            case "bash":
                printed = run_bash(code)
            case "text":
                assert printed == code
            case "sh":
                check_commands(code)
            case "console":
                check_session(code, served)
            case "json":
                parse_object(ApplyRetention, {"rules": json.loads(code), "dry_run": True})
            case _:
                pytest.fail(f"a block of {page.name} is {language or 'of no language'}: nothing runs it")
    if client := namespace.get("client"):
        client.close()


def check_session(code: str, served: Served) -> None:
    """Type what stands behind ``$``; what is printed is what stands below it, ``…`` being anything."""
    for each in code.removeprefix("$ ").split("\n$ "):
        line, _, said = each.partition("\n")
        done = timedb(*shlex.split(line)[1:], TIMEDB_FLIGHT_URL=served.flight_url)
        printed = "".join(f"{each.rstrip()}\n" for each in (done.stderr + done.stdout).splitlines())
        pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", said.rstrip("\n")))
        assert re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL), f"{line} prints:\n{printed}"


def check_commands(code: str) -> None:
    """What a block for operators says is a command of ours, with options that it has."""
    for line in code.splitlines():
        words = shlex.split(line)
        if words[0] != "timedb":
            assert words[0] in ("curl", "pip", "python3", "export") or words[0].startswith(".venv/bin/"), line
            continue
        name = next(name for name in (" ".join(words[1:3]), words[1]) if name in COMMANDS)
        known = {option for each in COMMANDS[name].params for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("page", [DOCS / "operations.md", DOCS / "how-to" / "operator.md"], ids=lambda page: page.stem)
def test_settings_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    settings = (DOCS / "settings.md").read_text()
    assert [name for name in re.findall(r"TIMEDB_[A-Z_]+", text) if f"`{name}`" not in settings] == []
    assert [name for name in re.findall(r"`(packaging/[\w.]+)`", text) if not (ROOT / name).is_file()] == []


def test_the_picture_is_well_formed_and_says_what_it_shows() -> None:
    picture = ElementTree.parse(DOCS / "three-times.svg").getroot()
    names = {element.tag.rpartition("}")[2]: element.text for element in picture}
    assert names["title"]
    assert "known time upwards" in (names["desc"] or "")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {page.name: page.read_text() for page in tmp_path.rglob("*.html")}
    fetched = {name: re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(http[^"]*)"', pages[name]) for name in pages}
    assert not any(fetched.values()), fetched
    assert [name for name in COMMANDS if f"<code>timedb {name}</code>" not in pages["cli.html"]] == []
    anchors = {each.rpartition(".")[2] for each in re.findall(r'id="timedb\.([\w.]+)"', pages["python.html"])}
    methods = {name for name, each in vars(td.Client).items() if callable(each) and not name.startswith("_")}
    assert ({*td.__all__} - {"__version__"} | methods) - anchors == set()
    assert "as of <code>get_run</code>" in pages["python.html"]
