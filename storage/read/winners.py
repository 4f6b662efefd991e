"""The flat view of whole buckets that uploads alone have written, straight from Arrow columns.

There every row is the only version of its revision. The answers are those of ``views.winners``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from timedb.storage.delta.log import DataFile
from timedb.storage.rows.orders import VERSION, WINNER
from timedb.storage.rows.ranking import drop_beaten, picked
from timedb.storage.rows.rows import flags, gathered, integers

__all__ = ["DECISIVE", "BoundingBox", "winners_of"]

DECISIVE = VERSION.columns
"""The columns that tell which row of a point wins."""

_WORTH_THREADS = 200_000


def winners_of(
    files: Sequence[DataFile], rows: Callable[[DataFile], Iterable[pa.RecordBatch]], columns: Sequence[str]
) -> pa.Table:
    """The winners among the rows of some files.

    Args:
        files: Data files of one bucket.
        rows: Gives the rows of one that pass the filters, with :data:`DECISIVE` and ``columns``; called in threads.
        columns: What is wanted of the winners.
    """

    def unbeaten(file: DataFile) -> list[pa.Table]:
        return [pa.Table.from_batches([drop_beaten(batch, WINNER)]) for batch in rows(file)]

    if sum(file.rows for file in files) < _WORTH_THREADS:
        parts = [part for file in files for part in unbeaten(file)]
    else:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            parts = [part for found in threads.map(unbeaten, files) for part in found]
    return picked(gathered(parts), WINNER, columns) if parts else pa.table({})


@dataclass(frozen=True)
class BoundingBox:
    """Series, and a stretch of valid_time, in which some rows lie.

    Attributes:
        series: Their ids.
        start, end: The least and the greatest valid_time, microseconds since 1970.
    """

    series: frozenset[str]
    start: int
    end: int

    @classmethod
    def around(cls, rows: pa.Table) -> BoundingBox:
        """The smallest box around all of some :func:`winners_of`; there is one at least."""
        times = integers(rows, "valid_time")
        series = rows.column("series_id").unique().cast(pa.string()).to_pylist()
        return cls(frozenset(series), int(times.min()), int(times.max()))

    def split(
        self, batches: Iterable[pa.RecordBatch], columns: Sequence[str], inside: list[pa.Table]
    ) -> Iterator[pa.RecordBatch]:
        """The rows outside, as they come; those inside are added to a list.

        Args:
            batches: With ``series_id``, ``valid_time`` and whatever else.
            columns: What is wanted of the rows outside.
            inside: Grows.
        """
        for batch in batches:
            mask = self._mask(batch)
            if mask is None:
                yield batch.select(columns)
                continue
            inside.append(pa.Table.from_batches([batch.filter(flags(mask))]))
            rest = batch.filter(flags(~mask)).select(columns)
            if rest.num_rows:
                yield rest

    def _mask(self, batch: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        coded = batch.column("series_id")
        touched = np.array([series_id in self.series for series_id in coded.dictionary.to_pylist()], dtype=np.bool_)
        if not touched.any():
            return None
        times = integers(batch, "valid_time")
        mask = touched[coded.indices.to_numpy()] & (times >= self.start) & (times <= self.end)
        return mask if mask.any() else None
