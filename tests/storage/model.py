"""The meaning of writes, from the definitions alone: a list of rows and nothing clever; reads are the oracle's.

What the model cannot know is when the lake stamps a write. It holds new rows without a change_time until
:meth:`Model.learn` is shown what the lake made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tests.behaviour.oracle import chosen, clean_tags, clean_text, float_bits, retracted_since
from tests.storage.lakes import Sent, Stored

UNSET: Any = object()
"""A field of a correction that was left out."""


class Model:
    """Every version of every row, in the order of their change_times once these are known."""

    def __init__(self) -> None:
        self.rows: list[Stored] = []
        self.withdrawals: set[int] = set()
        """The change_times of withdrawals; whoever makes one adds it."""

    # Writes: each returns the rows that it adds, without change_time; learn() takes them in.

    def upload(
        self, run_id: str, rows: Sequence[Sent], known_time: int, *, skip_unchanged: bool = False
    ) -> list[Stored]:
        """A run."""
        new = [
            Stored(
                row.series,
                row.valid_time,
                row.valid_time_end,
                known_time if row.known_time is None else row.known_time,
                0,
                run_id,
                float_bits(row.value),
                clean_text(row.annotation),
                clean_tags(row.tags),
                None,
                False,
            )
            for row in rows
        ]
        if not skip_unchanged:
            return new
        standing = self.answer("overlapping")
        kept: list[Stored] = []
        seen: list[Stored] = []
        for row in sorted(new, key=lambda row: row.known_time):
            before = _predecessor(row, standing, seen)
            seen.append(row)
            if before is None or content(before) != content(row):
                kept.append(row)
        return kept

    def corrected(self, target: Stored, changes: dict[str, Any], changed_by: str | None) -> Stored | None:
        """The next version of a revision, or None where the correction changes nothing."""
        last = self.latest(target.revision)
        assert last is not None
        return self._changed(last, changes, changed_by)

    def first_version(
        self, like: Stored, valid_time: int, known_time: int, changes: dict[str, Any], changed_by: str | None
    ) -> Stored | None:
        """A row that a correction adds to a run which has none there."""
        blank = Stored(like.series, valid_time, None, known_time, 0, like.run_id, None, None, None, None, False)
        return self._changed(blank, changes, changed_by) or blank._replace(changed_by=changed_by)

    def withdrawn(self, run_id: str, reason: str | None, changed_by: str | None) -> list[Stored]:
        """The retractions of what stands of a run."""
        return [
            row._replace(
                change_time=0, retracted=True, changed_by=changed_by, annotation=clean_text(reason) or row.annotation
            )
            for row in self.answer("overlapping")
            if row.run_id == run_id
        ]

    def restored(self, run_id: str, reason: str | None, changed_by: str | None) -> list[Stored]:
        """What stands again when the withdrawals of a run are undone."""
        chains = self.chains(run_id)
        back = []
        for chain in chains:
            since = retracted_since(chain)
            if since == len(chain) or not (chain[since].change_time in self.withdrawals or len(chains) == 1):
                continue
            own = chain[-1].annotation
            if own == chain[since].annotation:
                own = chain[since - 1].annotation if since else None
            note = clean_text(reason) or own
            back.append(chain[-1]._replace(change_time=0, retracted=False, changed_by=changed_by, annotation=note))
        return back

    def withdrawn_rows(self, run_id: str) -> tuple[int, bool]:
        """How many rows of a run are retracted, and whether none stands."""
        gone = [chain[-1].retracted for chain in self.chains(run_id)]
        return sum(gone), bool(gone) and all(gone)

    def chains(self, run_id: str) -> list[list[Stored]]:
        """The versions of each row of a run, oldest first."""
        found: dict[Any, list[Stored]] = {}
        for row in sorted(self.rows, key=_change_time):
            if row.run_id == run_id:
                found.setdefault(row.revision, []).append(row)
        return list(found.values())

    def learn(self, expected: Iterable[Stored], audit: Iterable[Stored]) -> list[int]:
        """Take in the rows that a write has added; the new change_times.

        Args:
            expected: The rows as the model foretold them.
            audit: Every version of everything, as the lake tells it.
        """
        newest = max((row.change_time for row in self.rows), default=-(1 << 62))
        old = [row for row in audit if row.change_time <= newest]
        assert Counter(old) == Counter(self.rows), "a write may not touch what is stored"
        new = [row for row in audit if row.change_time > newest]
        assert Counter(row.unstamped() for row in new) == Counter(expected), "the rows that were written"
        self.rows += new
        return sorted({row.change_time for row in new})

    # Reads

    def latest(self, revision: tuple[Any, ...]) -> Stored | None:
        """The newest version of a revision."""
        return max((row for row in self.rows if row.revision == revision), key=_change_time, default=None)

    def answer(self, view: str = "flat", **asked: Any) -> list[Stored]:
        """The rows of a read, in no particular order; arguments as of :func:`~tests.behaviour.oracle.chosen`."""
        history = [(*row.revision, row.change_time, row.retracted) for row in self.rows]
        return [self.rows[place] for place, _ in chosen(history, view, **asked)]

    def winner(self, target: Stored) -> Stored | None:
        """The flat winner where a row is."""
        return next((row for row in self.answer() if row.point == target.point), None)

    def _changed(self, last: Stored, changes: dict[str, Any], changed_by: str | None) -> Stored | None:
        new = last._replace(
            change_time=0,
            changed_by=changed_by,
            value=float_bits(changes["value"]) if "value" in changes else last.value,
            annotation=clean_text(changes["annotation"]) if "annotation" in changes else last.annotation,
            tags=clean_tags(changes["tags"]) if "tags" in changes else last.tags,
            retracted=bool(changes["retracted"]) if "retracted" in changes else last.retracted,
        )
        return None if (content(new), new.retracted) == (content(last), last.retracted) else new


def _predecessor(row: Stored, standing: Sequence[Stored], upload: Sequence[Stored]) -> Stored | None:
    """Of what stands and what this upload brings: what was known just before, or at the same time by others."""
    rivals = [each for each in standing if each.known_time <= row.known_time]
    rivals += [each._replace(change_time=1 << 62) for each in upload if each.known_time < row.known_time]
    rivals = [each for each in rivals if each.point == row.point]
    return max(rivals, key=lambda each: (each.known_time, each.change_time, each.run_id), default=None)


def content(row: Stored) -> tuple[Any, ...]:
    """What a correction or a skip compares: -0.0 equals 0.0, NaN equals NaN, null equals null."""
    minus_zero = float_bits(-0.0)
    return (0 if row.value == minus_zero else row.value, row.annotation, row.tags)


def _change_time(row: Stored) -> int:
    return row.change_time
