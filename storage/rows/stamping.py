"""Rows of runs as the values table stores them: of many small runs at once, for the calls cost the same as for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from timedb.storage.rows.rows import ROWS

__all__ = ["StampedRun", "stamped"]

_SENT = ("valid_time", "valid_time_end", "known_time", "value", "annotation", "tags")


@dataclass(frozen=True)
class StampedRun:
    """A run, or a part of one, and what the service says of its rows.

    Attributes:
        rows: ``series`` (index into ``series_ids``) and the columns that clients send.
        series_ids: The ids.
        stamp: The change_time, microseconds since 1970.
        run_id: The run.
        created_by: Who uploads.
    """

    rows: pa.Table
    series_ids: Sequence[str]
    stamp: int
    run_id: str
    created_by: str | None

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return int(self.rows.num_rows)


def stamped(runs: Sequence[StampedRun]) -> pa.Table:
    """The rows of some runs, one behind the other, as :data:`ROWS`."""
    counts = [run.num_rows for run in runs]
    sent = runs[0].rows if len(runs) == 1 else pa.concat_tables([run.rows for run in runs]).unify_dictionaries()
    sent = sent.combine_chunks()
    ids = dict.fromkeys(chain.from_iterable(run.series_ids for run in runs))
    code_of = {series_id: code for code, series_id in enumerate(ids)}
    # The codes of a run count from 0: to each its own stretch of one table.
    table = np.fromiter((code_of[series_id] for run in runs for series_id in run.series_ids), np.int32)
    first = np.cumsum([0, *(len(run.series_ids) for run in runs[:-1])])
    series = table[sent.column("series").to_numpy() + np.repeat(first, counts)]
    stamps = pa.array(np.repeat(np.array([run.stamp for run in runs], dtype=np.int64), counts))
    columns = {
        **{name: sent.column(name) for name in _SENT},
        "series_id": pa.DictionaryArray.from_arrays(pa.array(series), pa.array(ids, pa.string())),
        "change_time": stamps.cast(ROWS.field("change_time").type),
        "run_id": _repeated([run.run_id for run in runs], counts),
        "changed_by": _repeated([run.created_by for run in runs], counts),
        "retracted": pa.nulls(len(series), pa.bool_()),
    }
    return pa.table([columns[name] for name in ROWS.names], schema=ROWS)


def _repeated(texts: Sequence[str | None], counts: Sequence[int]) -> pa.Array:
    """Each text so many times."""
    entries = list(dict.fromkeys(text for text in texts if text is not None))
    code_of: dict[str | None, int] = {text: code for code, text in enumerate(entries)}
    codes = np.repeat(np.array([code_of.get(text, -1) for text in texts], dtype=np.int32), counts)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(entries, pa.string()))
