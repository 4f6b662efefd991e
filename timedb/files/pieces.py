"""Rows of a table, read piece by piece: each knows where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa

__all__ = ["Numbers", "Piece", "Unit", "counted"]

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Unit = Literal["line", "row"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a table.

    Attributes:
        batch: The rows.
        unit: What their numbers count.
        numbers: The number of each in the whole table, the first one 1; found out when it is asked for.
    """

    batch: pa.RecordBatch
    unit: Unit
    numbers: Callable[[], Numbers]

    def place(self, row: int) -> str:
        """What an error calls the row of that index, such as ``line 7``."""
        return f"{self.unit} {self.numbers()[row]}"


def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    """Batches whose rows are called by their number in the whole table."""
    before = 0
    for batch in batches:
        after = before + batch.num_rows
        yield Piece(batch, "row", partial(np.arange, before + 1, after + 1, dtype=np.int64))
        before = after
