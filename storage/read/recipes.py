"""How the answer of a bucket is made from no more tiers than it needs: a table of recipes (decision 0042).

What compaction has found out saves work: ``current`` holds the flat winners of all settled rows, ``current`` and
``revised`` hold each revision once. Only points that a fresh file touches are decided anew. The answers are those of
``views`` over all rows; nothing here may change them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from timedb.contract.wire import ReadCommand
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.rows import views
from timedb.storage.rows.scan import RowSelection
from timedb.storage.tables.schemas import TIERS

__all__ = ["STANDING", "WINNING", "Recipe", "recipe_for"]

STANDING = ("fresh", "current", "revised")
"""The tiers that hold every revision that stands."""

WINNING = ("fresh", "current")
"""The tiers that hold every winner, where no fresh row withdraws one."""

_SETTLED_STANDING, _SETTLED_WINNING = STANDING[1:], WINNING[1:]


@dataclass(frozen=True)
class Recipe:
    """How the answer of a bucket is made.

    Attributes:
        tiers: Those that can hold rows of the answer.
        view: Which of the rows that pass the filters are the answer; None: all of them.
        settled: The tiers whose rows are the answer as they stand at points that no fresh row is about; none where
            all rows compete everywhere.
    """

    tiers: Collection[str]
    view: Callable[[Any], Any] | None = None
    settled: Collection[str] = ()


_Fresh = Literal["nothing", "uploads", "corrections", "withdrawals"]
"""What the fresh rows of a bucket may be. Rows of uploads are each the only version of their revision."""

_VERSIONS = Recipe(TIERS)
_CHAINS = Recipe(TIERS, views.flat_chains)
_FIRST = Recipe(TIERS, views.first)  # when a revision was published, its first version says
_PAST = {"overlapping": Recipe(TIERS, views.overlapping), "flat": Recipe(TIERS, views.flat)}
_OVERLAPPING: dict[_Fresh, Recipe] = {
    "nothing": Recipe(STANDING),
    "uploads": Recipe(STANDING),
    "corrections": Recipe(STANDING, views.overlapping, _SETTLED_STANDING),
    "withdrawals": Recipe(STANDING, views.overlapping, _SETTLED_STANDING),
}
_FLAT: dict[_Fresh, Recipe] = {
    "nothing": Recipe(WINNING),
    "uploads": Recipe(WINNING, views.winners, _SETTLED_WINNING),
    "corrections": Recipe(WINNING, views.flat, _SETTLED_WINNING),
    "withdrawals": Recipe(STANDING, views.flat, _SETTLED_WINNING),
}
_FLAT_AMONG: dict[_Fresh, Recipe] = {  # known_time is bounded above, or runs are named, so that a revised row can win
    "nothing": Recipe(STANDING, views.winners),
    "uploads": Recipe(STANDING, views.winners),
    "corrections": Recipe(STANDING, views.flat),
    "withdrawals": Recipe(STANDING, views.flat),
}


def recipe_for(read: ReadCommand, selection: RowSelection, fresh: Collection[DataFile]) -> Recipe:
    """The recipe for one bucket of a read; ``latest`` has that of ``flat``, of which it is a part.

    Args:
        read: The read.
        selection: Its filters, with ``as_of`` only where it leaves something out.
        fresh: The fresh files of the bucket.
    """
    # A run is picked among the revisions that stand, and has one of each point.
    overlapping = read.view == "overlapping" or read.newest_run
    if read.view == "changes" or read.all_versions:
        return _CHAINS if read.view == "flat" else _VERSIONS
    if read.view == "first" and not read.newest_run:
        return _FIRST
    if selection.as_of is not None or read.corrections != "all" or read.numbers_revisions:
        return _PAST["overlapping" if overlapping else "flat"]
    if overlapping:
        return _OVERLAPPING[_kind(fresh)]
    among = selection.end_known is not None or selection.run_ids is not None or read.has_cut_off
    return (_FLAT_AMONG if among else _FLAT)[_kind(fresh)]


def _kind(fresh: Collection[DataFile]) -> _Fresh:
    if not fresh:
        return "nothing"
    corrections = [file for file in fresh if may_hold_corrections(file)]
    if not corrections:
        return "uploads"
    retracted = any(file.null_count.get("retracted", -1) != file.rows for file in corrections)
    return "withdrawals" if retracted else "corrections"
