"""Small runs that wait at the same time, checked and put in order as if they were one.

What a run costs is mostly calls of Arrow's and NumPy's that take as long for one run of 24 rows as for hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.digest import digests_of_runs, fields_digest
from timedb.contract.errors import TimeDBError
from timedb.contract.times import format_time, from_micros, to_micros
from timedb.contract.wire import UploadFields
from timedb.storage.boundary import our_error
from timedb.storage.catalog.resolve import ResolvedSeries, resolve
from timedb.storage.commit.writes import Arrival
from timedb.storage.rows.normalise import BATCH, SeriesCodes, normalise
from timedb.storage.rows.probability import with_labels
from timedb.storage.rows.sorting import Integers
from timedb.storage.write.ordering import sorted_by_series
from timedb.storage.write.runs import FREE_FIELDS, Run, RunRows, SkipUnchanged, Writer, default_known_time
from timedb.storage.write.stated_unit import StatedUnit

__all__ = ["SMALL_BYTES", "SMALL_ROWS", "ArrivedRun", "check_runs", "lean"]

SMALL_ROWS = 1 << 14
"""From here on a run is worth calls of its own, and too much work for the turn of others."""
SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class ArrivedRun(Arrival):
    """A run that is there whole.

    Attributes:
        command: What its client says of it.
        run_id: Its name, or the one that it was given.
        batches: Its rows, of one schema, which :func:`timedb.storage.rows.normalise.check_columns` has passed, as
            :func:`timedb.storage.rows.normalise.check_batch` has each of them.
        writer: Who sent it.
        received_time: When it came.
        skip_unchanged: Leaves out what is known; None: all rows are written.
        units_seen: ``KnownSeries.units`` when it was whole: its values are of the units of then.
    """

    command: UploadFields
    run_id: str
    batches: Sequence[pa.RecordBatch]
    writer: Writer
    received_time: datetime
    skip_unchanged: SkipUnchanged | None
    units_seen: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(batch.num_rows for batch in self.batches)

    @property
    def key(self) -> str:
        """The run_id: a retry that arrives beside the original waits for it."""
        return self.run_id

    @property
    def shareable(self) -> bool:
        """Whether it can be prepared without looking at stored rows."""
        return self.skip_unchanged is None

    @staticmethod
    def check_all(group: Sequence[ArrivedRun], newest: int) -> Sequence[Run | TimeDBError]:
        """See :func:`check_runs`."""
        return check_runs(group, newest)


def check_runs(runs: Sequence[ArrivedRun], newest: int) -> list[Run | TimeDBError]:
    """For each run what the commit lane takes, or what is wrong with it.

    Args:
        runs: The runs.
        newest: The last change_time, microseconds since 1970.
    """
    found: dict[int, Run | TimeDBError] = {}
    for places in _alike(runs):
        found.update(zip(places, _checked([runs[place] for place in places], newest), strict=True))
    return [found[place] for place in range(len(runs))]


def _alike(runs: Sequence[ArrivedRun]) -> Iterator[list[int]]:
    """Where the runs stand that can be checked together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, run in enumerate(runs):
        if not run.batches:
            yield [place]
        else:
            key = run.batches[0].schema, id(run.writer.catalog), run.command.create_series
            groups.setdefault(key, []).append(place)
    yield from groups.values()


def _checked(runs: Sequence[ArrivedRun], newest: int) -> list[Run | TimeDBError]:
    try:
        return list(_together(runs, newest))
    except BaseException as error:  # PanicException of the engines is no Exception
        if len(runs) == 1:
            return [our_error(error, "the run could not be taken in; nothing was written")]
    # One of them is at fault; its error is to name its own rows, and the others go on.
    middle = len(runs) // 2
    return [*_checked(runs[:middle], newest), *_checked(runs[middle:], newest)]


def _together(runs: Sequence[ArrivedRun], newest: int) -> Iterator[Run]:
    codes = SeriesCodes()
    sent = _normalised(runs, codes)
    catalog, create = runs[0].writer.catalog, runs[0].command.create_series
    known = catalog.known()
    series = [resolve(identity, catalog, known, create=create) for identity in codes.identities]
    by_id = {one.series_id: one for one in series}
    ids = sorted(by_id)
    rank = {series_id: number for number, series_id in enumerate(ids)}
    ranks = np.array([rank[one.series_id] for one in series], dtype=np.int64)
    of_row = ranks[sent.column("series").to_numpy()]
    counts = np.array([run.rows for run in runs], dtype=np.int64)
    named = any(run.command.run_id is not None for run in runs)  # others cannot be retried
    digests = digests_of_runs(_with(sent, "series", of_row), ids, counts) if named else [""] * len(runs)
    run_of_row = np.repeat(np.arange(len(runs)), counts)
    known_times = [_known_time(run, newest) for run in runs]
    table = _with_known_times(sent, np.array(known_times, dtype=np.int64)[run_of_row])
    # A series of a run gets a number that no other run has, so that one sort puts all of them in order.
    pairs, pair_of_row = np.unique(run_of_row * max(len(ids), 1) + of_row, return_inverse=True)
    run_of_pair, series_of_pair = np.divmod(pairs, max(len(ids), 1))
    table, _ = sorted_by_series(_with(table, "series", pair_of_row), [ids[number] for number in series_of_pair])
    first_pair = np.searchsorted(run_of_pair, np.arange(len(runs) + 1))
    table = _with(table, "series", table.column("series").to_numpy() - first_pair[run_of_row])
    start = 0
    for place, (run, count) in enumerate(zip(runs, counts.tolist(), strict=True)):
        mine = [ids[number] for number in series_of_pair[first_pair[place] : first_pair[place + 1]]]
        rows = RunRows(table.slice(start, count), mine)
        series = [by_id[series_id] for series_id in mine]
        checked = _run(run, rows, series, known_times[place], digests[place])
        checked.units_seen = run.units_seen
        yield checked
        start += count


def _normalised(runs: Sequence[ArrivedRun], codes: SeriesCodes) -> pa.Table:
    """The rows of all runs, one behind the other."""
    if len(runs) > 1:
        whole = pa.Table.from_batches([batch for run in runs for batch in run.batches])
        whole = whole.unify_dictionaries().combine_chunks()
        return pa.Table.from_batches(
            [normalise(with_labels(batch, 0), codes, 0) for batch in whole.to_batches()], BATCH
        )
    first_row, batches = 0, []
    for batch in runs[0].batches:
        batches.append(normalise(with_labels(batch, first_row), codes, first_row))
        first_row += batch.num_rows
    return pa.Table.from_batches(batches, BATCH).combine_chunks()


def _known_time(run: ArrivedRun, newest: int) -> int:
    """Of the run, in microseconds."""
    return to_micros(run.command.known_time or default_known_time(run.received_time, newest))


def _with(table: pa.Table, name: str, values: Integers) -> pa.Table:
    index = table.schema.get_field_index(name)
    column = pa.array(values.astype(np.int32, copy=False), pa.int32())
    return table.set_column(index, BATCH.field(name), column)


def _with_known_times(table: pa.Table, of_runs: Integers) -> pa.Table:
    column = table.column("known_time")
    if not column.null_count:
        return table
    if column.null_count < len(column):
        times = column.cast(pa.int64()).fill_null(0).to_numpy()
        of_runs = np.where(column.is_null().to_numpy(), of_runs, times)
    index = table.schema.get_field_index("known_time")
    return table.set_column(index, BATCH.field("known_time"), pa.array(of_runs).view(column.type))


def _run(
    run: ArrivedRun,
    rows: RunRows,
    series: Sequence[ResolvedSeries],
    known_time: int,
    digest: str,
) -> Run:
    command = run.command
    named = command.run_id is not None
    unit = StatedUnit(command.unit, named=named)
    if command.unit is not None:
        values = unit.converted(rows.table, rows.series_ids, series)
        index = rows.table.schema.get_field_index("value")
        rows = RunRows(rows.table.set_column(index, BATCH.field("value"), values), rows.series_ids)
    fields = command.model_dump(mode="json", include=command.model_fields_set - FREE_FIELDS) if named else {}
    return Run(
        command=command,
        run_id=run.run_id,
        run_start_time=format_time(command.run_start_time or run.received_time),
        known_time=format_time(from_micros(known_time)),
        content=rows,
        series=series,
        digest=fields_digest(fields, digest) if named else "",
        created_by=run.writer.created_by,
        skip_unchanged=run.skip_unchanged,
        withdrawn=run.writer.withdrawn,
        stored_units=unit.stored,
        unit_fault=unit.fault,
    )


def lean(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose dictionaries have no entries but its own, so that many can wait, and be put together."""
    columns = [_lean_column(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _lean_column(column: pa.Array) -> pa.Array:
    if not pa.types.is_dictionary(column.type):
        return column
    if len(column.dictionary) > len(column):
        used = pc.unique(column.indices).drop_null()
        codes = pc.index_in(column.indices, used)
        return pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), column.dictionary.take(used))
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)
