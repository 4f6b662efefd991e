"""Regular expressions that callers can feed end in time that grows with the text: none of them goes back for more.

Python's ``re`` holds the interpreter's lock while it searches: one call that backtracks stops the whole process. Each
pattern of the code is tried with long texts that nearly fit, in a process whose processor time is limited.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("timedb", "storage", "flight_server", "rest_gateway")
FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
SECONDS = 20
"""For all of them: each takes milliseconds, and one that backtracks takes years."""

TRIED = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (%d, %d))
PATTERNS = %r
CHARS = "a0 =+-.,:;_%%/\\\\'\\"\\t\\n\\u00e9@TZPuµ"
for pattern in PATTERNS:
    compiled = re.compile(pattern)
    for one in CHARS:
        for two in ("", *CHARS):
            for tail in ("", "!", "\\x00"):
                text = (one + two) * 500 + tail
                text = text.encode() if isinstance(pattern, bytes) else text
                compiled.fullmatch(text), compiled.match(text)
    print(ascii(pattern), flush=True)
"""


def patterns() -> list[str | bytes]:
    """Every pattern that stands in the code as a constant."""
    found: set[str | bytes] = set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.resolve() == path):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) != "re" or node.func.attr not in FUNCTIONS:
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str | bytes):
                found.add(first.value)
    return sorted(found, key=str)


def test_no_pattern_goes_back_over_what_a_caller_sends() -> None:
    every = patterns()
    assert len(every) > 20
    code = TRIED % (SECONDS, SECONDS, every)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    tried = done.stdout.splitlines()
    assert done.returncode == 0, f"it stands still at {every[len(tried)]!a}"
    assert tried == [ascii(each) for each in every]


@pytest.mark.parametrize("module", ["fnmatch", "glob"])
def test_nothing_makes_patterns_of_names_by_another_way(module: str) -> None:
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.resolve() == path):
        assert not re.search(rf"^\s*(?:import|from) {module}\b", path.read_text(), re.MULTILINE), path
