"""An independent answer to every read: DuckDB SQL over a list of rows that never touched our tables.

The oracle is told each write that the service was told. It keeps its own list of rows and answers reads with SQL
written from the definitions (``docs/wire.md``, "Meaning of the reads") and from nothing else; times are integer
microseconds since 1970 and change_time is a rank: how many writes came before.
"""

from __future__ import annotations

import math
import struct
from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

UNSET: Any = object()
"""A field of a correction that was left out: it stays as it is."""

# Some dozen rows: starting threads for them would take longer than the query.
_DUCKDB = duckdb.connect(config={"threads": 1})

SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("valid_time", pa.int64()),
        ("valid_time_end", pa.int64()),
        ("known_time", pa.int64()),
        ("run_id", pa.string()),
        ("change_rank", pa.int64()),
        ("retracted", pa.bool_()),
        ("change_time", pa.int64()),
        ("cutoff", pa.int64()),
        ("place", pa.int64()),
        ("window", pa.string()),
    ]
)

KEY = "series_id, valid_time, valid_time_end, known_time, run_id"
SLOT = "series_id, valid_time, valid_time_end"


def same_key(one: str, other: str) -> str:
    """Whether rows of two tables are of one revision."""
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in KEY.split(", "))


# Filters come before any winner is picked. The latest row of a revision stands for it, unless it is retracted.
SEEN = f"""
    versions AS (
        SELECT *, change_rank = min(change_rank) OVER (PARTITION BY {KEY}) AS is_first FROM history
    ),
    seen AS (
        SELECT * FROM versions
        WHERE list_contains($series, series_id)
          AND ($start_valid IS NULL OR valid_time >= $start_valid)
          AND ($end_valid IS NULL OR valid_time < $end_valid)
          AND ($start_known IS NULL OR known_time >= $start_known)
          AND ($end_known IS NULL OR known_time < $end_known)
          AND ($as_of IS NULL OR change_rank <= $as_of)
          AND (cutoff IS NULL OR known_time <= cutoff)
          AND ($lead IS NULL OR known_time + $lead <= valid_time)
          AND ($since IS NULL OR change_rank > $since)
          AND ($corrections = 'all' OR is_first OR $corrections = 'by_cutoff'
               AND ($end_known IS NULL OR change_time < $end_known)
               AND (cutoff IS NULL OR change_time <= cutoff)
               AND ($lead IS NULL OR change_time + $lead <= valid_time))
          AND ($run_ids IS NULL OR list_contains($run_ids, run_id))
    ),
    latest AS (
        SELECT DISTINCT ON ({KEY}) * FROM (
            SELECT *, min(change_rank) OVER (PARTITION BY {KEY}) AS published FROM seen
        ) ORDER BY change_rank DESC
    ),
    standing AS (SELECT * FROM latest WHERE NOT retracted),
    releases AS (
        SELECT {KEY}, row_number() OVER (PARTITION BY {SLOT} ORDER BY known_time, published, run_id) AS revision
        FROM standing
    ),
    newest AS (
        SELECT DISTINCT ON (series_id, "window") series_id, "window", known_time, run_id FROM standing
        ORDER BY known_time DESC, change_rank DESC, run_id DESC
    ),
    kept AS (
        SELECT standing.* FROM standing WHERE EXISTS (
            FROM newest WHERE newest.series_id = standing.series_id AND newest.run_id = standing.run_id
            AND newest.known_time = standing.known_time AND newest.window IS NOT DISTINCT FROM standing.window
        )
    ),
    winner AS (
        SELECT DISTINCT ON ({SLOT}) * FROM {{kept}} ORDER BY known_time DESC, change_rank DESC, run_id DESC
    )
"""

ANSWERS = {
    ("flat", False): "SELECT * FROM winner",
    ("overlapping", False): "SELECT * FROM {kept}",
    ("overlapping", True): "SELECT * FROM seen",
    ("changes", False): "SELECT * FROM seen",
    ("latest", False): """
        SELECT * FROM winner QUALIFY row_number() OVER (
            PARTITION BY series_id ORDER BY valid_time DESC, valid_time_end DESC NULLS LAST
        ) = 1
    """,
    ("first", False): f"""
        SELECT DISTINCT ON ({SLOT}) * FROM {{kept}} ORDER BY known_time, published, run_id
    """,
    ("flat", True): f"SELECT seen.* FROM seen JOIN winner ON {same_key('seen', 'winner')}",
}


LAST = """
    SELECT * FROM every QUALIFY $last IS NULL OR $last >= dense_rank() OVER (
        PARTITION BY series_id ORDER BY valid_time DESC, valid_time_end DESC NULLS LAST
    )
"""


def query_of(view: str, select: str, *, all_versions: bool = False, newest_run: bool = False) -> str:
    """The query of a read's answer, which it calls ``answer``."""
    answer = f"WITH {SEEN}, every AS ({ANSWERS[view, all_versions]}), answer AS ({LAST}) {select}"
    return answer.format(kept="kept" if newest_run else "standing")


Version = tuple[str, int, int | None, int, str, int, bool]
"""Of a row what decides: series, valid_time, valid_time_end, known_time, run_id, change_rank and retracted."""


def chosen(
    history: Sequence[Version],
    view: str = "flat",
    *,
    all_versions: bool = False,
    series: Sequence[str] | None = None,
    start_valid: int | None = None,
    end_valid: int | None = None,
    start_known: int | None = None,
    end_known: int | None = None,
    as_of: int | None = None,
    relative: dict[str, Any] | None = None,
    lead_time: str | None = None,
    since: int | None = None,
    run_ids: Sequence[str] | None = None,
    corrections: str = "all",
    newest_run: bool = False,
    last: int | None = None,
    numbered: bool = False,
    times: Mapping[int, int] | None = None,
) -> list[tuple[int, int | None]]:
    """The rows that a read must return, in no particular order: the place of each, and which revision of its point it
    is of those that stand, if they are to be ``numbered``. ``times``: change_rank → change_time.
    """
    rows = []
    for place, version in enumerate(history):
        window, gate = window_of(version[1], **relative) if relative else (None, None)
        rows.append((*version, (times or {}).get(version[5]), gate, place, window))
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    _DUCKDB.register("history", pa.table([*map(list, columns)], schema=SCHEMA))
    numbers = f"SELECT place, revision FROM answer LEFT JOIN releases ON {same_key('answer', 'releases')}"
    select = numbers if numbered else "SELECT place, NULL FROM answer"
    answer = _DUCKDB.execute(
        query_of(view, select, all_versions=all_versions, newest_run=newest_run),
        {
            "series": sorted({version[0] for version in history}) if series is None else series,
            "start_valid": start_valid,
            "end_valid": end_valid,
            "start_known": start_known,
            "end_known": end_known,
            "as_of": as_of,
            "lead": None if lead_time is None else LENGTHS[lead_time].elapsed,
            "since": since,
            "run_ids": run_ids,
            "corrections": corrections,
            "last": last,
        },
    )
    return answer.fetchall()


@dataclass(frozen=True)
class Row:
    """One version of one revision, as it stands in the history."""

    series_id: str
    valid_time: int
    valid_time_end: int | None
    known_time: int
    run_id: str
    change_rank: int
    value: float | None
    annotation: str | None
    tags: tuple[str, ...] | None
    retracted: bool
    revision: int | None = None
    """Of a row of an answer: which revision of its point it is."""

    @property
    def key(self) -> tuple[str, int, int | None, int, str]:
        """The revision key."""
        return (self.series_id, self.valid_time, self.valid_time_end, self.known_time, self.run_id)


class Oracle:
    """The history of some series and the answers that follow from it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.writes = 0
        self.withdrawals: set[int] = set()

    # Writes

    def upload(self, rows: Iterable[Row], *, skip_unchanged: bool = False) -> int:
        """Add a run; return how many of its rows were skipped as unchanged."""
        rank = self.writes + 1
        arrived = [
            replace(row, change_rank=rank, annotation=clean_text(row.annotation), tags=clean_tags(row.tags))
            for row in rows
        ]
        standing = self.answer("overlapping") if skip_unchanged else []
        kept: list[Row] = []
        for row in sorted(arrived, key=lambda row: row.known_time):
            before = predecessor(row, [*standing, *kept]) if skip_unchanged else None
            if before is None or not same_content(before, row):
                kept.append(row)
        self.rows += kept
        self.writes += bool(kept)
        return len(arrived) - len(kept)

    def correct(
        self, target: Row, *, value: Any = UNSET, annotation: Any = UNSET, tags: Any = UNSET, retracted: Any = UNSET
    ) -> bool:
        """Correct a revision; return False where that changes nothing."""
        last = self.latest(target)
        new = replace(
            last,
            value=last.value if value is UNSET else value,
            annotation=last.annotation if annotation is UNSET else clean_text(annotation),
            tags=last.tags if tags is UNSET else clean_tags(tags),
            retracted=last.retracted if retracted is UNSET else bool(retracted),
        )
        if same_content(last, new) and last.retracted == new.retracted:
            return False
        self.writes += 1
        self.rows.append(replace(new, change_rank=self.writes))
        return True

    def withdraw(self, run_id: str, reason: str | None = None, series_ids: list[str] | None = None) -> int:
        """Retract what stands of a run; return how many rows that were."""
        standing = [
            row
            for row in self.answer("overlapping")
            if row.run_id == run_id and (series_ids is None or row.series_id in series_ids)
        ]
        self.writes += bool(standing)
        self.withdrawals |= {self.writes} if standing else set()
        for row in standing:
            note = row.annotation if clean_text(reason) is None else clean_text(reason)
            self.rows.append(replace(row, change_rank=self.writes, retracted=True, annotation=note))
        return len(standing)

    def restore(self, run_id: str, reason: str | None = None) -> tuple[int, int]:
        """Undo the withdrawals of a run; return how many rows stand again, and how many single retractions stay.

        A row's last word may be retracted since several versions: what the first of them was decides.
        """
        chains = self.chains(run_id)
        gone = [chain for chain in chains if chain[-1].retracted]
        back: list[Row] = []
        for chain in gone:
            since = retracted_since(chain)
            if chain[since].change_rank in self.withdrawals or len(chains) == 1:
                note = clean_text(reason)
                if note is None:
                    untouched = chain[-1].annotation == chain[since].annotation
                    note = (chain[since - 1].annotation if since else None) if untouched else chain[-1].annotation
                back.append(replace(chain[-1], retracted=False, annotation=note))
        self.writes += bool(back)
        self.rows += [replace(row, change_rank=self.writes) for row in back]
        return len(back), len(gone) - len(back)

    def collapse(self) -> int:
        """Take out the repeats, however young; return how many rows that were."""
        slots: dict[Any, list[list[Row]]] = {}
        for run_id in {row.run_id for row in self.rows}:
            for chain in self.chains(run_id):
                slots.setdefault(chain[-1].key[:3], []).append(chain)
        gone = set()
        for chains in slots.values():
            chains.sort(key=lambda chain: (chain[-1].known_time, chain[-1].change_rank, chain[-1].run_id))
            for place, (before, chain) in enumerate(pairwise(chains), 1):
                untouched = len(before) == len(chain) == 1 and not (before[0].retracted or chain[0].retracted)
                beaten = any(not later[-1].retracted for later in chains[place + 1 :])
                if untouched and beaten and same_content(before[0], chain[0]):
                    gone.add(chain[0].key)
        self.rows = [row for row in self.rows if row.key not in gone]
        return len(gone)

    def withdrawn(self, run_id: str) -> tuple[int, int | None]:
        """How many rows of a run are withdrawn, and the write that took the last of them, if none stands."""
        chains = self.chains(run_id)
        gone = [chain for chain in chains if chain[-1].retracted]
        if not gone or len(gone) < len(chains):
            return len(gone), None
        return len(gone), max(chain[retracted_since(chain)].change_rank for chain in gone)

    def chains(self, run_id: str) -> list[list[Row]]:
        """The versions of each row of a run, oldest first."""
        found: dict[Any, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: row.change_rank):
            if row.run_id == run_id:
                found.setdefault(row.key, []).append(row)
        return list(found.values())

    # Reads

    def latest(self, target: Row) -> Row:
        """The newest version of a revision."""
        return max((row for row in self.rows if row.key == target.key), key=lambda row: row.change_rank)

    def answer(self, view: str = "flat", **asked: Any) -> list[Row]:
        """The rows that a read must return, in no particular order; arguments as of :func:`chosen`."""
        history = [(*row.key, row.change_rank, row.retracted) for row in self.rows]
        return [replace(self.rows[place], revision=number) for place, number in chosen(history, view, **asked)]


def retracted_since(chain: Sequence[Any]) -> int:
    """The place of the version since which the versions of a row have been retracted."""
    return max((place + 1 for place, row in enumerate(chain) if not row.retracted), default=0)


def predecessor(row: Row, rivals: Iterable[Row]) -> Row | None:
    """The revision that would answer "what was known at that time?" if the row were not there."""
    here = (row.series_id, row.valid_time, row.valid_time_end)
    known = [
        each
        for each in rivals
        if (each.series_id, each.valid_time, each.valid_time_end) == here and each.known_time <= row.known_time
    ]
    return max(known, key=lambda each: (each.known_time, each.change_rank, each.run_id), default=None)


def clean_text(text: str | None) -> str | None:
    """Blank text is null."""
    return text if text and text.strip() else None


def clean_tags(tags: Iterable[str] | None) -> tuple[str, ...] | None:
    """Trimmed, lower-cased, distinct, sorted; none left is null."""
    return tuple(sorted({tag.strip().lower() for tag in tags or ()} - {""})) or None


def same_content(one: Row, other: Row) -> bool:
    """Equal value, annotation and tags; null equals null, NaN equals NaN and -0.0 equals 0.0."""
    same_value = one.value == other.value or float_bits(one.value) == float_bits(other.value)
    return same_value and (one.annotation, one.tags) == (other.annotation, other.tags)


def float_bits(value: float | None) -> int | None:
    """A float as an integer that tells -0.0 from 0.0 and makes all NaN equal."""
    if value is None:
        return None
    return -1 if math.isnan(value) else int.from_bytes(struct.pack(">d", value), "big")


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Length:
    """What a text says of a length of time; the calendar's parts do not convert into time."""

    months: int = 0
    days: int = 0
    micros: int = 0

    @property
    def elapsed(self) -> int:
        """Microseconds, a day being 24 hours."""
        return self.days * 24 * HOUR + self.micros


HOUR = 3_600_000_000
LENGTHS = {
    "PT0S": Length(),
    "0s": Length(),
    "PT13H": Length(micros=13 * HOUR),
    "14h": Length(micros=14 * HOUR),
    "PT37H30M": Length(micros=37 * HOUR + HOUR // 2),
    "PT6H": Length(micros=6 * HOUR),
    "90m": Length(micros=HOUR + HOUR // 2),
    "-PT14H": Length(micros=-14 * HOUR),
    "-PT1H": Length(micros=-HOUR),
    "-P1D": Length(days=-1),
    "-P45D": Length(days=-45),
    "-P1M": Length(months=-1),
    "P1D": Length(days=1),
    "2d": Length(days=2),
    "P1M": Length(months=1),
}
"""The lengths that histories use, as they are meant."""


def window_of(valid_time: int, **relative: Any) -> tuple[str, int]:
    """The window that holds a valid_time, and when it closed."""
    if "window_length" in relative:
        begin, closed = general_window(valid_time, **relative)
        return str(begin), closed
    return daily_window(valid_time, **relative)


def daily_window(valid_time: int, days_ahead: int, time_of_day: str, time_zone: str) -> tuple[str, int]:
    """The local day that a valid_time lies on, and when its gate closed."""
    zone = ZoneInfo(time_zone)
    day: date = local(valid_time, zone).date()
    gate = day - timedelta(days=days_ahead)
    return day.isoformat(), first_instant(datetime.fromisoformat(f"{gate.isoformat()}T{time_of_day}"), zone)


def general_window(
    valid_time: int, window_length: str, issue_offset: str, start_window: str, time_zone: str = "UTC"
) -> tuple[int, int]:
    """When the window that holds a valid_time begins, and when it closed: windows are tried one by one around where it
    must lie.
    """
    zone, length, start = ZoneInfo(time_zone), LENGTHS[window_length], micros(datetime.fromisoformat(start_window))
    days = length.months * 30.44 + length.days + length.micros / (24 * HOUR)
    near = int((valid_time - start) / (24 * HOUR) // days)
    begins = [
        shifted(start, Length(number * length.months, number * length.days, number * length.micros), zone)
        for number in range(near - 3, near + 4)
    ]
    begin = max(begin for begin in begins if begin <= valid_time)
    return begin, shifted(begin, LENGTHS[issue_offset], zone)


def shifted(instant: int, by: Length, zone: ZoneInfo) -> int:
    """An instant moved on the calendar of a zone, at the same time of day, and then by time."""
    if by.months or by.days:
        wall = local(instant, zone)
        month = wall.year * 12 + wall.month - 1 + by.months
        days = monthrange(month // 12, month % 12 + 1)[1]
        wall = wall.replace(year=month // 12, month=month % 12 + 1, day=min(wall.day, days)) + timedelta(days=by.days)
        instant = first_instant(wall, zone)
    return instant + by.micros


def local(instant: int, zone: ZoneInfo) -> datetime:
    """What the clocks of a zone show."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).astimezone(zone).replace(tzinfo=None)


@cache
def first_instant(wall: datetime, zone: ZoneInfo) -> int:
    """When the clocks of a zone show a time.

    A local time that the clocks skip is the first instant that exists after it, one that they repeat the earlier.
    """
    # Minute by minute through that day in UTC: the first instant whose wall clock shows the time or a later one.
    minute = wall.replace(second=0, microsecond=0)
    instant = (minute - timedelta(hours=15)).replace(tzinfo=UTC)
    while instant.astimezone(zone).replace(tzinfo=None) < minute:
        instant += timedelta(minutes=1)
    exact = instant.astimezone(zone).replace(tzinfo=None) == minute
    return micros(instant + (wall - minute if exact else timedelta(0)))
