"""Readers beside a writer that uploads, corrects, withdraws and compacts: each answer is that of one moment."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from tests.behaviour.doors import Door
from tests.behaviour.histories import SERIES, Compaction, Correction, NewRow, Upload, Withdrawal, Write
from tests.behaviour.oracle import Oracle
from tests.behaviour.playing import Played, plain

COLUMNS = ["series_id", "valid_time", "valid_time_end", "known_time", "run_id", "value"]
Read = Callable[[str, list[str]], pa.Table]
"""Reads a view of some series."""


def some_writes(seed: int, count: int) -> list[Write]:
    """Writes to a few points, so that each of them moves what the views show."""
    chance = random.Random(seed)

    def upload(number: int) -> Upload:
        rows = [
            NewRow(series, chance.randrange(3), None, None, number + chance.random(), None, None)
            for series in range(SERIES)
        ]
        return Upload(known_time=number // 2, rows=rows, skip_unchanged=False)

    writes: list[Write] = [upload(0)]
    for number in range(1, count):
        correction = Correction(
            chance.randrange(50), "value_id", chance.choice([{"value": -1.0 * number}, {"retracted": True}])
        )
        kinds: list[Write] = [
            upload(number),
            upload(number),
            correction,
            Withdrawal(chance.randrange(20), None),
            Compaction(),
        ]
        writes.append(chance.choice(kinds))
    return writes


class Race:
    """A writer in a thread of its own.

    Args:
        door: What the writer writes through.
        writes: What it writes.
    """

    def __init__(self, door: Door, writes: list[Write]) -> None:
        self._played = Played(door)
        self._writes = writes
        self._rows = [0]  # how many rows of the oracle's there were after so many writes
        self._seen: list[tuple[str, str, list[Any], range]] = []
        self._fault: BaseException | None = None
        self._permits = threading.Semaphore(0)

    def run(self, readers: Mapping[str, Read]) -> None:
        """Let a few writes happen while each reader in turn reads, until all are done, and compare."""
        writer = threading.Thread(target=self._write)
        writer.start()
        try:
            while len(self._rows) <= len(self._writes) and writer.is_alive():
                for name, read in readers.items():
                    for view in ("flat", "overlapping"):
                        self._look(name, read, view)
        finally:
            self._permits.release(len(self._writes))
            writer.join()
        assert self._fault is None, self._fault
        self._compare()

    def _write(self) -> None:
        try:
            for write in self._writes:
                self._permits.acquire()
                self._played.write(write)
                self._rows.append(len(self._played.oracle.rows))
        except BaseException as fault:
            self._fault = fault

    def _look(self, name: str, read: Read, view: str) -> None:
        first = len(self._rows) - 1
        self._permits.release()
        answer = read(view, self._played.series)
        # The write under way may be visible already.
        moments = range(first, len(self._rows) + 1)
        self._seen.append((name, view, comparable(answer), moments))

    def _compare(self) -> None:
        expected: dict[tuple[str, int], list[Any]] = {}
        for name, view, answer, moments in self._seen:
            for rows in {self._rows[min(moment, len(self._writes))] for moment in moments}:
                if (view, rows) not in expected:
                    expected[view, rows] = self._answer(view, rows)
                if expected[view, rows] == answer:
                    break
            else:
                raise AssertionError(f"{name}: the {view} view is that of no moment in {moments}")
        for name in {name for name, *_ in self._seen}:
            different = {repr(answer) for one, _, answer, _ in self._seen if one == name}
            assert len(different) > 2, f"{name} saw too little for a comparison"

    def _answer(self, view: str, rows: int) -> list[Any]:
        oracle = Oracle()
        oracle.rows = self._played.oracle.rows[:rows]
        found = [[getattr(row, name) for name in COLUMNS] for row in oracle.answer(view, series=self._played.series)]
        return sorted(map(plain_row, found), key=repr)


def comparable(answer: pa.Table) -> list[Any]:
    """The rows of an answer, times as integers, sorted."""
    frame = pl.DataFrame(answer.select(COLUMNS)).with_columns(
        pl.col(pl.Categorical).cast(pl.String), pl.col(pl.Datetime).dt.epoch("us")
    )
    return sorted((plain_row(list(row)) for row in frame.iter_rows()), key=repr)


def plain_row(row: list[Any]) -> tuple[Any, ...]:
    """A row of plain cells."""
    return tuple(plain(cell) for cell in row)
