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
WORKFLOWS = 2
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
    """A row of an upload; the series is an index, and a known_time of None the run's."""

    series: int
    valid_time: int
    length: int | None
    known_time: int | None
    value: float | None
    annotation: str | None
    tags: list[str] | None


@dataclass(frozen=True)
class Upload:
    """One run; of rows with the same revision key the last is sent."""

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
class Restoration:
    """A run whose withdrawals are undone; ``target`` as above."""

    target: int
    reason: str | None


@dataclass(frozen=True)
class Compaction:
    """A compaction of everything: it must not change any answer."""


Write = Upload | Correction | Withdrawal | Restoration | Compaction


Bounds = tuple[float | None, float | None]
"""Start and end as shares of the instants that a history has, so that they fall between its rows."""


@dataclass(frozen=True)
class Read:
    """A read; ``as_of`` is a share of the history (0 is before it, 1 is all of it)."""

    view: str
    all_versions: bool
    valid: Bounds
    known: Bounds
    relative: dict[str, Any] | None
    lead_time: str | None
    as_of: float | None
    series: list[int]
    runs: list[int] | None = None
    """Of these runs, counted round and round."""
    workflow: int | None = None
    """Of the runs of this workflow, counted round and round."""
    corrections: str | None = None
    newest_run: bool = False
    revision: bool = False
    """Whether the answer has that column, too."""
    last: int | None = None
    """Of each series only the last so many points."""


def some(draw: st.DrawFn, instants: list[int], most: int) -> st.SearchStrategy[int]:
    """A few of the instants: the fewer a history has, the more its writes meet."""
    return st.sampled_from(draw(st.lists(st.sampled_from(instants), min_size=1, max_size=most, unique=True)))


def changes() -> st.SearchStrategy[dict[str, Any]]:
    """The tri-state fields of a correction: left out, null, or set."""
    fields = {
        "value": st.sampled_from([*VALUES, 7.0]),
        "annotation": st.sampled_from(ANNOTATIONS),
        "tags": st.sampled_from(TAGS),
        "retracted": st.sampled_from([True, False, False, None]),
    }
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


@st.composite
def histories(draw: st.DrawFn, *, skips: bool = True) -> list[Write]:
    """Some writes, the first of them an upload; ``skips``: whether uploads may ask for skip_unchanged."""
    known_times = some(draw, KNOWN_TIMES, 3)
    row = st.builds(
        NewRow,
        series=st.integers(0, draw(st.integers(0, SERIES - 1))),
        valid_time=some(draw, VALID_TIMES, 3),
        length=st.sampled_from(draw(st.sampled_from([[None], [None, None, 3_600_000_000], [900_000_000]]))),
        known_time=st.one_of(st.none(), known_times),
        value=st.sampled_from(draw(st.lists(st.sampled_from(VALUES), min_size=2, max_size=4))),
        annotation=st.sampled_from(draw(st.sampled_from([[None], ANNOTATIONS]))),
        tags=st.sampled_from(draw(st.sampled_from([[None], TAGS]))),
    )
    uploads = st.builds(
        Upload,
        known_time=known_times,
        rows=st.lists(row, min_size=3, max_size=10),
        skip_unchanged=st.sampled_from([False, False, True]) if skips else st.just(False),
    )
    corrections = st.builds(
        Correction,
        target=st.integers(0, 30),
        address=st.sampled_from(["value_id", "run", "winner"]),
        changes=changes(),
    )
    withdrawals = st.builds(Withdrawal, target=st.integers(0, 5), reason=st.sampled_from([None, "wrong weather"]))
    restorations = st.builds(Restoration, target=st.integers(0, 5), reason=st.sampled_from([None, None, "right"]))
    takings = st.one_of(withdrawals, restorations)
    compactions = st.builds(Compaction)
    later = st.one_of(uploads, uploads, uploads, corrections, corrections, takings, compactions, compactions)
    return [draw(uploads), *draw(st.lists(later, min_size=5, max_size=10))]


def reads() -> st.SearchStrategy[Read]:
    """A read with some of the filters."""
    share = st.floats(0, 1)
    bounds = st.one_of(
        st.just((None, None)), st.tuples(share, st.none()), st.tuples(st.none(), share), st.tuples(share, share)
    )
    gates = st.fixed_dictionaries(
        {
            "days_ahead": st.integers(1, 2),
            "time_of_day": st.sampled_from(["10:00", "02:30", "00:00", "08:00:01"]),
            "time_zone": st.sampled_from([ZONE, "UTC", "America/St_Johns"]),
        }
    )
    windows = st.sampled_from(
        [
            {"window_length": "PT6H", "issue_offset": "-PT1H", "start_window": "2025-03-29T00:00:00+00:00"},
            {"window_length": "90m", "issue_offset": "-P1D", "start_window": "2026-01-01T00:10:00+00:00"},
            {"window_length": "P1D", "issue_offset": "-PT14H", "start_window": "2025-03-28T23:00:00+00:00"},
            {"window_length": "2d", "issue_offset": "-P1D", "start_window": "2025-03-28T01:30:00+00:00"},
            {"window_length": "P1M", "issue_offset": "-P1D", "start_window": "2025-01-31T00:00:00+00:00"},
            {"window_length": "P1M", "issue_offset": "PT0S", "start_window": "2025-12-30T12:00:00+00:00"},
        ]
    )
    zones = st.sampled_from([ZONE, "UTC", "America/St_Johns"])
    windows = st.builds(lambda window, zone: {**window, "time_zone": zone}, windows, zones)
    cut_offs = st.one_of(
        st.fixed_dictionaries({"relative": st.one_of(gates, windows)}),
        st.fixed_dictionaries(
            {"lead_time": st.sampled_from(["0s", "PT13H", "14h", "PT37H30M", "-PT1H", "-PT14H", "-P1D", "-P45D"])}
        ),
    )
    usual = {
        "view": st.sampled_from(["flat", "flat", "overlapping", "latest", "first"]),
        "all_versions": st.just(False),
    }
    chains = {"view": st.sampled_from(["flat", "overlapping"]), "all_versions": st.just(True)}
    everything = st.just(list(range(SERIES)))
    kinds = [st.fixed_dictionaries(kind) for kind in (usual, usual, chains)]
    return st.builds(
        _read,
        st.one_of(*kinds),
        st.one_of(st.just({}), st.just({}), cut_offs),
        valid=bounds,
        known=bounds,
        as_of=st.one_of(st.none(), st.none(), share),
        series=st.one_of(everything, st.lists(st.integers(0, SERIES - 1), min_size=1, max_size=2, unique=True)),
        runs=st.one_of(st.none(), st.none(), st.none(), st.lists(st.integers(0, 5), min_size=1, max_size=2)),
        workflow=st.sampled_from([None, None, None, None, 0, 1, WORKFLOWS]),
        corrections=st.sampled_from([None, None, None, "none", "by_cutoff"]),
        newest_run=st.sampled_from([False, False, True]),
        revision=st.sampled_from([False, False, True]),
        last=st.sampled_from([None, None, 1, 2]),
    )


def _read(kind: dict[str, Any], cut_off: dict[str, Any], newest_run: bool, last: int | None, **others: Any) -> Read:
    newest_run &= "lead_time" not in cut_off and not kind["all_versions"]
    last = None if kind["view"] == "latest" else last
    usual = {"relative": None, "lead_time": None, "newest_run": newest_run, "last": last}
    return Read(**{**usual, **kind, **cut_off, **others})


__all__ = [
    "WORKFLOWS",
    "Compaction",
    "Correction",
    "Read",
    "Restoration",
    "Upload",
    "Withdrawal",
    "Write",
    "histories",
    "reads",
]
