"""The digest of an upload: the same for the same explicit fields and the same rows in any order.

Each row is mixed into 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014); the rows' sums and
exclusive-or make the digest of the set, which needs no order and can be added up chunk by chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import is_text

__all__ = ["RowsDigest", "Words", "digests_of_runs", "fields_digest", "row_words", "rows_checksum"]

_CHUNK_ROWS = 16_384  # what is mixed stays in the processor's cache
_NULL = np.uint64(0x6E756C6C6E756C6C)
_NAN = np.uint64(0x7FF8000000000000)
_SENT = ("valid_time", "valid_time_end", "known_time", "value", "annotation", "tags")
Words = np.ndarray[Any, np.dtype[np.uint64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


def fields_digest(fields: dict[str, Any], rows: str) -> str:
    """The digest of an upload's explicit fields together with that of its rows."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(f"{text}\n{rows}".encode(), digest_size=16).hexdigest()


class RowsDigest:
    """The digest of a set of rows, added up piece by piece."""

    def __init__(self) -> None:
        self._rows = 0
        self._total, self._mixed, self._parity = np.uint64(0), np.uint64(0), np.uint64(0)

    def add(self, rows: pa.Table, series_ids: Sequence[str]) -> None:
        """Count further rows in.

        Args:
            rows: Columns ``series`` (index into ``series_ids``), valid_time, valid_time_end, known_time, value,
                annotation, tags, as the client sent them.
            series_ids: The ids.
        """
        with np.errstate(over="ignore"):
            for words in _words_of_rows(rows, series_ids):
                self.add_words(words)

    def add_words(self, words: Words) -> None:
        """Count further rows in, by the word of each."""
        with np.errstate(over="ignore"):
            self._total += words.sum(dtype=np.uint64)
            self._mixed += _mix(words).sum(dtype=np.uint64)
            self._parity ^= np.bitwise_xor.reduce(words)
        self._rows += len(words)

    def take_out(self, words: Words) -> None:
        """Count rows out again that were counted in, by the word of each."""
        with np.errstate(over="ignore"):
            self._total -= words.sum(dtype=np.uint64)
            self._mixed -= _mix(words).sum(dtype=np.uint64)
            self._parity ^= np.bitwise_xor.reduce(words)
        self._rows -= len(words)

    def text(self) -> str:
        """The digest so far."""
        return _text(self._rows, self._total, self._mixed, self._parity)


def digests_of_runs(rows: pa.Table, series_ids: Sequence[str], counts: Integers) -> list[str]:
    """What :class:`RowsDigest` makes of each of several runs that lie one behind the other.

    Args:
        rows: As for :meth:`RowsDigest.add`.
        series_ids: The same.
        counts: Rows of each run.
    """
    sums = np.zeros((3, len(counts)), dtype=np.uint64)
    if rows.num_rows:
        with np.errstate(over="ignore"):
            words = np.concatenate(list(_words_of_rows(rows, series_ids)))
            there = counts > 0  # reduceat gives an empty run the first word of the next
            starts = (np.cumsum(counts) - counts)[there]
            for place, reduce, each in ((0, np.add, words), (1, np.add, _mix(words)), (2, np.bitwise_xor, words)):
                sums[place, there] = reduce.reduceat(each, starts)
    return [_text(int(count), *found) for count, found in zip(counts, sums.T, strict=True)]


def _text(rows: int, total: np.uint64, mixed: np.uint64, parity: np.uint64) -> str:
    return f"{rows}:{total:016x}{mixed:016x}{parity:016x}"


def _words_of_rows(rows: pa.Table, series_ids: Sequence[str]) -> Iterator[Words]:
    ids = np.array([_word(series_id) for series_id in series_ids], dtype=np.uint64)
    columns = [ids[rows.column("series").to_numpy()], *(_bits(rows.column(name)) for name in _SENT)]
    for start in range(0, rows.num_rows, _CHUNK_ROWS):
        yield _row_words([_piece(column, start) for column in columns])


def row_words(columns: Sequence[pa.ChunkedArray], before: Words | None = None) -> Words:
    """A word for each row, made of its cells; the same cells make the same word in every release.

    Args:
        columns: Text (plain or a dictionary's), lists of text, times or float64.
        before: The words of the columns before them, if there are any.
    """
    with np.errstate(over="ignore"):
        rows = len(columns[0])
        words = [np.broadcast_to(_bits(column), rows) for column in columns]
        return _row_words(words if before is None else [before, *words])


def rows_checksum(rows: pa.Table) -> int:
    """A checksum of a set of rows: those of its parts add up modulo 2 to the 64th, whatever their order.

    It is for finding rows that were lost or changed by mistake: columns are added up, each times an odd number of its
    own, and only the sum is mixed.

    Args:
        rows: ``timedb.storage.rows.rows.ROWS``.
    """
    total = 0
    with np.errstate(over="ignore"):
        columns = [_bits(column) for column in rows.columns]
        for start in range(0, rows.num_rows, _CHUNK_ROWS):
            words = np.zeros(min(_CHUNK_ROWS, rows.num_rows - start), dtype=np.uint64)
            for number, column in enumerate(columns):
                words += _piece(column, start) * np.uint64((number * 0x9E3779B97F4A7C15 | 1) % (1 << 64))
            total += int(_mix(words).sum(dtype=np.uint64))
    return total % (1 << 64)


def _bits(column: pa.ChunkedArray) -> Words:
    """A column as words; one word where it is null throughout."""
    if column.null_count == len(column):
        return np.array(_NULL)
    if pa.types.is_dictionary(column.type):
        coded = column.combine_chunks()
        known: Words = np.array([*map(_word, coded.dictionary.to_pylist()), _NULL], dtype=np.uint64)
        words: Words = known[pc.fill_null(coded.indices, len(known) - 1).to_numpy()]
        return words
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _tag_words(column)
    if is_text(column.type):
        return _bits(column.dictionary_encode())
    if pa.types.is_boolean(column.type):
        return _bits(column.cast(pa.string()).dictionary_encode())
    if pa.types.is_timestamp(column.type):
        bits: Words = column.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    else:
        values = column.fill_null(0.0).to_numpy()
        nothing = np.isnan(values)
        bits = values.view(np.uint64)
        bits = np.where(nothing, _NAN, bits) if nothing.any() else bits
    return np.where(column.is_null().to_numpy(), _NULL, bits) if column.null_count else bits


def _piece(column: Words, start: int) -> Words:
    return column if column.ndim == 0 else column[start : start + _CHUNK_ROWS]


def _row_words(columns: list[Words]) -> Words:
    words = columns[0]
    for column in columns[1:]:
        words = _mix(words + column)
    return words


def _tag_words(column: pa.ChunkedArray) -> Words:
    """Lists of text as words; a list is looked at once, however many rows have it."""
    lists = column.combine_chunks()
    items = lists.flatten()
    items = items if pa.types.is_dictionary(items.type) else items.dictionary_encode()
    texts = [
        None if text is None else text.replace("\\", "\\\\").replace(",", "\\,")
        for text in items.dictionary.to_pylist()
    ]
    codes = pc.fill_null(items.indices, len(texts)).to_numpy()
    texts.append(None)
    lengths = pc.list_value_length(lists)
    ends = np.cumsum(pc.fill_null(lengths, 0).to_numpy())
    absent = lists.is_null().to_numpy(zero_copy_only=False)
    known: dict[bytes, np.uint64] = {}
    words = np.empty(len(lists), dtype=np.uint64)
    begin = 0
    for row, end in enumerate(ends.tolist()):
        key = codes[begin:end].tobytes()
        if key not in known:  # such that different lists make different texts
            known[key] = _word(",".join(text for code in codes[begin:end] if (text := texts[code]) is not None))
        words[row] = _NULL if absent[row] else known[key]
        begin = end
    return words


def _word(text: str | None) -> np.uint64:
    if text is None:
        return _NULL
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _mix(words: Words) -> Words:
    mixed = words + np.uint64(0x9E3779B97F4A7C15)
    shifted = mixed >> np.uint64(30)
    for shift, factor in ((27, 0xBF58476D1CE4E5B9), (31, 0x94D049BB133111EB)):
        mixed ^= shifted
        mixed *= np.uint64(factor)
        np.right_shift(mixed, np.uint64(shift), out=shifted)
    mixed ^= shifted
    return mixed
