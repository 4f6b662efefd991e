"""The documentation says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pyarrow import flight

from docs import generate
from tests.conftest import Served
from timedb._version import __version__
from timedb.contract import wire
from timedb.contract.columns import COLUMN_TYPES, UPLOAD_COLUMNS
from timedb.contract.errors import error_classes
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.flight_server.call.authentication import METHODS
from timedb.flight_server.call.errors import FLIGHT_CLASSES
from timedb.flight_server.rpc.actions import ACTIONS
from timedb.rest_gateway.http.errors import STATUS

ROOT = Path(__file__).parents[1]
WIRE = (ROOT / "docs" / "wire.md").read_text()
COMMANDS = re.findall(r"<!-- model: (\w+) -->\n```json\n(.*?)```", WIRE, re.DOTALL)

# What they cannot be without.
SHOWN_FILLED = {"AccuracyTicket": ("actual_id", "horizon"), "AppendedRun": ("seq", "upload"), "AppendEnd": ("end",)}


def table_after(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading of wire.md, without its head."""
    lines = WIRE[WIRE.index(f"\n{heading}\n") :].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_generated_pages_are_fresh() -> None:
    stale = [path.name for path, text in generate.pages().items() if path.read_text() != text]
    assert not stale, "run make docs"


@pytest.mark.parametrize(("name", "text"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_commands_are_shown_with_every_field_and_default(name: str, text: str) -> None:
    model: type[wire.WireModel] = getattr(wire, name)
    assert set(json.loads(text)) == set(model.model_fields)
    stated = {field: json.loads(text)[field] for field in SHOWN_FILLED.get(name, ())}
    assert model.model_validate_json(text).model_dump() == model.model_validate(stated).model_dump()


def test_every_action_is_in_the_table(served: Served) -> None:
    with flight.connect(served.flight_url) as client:
        actions = {action.type for action in client.list_actions()}
    assert {row[0].strip("`") for row in table_after("### do_action")} == actions


def test_what_each_scope_opens_is_in_the_table() -> None:
    needed = {**METHODS, **{name: action.access for name, action in ACTIONS.items()}}
    assert None not in needed.values()
    for scope, methods, actions in table_after("## Open or closed"):
        wanted = None if scope == "any" else scope.strip("`")
        listed = set(re.findall(r"\w+", f"{methods} {actions}"))
        assert listed == {name for name, access in needed.items() if access and access.scope == wanted}, scope


def test_every_error_is_in_the_table() -> None:
    rows = {row[0].strip("`"): (row[1], int(row[2])) for row in table_after("## Errors")}
    known = {cls.code: (FLIGHT_CLASSES[cls].__name__, STATUS[cls]) for cls in error_classes()}
    assert rows == known


def test_every_column_is_named() -> None:
    upload = " ".join(row[0] for row in table_after("### do_put: upload"))
    assert set(re.findall(r"`(\w+)`", upload)) == {*UPLOAD_COLUMNS, *PROBABILITY_COLUMNS}
    listed = re.search(r"All that there are:\s+`([^`]+)`", WIRE)
    assert listed
    assert sorted(listed[1].split(", ")) == sorted(COLUMN_TYPES)


def test_the_changelog_knows_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{__version__}]" in changelog


def test_decisions_have_a_number_and_three_parts() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name.partition("-")[0] for page in pages]
    assert numbers == sorted(set(numbers))
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequence"], page.name
