"""The table of what was tried names tests that exist, and every test of attacks is in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[2] / "docs" / "security.md").read_text()
TABLE = [line for line in PAGE[PAGE.index("## What was tried") :].splitlines() if line.startswith("| ")][1:]
NAMED = re.compile(r"`(?:tests/[\w/]+/)?(test_\w+\.py)`: `(test_\w+)`")
ROWS = [row for line in TABLE for row in NAMED.findall(line)]
ALL_OF = ("test_attacks.py", "test_key_attacks.py")
UNNAMED = {
    # Beside another row of the same kind.
    "test_a_ticket_that_was_altered",
    "test_a_token_and_a_cursor_of_another_tenant",
    "test_an_unfinished_upload_command",
}


def names_in(name: str) -> set[str]:
    """The tests of the modules of a name."""
    trees = [ast.parse(path.read_text()) for path in HERE.parents[1].rglob(name)]
    nodes = [node for tree in trees for node in tree.body]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_is_named_exists() -> None:
    assert len(ROWS) > 30
    assert not [(module, test) for module, test in ROWS if test not in names_in(module)]


def test_every_row_names_the_test_that_holds_it() -> None:
    assert [line for line in TABLE if not NAMED.search(line)] == []


def test_every_attack_is_in_the_table() -> None:
    named = {test for _, test in ROWS}
    assert set().union(*map(names_in, ALL_OF)) - named == UNNAMED
