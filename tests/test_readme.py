"""Every block of the README is executed, in order, against a running service; what it says is printed is compared."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in BLOCK.finditer(README.read_text())]
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


def on_this_service(code: str, served: Served) -> str:
    """A block's code with the service of this session in place of the usual one."""
    code = code.replace("grpc://127.0.0.1:8815", served.flight_url).replace("http://127.0.0.1:8000", served.rest_url)
    return code.replace("timedb-data/", f"{served.lake}/")


def run_python(code: str, place: str, namespace: dict[str, Any]) -> str:
    """Run a block as the next cell of one session; return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, place, "exec"), namespace)
    return printed.getvalue()


def run_bash(code: str) -> str:
    """Run a block in a shell that stops at the first failure."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def run_make(code: str) -> str:
    """Have make look up each command without running it: this test is one of them."""
    for line in code.split("\n"):
        if line:
            assert line.startswith("make "), line
            run_bash(line.replace("make ", "make --dry-run ", 1))
    return ""


def test_every_block_runs_and_prints_what_it_says(served: Served) -> None:
    namespace: dict[str, Any] = {}
    printed = ""
    for number, (language, code) in enumerate(BLOCKS, 1):
        code = on_this_service(code, served)
        match language:
            case "python":
                printed = run_python(code, f"README.md, block {number}", namespace)
            case "bash":
                printed = run_bash(code)
            case "make":
                printed = run_make(code)
            case "text":
                assert printed == code
            case _:
                pytest.fail(f"a block of the README is {language or 'of no language'}: nothing runs it")


def test_it_is_short_and_shows_each_door() -> None:
    assert len(README.read_text().splitlines()) < 150
    assert [language for language, _ in BLOCKS].count("python") >= 3
    assert {language for language, _ in BLOCKS} == {"make", "bash", "python", "text"}


@pytest.mark.parametrize("page", [README, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]
