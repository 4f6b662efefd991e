"""Which tier each row belongs to, once no row of its point is left out (docs/decisions/0042-four-tiers.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from timedb.storage.rows.rows import keys_of
from timedb.storage.rows.sorting import Integers, sorted_order
from timedb.storage.rows.views import POINT
from timedb.storage.tables.schemas import TIERS

__all__ = ["Tiers", "differs_from_next", "numbered", "settle"]

Tiers = np.ndarray[Any, np.dtype[np.int8]]
"""For each row the place of its tier in ``timedb.storage.tables.schemas.TIERS``."""

Mask = np.ndarray[Any, np.dtype[np.bool_]]
FRESH, CURRENT, REVISED, CORRECTED = (TIERS.index(name) for name in ("fresh", "current", "revised", "corrected"))


def settle(rows: pa.Table, tiers: Tiers) -> Tiers:
    """Decide the tier of rows at all points that a fresh row touches; the others keep theirs.

    Args:
        rows: ``gathered`` rows: every fresh row of some files, every current row at their points, and, at
            points of corrections, every revised row.
        tiers: The tiers that they have.
    """
    keys = keys_of(rows, (*POINT, "known_time", "change_time", "run_id"))
    order = sorted_order(keys)
    if order is None:
        order = np.arange(rows.num_rows)
    series, valid, end, known, _, run = (key[order] for key in keys)
    tier = tiers[order]
    point = numbered(series, valid, end)
    fresh = np.zeros(rows.num_rows, dtype=np.bool_)
    fresh[point[tier == FRESH]] = True
    touched = fresh[point]
    retracted = rows.column("retracted")
    corrected = _superseded(point, known, run) | (tier == CORRECTED)
    if retracted.null_count < len(retracted):
        corrected |= retracted.fill_null(False).to_numpy()[order]
    standing = np.flatnonzero(touched & ~corrected)
    last = differs_from_next(point[standing])
    tier[touched] = CORRECTED
    tier[standing] = np.where(last, CURRENT, REVISED)
    settled = np.empty_like(tier)
    settled[order] = tier
    return settled


def numbered(*keys: Integers) -> Integers:
    """For each row the number of its key; equal keys stand together."""
    new = np.zeros(len(keys[0]), dtype=np.bool_)
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new)


def differs_from_next(numbers: Integers) -> Mask:
    """Whether a row's number is not that of the next one; true for the last."""
    return np.append(numbers[1:] != numbers[:-1], np.ones(min(len(numbers), 1), dtype=np.bool_))


def _superseded(point: Integers, known: Integers, run: Integers) -> Mask:
    """Whether a later version of a row's revision is there; rows are sorted by point, known_time and change_time."""
    found = np.zeros(len(point), dtype=np.bool_)
    shared = np.flatnonzero((point[1:] == point[:-1]) & (known[1:] == known[:-1]))
    if not len(shared):
        return found
    # Few points have several rows of one known_time; only those are looked at by run.
    several = np.union1d(shared, shared + 1)
    order = sorted_order([point[several], known[several], run[several]])
    if order is not None:
        several = several[order]
    revision = numbered(point[several], known[several], run[several])
    found[several[~differs_from_next(revision)]] = True
    return found
