"""Forecasts against what came: how large the errors were, and how good quantiles and ensembles, by lead time.

Forecasts and actual values are reads of one snapshot. Series are scored as they stream, bucket by bucket; siblings,
which lie in several buckets, as many together as fit into memory. The rows of a series are brought into one order
before they are added up, so that the figures are the same to the last bit wherever the rows lie.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa

from timedb.contract.wire import AccuracyTicket
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog, KnownSeries
from timedb.storage.read.accuracy_reads import AccuracyReads, Read, forecasts_of, horizon_of
from timedb.storage.read.accuracy_rows import accuracy_schema, rows_of_figures
from timedb.storage.read.lead_totals import LeadTotals
from timedb.storage.read.pairing import Comparison, Forecast, Pairing, forecasts_of_siblings, names_of_siblings
from timedb.storage.read.parts import UNKNOWN
from timedb.storage.read.planning import select_series
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.scored_points import Scorer, SeriesScorer

__all__ = ["AccuracyPart", "AccuracyPlan", "plan_accuracy"]

_OF_SIBLINGS = ""  # the bucket of their part, for they lie in several
_AFTER_ALL = "g"  # behind every hexadecimal digit
_READS_AT_ONCE = 2


@dataclass(frozen=True)
class AccuracyPart:
    """A piece of an answer that can be fetched alone: its ticket; nobody knows yet how many rows it has (-1)."""

    ticket: AccuracyTicket
    rows: int = UNKNOWN


class AccuracyPlan:
    """A comparison on one snapshot; nothing has been opened yet. The surface is that of a ``ReadPlan``.

    Args:
        ticket: What is asked for.
        read: Plans a read on that snapshot.
        forecasts: The read of all forecasts, ordered by series.
        series: The forecasts that are series, each for itself, by series_id.
        siblings: Those that are siblings together, by name and labels.
        actual_field: The field of the ticket that says which series hold the actual values.
        max_held: The most actual values, and scores of a reference, that are held in memory.
    """

    ordered = True

    def __init__(
        self,
        ticket: AccuracyTicket,
        *,
        read: Read,
        forecasts: ReadPlan,
        series: Sequence[Comparison],
        siblings: Sequence[Comparison],
        actual_field: str,
        max_held: int,
    ) -> None:
        self.ticket = ticket
        self.table_version = forecasts.table_version
        self._forecasts = forecasts
        self._series = series
        self._siblings = siblings
        self._reads = AccuracyReads(ticket, read=read, as_of=forecasts.as_of, field=actual_field, max_held=max_held)

    @property
    def as_of(self) -> datetime:
        """The change_time that the answer is resolved to, UTC."""
        return self._forecasts.as_of

    @property
    def token(self) -> str:
        """What gives the same figures again, whatever has been written since."""
        return self._forecasts.token

    @property
    def schema(self) -> pa.Schema:
        """The schema of the answer, with the table version, the resolved ``as_of`` and the token."""
        return accuracy_schema(skills=self.ticket.reference_key is not None, metadata=self._forecasts.schema.metadata)

    @property
    def parts(self) -> list[AccuracyPart]:
        """One part a bucket of forecasts, and one for siblings, in the order of the answer."""
        found = [self._part(part.ticket.bucket) for part in self._forecasts.parts]
        if self._siblings and self.ticket.bucket is None and found[0].ticket.bucket is not None:
            found.append(self._part(_OF_SIBLINGS))
        return found

    @property
    def in_one_part(self) -> AccuracyPart:
        """All figures as one part, for whoever cannot take as many as there are :attr:`parts`."""
        return self._part(self.ticket.bucket)

    def _part(self, bucket: str | None) -> AccuracyPart:
        fixed = {"as_of": self.as_of, "table_version": self.table_version, "bucket": bucket}
        return AccuracyPart(self.ticket.model_copy(update=fixed))

    @property
    def memory_bytes(self) -> int:
        """Bytes about which it takes beside what is held, which is asked for as it is read."""
        return _READS_AT_ONCE * self._forecasts.memory_bytes

    def hold(self, grow: Callable[[int], object]) -> None:
        """Have further memory asked for as it is needed; see ``ReadPlan.hold``."""
        self._reads.grow = grow

    def materialise(self, check_cancelled: Callable[[], None]) -> None:
        """Nothing: its first rows can go out before the last are computed."""

    def reader(self) -> pa.RecordBatchReader:
        """The answer, sorted by series_id and lead time, siblings behind by name, computed as it is taken."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of :meth:`reader`.

        Raises:
            TooLarge: more actual values, or more scores of a reference, than may be held in memory.
        """
        with translating_errors():
            if self.ticket.bucket != _OF_SIBLINGS:
                yield from self._figures_of_series()
            if self.ticket.bucket in (None, _OF_SIBLINGS):
                yield from self._figures_of_siblings()

    def _figures_of_series(self) -> Iterator[pa.RecordBatch]:
        ids = [each.forecast.first.series_id for each in self._series]
        for part in self._forecasts.parts:
            first, last = _places(ids, part.ticket.bucket)
            scorer = self._reads.series_scorer(self._series[first:last])
            totals = LeadTotals(scorer, self._reads.references(scorer))
            for rows in self._reads.series(part.ticket):
                totals.add(scorer.score(rows, self._reads.actuals(scorer.comparisons)))
                # What comes now is of the last of these series, or of those behind it.
                before = bisect_left(ids, rows["series_id"][-1], first, last) - first
                yield from self._answer(totals.take(before), scorer)
            yield from self._answer(totals.take(), scorer)

    def _figures_of_siblings(self) -> Iterator[pa.RecordBatch]:
        for scorer, pieces in self._reads.siblings(self._siblings):
            totals = LeadTotals(scorer, self._reads.references(scorer))
            for rows in pieces:
                totals.add(scorer.score(rows, self._reads.actuals(scorer.comparisons)))
            yield from self._answer(totals.take(), scorer)

    def _answer(self, figures: pl.DataFrame, scorer: Scorer) -> Iterator[pa.RecordBatch]:
        if figures.height:
            yield rows_of_figures(figures, scorer.comparisons, horizon_of(self.ticket), self.schema)


def _places(ids: Sequence[str], bucket: str | None) -> tuple[int, int]:
    """Where the ids of a bucket begin and end among ids in order; None: all of them."""
    if bucket is None:
        return 0, len(ids)
    return bisect_left(ids, bucket), bisect_left(ids, bucket + _AFTER_ALL)


def plan_accuracy(
    ticket: AccuracyTicket, *, read: Read, catalog: Catalog, known: KnownSeries, max_held: int
) -> AccuracyPlan:
    """Resolve a comparison against a snapshot.

    ``start_known``, ``end_known``, ``relative`` and ``corrections`` are about the forecasts and their reference,
    ``run_ids`` and ``workflow_id`` about the forecasts only. An actuals series is not compared with itself unless
    ``series_ids`` or ``series_keys`` name it.

    Args:
        ticket: What is asked for.
        read: Plans a read on that snapshot.
        catalog: What the caller may see.
        known: The series, in step with that snapshot.
        max_held: The most actual values, and scores of a reference, that are held in memory.

    Raises:
        InvalidRequest: as ``plan_read``; or it is not clear which actual or reference series is meant, or values cannot
            be converted to the unit of a series that the ticket selects.
        NotFound: a series that the ticket names does not exist, or a forecast has no actual series.
    """
    pairing = Pairing(ticket, known)
    if ticket.series_keys is not None and ticket.labels is None:
        ticket = _with_siblings(ticket, known)
    forecasts = read(forecasts_of(ticket, SeriesScorer.columns))
    chosen = select_series(forecasts.ticket, catalog, known)
    ids = sorted(known.by_id if chosen is None else chosen)
    if ticket.series_ids is None and ticket.series_keys is None:
        actuals = {series.series_id for series in pairing.actuals}
        ids = [series_id for series_id in ids if series_id not in actuals]
    first, last = _places(ids, ticket.bucket or None)
    series = [known.by_id[series_id] for series_id in ids]
    named = set(ticket.series_ids or ())
    siblings = forecasts_of_siblings(each for each in series if not each.retired or each.series_id in named)
    return AccuracyPlan(
        ticket,
        read=read,
        forecasts=forecasts,
        series=[pairing.of(Forecast.of_series(each)) for each in series[first:last]],
        siblings=[pairing.of(each) for each in siblings] if not ticket.bucket else [],
        actual_field=pairing.actual_field,
        max_held=max_held,
    )


def _with_siblings(ticket: AccuracyTicket, known: KnownSeries) -> AccuracyTicket:
    """The ticket with the siblings that a bare name stands for in its place."""
    names = names_of_siblings(ticket.series_keys or (), known)
    ids = [series.series_id for siblings in names.values() for series in siblings]
    others = [name for name in ticket.series_keys or () if name not in names]
    return ticket.model_copy(update={"series_ids": [*(ticket.series_ids or ()), *ids], "series_keys": others})
