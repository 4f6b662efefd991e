"""Lists of series: which ones, in what order, page by page."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any, overload

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import ListSeries, quoted
from timedb.storage.catalog.catalog import KnownSeries, Series

__all__ = ["ListedSeries", "SeriesPage", "page_of"]

_Place = tuple[int, str, str, str]
"""Where a series stands in a list: how well it answers the search, then its name, its labels and its id."""
_EXACT, _BEGINS, _IN_NAME, _ELSEWHERE = range(4)


class ListedSeries(Sequence[dict[str, Any]]):
    """Series as the API shows them, made when they are looked at: a long list is never whole in memory."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = series

    def __len__(self) -> int:
        return len(self._series)

    @overload
    def __getitem__(self, which: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, which: slice) -> ListedSeries: ...

    def __getitem__(self, which: int | slice) -> dict[str, Any] | ListedSeries:
        if isinstance(which, slice):
            return ListedSeries(self._series[which])
        return self._series[which].to_dict()


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """A page of a list.

    Attributes:
        series: In order.
        cursor: What goes into ``after`` for the page that follows; None: this is the last one.
    """

    series: Sequence[Series]
    cursor: str | None = None


def page_of(known: KnownSeries, message: ListSeries) -> SeriesPage:
    """The series of a list that are not retired, by name and labels; under a search the best answers first.

    Those are the series of that very name or id, then names that begin with what is sought, then names that hold each
    of its words, then those that mention them elsewhere.

    Raises:
        InvalidRequest: ``after`` is no cursor of a list.
    """
    after = None if message.after is None else _place_from(message.after)
    wanted = None if message.limit is None else message.limit + 1
    sought = (message.search or "").strip().casefold()
    if sought:
        placed = (_place(one, sought) for one in _kept(known.ordered, message))
        places = [place for place in placed if after is None or place > after]
        places = sorted(places) if wanted is None else nsmallest(wanted, places)
        found = [known.by_id[series_id] for *_, series_id in places]
    else:
        start = 0 if after is None else bisect_right(known.ordered, after, key=lambda one: _place(one, ""))
        found = list(islice(_kept(known.ordered, message, start), wanted))
    if message.limit is None or len(found) <= message.limit:
        return SeriesPage(found)
    return SeriesPage(found[: message.limit], _cursor_of(_place(found[message.limit - 1], sought)))


def _kept(ordered: Sequence[Series], message: ListSeries, start: int = 0) -> Iterator[Series]:
    ids = None if message.series_ids is None else set(message.series_ids)
    words = (message.search or "").casefold().split()
    for series in islice(ordered, start, None):
        if (
            not series.retired
            and (message.name is None or series.name == message.name)
            and (ids is None or series.series_id in ids)
            and series.matches(message.labels)
            and series.mentions(words)
        ):
            yield series


def _place(series: Series, sought: str) -> _Place:
    return _rank(series, sought), series.name, series.labels, series.series_id


def _rank(series: Series, sought: str) -> int:
    name = series.name.casefold()
    if sought in ("", name, series.series_id):
        return _EXACT
    if name.startswith(sought):
        return _BEGINS
    return _IN_NAME if all(word in name for word in sought.split()) else _ELSEWHERE


def _cursor_of(place: _Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode()


def _place_from(text: str) -> _Place:
    try:
        rank, name, labels, series_id = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(f"after: {quoted(text)} is no cursor of a list of series") from None
    if type(rank) is not int or not all(isinstance(one, str) for one in (name, labels, series_id)):
        raise InvalidRequest(f"after: {quoted(text)} is no cursor of a list of series")
    return rank, name, labels, series_id
