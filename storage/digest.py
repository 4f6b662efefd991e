"""The digest of an upload: the same for the same explicit fields and the same rows in any order.

Each row is mixed into 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014); the rows' sums and
exclusive-or make the digest of the set, which needs no order and can be added up batch by batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

__all__ = ["fields_digest", "rows_digest"]

_CHUNK_ROWS = 1_000_000
_NULL = np.uint64(0x6E756C6C6E756C6C)
_NAN = np.uint64(0x7FF8000000000000)
Words = np.ndarray[Any, np.dtype[np.uint64]]


def fields_digest(fields: dict[str, Any], rows: str) -> str:
    """The digest of an upload's explicit fields together with that of its rows."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(f"{text}\n{rows}".encode(), digest_size=16).hexdigest()


def rows_digest(frame: pl.DataFrame, series_ids: Sequence[str]) -> str:
    """The digest of a set of rows.

    Args:
        frame: Columns ``series`` (index into ``series_ids``), valid_time, valid_time_end, known_time, value,
            annotation, tags, as the client sent them.
        series_ids: The ids.
    """
    ids = np.array([_word(series_id) for series_id in series_ids], dtype=np.uint64)
    total, mixed, parity = np.uint64(0), np.uint64(0), np.uint64(0)
    with np.errstate(over="ignore"):
        for start in range(0, frame.height, _CHUNK_ROWS):
            words = _row_words(frame.slice(start, _CHUNK_ROWS), ids)
            total += words.sum(dtype=np.uint64)
            mixed += _mix(words).sum(dtype=np.uint64)
            parity ^= np.bitwise_xor.reduce(words)
    return f"{frame.height}:{total:016x}{mixed:016x}{parity:016x}"


def _row_words(frame: pl.DataFrame, ids: Words) -> Words:
    words: Words = ids[frame["series"].to_numpy()]
    for name in ("valid_time", "valid_time_end", "known_time"):
        words = _mix(words + _bits(frame[name].cast(pl.Int64).reinterpret(signed=False)))
    value = frame["value"].to_physical()
    bits = value.fill_null(0.0).to_numpy().view(np.uint64)
    words = _mix(
        words
        + np.where(value.is_null().to_numpy(), _NULL, np.where(value.is_nan().fill_null(False).to_numpy(), _NAN, bits))
    )
    for name in ("annotation", "tags"):
        if frame[name].null_count() < frame.height:
            text = frame[name] if name == "annotation" else frame[name].list.join("\x1f")
            distinct = text.unique()
            known = dict(zip(distinct.to_list(), (_word(item) for item in distinct.to_list()), strict=True))
            words = words + np.array([known[item] for item in text.to_list()], dtype=np.uint64)
        words = _mix(words)
    return words


def _bits(values: pl.Series) -> Words:
    if values.null_count() == 0:
        return values.to_numpy()
    return np.where(values.is_null().to_numpy(), _NULL, values.fill_null(0).to_numpy())


def _word(text: str | None) -> np.uint64:
    if text is None:
        return _NULL
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _mix(words: Words) -> Words:
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
