"""The commit lane of a tenant: one thread that gives every write its turn, its change_time and its place in the log.

Writes that wait are committed together. A write is acknowledged when its commit is in the log and on the disk. Other
processes may write to the same lake: every commit is a compare-and-set on the log, and who loses prepares again on
the newer snapshot, with newer stamps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from timedb.contract.errors import Busy, TimeDBError
from timedb.contract.request_id import REQUEST_ID
from timedb.contract.times import now, to_micros
from timedb.storage.boundary import our_error
from timedb.storage.catalog.catalog import StoredCatalog
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.commit.writes import Answer, Arrival, CommitContext, Prepared, ReplacementWrite, Write
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.new_files import NewFiles
from timedb.storage.delta.parquet import CORRECTION_PREFIX, UPLOAD_PREFIX, write_file
from timedb.storage.delta.table import Table
from timedb.storage.rows.rows import as_rows, gathered, in_file_order, split_buckets
from timedb.storage.rows.stamping import StampedRun, stamped
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.schemas import MIXED, MIXED_GROUP_ROWS

__all__ = ["CommitLane"]

_IDLE_SECONDS = 10.0
"""For so long the thread of a lane waits for another write before it ends; the next write starts one."""
_log = logging.getLogger("timedb.storage")


@dataclass
class _Waiting:
    write: Write | Arrival
    request_id: str = field(default_factory=REQUEST_ID.get)
    since: float = field(default_factory=time.monotonic)
    done: Future[dict[str, Any]] = field(default_factory=Future)


@dataclass
class _WaitingReplacement:
    write: ReplacementWrite
    since: float = field(default_factory=time.monotonic)
    done: Future[bool] = field(default_factory=Future)


class CommitLane:
    """One writer thread over the values table of a tenant, as long as there is anything to write.

    Args:
        values: The values table.
        catalog: The tenant's series.
        ledger: The tenant's runs and updates.
        bucket_digits: Hex digits of a series_id that name its bucket; None: all.
        max_queued: Writes that may wait; beyond it a write is refused with ``Busy``.
        group_rows: Rows that one commit gathers.
        mixed_rows: Rows of a commit up to which they are one file, whatever their series.
        clock: Stamps the writes, and refuses to where it is far wrong.
        recorded: Called when a commit has brought records that are yet to be written into their tables.
    """

    def __init__(
        self,
        values: Table,
        catalog: StoredCatalog,
        ledger: Ledger,
        *,
        bucket_digits: int | None,
        max_queued: int,
        group_rows: int,
        mixed_rows: int,
        clock: Clock,
        recorded: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._values = values
        self._catalog = catalog
        self._ledger = ledger
        self._bucket_digits = bucket_digits
        self._max_queued = max_queued
        self._group_rows = group_rows
        self._mixed_rows = mixed_rows
        self._recorded = recorded
        self._waiting: deque[_Waiting | _WaitingReplacement] = deque()
        self._turn_of: _Waiting | _WaitingReplacement | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def submit(self, write: Write | Arrival) -> dict[str, Any]:
        """Wait for the write's turn and its commit.

        Raises:
            Busy: too many writes wait, or the service is stopping.
            TimeDBError: what checking the write found, or :meth:`Write.prepare` raised.
            Internal: the commit failed; nothing was written.
        """
        waiting = _Waiting(write)
        self._enqueue(waiting)
        return waiting.done.result()

    def enqueue(self, writes: Sequence[tuple[Write | Arrival, str, Future[dict[str, Any]]]]) -> None:
        """Line writes up one behind the other, and do not wait for them; they are taken however many wait already.

        Args:
            writes: Each with the id of the request that it is of, for the log, and with what is given that which
                :meth:`submit` would return or raise.

        Raises:
            Busy: the service is stopping.
        """
        with self._changed:
            if self._closing:
                raise Busy("the service is stopping")
            self._line_up([_Waiting(write, request_id, done=done) for write, request_id, done in writes])

    def replace_files(self, write: ReplacementWrite) -> bool:
        """Wait for the turn of a replacement of files; False where it was given up.

        Raises:
            Busy: too many writes wait, or the service is stopping.
            Internal: the commit failed; nothing was changed.
        """
        waiting = _WaitingReplacement(write)
        self._enqueue(waiting)
        return waiting.done.result()

    def _enqueue(self, waiting: _Waiting | _WaitingReplacement) -> None:
        with self._changed:
            if self._closing:
                raise Busy("the service is stopping")
            if len(self._waiting) >= self._max_queued:
                raise Busy(f"{self._max_queued} writes are waiting already; retry")
            self._line_up([waiting])

    def _line_up(self, waiting: Sequence[_Waiting | _WaitingReplacement]) -> None:
        self._waiting.extend(waiting)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="timedb-commit-lane", daemon=True)
            thread.start()
            self._thread = thread  # not before: one that has not begun looks like one that has died
        self._changed.notify()

    @property
    def queued(self) -> int:
        """Writes that wait for their turn."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the lane still gives turns; one without a thread begins with the next write."""
        with self._changed:  # in which a thread that ends says so first
            return self._thread is None or self._thread.is_alive()

    @property
    def oldest_seconds(self) -> float:
        """For how long the write has waited that came first of those not yet answered; 0 where there is none."""
        with self._changed:
            first = self._turn_of or (self._waiting[0] if self._waiting else None)
            return 0.0 if first is None else time.monotonic() - first.since

    def close(self) -> None:
        """Finish the writes that wait, take no more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            try:
                if isinstance(group, _WaitingReplacement):
                    self._commit_replacement(group)
                else:
                    self._commit(group)
            except BaseException as error:  # PanicException of the engines is no Exception
                failure = our_error(error, "the write failed; nothing was written")
                for waiting in [group] if isinstance(group, _WaitingReplacement) else group:
                    if not waiting.done.done():
                        waiting.done.set_exception(failure)

    def _next_group(self) -> list[_Waiting] | _WaitingReplacement:
        with self._changed:
            self._turn_of = None
            while not self._waiting:
                if self._closing:
                    return []
                if not self._changed.wait(_IDLE_SECONDS) and not self._waiting:
                    self._thread = None
                    return []
            first = self._turn_of = self._waiting.popleft()
            if isinstance(first, _WaitingReplacement):
                return first
            group = [first]
            rows, keys = first.write.rows, {first.write.key}
            while self._waiting and first.write.shareable:
                following = self._waiting[0]
                if isinstance(following, _WaitingReplacement) or not following.write.shareable:
                    break
                rows += following.write.rows
                if rows > self._group_rows or (following.write.key is not None and following.write.key in keys):
                    break
                keys.add(following.write.key)
                group.append(following)
                self._waiting.popleft()
            return group

    def _commit_replacement(self, waiting: _WaitingReplacement) -> None:
        while True:
            snapshot = self._values.snapshot()
            replacement = waiting.write.prepare(CommitContext(snapshot, self._ledger, _next_stamp(snapshot)))
            if replacement is None:
                return waiting.done.set_result(False)
            done = self._values.commit(
                snapshot,
                adds=replacement.adds,
                removes=replacement.removes,
                transactions=replacement.transactions,
                operation=replacement.operation,
                info=replacement.info,
                data_change=replacement.data_change,
            )
            if done is not None:
                return waiting.done.set_result(True)

    def _commit(self, group: list[_Waiting]) -> None:
        while True:
            snapshot = self._values.snapshot()
            self._ledger.catch_up(snapshot)
            _check(group, snapshot)
            ready = self._with_series(self._prepare(group, snapshot))
            if not ready:
                return
            info = _merge_info([prepared.info for _, prepared in ready])
            with NewFiles(self._values.store) as new:
                self._write_files([prepared for _, prepared in ready if prepared.rows.num_rows], new)
                committed = self._values.commit(
                    snapshot,
                    adds=[*new.files, *(file for _, prepared in ready for file in prepared.files)],
                    transactions={CHANGE_TIME: ready[-1][1].last_stamp},
                    info=info,
                )
                if committed is not None:
                    new.keep()
            if committed is not None:
                self._ledger.add(committed.version, info)
                self._recorded()
                _log.info(
                    "committed version=%d writes=%d rows=%d request_id=%s",
                    committed.version,
                    len(ready),
                    sum(waiting.write.rows for waiting, _ in ready),
                    ",".join(dict.fromkeys(waiting.request_id for waiting, _ in ready)),
                )
                for waiting, prepared in ready:
                    waiting.done.set_result(prepared.result)
                return

    def _prepare(self, group: list[_Waiting], snapshot: Snapshot) -> list[tuple[_Waiting, Prepared]]:
        self._clock.check(snapshot.transactions.get(CHANGE_TIME, 0))
        stamp = _next_stamp(snapshot, sum(waiting.write.stamps for waiting in group))
        ready = []
        for waiting in group:
            if waiting.done.done() or isinstance(waiting.write, Arrival):
                continue
            try:
                outcome = waiting.write.prepare(CommitContext(snapshot, self._ledger, stamp))
            except TimeDBError as error:
                waiting.done.set_exception(error)
                continue
            except Exception as error:  # its files are gone, say: no reason to fail the others of the group
                waiting.done.set_exception(our_error(error, "the write failed; nothing was written"))
                continue
            if isinstance(outcome, Answer):
                waiting.done.set_result(outcome.result)
                continue
            ready.append((waiting, outcome))
            stamp = outcome.last_stamp + 1
        return ready

    def _with_series(self, ready: list[tuple[_Waiting, Prepared]]) -> list[tuple[_Waiting, Prepared]]:
        """Make the series that writes bring, in one commit; the writes whose series are as they need them."""
        needs = [prepared.series for _, prepared in ready if prepared.series is not None]
        if not needs:
            return ready
        faults: list[TimeDBError | None]
        try:
            faults = [*self._catalog.ensure(needs)]
        except TimeDBError as error:
            faults = [error] * len(needs)
        except Exception as error:  # no reason to fail those of the group that bring none
            faults = [our_error(error, "the write failed; nothing was written")] * len(needs)
        of_need = iter(faults)
        kept = []
        for waiting, prepared in ready:
            fault = None if prepared.series is None else next(of_need)
            if fault is None:
                kept.append((waiting, prepared))
            else:
                waiting.done.set_exception(fault)
        return kept

    def _write_files(self, writes: Sequence[Prepared], new: NewFiles) -> None:
        if not writes:
            return
        rows = _gather([prepared.rows for prepared in writes])
        prefix = UPLOAD_PREFIX if all(prepared.new_keys for prepared in writes) else CORRECTION_PREFIX
        if rows.num_rows <= self._mixed_rows:
            new.files.append(
                write_file(self._values.store, rows, _fresh_in(MIXED), prefix, group_rows=MIXED_GROUP_ROWS)
            )
            return
        for bucket, part in split_buckets(rows, self._bucket_digits):
            new.files.append(write_file(self._values.store, part, _fresh_in(bucket), prefix))


def _check(group: Sequence[_Waiting], snapshot: Snapshot) -> None:
    """Put checked writes in the place of those that are yet to be; those at fault have their answer then."""
    waiting, arrivals = [], []
    for each in group:
        if isinstance(each.write, Arrival):
            waiting.append(each)
            arrivals.append(each.write)
    if not arrivals:
        return
    newest = snapshot.transactions.get(CHANGE_TIME, 0)
    for each, outcome in zip(waiting, arrivals[0].check_all(arrivals, newest), strict=True):
        if isinstance(outcome, TimeDBError):
            each.done.set_exception(outcome)
        else:
            each.write = outcome


def _fresh_in(bucket: str) -> dict[str, str]:
    return {"series_bucket": bucket, "tier": "fresh"}


def _next_stamp(snapshot: Snapshot, count: int = 1) -> int:
    """The first of some change_times that are greater than any committed one.

    They end at the clock, if that leaves room for them: who reads ``as_of`` now, after the answer, sees them all.
    """
    return max(to_micros(now()) - count + 1, snapshot.transactions.get(CHANGE_TIME, 0) + 1)


def _gather(parts: Sequence[pa.Table | StampedRun]) -> pa.Table:
    """All rows in the order of a file; those of runs made at once."""
    runs = [part for part in parts if isinstance(part, StampedRun)]
    tables = [part for part in parts if not isinstance(part, StampedRun)]
    if len(parts) == 1:
        return stamped(runs) if runs else tables[0]
    return in_file_order(gathered([*([stamped(runs)] if runs else []), *map(as_rows, tables)]))


def _merge_info(infos: Sequence[dict[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    merged: dict[str, list[dict[str, Any]]] = {}
    for info in infos:
        for key, record in info.items():
            merged.setdefault(key, []).append(record)
    return merged
