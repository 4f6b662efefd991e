"""Which runs and update batches are in: the ``runs`` and ``updates`` tables, and the end of the values log before them.

The values commit is what counts; its commit info carries a record of each upload and of each batch of corrections in
it. This ledger knows the records of all commits, and writes them into tables of their own some time later, with the
values version that they reach as an app transaction: so whoever comes next, on any server, knows which are in the
tables and which only in the log, and each is written exactly once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.times import format_time, parse_time
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.table import Table
from timedb.storage.tables.commit_marks import REACHED
from timedb.storage.tables.schemas import RUNS, UPDATES

__all__ = ["Ledger", "Register"]


_MERGED_FILES = 16
_LEVEL_BYTES = (64 << 10, 1 << 20, 16 << 20)
_NEW_HASHES = 10_000
_NEW_SHARE = 20
_MAX_LAG = 32  # commits without a record that the next opener may have to read


class Register:
    """One table of records with a text key, of which a record is written once, and records that are yet to come there.

    A record leaves those that are held only when the table is known to have it, so that whoever looks among them first,
    then in the table, finds it.
    """

    def __init__(self, table: Table, schema: pa.Schema, info_key: str) -> None:
        self.table = table
        self.info_key = info_key
        self._schema = schema
        self._key = schema.names[0]
        self._seen = Snapshot(-1, {}, {})
        self._hashes = _Hashes()
        self._held: dict[int, list[dict[str, Any]]] = {}
        self._by_key: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """The table as of now; its keys are known when this returns."""
        snapshot = self.table.snapshot()
        with self._lock:
            fresh = snapshot.files.keys() - self._seen.files.keys()
            if fresh:
                keys = self._scan(sorted(fresh)).select(self._key).collect(engine="in-memory")
                self._hashes.add(keys[self._key].to_list())
            if snapshot.version > self._seen.version:
                self._seen = snapshot
            self._let_go()
        return snapshot

    def hold(self, version: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Know the records of a values version, which are yet to be written."""
        rows = [self._row(record) for record in records]
        if rows:
            with self._lock:
                self._held[version] = rows
                self._by_key.update((row[self._key], row) for row in rows)

    def held(self, after: int, until: int) -> list[dict[str, Any]]:
        """The records that are yet to be written of the values versions from one, exclusive, to another, inclusive."""
        with self._lock:
            return [row for version in sorted(self._held) if after < version <= until for row in self._held[version]]

    @property
    def is_behind(self) -> bool:
        """Whether there are records that are yet to be written."""
        return bool(self._held)

    @property
    def behind(self) -> int:
        """How many records are yet to be written."""
        with self._lock:
            return sum(map(len, self._held.values()))

    def _let_go(self) -> None:
        reached = self._seen.transactions.get(REACHED, 0)
        for version in [version for version in self._held if version <= reached]:
            for row in self._held.pop(version):
                self._by_key.pop(row[self._key], None)

    def find(self, key: str) -> dict[str, Any] | None:
        """The record with that key."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records with these keys, by key."""
        self.snapshot()
        return self.known_all(keys)

    def known(self, key: str) -> dict[str, Any] | None:
        """As :meth:`find`, without a look at the log; see :meth:`known_all`."""
        return self.known_all([key]).get(key)

    def known_all(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """As :meth:`find_all`, among the records that have been seen.

        After :meth:`Ledger.catch_up` those are the records of all values commits up to its snapshot, so that in a turn
        of the commit lane nobody has to ask the log again.
        """
        keys = list(keys)
        with self._lock:
            found = {key: self._by_key[key] for key in keys if key in self._by_key}
            likely = [key for key in keys if key not in found and self._hashes.may_hold(key)]
        if not likely:
            return found
        named = pl.col(self._key) == likely[0] if len(likely) == 1 else pl.col(self._key).is_in(likely)
        rows = self._scan(sorted(self._seen.files)).filter(named).collect(engine="in-memory")
        return found | {row[self._key]: row for row in rows.iter_rows(named=True)}

    def scan(self) -> pl.LazyFrame:
        """Every record of the register, as a query that reads when it is collected."""
        with self._lock:
            versions = dict(self._held)  # before the table, where they may come meanwhile
        snapshot = self.snapshot()
        reached = snapshot.transactions.get(REACHED, 0)
        held = [row for version in sorted(versions) if version > reached for row in versions[version]]
        stored = self._scan(sorted(snapshot.files))
        return pl.concat([stored, pl.DataFrame(self._table_of(held)).lazy()]) if held else stored

    def write(self, base: Snapshot, records: Sequence[Mapping[str, Any]], reached: int) -> bool:
        """Add the records of the values versions up to ``reached``; False where somebody else has written meanwhile."""
        if base.version < 0:
            self.table.create()  # before it has files, from which a table is known that has lost its log
        removes = _worth_merging(base.files.values()) if records else []
        adds = self._write_file(records, removes)
        done = self.table.commit_or_delete(base, adds=adds, removes=removes, transactions={REACHED: reached})
        if done is None:
            return False
        with self._lock:
            if self._seen.version == base.version:  # what was written need not be read again
                self._hashes.add(record[self._key] for record in records)
                self._seen = done
                self._let_go()
        return True

    def _write_file(self, records: Sequence[Mapping[str, Any]], merged: Sequence[DataFile]) -> list[DataFile]:
        if not records:
            return []
        rows = self._table_of(records)
        if merged:
            old = self._scan([file.path for file in merged]).collect(engine="in-memory").to_arrow().cast(self._schema)
            rows = pa.concat_tables([old, rows])
        return [write_file(self.table.store, rows, {})]

    def _table_of(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=self._schema)

    def _row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        times = [column.name for column in self._schema if pa.types.is_timestamp(column.type)]
        return {**record, **{name: parse_time(record[name]) for name in times if record.get(name) is not None}}

    def _scan(self, paths: Iterable[str]) -> pl.LazyFrame:
        paths = list(paths)
        check_files(self.table.store, paths)
        urls = [self.table.store.url(path) for path in paths]
        empty = pl.DataFrame(pa.Table.from_pylist([], schema=self._schema))
        if not urls:
            return empty.lazy()
        return pl.scan_parquet(urls, schema=empty.schema, glob=False, hive_partitioning=False)


class Ledger:
    """The registers of one tenant, kept in step with the values log."""

    def __init__(self, values: Table, runs: Table, updates: Table) -> None:
        self._values = values
        self.runs = Register(runs, RUNS, "uploads")
        self.updates = Register(updates, UPDATES, "updates")
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._checked = 0

    @property
    def is_behind(self) -> bool:
        """Whether there are records that the tables do not have, as far as is known without a look at them."""
        return self.runs.is_behind or self.updates.is_behind

    @property
    def behind(self) -> int:
        """How many records the tables do not have, as far as is known without a look at them."""
        return self.runs.behind + self.updates.behind

    def catch_up(self, values: Snapshot) -> None:
        """Know the records of all values commits up to a snapshot.

        Raises:
            OSError: the log could not be read, or not be made durable. Commits of a writer that died, or whose disk
                failed, may be in the log only; nobody may be told that they are in before they are fsynced.
        """
        with self._reading:
            if self._checked >= values.version:
                return
            self._values.log.sync(values.version)
            reached = max(self._checked, self.runs.snapshot().transactions.get(REACHED, 0))
            self.updates.snapshot()
            commits = list(self._values.log.commits_after(reached, values.version))
            if reached < values.version and (not commits or commits[-1].version != values.version):
                raise self._values.log.damaged("it has a gap before its end")
            for commit in commits:
                self._hold(commit.version, commit.info)
            self._checked = values.version

    def add(self, version: int, info: Mapping[str, Any]) -> None:
        """Know the records of a durable commit of this process, which follows those that are known."""
        with self._reading:
            if self._checked == version - 1:  # else another one is reading the log beyond it
                self._hold(version, info)
                self._checked = version

    def _hold(self, version: int, info: Mapping[str, Any]) -> None:
        for register in (self.updates, self.runs):
            register.hold(version, info.get(register.info_key, ()))

    def write(self) -> None:
        """Write the records that are known into the tables.

        Raises:
            OSError: a register could not be written; the records stay in the log until it can.
        """
        with self._writing:
            version = self._checked
            # Updates before runs: what the runs table says it has reached is then true of both.
            self._write(self.updates, version)
            self._write(self.runs, version)

    def write_again(self, values: Snapshot) -> None:
        """Write what each register lacks of the values commits up to a snapshot, as far back as each lacks it.

        Raises:
            Damaged: the values log does not reach back so far.
            OSError: a register could not be written.
        """
        with self._writing:
            for register in (self.updates, self.runs):
                reached = register.snapshot().transactions.get(REACHED, 0)
                commits = list(self._values.log.commits_after(reached, values.version))
                if reached < values.version and (not commits or commits[-1].version != values.version):
                    raise self._values.log.damaged(f"it does not reach back to version {reached + 1}")
                for commit in commits:
                    register.hold(commit.version, commit.info.get(register.info_key, ()))
                self._write(register, values.version)

    def _write(self, register: Register, version: int) -> None:
        while True:
            base = register.snapshot()
            reached = base.transactions.get(REACHED, 0)
            records = register.held(reached, version)
            lagging = register is self.runs and version - reached >= _MAX_LAG
            if not (records or lagging) or register.write(base, records, version):
                return


def _worth_merging(files: Iterable[DataFile]) -> list[DataFile]:
    """The files of one size that have become many; so each record is rewritten a few times, however many there are."""
    smallest = 0
    for largest in _LEVEL_BYTES:
        level = [file for file in files if smallest <= file.size < largest]
        if len(level) >= _MERGED_FILES:
            return level
        smallest = largest
    return []


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a register with its times as text."""
    return {name: format_time(value) if isinstance(value, datetime) else value for name, value in record.items()}


class _Hashes:
    """Which keys there may be, in eight bytes each; a hit is checked against the table."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._new: set[int] = set()

    def add(self, keys: Iterable[str]) -> None:
        """Know further keys."""
        self._new.update(map(_hash, keys))
        if len(self._new) > max(_NEW_HASHES, len(self._sorted) // _NEW_SHARE):
            self._sorted = np.union1d(self._sorted, np.fromiter(self._new, np.uint64, len(self._new)))
            self._new = set()

    def may_hold(self, key: str) -> bool:
        """Whether the key is one of them, almost surely."""
        wanted = _hash(key)
        if wanted in self._new:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(wanted)))
        return place < len(self._sorted) and int(self._sorted[place]) == wanted


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
