"""Rows that come twice in a file: the same again, or others that contradict them.

Of a long file, what is known of each row lies in a temporary file, as runs in the order of their keys; in the end the
runs are read side by side, a range of keys at a time. The memory does not grow with the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from timedb.contract.digest import RowsDigest, Words, row_words
from timedb.layouts.layout import Layout

__all__ = ["LeftOut", "Repeated", "Repeats", "RowWords", "words_of_rows"]

_IDENTITY = ("series_id", "series_key", "labels", "valid_time", "valid_time_end", "known_time")
_CONTENT = ("value", "annotation", "tags")
_RUN_ROWS = 1 << 18
_RANGE_BITS = 10
_ROW = np.dtype([("key", np.uint64), ("check", np.uint64), ("whole", np.uint64), ("row", np.int64)])
_STRETCH = 1 << 20
_BIT = np.uint8(1) << np.arange(8, dtype=np.uint8)
_Rows = np.ndarray[Any, np.dtype[np.void]]
_Bits = np.ndarray[Any, np.dtype[np.uint8]]
_Numbers = np.ndarray[Any, np.dtype[np.int64]]
_Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class RowWords:
    """What is known of each of some rows.

    Attributes:
        key, check: Of what addresses it: the one alone may be that of another address, in a file of a billion rows.
        whole: Of all that it says.
    """

    key: Words
    check: Words
    whole: Words


def words_of_rows(batch: pa.RecordBatch) -> RowWords:
    """The words of the rows of a batch."""
    none = pa.nulls(batch.num_rows)
    columns = [
        pa.chunked_array([batch.column(name) if name in batch.schema.names else none])
        for name in (*_IDENTITY, *_CONTENT)
    ]
    identity, content = columns[: len(_IDENTITY)], columns[len(_IDENTITY) :]
    key = row_words(identity)
    return RowWords(key, row_words(identity[::-1]), row_words(content, key))


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


class LeftOut:
    """Rows that are left out, by their number in the file; a bit for each row of a stretch that has such rows.

    Attributes:
        count: How many.
    """

    def __init__(self) -> None:
        self.count = 0
        self._stretches: dict[int, _Bits] = {}

    def add(self, rows: _Numbers) -> None:
        """Leave further rows out."""
        self.count += len(rows)
        for stretch in np.unique(rows // _STRETCH).tolist():
            within = rows[rows // _STRETCH == stretch] % _STRETCH
            bits = self._stretches.setdefault(stretch, np.zeros(_STRETCH // 8, dtype=np.uint8))
            np.bitwise_or.at(bits, within >> 3, _BIT[within & 7])

    def among(self, start: int, count: int) -> _Mask:
        """Whether each of so many rows, from that one on, is left out."""
        rows = np.arange(start, start + count)
        found = np.zeros(count, dtype=bool)
        for stretch in range(start // _STRETCH, (start + count) // _STRETCH + 1):
            if (bits := self._stretches.get(stretch)) is not None:
                here = rows // _STRETCH == stretch
                within = rows[here] % _STRETCH
                found[here] = bits[within >> 3] & _BIT[within & 7] != 0
        return found


class Repeats:
    """Finds rows that come twice, in files of any length. A context manager.

    Args:
        layout: Whether the same row twice is an error.
        digest: The digest of all rows; those that are left out are taken out of it.
    """

    def __init__(self, layout: Layout, digest: RowsDigest) -> None:
        self._same_is_error = layout.get("duplicates") == "error"
        self._digest = digest
        self._rows = 0
        self._waiting: list[_Rows] = []
        self._waiting_rows = 0
        self._runs = _Runs()
        self._left_out = LeftOut()
        self._faults: dict[bool, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runs.close()

    def add(self, words: RowWords) -> None:
        """Look at further rows."""
        rows = np.empty(len(words.key), dtype=_ROW)
        rows["key"], rows["check"], rows["whole"] = words.key, words.check, words.whole
        rows["row"] = np.arange(self._rows, self._rows + len(rows))
        self._rows += len(rows)
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= _RUN_ROWS:
            self._runs.add(self._once(self._waiting))
            self._waiting, self._waiting_rows = [], 0

    def end(self) -> LeftOut:
        """Say that no more rows come: those that say once more what one before them says.

        Raises:
            Repeated: two contradict each other, or the same comes twice and may not; the first such rows of the file.
        """
        last = self._once(self._waiting) if self._waiting else np.empty(0, dtype=_ROW)
        self._waiting = []
        if self._runs:
            self._runs.add(last)
            for side_by_side in self._runs.ranges(_RUN_ROWS):
                self._once(side_by_side)
        for same in (False, True):
            if same in self._faults and (self._same_is_error or not same):
                raise Repeated(*self._faults[same], same=same)
        return self._left_out

    def _once(self, parts: list[_Rows]) -> _Rows:
        """The first row of each address, in the order of keys; what comes after it is noted.

        Args:
            parts: In the order of the file.
        """
        rows = np.concatenate(parts)
        rows = rows[np.argsort(rows["key"], kind="stable")]
        first = _changes(rows["key"])
        if (_changes(rows["check"]) & ~first).any():  # addresses that share a key
            rows = rows[np.lexsort((rows["check"], rows["key"]))]
            first = _changes(rows["key"]) | _changes(rows["check"])
        again = np.flatnonzero(~first)
        if len(again):
            firsts = np.flatnonzero(first)
            before = rows[firsts[np.searchsorted(firsts, again) - 1]]
            self._note(before, rows[again])
        return rows[first]

    def _note(self, before: _Rows, after: _Rows) -> None:
        same = before["whole"] == after["whole"]
        for kind in (False, True):
            if (found := np.flatnonzero(same == kind)).size:
                earliest = found[np.argmin(after["row"][found])]
                pair = (int(before["row"][earliest]), int(after["row"][earliest]))
                self._faults[kind] = min(self._faults.get(kind, pair), pair, key=itemgetter(1))
        out = after[same]
        self._digest.take_out(out["whole"])
        self._left_out.add(out["row"])


def _changes(words: Words) -> _Mask:
    """Whether each is another than the one before it."""
    found = np.ones(len(words), dtype=bool)
    found[1:] = words[1:] != words[:-1]
    return found


class _Runs:
    """Rows in a temporary file: runs, each in the order of keys, and where in it each range of keys begins."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1)  # noqa: SIM115 # no file before the first run
        self._starts: list[tuple[int, _Numbers]] = []
        self._rows = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, rows: _Rows) -> None:
        """Write one more run."""
        edges = np.arange(1, 1 << _RANGE_BITS, dtype=np.uint64) << np.uint64(64 - _RANGE_BITS)
        inner = np.searchsorted(rows["key"], edges)
        self._starts.append((self._rows, np.concatenate([[0], inner, [len(rows)]])))
        self._file.write(rows.tobytes())
        self._rows += len(rows)

    def ranges(self, most: int) -> Iterator[list[_Rows]]:
        """Ranges of keys, one after the other: the rows of each run, in the order of runs.

        Args:
            most: How many rows a range has at most, unless a thousandth of all rows is more.
        """
        begin, rows = 0, 0
        sizes: _Numbers = np.add.reduce([np.diff(starts) for _, starts in self._starts])
        for end in range(1, len(sizes) + 1):
            rows += int(sizes[end - 1])
            if end == len(sizes) or rows + int(sizes[end]) > most:
                yield [self._read(at, starts[begin], starts[end]) for at, starts in self._starts]
                begin, rows = end, 0

    def _read(self, at: int, start: int, end: int) -> _Rows:
        self._file.seek(int(at + start) * _ROW.itemsize)
        return np.frombuffer(self._file.read(int(end - start) * _ROW.itemsize), dtype=_ROW)

    def close(self) -> None:
        """Forget them."""
        self._file.close()
