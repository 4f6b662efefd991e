"""Names of clocks beside local times, such as CET and CEST: they tell which of two instants a time means."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.layouts.local_times import both_instants
from timedb.layouts.time_formats import Micros, Stamps, TimeFault

__all__ = ["Clocks", "clocks_of", "told_by_clocks"]

_NAMED = r"^(?P<time>.*\d)\s*(?:\((?P<inside>[A-Z]{3,5})\)|\s(?P<behind>[A-Z]{3,5}))\s*$"
_UTC = ("UTC", "GMT")


@dataclass(frozen=True, slots=True)
class Clocks:
    """Times that have been parted from the names of their clocks.

    Attributes:
        texts: The times.
        names: The name beside each; empty: there is none.
    """

    texts: pa.Array
    names: pa.Array


def clocks_of(texts: pa.Array, time_format: str) -> Clocks | None:
    """Part times from the names of their clocks; None: no time has one.

    Args:
        texts: Such as ``26/10/2025 02:00 (CEST)`` or ``2025-10-26 02:00 CET``.
        time_format: Of the times; one that ends in letters leaves no room for a name.
    """
    if re.search(r"%[bBpz]$", time_format):
        return None
    found = pc.extract_regex(texts, _NAMED)
    named = found.is_valid()
    if not pc.any(named, min_count=0).as_py():
        return None
    time, inside, behind = (found.field(index) for index in range(3))
    names = pc.if_else(named, pc.if_else(pc.equal(inside, ""), behind, inside), "")
    return Clocks(pc.if_else(named, time, texts), names)


def told_by_clocks(stamps: Stamps, names: pa.Array, zone: str | None) -> Stamps:
    """Stamps whose local times with a name have become instants.

    Args:
        stamps: Of the times without the names.
        names: The name beside each, or an empty text.
        zone: Of the local times; UTC and GMT need none.

    Raises:
        TimeFault: the zone's clock has no such name at that time, or there is no zone.
    """
    told = stamps.local & np.array(pc.not_equal(names, "").to_pylist(), dtype=bool)
    utc = told & np.array(pc.is_in(names, pa.array(_UTC)).to_pylist(), dtype=bool)
    named = told & ~utc
    if not named.any():
        return replace(stamps, local=stamps.local & ~told)
    if zone is None:
        raise TimeFault(int(np.flatnonzero(named)[0]), "has no time zone")
    first, last, skipped = both_instants(np.where(named, stamps.micros, 0), zone)
    wanted = np.array(names.to_pylist(), dtype=object)
    is_first, is_last = (_names(instants, zone) == wanted for instants in (first, last))
    if (wrong := named & (skipped | ~(is_first | is_last))).any():
        row = int(np.flatnonzero(wrong)[0])
        raise TimeFault(row, f"is no time that a clock of {zone} calls {wanted[row]}")
    micros = np.where(named, np.where(is_first, first, last), stamps.micros)
    return replace(stamps, micros=micros, local=stamps.local & ~told)


def _names(instants: Micros, zone: str) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    times = pa.array(instants, pa.int64()).cast(pa.timestamp("us", tz=zone))
    return np.array(pc.strftime(times, format="%Z").to_pylist(), dtype=object)
