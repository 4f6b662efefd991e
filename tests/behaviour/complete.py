"""The history without ``skip_unchanged``: what would be answered if every row that was sent had been stored.

It is played beside the history itself, and states where the contract lets the two differ: at the points of dropped
rows whose predecessor got another version, or was followed by a row that arrived later and is known before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.behaviour.oracle import Oracle, Row, float_bits, predecessor, same_content

Point = tuple[str, int, int | None]


@dataclass(frozen=True)
class Dropped:
    """A row that was left out, the one that it repeats, and how many writes there were by then."""

    row: Row
    before: Row
    rank: int


class Complete:
    """An oracle that is told what another one is told, and keeps the rows that this one drops."""

    def __init__(self, kept: Oracle) -> None:
        self.kept = kept
        self.oracle = Oracle()
        self.dropped: list[Dropped] = []

    def upload(self, rows: Iterable[Row]) -> None:
        """A run that the other oracle has just taken in."""
        rows = list(rows)
        self.oracle.upload(rows)
        stored = {row.key for row in self.kept.rows}
        mine = {row.key: row for row in self.oracle.rows}
        for row in rows:
            if row.key not in stored:
                before = predecessor(row, self.kept.answer("overlapping"))
                assert before is not None, "dropped, and nothing before it"
                assert same_content(before, mine[row.key]), "dropped, and no repeat"
                self.dropped.append(Dropped(row, before, self.kept.writes))

    def correct(self, target: Row, changes: dict[str, Any], *, winner: bool) -> None:
        """A correction; ``winner``: of whatever wins at the target's point."""
        if winner:
            (target,) = [row for row in self.oracle.answer() if row.key[:3] == target.key[:3]]
        self.oracle.correct(target, **changes)

    def may_differ(self) -> set[Point]:
        """The points at which the contract promises nothing."""
        return {
            one.row.key[:3]
            for one in self.dropped
            for row in self.kept.rows
            if row.change_rank > one.rank and row.key[:3] == one.row.key[:3]
            if row.key == one.before.key or one.before.known_time <= row.known_time < one.row.known_time
        }

    def differs(self) -> set[Point]:
        """The points where a flat or a known-by read says something else."""
        points = {one.row.key[:3] for one in self.dropped}
        if not points:
            return points
        cut_offs = {row.known_time + 1 for row in self.oracle.rows if row.key[:3] in points}
        return {
            point
            for end_known in (None, *sorted(cut_offs))
            for point, _ in said(self.kept, end_known=end_known) ^ said(self.oracle, end_known=end_known)
        }


def said(oracle: Oracle, **asked: Any) -> set[tuple[Point, Any]]:
    """What the flat view says of each point: its value, annotation and tags; arguments as of its other filters."""

    def content(row: Row) -> Any:
        return float_bits(0.0 if row.value == 0 else row.value), row.annotation, row.tags

    return {(row.key[:3], content(row)) for row in oracle.answer(**asked)}
