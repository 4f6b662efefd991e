"""Readers beside a writer that uploads, corrects and withdraws, and beside compaction and maintenance.

Each answer must be that of the server as of one moment: of the one that the answer names where it does, else of one
between the newest write before the read and the newest after it. The server's answers must be the oracle's.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl
import pyarrow as pa

from tests.behaviour.doors import Door, StorageDoor
from tests.behaviour.histories import (
    KNOWN_TIMES,
    SERIES,
    VALID_TIMES,
    ZONE,
    Correction,
    NewRow,
    Read,
    Upload,
    Withdrawal,
    Write,
)
from tests.behaviour.oracle import micros
from tests.behaviour.playing import Played, plain
from timedb.contract.columns import META_AS_OF
from timedb.contract.times import parse_time
from timedb.storage import Tenant
from timedb.storage.tables.commit_marks import CHANGE_TIME

EVERYTHING = Read("flat", False, (None, None), (None, None), None, None, None, list(range(SERIES)))
GATE = {"days_ahead": 1, "time_of_day": "10:00", "time_zone": ZONE}
_BETWEEN_CHORES = 12
WINDOWS = {"window_length": "P1D", "issue_offset": "-PT14H", "start_window": "2025-03-28T23:00:00+00:00"}


class Reader(Protocol):
    """What reads a view, and says which reads it knows."""

    def read(self, view: str = "flat", *, all_versions: bool = False, **filters: Any) -> pa.Table: ...
    def can(self, read: Read) -> Read: ...


def every_read() -> list[Read]:
    """Every view, and every filter of one."""

    def like(view: str = "flat", all_versions: bool = False, **fields: Any) -> Read:
        return Read(**{**EVERYTHING.__dict__, "view": view, "all_versions": all_versions, **fields})

    return [
        *(like() for _ in range(3)),
        *(like("overlapping") for _ in range(2)),
        like("flat", True),
        like("overlapping", True),
        like("latest"),
        like("first"),
        like(as_of=0.7),
        like("overlapping", as_of=0.4),
        like("flat", True, as_of=0.8),
        like(known=(None, 0.7)),
        like("latest", known=(0.3, None)),
        like("overlapping", valid=(0.2, 0.8), series=[0, 2]),
        like("overlapping", True, valid=(None, 0.5), known=(0.2, 0.9)),
        like(relative=GATE),
        like(relative={**WINDOWS, "time_zone": ZONE}),
        like("latest", lead_time="PT13H"),
        like(series=[1]),
    ]


def some_writes(seed: int, count: int) -> list[Write]:
    """Writes to a few points, so that each of them moves what the views show."""
    chance = random.Random(seed)

    def upload(number: int) -> Upload:
        rows = [
            NewRow(series, chance.choice(VALID_TIMES[:4]), None, None, number + chance.random(), None, None)
            for series in range(SERIES)
        ]
        return Upload(known_time=chance.choice(KNOWN_TIMES[:3]), rows=rows, skip_unchanged=False)

    writes: list[Write] = [upload(0)]
    for number in range(1, count):
        changes: dict[str, Any] = chance.choice([{"value": -1.0 * number}, {"retracted": True}])
        correction = Correction(chance.randrange(50), "value_id", changes)
        kinds: list[Write] = [upload(number), upload(number), correction, Withdrawal(chance.randrange(20), None)]
        writes.append(chance.choice(kinds))
    return writes


class Race:
    """A writer and some chores, each in a thread of its own.

    Args:
        door: What the writer writes through.
        tenant: The tenant whose tables are read, to be asked for the answers that are right.
        writes: What the writer writes.
        chores: What goes on besides, again and again.
    """

    def __init__(
        self, door: Door, tenant: Tenant, writes: Sequence[Write], chores: Mapping[str, Callable[[], object]]
    ) -> None:
        self._played = Played(door)
        self._tenant = tenant
        self._writes = writes
        self._chores = chores
        self._faults: list[tuple[str, BaseException]] = []
        self._permits = {name: threading.Semaphore(0) for name in ("writer", *chores)}
        self._over = threading.Event()
        self._seen: list[tuple[str, Read, dict[str, Any], pa.Table, tuple[int, int]]] = []
        self._moments: list[int] = []

    def run(self, readers: Mapping[str, Reader], reads: Sequence[Read]) -> None:
        """Let each reader do each read that it knows, with writes and chores under way, and compare all answers."""
        self._played.write(self._writes[0])
        self._moments.append(self._newest())
        looks = [(name, read) for read in reads for name, reader in readers.items() if reader.can(read) == read]
        random.Random(0).shuffle(looks)
        threads = [threading.Thread(target=self._write, args=(len(looks),))]
        threads += [threading.Thread(target=self._repeat, args=chore) for chore in self._chores.items()]
        for thread in threads:
            thread.start()
        try:
            for number, (name, read) in enumerate(looks):
                for position, permit in enumerate(self._permits.values()):
                    # A write may come beside each read, a chore beside few: between them rows are fresh, too.
                    if position == 0 or number % _BETWEEN_CHORES == position:
                        permit.release()
                self._look(name, readers[name], read)
        finally:
            self._over.set()
            for permit in self._permits.values():
                permit.release(len(looks))
            for thread in threads:
                thread.join()
        assert self._faults == []
        self._compare()

    def _write(self, looks: int) -> None:
        try:
            for number in range(looks):
                self._permits["writer"].acquire()
                done, wanted = (1 + share * (len(self._writes) - 1) // looks for share in (number, number + 1))
                for write in self._writes[done:wanted]:
                    self._played.write(write)
        except BaseException as fault:
            self._faults.append(("writer", fault))

    def _repeat(self, name: str, chore: Callable[[], object]) -> None:
        try:
            while self._permits[name].acquire() and not self._over.is_set():
                chore()
        except BaseException as fault:
            self._faults.append((name, fault))

    def _newest(self) -> int:
        return self._tenant.values.snapshot().transactions[CHANGE_TIME]

    def _look(self, name: str, reader: Reader, read: Read) -> None:
        fields = self._played.fields(read)
        if read.as_of is not None:
            fields["as_of"] = self._moments[round(read.as_of * (len(self._moments) - 1))]
        low = self._newest()
        answer = reader.read(read.view, all_versions=read.all_versions, **fields)
        high = self._newest()
        self._moments.append(high)
        named = (answer.schema.metadata or {}).get(META_AS_OF)
        if named is not None:
            moment = micros(parse_time(named.decode()))
            assert min(low, fields.get("as_of", low)) <= moment <= high, f"{name}: resolved to no moment of the read"
            low = high = moment
        self._seen.append((name, read, fields, answer, (low, high)))

    def _compare(self) -> None:
        self._played.learn_change_times()
        self._played.door = StorageDoor(self._tenant)
        stamps = sorted(self._played.ranks)
        expected: dict[str, pa.Table] = {}
        different: dict[str, set[str]] = defaultdict(set)
        for name, read, fields, answer, (low, high) in self._seen:
            found = comparable(answer)
            different[name].add(repr(found))
            for moment in [stamp for stamp in stamps if low <= stamp <= high]:
                at = {**fields, "as_of": min(moment, fields.get("as_of", moment))}
                key = repr((read, at))
                if key not in expected:
                    expected[key] = self._played.check(read.view, all_versions=read.all_versions, **at)
                if found == comparable(expected[key], answer.column_names):
                    break
            else:
                raise AssertionError(f"{name}: the answer to {read} is that of no moment from {low} to {high}")
        for name, answers in different.items():
            assert len(answers) > 5, f"{name} saw too little for a comparison"


def comparable(answer: pa.Table, columns: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
    """The rows of an answer, times as integers, sorted."""
    names = sorted(answer.column_names if columns is None else columns)
    assert {"series_id", "valid_time", "value"} <= set(names)
    frame = pl.DataFrame(answer.select(names)).with_columns(
        pl.col(pl.Categorical).cast(pl.String),
        pl.col(pl.Datetime).dt.epoch("us"),
        pl.col(pl.Boolean).fill_null(value=False),
    )
    return sorted((tuple(map(plain, row)) for row in frame.iter_rows()), key=repr)
