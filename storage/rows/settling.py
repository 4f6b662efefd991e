"""Which tier each row belongs to, once no row of its point is left out (docs/decisions/0042-four-tiers.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from timedb.storage.rows.orders import WINNER
from timedb.storage.rows.ranking import Ranking, differs_from_next, numbered
from timedb.storage.rows.sorting import Integers, sorted_order
from timedb.storage.tables.schemas import TIERS

__all__ = ["Tiers", "assign_tiers"]

Tiers = np.ndarray[Any, np.dtype[np.int8]]
"""For each row the place of its tier in ``timedb.storage.tables.schemas.TIERS``."""

FRESH, CURRENT, REVISED, CORRECTED = (TIERS.index(name) for name in ("fresh", "current", "revised", "corrected"))


def assign_tiers(rows: pa.Table, tiers: Tiers) -> Tiers:
    """Decide the tier of rows at all points that a fresh row touches; the others keep theirs.

    Args:
        rows: ``gathered`` rows: every fresh row of some files, every current row at their points, and, at
            points of corrections, every revised row.
        tiers: The tiers that they have.
    """
    ranking = Ranking(rows, WINNER)
    order = np.arange(rows.num_rows) if ranking.places is None else ranking.places
    point, tier = ranking.number, tiers[order]
    fresh = np.zeros(rows.num_rows, dtype=np.bool_)
    fresh[point[tier == FRESH]] = True
    touched = fresh[point]
    retracted = rows.column("retracted")
    corrected = _superseded(point, ranking.column("known_time"), ranking.column("run_id")) | (tier == CORRECTED)
    if retracted.null_count < len(retracted):
        corrected |= retracted.fill_null(False).to_numpy()[order]
    standing = np.flatnonzero(touched & ~corrected)
    last = differs_from_next(point[standing])
    tier[touched] = CORRECTED
    tier[standing] = np.where(last, CURRENT, REVISED)
    settled = np.empty_like(tier)
    settled[order] = tier
    return settled


def _superseded(point: Integers, known: Integers, run: Integers) -> np.ndarray[Any, np.dtype[np.bool_]]:
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
