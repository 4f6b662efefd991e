"""The results of the whole campaign: one line of JSON an operation and fault in a file, and the table made of them.

``TIMEDB_TEST_CAMPAIGN`` names the file. A campaign that was stopped goes on where it was, as long as the code is the
same; lines of other code are neither trusted nor shown.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = os.environ.get("TIMEDB_TEST_CAMPAIGN")  # read before the tests' environment is cleared
ALL = bool(FILE)
"""Whether this is the whole campaign and not the short form that the suite runs."""

_CODE = ("storage", "tests/storage")


@dataclass
class Tally:
    """What the tries of one fault on one operation have shown."""

    operation: str
    fault: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to be mended."""
        return not (self.problems or self.lost or self.doubled)


def record(tally: Tally) -> None:
    """Keep a line, where this is the whole campaign."""
    if FILE:
        with open(FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps({"code": _code(), **vars(tally)}) + "\n")


def recorded() -> dict[tuple[str, str], Tally]:
    """The last line of each operation and fault that this code has."""
    return {(tally.operation, tally.fault): tally for tally in _lines()}


def stands(operation: str, fault: str) -> bool:
    """Whether a clean line is there already."""
    tally = recorded().get((operation, fault))
    return tally is not None and tally.clean


def table() -> list[str]:
    """All lines as one Markdown table."""
    rows: dict[str, list[Tally]] = {}
    for tally in recorded().values():
        rows.setdefault(tally.operation, []).append(tally)
    return ["| operation | fault: points tried | outcomes | lost | doubled |", "|---|---|---|---|---|"] + [
        _row(operation, tallies) for operation, tallies in rows.items()
    ]


def _row(operation: str, tallies: list[Tally]) -> str:
    outcomes: Counter[str] = sum((tally.outcomes for tally in tallies), Counter())
    bad = sum(len(tally.problems) for tally in tallies)
    cells = [
        operation,
        ", ".join(f"{tally.fault} {tally.tried}" for tally in tallies),
        ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        + (f", **{bad} problems**" * bool(bad)),
        sum(tally.lost for tally in tallies),
        sum(tally.doubled for tally in tallies),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _lines() -> Iterator[Tally]:
    if FILE and Path(FILE).exists():
        for line in Path(FILE).read_text(encoding="utf-8").splitlines():
            cells: dict[str, Any] = json.loads(line)
            if cells.pop("code") == _code():
                yield Tally(**{**cells, "outcomes": Counter(cells["outcomes"])})


@cache
def _code() -> str:
    digest = sha256()
    for path in sorted(path for folder in _CODE for path in (ROOT / folder).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
