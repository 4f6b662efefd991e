"""Values brought to local days, weeks and months, and periods without one filled: what must come, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tests.behaviour.histories import ZONE, utc
from tests.behaviour.oracle import Row, micros

START, END = utc("2025-03-29 12:00"), utc("2025-10-27 12:00")
"""Both changes of the clocks lie between."""

Value = tuple[int, int | None, float | None]
"""When it begins and ends (None: it is a point), and how much it is."""
Period = tuple[int, int, float | None]


@dataclass(frozen=True)
class Resampled:
    """How values are brought to periods."""

    view: str
    period: str
    aggregate: str
    fill: str | float
    fill_limit: int | None
    last: int | None

    def fields(self) -> dict[str, Any]:
        """The fields of such a read, without its view."""
        how: dict[str, Any] = {"period": self.period, "aggregate": self.aggregate, "time_zone": ZONE}
        if self.fill != "none":
            how["fill"] = self.fill
        if self.fill_limit is not None:
            how["fill_limit"] = self.fill_limit
        fields: dict[str, Any] = {"resample": how, "start_valid": START, "end_valid": END}
        return fields if self.last is None else {**fields, "last": self.last}

    def expected(self, rows: Iterable[Row]) -> dict[tuple[Any, ...], float | None]:
        """By series, run and period the value; of the rows of the view."""
        runs: dict[tuple[Any, ...], list[Value]] = {}
        for row in rows:
            run = (row.known_time, row.run_id) if self.view == "overlapping" else ()
            runs.setdefault((row.series_id, *run), []).append((row.valid_time, row.valid_time_end, row.value))
        found = {(*key, *period[:2]): period[2] for key, values in runs.items() for period in self._periods(values)}
        if self.last is None:
            return found
        begins: dict[str, set[int]] = {}
        for key in found:
            begins.setdefault(key[0], set()).add(key[-2])
        return {key: value for key, value in found.items() if key[-2] in sorted(begins[key[0]])[-self.last :]}

    def _periods(self, values: list[Value]) -> Iterator[Period]:
        edges = edges_of(self.period)
        parts: dict[int, list[float | None]] = {}
        for begin, end, value in sorted(values, key=lambda one: (one[0], -1 if one[1] is None else one[1])):
            for place in range(len(edges) - 1):
                within = edges[place] <= begin < edges[place + 1]
                if within if end is None else begin < edges[place + 1] and edges[place] < end:
                    parts.setdefault(place, []).append(value)
        known = {place: aggregated(self.aggregate, some) for place, some in parts.items()}
        if self.fill == "none":
            places = sorted(known)
        elif self.view == "overlapping":
            places = list(range(min(known), max(known) + 1))
        else:
            ends = [place for place in range(len(edges) - 1) if edges[place] < END and edges[place + 1] > START]
            places = list(range(min(ends), max(*ends, *known) + 1))
        for place in places:
            value = known.get(place)
            yield edges[place], edges[place + 1], self._filled(place, places, known, edges) if value is None else value

    def _filled(self, place: int, places: list[int], known: dict[int, float | None], edges: list[int]) -> float | None:
        before = max((each for each in places if each < place and known.get(each) is not None), default=None)
        after = min((each for each in places if each > place and known.get(each) is not None), default=None)
        gap = place - (places[0] - 1 if before is None else before)
        if self.fill in ("none", "null") or (self.fill_limit is not None and gap > self.fill_limit):
            return None
        if isinstance(self.fill, float):
            return self.fill
        earlier = None if before is None else known[before]
        if self.fill == "previous" or earlier is None or before is None or after is None:
            return earlier if self.fill == "previous" else None
        share = (edges[place] - edges[before]) / (edges[after] - edges[before])
        return earlier + ((known[after] or 0.0) - earlier) * share


def edges_of(period: str) -> list[int]:
    """The first instants of local days, of the first of months, or of Mondays."""
    day, found = datetime(2025, 2, 1), list[int]()
    while day <= datetime(2025, 12, 1):
        if period == "P1D" or (period == "P1M" and day.day == 1) or (period == "1w" and day.weekday() == 0):
            found.append(micros(day.replace(tzinfo=ZoneInfo(ZONE))))
        day += timedelta(days=1)
    return found


def aggregated(aggregate: str, values: list[float | None]) -> float | None:
    """The values of a period as one; nulls are left out, NaN is not."""
    known = [value for value in values if value is not None]
    if aggregate == "count":
        return float(len(known))
    if not known or aggregate == "last":
        return known[-1] if known else None
    if any(map(math.isnan, known)):
        return math.nan
    if aggregate in ("min", "max"):
        return min(known) if aggregate == "min" else max(known)
    known.sort()
    low, high = known[(len(known) - 1) // 2], known[len(known) // 2]
    if low == high:
        return low
    return low + 0.5 * (high - low) if math.isfinite(high - low) else 0.5 * low + 0.5 * high


def resampled() -> st.SearchStrategy[Resampled]:
    """Some way to bring values to periods."""
    return st.builds(
        lambda fill, limit, **others: Resampled(fill=fill, fill_limit=None if fill == "none" else limit, **others),
        view=st.sampled_from(["flat", "overlapping"]),
        period=st.sampled_from(["P1D", "P1M", "1w"]),
        aggregate=st.sampled_from(["count", "min", "max", "last", "median"]),
        fill=st.sampled_from(["none", "null", "previous", "linear", 9.0]),
        limit=st.sampled_from([None, None, 1, 40]),
        last=st.sampled_from([None, None, 1, 3]),
    )


def same(one: float | None, other: float | None) -> bool:
    """Whether two values are the same but for rounding."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
