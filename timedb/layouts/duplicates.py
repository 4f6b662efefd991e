"""Rows that come twice in a file: the same again, or others that contradict them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from timedb.contract.digest import Words, row_words
from timedb.layouts.layout import Layout

__all__ = ["Repeated", "Repeats", "words_of_rows"]

_IDENTITY = ("series_id", "series_key", "labels", "valid_time", "valid_time_end", "known_time")
_CONTENT = ("value", "annotation", "tags")
_MAX_ROWS = 50_000_000


def words_of_rows(batch: pa.RecordBatch) -> tuple[Words, Words]:
    """A word of what addresses each row, and one of all that it says."""
    table = pa.Table.from_batches([batch])
    none = pa.chunked_array([pa.nulls(batch.num_rows)])
    columns = [table.column(name) if name in table.column_names else none for name in (*_IDENTITY, *_CONTENT)]
    return row_words(columns[: len(_IDENTITY)]), row_words(columns)


class Repeated(ValueError):
    """Two rows of one address.

    Attributes:
        rows: Their numbers.
        same: Whether they say the same.
    """

    def __init__(self, earlier: int, later: int, *, same: bool) -> None:
        super().__init__("two rows have one address")
        self.rows = (earlier, later)
        self.same = same


class Repeats:
    """Finds rows that come twice; of a file of over 50 million rows the service finds them.

    Args:
        layout: Whether the same row twice is an error.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._keys: list[Words] = []
        self._whole: list[Words] = []
        self._rows = 0

    def add(self, keys: Words, whole: Words) -> None:
        """Look at further rows."""
        self._rows += len(keys)
        if self._rows <= _MAX_ROWS:
            self._keys.append(keys)
            self._whole.append(whole)
        else:
            self._keys, self._whole = [], []

    @property
    def words(self) -> Words:
        """The words of all rows so far."""
        return np.concatenate(self._whole)

    def dropped(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Which rows, by their number in the file, say once more what one before them says.

        Raises:
            Repeated: two contradict each other, or the same comes twice and may not.
        """
        nothing = np.zeros(0, dtype=np.int64)
        if not self._keys:
            return nothing
        keys, whole = np.concatenate(self._keys), np.concatenate(self._whole)
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        if not len(again):
            return nothing
        later, earlier = order[again + 1], order[again]
        differ = np.flatnonzero(whole[later] != whole[earlier])
        if len(differ):
            raise Repeated(int(earlier[differ[0]]), int(later[differ[0]]), same=False)
        if self._layout.get("duplicates") == "error":
            first = int(np.argmin(later))
            raise Repeated(int(earlier[first]), int(later[first]), same=True)
        return np.sort(later).astype(np.int64)
