"""Random histories of writes, and random reads of them.

The instants are few, so that ties, corrections of old revisions and late arrivals happen all the time, and they lie on
the days on which the clocks of Stockholm change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from tests.behaviour.oracle import micros

SERIES = 3
ZONE = "Europe/Stockholm"


def utc(text: str) -> int:
    """Microseconds of a UTC time such as ``2025-03-29 22:59``."""
    return micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


# Around both changes of the clocks, local midnights, and instants that no forecast is about but that must survive.
VALID_TIMES = [
    utc("2025-03-29 22:59"),
    utc("2025-03-29 23:00"),
    utc("2025-03-30 01:00"),
    utc("2025-03-30 22:00"),
    utc("2025-10-26 00:30"),
    utc("2025-10-26 01:30"),
    utc("2025-10-26 23:00"),
    utc("1969-12-31 23:59:59.999999"),
    utc("2262-04-12 00:00"),
]
# The day-ahead gates of those days (10:00 local time is 09:00 or 08:00 UTC), on the dot and a microsecond beside.
KNOWN_TIMES = [
    utc("2025-03-29 09:00"),
    utc("2025-03-29 09:00:00.000001"),
    utc("2025-03-30 08:00"),
    utc("2025-10-25 08:00"),
    utc("2025-10-25 08:00:00.000001"),
    utc("2025-10-26 09:00"),
]
VALUES = [None, float("nan"), -0.0, 0.0, 1.5, 2.5, float("inf"), float("-inf"), 5e-324, -1.7976931348623157e308]
ANNOTATIONS = [None, "", "  ", "checked", "Åsa's “fix”\n"]
TAGS = [None, [], [" "], ["Late", "late ", "b"], ["a"], ["Ä", "a"]]


@dataclass(frozen=True)
class NewRow:
    """A row of an upload; the series is an index."""

    series: int
    valid_time: int
    length: int | None
    known_time: int | None
    value: float | None
    annotation: str | None
    tags: list[str] | None


@dataclass(frozen=True)
class Upload:
    """One run."""

    known_time: int
    rows: list[NewRow]
    skip_unchanged: bool


@dataclass(frozen=True)
class Correction:
    """A correction of one row of the history; ``target`` counts them round and round."""

    target: int
    address: str
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Withdrawal:
    """A run taken back; ``target`` counts the runs round and round."""

    target: int
    reason: str | None


@dataclass(frozen=True)
class Compaction:
    """A compaction of everything: it must not change any answer."""


Write = Upload | Correction | Withdrawal | Compaction


@dataclass(frozen=True)
class Read:
    """A read; ``as_of`` is a share of the history (0 is before it, 1 is all of it)."""

    view: str
    all_versions: bool
    filters: dict[str, Any]
    as_of: float | None
    series: list[int]


def new_rows() -> st.SearchStrategy[list[NewRow]]:
    """Rows of one upload, no revision twice."""
    row = st.builds(
        NewRow,
        series=st.integers(0, SERIES - 1),
        valid_time=st.sampled_from(VALID_TIMES),
        length=st.sampled_from([None, None, 3_600_000_000, 900_000_000]),
        known_time=st.sampled_from([None, *KNOWN_TIMES]),
        value=st.sampled_from(VALUES),
        annotation=st.sampled_from(ANNOTATIONS),
        tags=st.sampled_from(TAGS),
    )
    # A None known_time means the run's, which may be among the others: keep one of them by leaving it out of the key.
    return st.lists(row, min_size=1, max_size=8, unique_by=lambda row: (row.series, row.valid_time, row.length))


def upload_rows() -> st.SearchStrategy[list[NewRow]]:
    """Rows of one upload in which one valid_time may come with several known_times."""
    several = st.lists(st.sampled_from(KNOWN_TIMES), min_size=1, max_size=3, unique=True)

    def spread(pair: tuple[list[NewRow], list[int]]) -> list[NewRow]:
        rows, known_times = pair
        first = rows[0]
        copies = [
            NewRow(first.series, first.valid_time, first.length, known, VALUES[index], None, None)
            for index, known in enumerate(known_times)
        ]
        return [*copies, *rows[1:]]

    return st.one_of(new_rows(), st.tuples(new_rows(), several).map(spread))


def changes() -> st.SearchStrategy[dict[str, Any]]:
    """The tri-state fields of a correction: left out, null, or set."""
    fields = {
        "value": st.sampled_from([*VALUES, 7.0]),
        "annotation": st.sampled_from(ANNOTATIONS),
        "tags": st.sampled_from(TAGS),
        "retracted": st.sampled_from([True, False, False, None]),
    }
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


def histories(*, skips: bool = True) -> st.SearchStrategy[list[Write]]:
    """Some writes, the first of them an upload; ``skips``: whether uploads may ask for skip_unchanged."""
    uploads = st.builds(
        Upload,
        known_time=st.sampled_from(KNOWN_TIMES),
        rows=upload_rows(),
        skip_unchanged=st.sampled_from([False, False, True]) if skips else st.just(False),
    )
    corrections = st.builds(
        Correction,
        target=st.integers(0, 30),
        address=st.sampled_from(["value_id", "run", "winner"]),
        changes=changes(),
    )
    withdrawals = st.builds(Withdrawal, target=st.integers(0, 5), reason=st.sampled_from([None, "wrong weather"]))
    later = st.one_of(uploads, uploads, corrections, corrections, withdrawals, st.builds(Compaction))
    return st.tuples(uploads, st.lists(later, min_size=2, max_size=9)).map(lambda pair: [pair[0], *pair[1]])


def reads() -> st.SearchStrategy[Read]:
    """A read with some of the filters."""

    def bounds(start: str, end: str, instants: list[int]) -> st.SearchStrategy[dict[str, int]]:
        edges = sorted({edge + shift for edge in instants for shift in (0, 1)})
        pair = st.tuples(st.sampled_from(edges), st.sampled_from(edges)).map(sorted)
        return st.one_of(
            st.just({}),
            pair.map(lambda two: {start: two[0], end: two[1]}),
            pair.map(lambda two: {start: two[0]}),
            pair.map(lambda two: {end: two[1]}),
        )

    gates = st.fixed_dictionaries(
        {
            "days_ahead": st.integers(0, 2),
            "time_of_day": st.sampled_from(["10:00", "02:30", "00:00", "08:00:01"]),
            "time_zone": st.sampled_from([ZONE, "UTC", "America/St_Johns"]),
        }
    )
    relative = st.one_of(st.none(), st.none(), gates)
    filters = st.tuples(
        bounds("start_valid", "end_valid", VALID_TIMES), bounds("start_known", "end_known", KNOWN_TIMES), relative
    ).map(lambda parts: {**parts[0], **parts[1], **({"relative": parts[2]} if parts[2] else {})})
    return st.builds(
        Read,
        view=st.sampled_from(["flat", "overlapping"]),
        all_versions=st.booleans(),
        filters=filters,
        as_of=st.one_of(st.none(), st.floats(0, 1)),
        series=st.one_of(
            st.just(list(range(SERIES))), st.lists(st.integers(0, SERIES - 1), min_size=1, max_size=2, unique=True)
        ),
    )


__all__ = ["Compaction", "Correction", "Read", "Upload", "Withdrawal", "Write", "histories", "reads"]
