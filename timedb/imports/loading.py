"""Sends what another store holds to the service: each run once, its corrections in their order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from timedb.client import Client
from timedb.client.frames import spooled
from timedb.contract.columns import IDENTIFIER, decoded
from timedb.contract.digest import RowsDigest, fields_digest
from timedb.contract.errors import Conflict, InvalidRequest, NotFound
from timedb.contract.times import format_time
from timedb.contract.wire import quoted
from timedb.imports.origin import ImportedRun, Origin
from timedb.layouts.duplicates import words_of_rows
from timedb.layouts.prepared import Range
from timedb.layouts.spool import Spool, temporary_files

__all__ = ["Imported", "load"]

NOTE = "timedb_import"
"""The key of ``run_params`` that says where a run comes from."""
_MAX_ROWS = 5_000_000
_RUNS_NAMED = 10
_SERIES_AT_ONCE = 1000
_UTC = pa.timestamp("us", tz="UTC")
_SENT = ("series_id", "valid_time", "valid_time_end", "known_time", "value", "annotation", "tags")


@dataclass
class Imported:
    """What came of an import.

    Attributes:
        origin: Where it came from.
        series: How many series it has.
        runs: How many runs were sent, or would be.
        runs_already_loaded: How many were there before.
        rows: Rows of both.
        corrections: Versions that correct an earlier one.
        valid, known: Their times.
        runs_named: The first runs.
    """

    origin: str
    series: int = 0
    runs: int = 0
    runs_already_loaded: int = 0
    rows: int = 0
    corrections: int = 0
    valid: Range = field(default_factory=Range)
    known: Range = field(default_factory=Range)
    runs_named: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """It as JSON values."""
        counts = ("origin", "series", "runs", "runs_already_loaded", "rows", "corrections")
        shown: dict[str, Any] = {name: getattr(self, name) for name in counts}
        return shown | {
            "valid_time": self.valid.texts(),
            "known_time": self.known.texts(),
            "first_runs": self.runs_named,
        }


def load(client: Client | None, origin: Origin, *, prefix: str | None, progress: Callable[[int], None]) -> Imported:
    """Import everything; once more, it adds what is new.

    Args:
        client: To which service; None: only look what there is, and send nothing.
        origin: What there is.
        prefix: Before the name of each run; None: before those that are numbers, where they come from.
        progress: Called with the rows so far.

    Raises:
        Conflict: a run is there with other content.
        InvalidRequest, NotFound: the service refuses something.
    """
    loading = _Loading(client, origin, prefix, progress)
    loading.make_series()
    corrections = _Pending(loading, origin.corrections())
    for run, pieces in _runs_of(origin):
        corrections.send_until(run.at)
        loading.send_run(run, pieces)
    corrections.send_until(None)
    return loading.done


def _runs_of(origin: Origin) -> Iterator[tuple[ImportedRun, Iterator[pa.RecordBatch]]]:
    """Each run that has rows, with its rows, which have to be read before the next."""
    runs = origin.runs()
    by_run = groupby(_pieces(origin.rows(), "run"), key=itemgetter(0))
    for key, pieces in by_run:
        run = next((each for each in runs if each.key == key), None)
        if run is None:
            raise InvalidRequest(f"run {quoted(str(key))}: has rows, and is no run")
        yield run, (rows for _, rows in pieces)


def _pieces(batches: Iterator[pa.RecordBatch], column: str) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Batches cut where a column changes: its value, and the rows."""
    for batch in batches:
        if not batch.num_rows:
            continue
        ends = pc.run_end_encode(decoded(batch.column(column)))
        start = 0
        for end, value in zip(ends.run_ends.to_pylist(), ends.values.to_pylist(), strict=True):
            yield value, batch.slice(start, end - start)
            start = end


def _parts(pieces: Iterator[pa.RecordBatch], most: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows cut after so many, whatever pieces they come in: the so manieth part, and its rows."""
    before = 0
    for piece in pieces:
        start = 0
        while start < piece.num_rows:
            rows = piece.slice(start, most - before % most)
            yield before // most, rows
            before += rows.num_rows
            start += rows.num_rows


@dataclass
class _Loading:
    client: Client | None
    origin: Origin
    prefix: str | None
    progress: Callable[[int], None]
    _ids: dict[str, str] = field(default_factory=dict)
    _run_ids: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = Imported(self.origin.name)

    def make_series(self) -> None:
        """Make the series, or find them."""
        found = self.origin.series()
        self.done.series = len(found)
        if self.client is None:
            self._ids = {each.key: each.key for each in found}
            return
        for start in range(0, len(found), _SERIES_AT_ONCE):
            some = found[start : start + _SERIES_AT_ONCE]
            asked = [
                {"name": each.name, "labels": dict(each.labels), "unit": each.unit, "description": each.description}
                for each in some
            ]
            ids = self.client.create_many_series(asked)
            self._ids |= {each.key: series_id for each, series_id in zip(some, ids, strict=True)}

    def send_run(self, run: ImportedRun, pieces: Iterator[pa.RecordBatch]) -> None:
        """Send a run, or several where it has no name of its own and is very long."""
        most = _MAX_ROWS if run.run_id is None else sys.maxsize
        for _, part in groupby(_parts(pieces, most), key=itemgetter(0)):
            self._send_part(run, (rows for _, rows in part))

    @temporary_files()
    def _send_part(self, run: ImportedRun, pieces: Iterator[pa.RecordBatch]) -> None:
        with Spool() as spool:
            digest = RowsDigest()
            for piece in pieces:
                batch = self._sent(piece, _SENT)
                digest.add_words(words_of_rows(batch).whole)
                spool.add(batch)
                self._count(batch)
            spool.end()
            self._send(run, spool, digest.text())

    def _count(self, batch: pa.RecordBatch) -> None:
        self.done.rows += batch.num_rows
        self.done.valid.add(batch.column("valid_time"))
        self.done.known.add(batch.column("known_time"))
        self.progress(self.done.rows + self.done.corrections)

    def _send(self, run: ImportedRun, spool: Spool, rows_digest: str) -> None:
        fields = self._fields(run)
        digest = fields_digest(json.loads(json.dumps(fields, default=str)), rows_digest)
        run_id = self._run_id(run.run_id, digest)
        self._run_ids[run.key] = run_id if run.key not in self._run_ids else None
        if len(self.done.runs_named) < _RUNS_NAMED:
            self.done.runs_named.append(run_id if run.run_id or self.client else f"{run.workflow_id} {run.key}")
        fields["run_params"][NOTE]["digest"] = digest
        if self.client is not None and _is_there(self.client, run_id, digest):
            self.done.runs_already_loaded += 1
            return
        self.done.runs += 1
        if self.client is not None:
            self.client.upload(spooled(spool.reader), run_id=run_id, create_series=False, **fields)

    def _fields(self, run: ImportedRun) -> dict[str, Any]:
        note = {"from": self.origin.name, "change_time": format_time(run.at)}
        fields = {
            "workflow_id": run.workflow_id or self.origin.name,
            "run_start_time": run.run_start_time,
            "run_finish_time": run.run_finish_time,
            "known_time": run.known_time,
            "run_params": {**run.params, NOTE: note},
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _run_id(self, named: str | None, digest: str) -> str:
        if named is None:
            return f"{self.prefix or ''}{digest}"
        usual = f"{self.origin.name}-" if named.isdecimal() else ""
        return f"{usual if self.prefix is None else self.prefix}{named}"

    def _sent(self, piece: pa.RecordBatch, columns: tuple[str, ...]) -> pa.RecordBatch:
        """Rows as they are sent."""
        arrays = {"series_id": self._series_ids(decoded(piece.column("series")))}
        for name in columns:
            if name in ("valid_time", "valid_time_end", "known_time"):
                arrays[name] = piece.column(name).cast(_UTC)
            elif name == "value":
                arrays[name] = piece.column(name).cast(pa.float64())
            elif name in ("annotation", "tags"):
                kind = pa.string() if name == "annotation" else pa.list_(pa.string())
                arrays[name] = decoded(piece.column(name)).cast(kind)
        return pa.RecordBatch.from_pydict(arrays)

    def _series_ids(self, keys: pa.Array) -> pa.Array:
        coded = keys.dictionary_encode()
        ids = pa.array([self._ids[key] for key in coded.dictionary.to_pylist()], pa.string())
        return pa.DictionaryArray.from_arrays(coded.indices.cast(pa.int32()), ids).cast(IDENTIFIER)

    def correct(self, moment: datetime, rows: list[pa.RecordBatch]) -> None:
        """Send what was corrected at one moment; the moment and who did it become tags."""
        whole = pa.Table.from_batches(rows).combine_chunks().to_batches()[0]
        self.done.corrections += whole.num_rows
        self.progress(self.done.rows + self.done.corrections)
        if self.client is None:
            return
        batch = self._sent(whole, _SENT)
        runs = pa.array([self._run_ids.get(key) for key in decoded(whole.column("run")).to_pylist()], pa.string())
        noted = pa.array(list(_noted(whole, moment)), pa.list_(pa.string()))
        batch = batch.set_column(batch.schema.get_field_index("tags"), "tags", noted).append_column("run_id", runs)
        self.client.correct(
            pa.Table.from_batches([batch]), update_id=f"{self.prefix or self.origin.name + '-'}{format_time(moment)}"
        )


def _is_there(client: Client, run_id: str, digest: str) -> bool:
    try:
        params = client.get_run(run_id)["run_params"] or {}
    except NotFound:
        return False
    if params.get(NOTE, {}).get("digest") != digest:
        raise Conflict(
            f"prefix: run {quoted(run_id)} is there with other content: it came from elsewhere, or has changed there "
            "since; a prefix tells the runs of this import apart",
            field="prefix",
        )
    return True


def _noted(rows: pa.RecordBatch, moment: datetime) -> Iterator[list[str]]:
    """The tags of corrected rows, with when and by whom they were corrected."""
    stamp = f"change_time:{format_time(moment)}".replace("T", " ")  # tags have no capitals
    for tags, who in zip(rows.column("tags").to_pylist(), decoded(rows.column("changed_by")).to_pylist(), strict=True):
        yield [*(tags or []), stamp, *([] if who is None else [f"changed_by:{who}"])]


class _Pending:
    """Corrections that wait for the runs before them."""

    def __init__(self, loading: _Loading, batches: Iterator[pa.RecordBatch]) -> None:
        self._loading = loading
        self._pieces = _pieces(batches, "change_time")
        self._next = next(self._pieces, None)

    def send_until(self, moment: datetime | None) -> None:
        """Send those that were made before a moment; None: all of them."""
        while self._next is not None and (moment is None or self._next[0] < moment):
            at, rows = self._next[0], [self._next[1]]
            while (following := next(self._pieces, None)) is not None and following[0] == at:
                rows.append(following[1])
            self._next = following
            self._loading.correct(at, rows)
