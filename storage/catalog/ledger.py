"""Which runs and update batches are in: the ``runs`` and ``updates`` tables, written from the values log.

The values commit is what counts; its commit info carries a record of each upload and of each batch of corrections in
it. This ledger copies the records into tables of their own, with the values version that they reach as an app
transaction, so a crash between the two commits is made up for by whoever comes next, on any server, exactly once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from timedb.contract.times import format_time, parse_time
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import Commit, DataFile, Snapshot
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.table import Table
from timedb.storage.tables.commit_marks import REACHED
from timedb.storage.tables.schemas import RUNS, UPDATES

__all__ = ["Ledger", "Register"]


_MAX_SMALL_FILES = 32
_SMALL_BYTES = 4 << 20
_MAX_LAG = 32  # commits without a record that the next opener may have to read


class Register:
    """One table of records with a text key, of which a record is written once."""

    def __init__(self, table: Table, schema: pa.Schema, info_key: str) -> None:
        self.table = table
        self.info_key = info_key
        self._schema = schema
        self._key = schema.names[0]
        self._seen = Snapshot(-1, {}, {})
        self._hashes: set[int] = set()
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """The table as of now; its keys are known when this returns."""
        snapshot = self.table.snapshot()
        with self._lock:
            fresh = snapshot.files.keys() - self._seen.files.keys()
            if fresh:
                keys = self._scan(sorted(fresh)).select(self._key).collect(engine="in-memory")
                self._hashes.update(map(_hash, keys[self._key].to_list()))
            if snapshot.version > self._seen.version:
                self._seen = snapshot
        return snapshot

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
        likely = [key for key in keys if _hash(key) in self._hashes]
        if not likely:
            return {}
        named = pl.col(self._key) == likely[0] if len(likely) == 1 else pl.col(self._key).is_in(likely)
        rows = self._scan(sorted(self._seen.files)).filter(named).collect(engine="in-memory")
        return {row[self._key]: row for row in rows.iter_rows(named=True)}

    def scan(self) -> pl.LazyFrame:
        """Every record of the register, as a query that reads when it is collected."""
        return self._scan(sorted(self.snapshot().files))

    def write(self, base: Snapshot, records: Sequence[Mapping[str, Any]], reached: int) -> bool:
        """Add the records of the values versions up to ``reached``; False where somebody else has written meanwhile."""
        if base.version < 0:
            self.table.create()  # before it has files, from which a table is known that has lost its log
        removes = [file for file in base.files.values() if file.size < _SMALL_BYTES] if records else []
        removes = removes if len(removes) >= _MAX_SMALL_FILES else []
        adds = self._write_file(records, removes)
        done = self.table.commit_or_delete(base, adds=adds, removes=removes, transactions={REACHED: reached})
        if done is None:
            return False
        with self._lock:
            if self._seen.version == base.version:  # what was written need not be read again
                self._hashes.update(_hash(record[self._key]) for record in records)
                self._seen = done
        return True

    def _write_file(self, records: Sequence[Mapping[str, Any]], merged: Sequence[DataFile]) -> list[DataFile]:
        if not records:
            return []
        rows = pa.Table.from_pylist([self._row(record) for record in records], schema=self._schema)
        if merged:
            old = self._scan([file.path for file in merged]).collect(engine="in-memory").to_arrow().cast(self._schema)
            rows = pa.concat_tables([old, rows])
        return [write_file(self.table.store, rows, {})]

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
        self._writing = threading.Lock()
        self._checked = 0

    def catch_up(self, values: Snapshot, *, durable: bool = False) -> None:
        """Write the records of all values commits up to a snapshot that are not in the registers yet.

        Args:
            values: A snapshot of the values table.
            durable: Whether its commits are known to be on the disk. Those of a writer that died, or whose disk
                failed, may be in the log only; nobody may be told that they are in before they are fsynced.

        Raises:
            OSError: a register could not be written; the records stay in the log until it can.
        """
        with self._writing:
            if self._checked >= values.version:
                return
            if not durable:
                self._values.log.sync(values.version)
            reached = max(self._checked, self.runs.snapshot().transactions.get(REACHED, 0))
            commits = list(self._values.log.commits_after(reached, values.version))
            if reached < values.version and (not commits or commits[-1].version != values.version):
                raise self._values.log.damaged("it has a gap before its end")
            # Updates before runs: what the runs table says it has reached is then true of both.
            self._copy(self.updates, commits, reached, values.version)
            self._copy(self.runs, commits, reached, values.version)
            self._checked = values.version

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
                self._copy(register, commits, reached, values.version)

    def _copy(self, register: Register, commits: Sequence[Commit], reached: int, version: int) -> None:
        while True:
            base = register.snapshot()
            reached = max(reached, base.transactions.get(REACHED, 0))
            new = [commit for commit in commits if commit.version > reached]
            records = [record for commit in new for record in commit.info.get(register.info_key, ())]
            lagging = register is self.runs and version - reached >= _MAX_LAG
            if not (records or lagging) or register.write(base, records, version):
                return


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a register with its times as text."""
    return {name: format_time(value) if isinstance(value, datetime) else value for name, value in record.items()}


def _hash(key: str) -> int:
    # A set of numbers holds millions of keys; a hit is checked against the table.
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
