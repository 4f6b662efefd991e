"""What figures of accuracy are made from: the reads of forecasts, of actual values and of references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.durations import Duration
from timedb.contract.errors import TooLarge
from timedb.contract.times import from_micros
from timedb.contract.wire import AccuracyTicket, ReadTicket, Selecting
from timedb.storage.catalog.catalog import Series
from timedb.storage.read.lead_totals import SKILLS, STRETCH, References, summed
from timedb.storage.read.pairing import Comparison, Forecast
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.scored_points import ACTUALS, MATCH, Scorer, SeriesScorer, SiblingScorer, with_numbers

__all__ = ["AccuracyReads", "Read", "forecasts_of", "horizon_of"]

_DAY = 86_400_000_000
_TIMES_HELD = 2
_BY_ERROR = ("interval", "crps")

Read = Callable[[ReadTicket], ReadPlan]


def horizon_of(ticket: AccuracyTicket) -> int:
    """Microseconds of a bucket of lead times."""
    return ticket.horizon.days * _DAY + ticket.horizon.micros


def forecasts_of(ticket: AccuracyTicket, columns: Sequence[str]) -> ReadTicket:
    """The read of the forecasts that a ticket selects, ordered by series."""
    selecting = {name: getattr(ticket, name) for name in Selecting.model_fields}
    return ReadTicket(
        view=ticket.forecast_view,
        relative=ticket.relative,
        corrections=ticket.corrections,
        columns=list(columns),
        ordered=True,
        bucket=ticket.bucket,
        table_version=ticket.table_version,
        **selecting,
    )


class AccuracyReads:
    """Reads on one snapshot, as an answer needs them.

    Attributes:
        grow: Called with bytes before so much more is held.

    Args:
        ticket: What is asked for.
        read: Plans a read on the snapshot.
        as_of: The change_time that the answer is resolved to.
        field: The field of the ticket that says which series hold the actual values.
        max_held: The most actual values, and scores of a reference, that are held in memory.
    """

    def __init__(self, ticket: AccuracyTicket, *, read: Read, as_of: datetime, field: str, max_held: int) -> None:
        self._ticket = ticket
        self._read = read
        self._as_of = as_of
        self._field = field
        self._max_held = max_held
        self.grow: Callable[[int], object] = lambda _: None
        self._asked = 0
        self._actuals: tuple[set[str], pl.DataFrame] = set(), pl.DataFrame(schema=ACTUALS)
        self._points: dict[tuple[str, ...], tuple[dict[Forecast, int], pl.DataFrame]] = {}

    def series_scorer(self, comparisons: Sequence[Comparison]) -> SeriesScorer:
        """What scores series, each for itself."""
        return SeriesScorer(comparisons, horizon_of(self._ticket), self._field)

    def series(self, ticket: ReadTicket) -> Iterator[pl.DataFrame]:
        """The rows of a read that is ordered by series, in frames that cut no stretch of a series in two."""
        held: list[pl.DataFrame] = []
        for batch in self._planned(ticket).batches():
            rows = _frame(batch)
            inside = _of_same_stretch(rows, rows.tail(1))
            first = int(inside.arg_max() or 0)  # of the last stretch
            if first or (held and not _of_same_stretch(held[-1].tail(1), rows.tail(1))[0]):
                yield pl.concat([*held, rows.head(first)])
                held = []
            held.append(rows.slice(first))
        if held:
            yield pl.concat(held)

    def siblings(
        self, comparisons: Sequence[Comparison], *, as_reference: bool = False
    ) -> Iterator[tuple[SiblingScorer, Iterator[pl.DataFrame]]]:
        """What scores siblings, as many together as fit into memory, and their rows by whole stretches in order.

        Args:
            comparisons: Of siblings.
            as_reference: What the runs that the ticket names did not write counts, too.
        """
        groups = [[series.series_id for series in each.forecast.series] for each in comparisons]
        every = self._ticket_of([each for group in groups for each in group], as_reference=as_reference)
        for places, slices in self._planned(every).groups_at_once(groups):
            chosen = [comparisons[place] for place in places]
            ids = [each for place in places for each in groups[place]]
            windows = self._windows(chosen, slices)
            rows = self._rows([self._ticket_of(ids, as_reference=as_reference, window=each) for each in windows])
            yield SiblingScorer(chosen, horizon_of(self._ticket), self._field), rows

    def _rows(self, tickets: Iterable[ReadTicket]) -> Iterator[pl.DataFrame]:
        for ticket in tickets:
            frames = [_frame(batch) for batch in self._planned(ticket).batches()]
            if frames:
                self._hold(*frames, *frames)
                yield pl.concat(frames)

    def _windows(self, comparisons: Sequence[Comparison], slices: int) -> list[tuple[datetime | None, datetime | None]]:
        """Ranges of valid_time with about as many actual values each; whole stretches, as many as slices at most."""
        start, end = self._ticket.start_valid, self._ticket.end_valid
        times = self.actuals(comparisons)["valid_time"].to_physical().sort().to_numpy()
        if slices == 1 or not len(times):
            return [(start, end)]
        cuts = np.unique(times[[len(times) * number // slices for number in range(1, slices)]] // STRETCH)
        inner = [cut for cut in (from_micros(int(cut) * STRETCH) for cut in cuts) if self._is_inside(cut)]
        return list(zip([start, *inner], [*inner, end], strict=True))

    def _is_inside(self, cut: datetime) -> bool:
        start, end = self._ticket.start_valid, self._ticket.end_valid
        return (start is None or cut > start) and (end is None or cut < end)

    def actuals(self, comparisons: Sequence[Comparison]) -> pl.DataFrame:
        """The actual values that some forecasts are compared with, as ``ACTUALS``, and maybe others that are held.

        Raises:
            TooLarge: they are too many.
        """
        ids = {each.actual.series_id for each in comparisons}
        if not ids <= self._actuals[0]:
            held, rows = self._actuals
            found = self._read_actuals(sorted(ids - held))
            if rows.height + found.height > self._max_held:
                held, rows, found = (
                    set(),
                    rows.clear(),
                    found if held.isdisjoint(ids) else self._read_actuals(sorted(ids)),
                )
            self._actuals = held | ids, pl.concat([rows, found])
        return self._actuals[1]

    def _read_actuals(self, ids: Sequence[str]) -> pl.DataFrame:
        found, count = [pl.DataFrame(schema=ACTUALS)], 0
        for batch in self._planned(self._ticket_of_actuals(ids)).batches():
            piece = pl.DataFrame(batch).cast({"series_id": pl.String})
            piece = with_numbers(piece.rename({"series_id": "actual_id", "value": "actual"}), "actual")
            found.append(piece.select(*ACTUALS))
            count += piece.height
            self._hold(self._actuals[1], *found, *found)
            if count > self._max_held:
                raise TooLarge(
                    f"{self._field}: the series has more than {self._max_held} values, the limit; "
                    "narrow start_valid and end_valid"
                )
        return pl.concat(found)

    def references(self, scorer: Scorer) -> References | None:
        """What the forecasts of a scorer have to beat, scored, and maybe others that are held.

        Raises:
            TooLarge: the points of the reference are too many.
        """
        if self._ticket.reference_key is None:
            return None
        scores = tuple(name for name in SKILLS if name in scorer.terms)
        wanted = {each.reference: each.actual for each in scorer.comparisons if each.reference is not None}
        places, points = self._points.get(scores, ({}, _NO_POINTS.with_columns(pl.lit(0.0).alias(k) for k in scores)))
        if not wanted.keys() <= places.keys():
            missing = {each: actual for each, actual in wanted.items() if each not in places}
            if points.height + (found := self._score(missing, scores, len(places))).height > self._max_held:
                places, points, missing = {}, points.clear(), wanted
                found = self._score(wanted, scores, 0)
            places = places | {each: len(places) + place for place, each in enumerate(missing)}
            points = pl.concat([points, found])
            self._points[scores] = places, points
        numbers = [-1 if each.reference is None else places[each.reference] for each in scorer.comparisons]
        return References(list(places), np.array(numbers, np.int64), points)

    def _score(self, wanted: Mapping[Forecast, Series], scores: Sequence[str], first: int) -> pl.DataFrame:
        """The points of some references, numbered from ``first`` on."""
        comparisons = [Comparison(forecast, actual, None) for forecast, actual in wanted.items()]
        found = [_NO_POINTS.with_columns(pl.lit(0.0).alias(name) for name in scores)]
        for points in self._points_of(comparisons):
            found.append(points.select(pl.col("unit") + first, *_POINT[1:], *scores))
            self._hold(self._actuals[1], *found, *(points for _, points in self._points.values()))
            if sum(each.height for each in found) > self._max_held:
                raise TooLarge(
                    f"reference_key: it has scores of more than {self._max_held} points, the limit; "
                    "narrow start_valid and end_valid"
                )
        return pl.concat(found)

    def _points_of(self, comparisons: Sequence[Comparison]) -> Iterator[pl.DataFrame]:
        """The scores of some forecasts by point and lead time, their numbers being their places."""
        alone = [place for place, each in enumerate(comparisons) if each.forecast.siblings is None]
        if alone:
            chosen = sorted((comparisons[place].forecast.first.series_id, place) for place in alone)
            alone_scorer = self.series_scorer([comparisons[place] for _, place in chosen])
            ticket = self._ticket_of([series_id for series_id, _ in chosen], as_reference=True)
            for rows in self.series(ticket):
                scored = alone_scorer.score(rows, self.actuals(comparisons))
                by_error = [pl.col("absolute").alias(name) for name in _BY_ERROR]
                yield _by_point(scored.with_columns(by_error), [place for _, place in chosen])
        together = [place for place, each in enumerate(comparisons) if each.forecast.siblings is not None]
        done = 0
        for scorer, pieces in self.siblings([comparisons[place] for place in together], as_reference=True):
            numbers = together[done : done + len(scorer.comparisons)]
            done += len(numbers)
            for rows in pieces:
                scored = scorer.score(rows, self.actuals(comparisons))
                yield _by_point(scored.filter(pl.col("count") > 0), numbers)

    def _ticket_of(
        self,
        series_ids: Iterable[str],
        *,
        as_reference: bool,
        window: tuple[datetime | None, datetime | None] | None = None,
    ) -> ReadTicket:
        fixed: dict[str, Any] = {
            "series_ids": sorted(set(series_ids)),
            "series_keys": None,
            "labels": None,
            "as_of": self._as_of,
            "bucket": None,
        }
        if as_reference:
            fixed |= {"run_ids": None, "workflow_id": None}
        if window is not None:
            fixed |= {"start_valid": window[0], "end_valid": window[1], "ordered": False}
        return forecasts_of(self._ticket, SiblingScorer.columns).model_copy(update=fixed)

    def _ticket_of_actuals(self, series_ids: Sequence[str]) -> ReadTicket:
        view = self._ticket.actual_view
        return ReadTicket(
            series_ids=list(series_ids),
            view="flat" if isinstance(view, Duration) else view,
            lead_time=view if isinstance(view, Duration) else None,
            columns=["series_id", *MATCH, "value"],
            start_valid=self._ticket.start_valid,
            end_valid=self._ticket.end_valid,
            as_of=self._as_of,
        )

    def _planned(self, ticket: ReadTicket) -> ReadPlan:
        plan = self._read(ticket)
        plan.hold(self.grow)
        return plan

    def _hold(self, *frames: pl.DataFrame) -> None:
        """Ask for the memory of what is held beside the slices of reads, as far as it was not asked for before."""
        size = int(sum(frame.estimated_size() for frame in frames))
        if size > self._asked:
            self.grow(size - self._asked)
            self._asked = size


_POINT = ("unit", *MATCH, "lead", "count")
_NO_POINTS = pl.DataFrame(schema=dict.fromkeys(_POINT, pl.Int64()))


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    rows = pl.DataFrame(batch)
    return rows.cast({name: pl.String for name in ("series_id", "run_id") if name in rows.columns})


def _of_same_stretch(rows: pl.DataFrame, last: pl.DataFrame) -> pl.Series:
    """Whether rows are of the series and the stretch of valid_time that a row is of."""
    stretches = rows["valid_time"].to_physical() // STRETCH
    of_series: pl.Series = rows["series_id"] == last["series_id"][0]
    of_stretch: pl.Series = stretches == last["valid_time"].to_physical()[0] // STRETCH
    found: pl.Series = of_series & of_stretch
    return found


def _by_point(scored: pl.DataFrame, numbers: Sequence[int]) -> pl.DataFrame:
    """Scores by forecast, point and lead time, the forecasts under other numbers."""
    places = pl.Series("unit", np.array(numbers, np.int64)[scored["unit"].to_numpy()])
    return summed(scored.drop("skipped").with_columns(places), ["unit", *MATCH, "lead"])
