"""Local times as instants: those that the clock skips, and those that it shows twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.layouts.time_formats import Mask, Micros

__all__ = ["Unknown", "both_instants", "local_walls", "order_of", "second_time"]

NAIVE = pa.timestamp("us")


class Unknown(ValueError):
    """It cannot be known which of two instants a local time means.

    Attributes:
        index: Its row.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def both_instants(walls: Micros, zone: str) -> tuple[Micros, Micros, Mask]:
    """The first and the last instant at which a clock shows each local time, and which it never shows.

    Args:
        walls: Microseconds that the clock shows since 1970-01-01 00:00.
        zone: IANA name.

    Returns:
        Of a time that is skipped both instants are the moment of the change.
    """
    naive = pa.array(walls, pa.int64()).cast(NAIVE)
    first, last = (
        pc.assume_timezone(naive, zone, ambiguous=which, nonexistent=which).cast(pa.int64()).to_numpy()
        for which in ("earliest", "latest")
    )
    skipped = last - first == 1  # Arrow's instants just before and at the change
    return np.where(skipped, last, first), last, skipped


def local_walls(instants: Micros, zone: str) -> Micros:
    """What the clock of a zone shows at each instant."""
    times = pa.array(instants, pa.int64()).cast(pa.timestamp("us", tz=zone))
    walls: Micros = pc.local_timestamp(times).cast(pa.int64()).to_numpy()
    return walls


def order_of(walls: Micros, groups: Micros) -> int:
    """Which way the times of each group go, row by row: 1 forwards, -1 backwards, 0 nowhere, 2 both ways."""
    rows = np.argsort(groups, kind="stable")
    steps = np.diff(walls[rows])[np.diff(groups[rows]) == 0]
    return _way(bool((steps > 0).any()), bool((steps < 0).any()))


def _way(forwards: bool, backwards: bool) -> int:
    return 2 if forwards and backwards else int(forwards) - int(backwards)


def second_time(walls: Sequence[int], order: int) -> Iterator[bool]:
    """For local times that come twice, all of one change of the clock and one series: whether it is the second time.

    Args:
        walls: In the order of the rows.
        order: Which way the file goes, as of :func:`order_of`.

    Raises:
        Unknown: the order of the rows does not say it.
    """
    counts: dict[int, int] = {}
    for index, wall in enumerate(walls):
        counts[wall] = counts.get(wall, 0) + 1
        if counts[wall] > 2:
            raise Unknown(index, "stands more than twice")
    if order == 2:
        raise Unknown(0, "comes twice, and the rows are in no order that says which it is")
    way = order or _way_within(walls)
    places = range(len(walls)) if way >= 0 else range(len(walls) - 1, -1, -1)
    found: dict[int, bool] = {}
    if all(count == 2 for count in counts.values()):
        seen: set[int] = set()
        for index in places:
            found[index] = walls[index] in seen
            seen.add(walls[index])
    else:
        # Some stand once: where the clock goes back once, what follows is the second time.
        ordered = [walls[index] for index in places]
        backs = [at for at in range(1, len(ordered)) if ordered[at] < ordered[at - 1]]
        repeats = any(ordered[at] == ordered[at - 1] for at in range(1, len(ordered)))
        if len(backs) != 1 or repeats:
            raise Unknown(next(index for index, wall in enumerate(walls) if counts[wall] == 1), "stands once")
        for at, index in enumerate(places):
            found[index] = at >= backs[0]
    return (found[index] for index in range(len(walls)))


def _way_within(walls: Sequence[int]) -> int:
    steps = [following - wall for wall, following in itertools.pairwise(walls) if following != wall]
    return 1 if not steps or steps[0] > 0 else -1


def numbers_of(columns: Sequence[pa.Array], count: int) -> Micros:
    """A number for each row, the same where all columns have the same text."""
    numbers: Micros = np.zeros(count, dtype=np.int64)
    for column in columns:
        coded: Any = column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
        codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
        _, numbers = np.unique(numbers * (len(coded.dictionary) + 1) + codes, return_inverse=True)
    return numbers
