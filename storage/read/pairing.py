"""What is compared with what: forecasts that are siblings, and of each the actual values and the reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.identity import canonical_labels
from timedb.contract.quantiles import MEMBER, PROBABILITY_COLUMNS, QUANTILE, canonical_quantile
from timedb.contract.wire import AccuracyTicket, quoted
from timedb.storage.catalog.catalog import KnownSeries, LabelFilter, Series
from timedb.storage.measures.units import converter
from timedb.storage.read.scores import has_intervals

__all__ = ["Comparison", "Forecast", "Pairing", "forecasts_of_siblings", "names_of_siblings"]


@dataclass(frozen=True)
class Forecast:
    """What is scored as one: a series, or siblings together.

    Attributes:
        series: Its series; quantiles in the order of their numbers.
        siblings: The label that tells them apart; None: it is a series for itself.
        labels: Those that they have in common, canonical text.
    """

    series: tuple[Series, ...]
    siblings: str | None
    labels: str

    @classmethod
    def of_series(cls, series: Series) -> Forecast:
        """A series for itself."""
        return cls((series,), None, series.labels)

    @property
    def first(self) -> Series:
        """Whose name and unit are the forecast's."""
        return self.series[0]

    @cached_property
    def levels(self) -> list[str]:
        """The quantile of each series, as text; none where they are not quantiles."""
        levels = [_quantile_of(series) for series in self.series] if self.siblings != MEMBER else []
        return [level for level in levels if level is not None]

    @cached_property
    def scores(self) -> frozenset[str]:
        """The scores that it has; of a series for itself ``absolute`` and ``square`` are those of its errors."""
        if self.siblings is None:
            return frozenset({"absolute", "square", *(("pinball",) if self.levels else ())})
        intervals = self.siblings == QUANTILE and has_intervals(self.levels)
        return frozenset({"crps", *(("interval",) if intervals else ())})


@dataclass(frozen=True)
class Comparison:
    """A forecast, the series of what came, and the forecast that it has to beat, if there is one."""

    forecast: Forecast
    actual: Series
    reference: Forecast | None


class Pairing:
    """Which actual values, and which reference, a forecast is compared with.

    Args:
        ticket: What is asked for.
        known: The series that the caller sees.

    Raises:
        NotFound: there is no such actual or reference series.
        InvalidRequest: it is not clear which of several is meant.
    """

    def __init__(self, ticket: AccuracyTicket, known: KnownSeries) -> None:
        self._ticket = ticket
        self._match = tuple(ticket.match_labels or ())
        if ticket.actual_key is None:
            actual = known.by_id.get(ticket.actual_id or "")
            if actual is None:
                raise NotFound(f"actual_id: there is no series {quoted(ticket.actual_id)}")
            self.actuals: Sequence[Series] = [actual]
        elif self._match:
            self.actuals = _of_field("actual_key", known.named, ticket.actual_key, ticket.actual_labels)
        else:
            found = _of_field("actual_key", known.find, ticket.actual_key, ticket.actual_labels)
            every = map(Forecast.of_series, found)
            self.actuals = [_the_one(every, ticket.actual_labels, "actual_key", "actual_labels").first]
        self._actual_by_labels = self._by_labels(self.actuals)
        self._references: Mapping[tuple[str | None, ...], Sequence[Series]] | None = None
        if ticket.reference_key is not None:
            self._references = self._by_labels(
                _of_field("reference_key", known.named, ticket.reference_key, ticket.reference_labels)
            )

    @property
    def actual_field(self) -> str:
        """The field of the ticket that says which series hold the actual values."""
        return "actual_id" if self._ticket.actual_key is None else "actual_key"

    def of(self, forecast: Forecast) -> Comparison:
        """A forecast with what it is compared with.

        Raises:
            NotFound, InvalidRequest: as the class; or their units do not convert into each other.
        """
        agreeing = self._actual_by_labels.get(self._labels_of(forecast.first), ())
        if not agreeing:
            raise NotFound(self._unmatched("match_labels", self._ticket.actual_key, forecast))
        remedy = "actual_labels, or others to match_labels"
        actual = _the_one(map(Forecast.of_series, agreeing), self._ticket.actual_labels, "actual_key", remedy).first
        found = Comparison(forecast, actual, self._reference_of(forecast))
        for series in forecast.series:
            _check_units(actual, series, self.actual_field)
        for series in found.reference.series if found.reference is not None else ():
            _check_units(actual, series, "reference_key")
        return found

    def _reference_of(self, forecast: Forecast) -> Forecast | None:
        """The reference series that is the same quantile or member as the forecast, or for siblings the siblings.

        In their place one that is neither will do: its error is a score of siblings, too.
        """
        if self._references is None:
            return None
        agreeing = self._references.get(self._labels_of(forecast.first), ())
        if not agreeing:
            raise NotFound(self._unmatched("reference_key", self._ticket.reference_key, forecast))
        if forecast.siblings is None:
            alike = [each for each in agreeing if _probability(each) == _probability(forecast.first)]
            kinds = [[Forecast.of_series(each) for each in alike]]
        else:
            together = forecasts_of_siblings(agreeing)
            kinds = [[each for each in together if each.siblings == forecast.siblings], together]
        kinds.append([Forecast.of_series(each) for each in agreeing if not any(_probability(each))])
        for candidates in kinds:
            if candidates:
                return _the_one(candidates, self._ticket.reference_labels, "reference_key", "reference_labels")
        return None

    def _by_labels(self, series: Iterable[Series]) -> Mapping[tuple[str | None, ...], Sequence[Series]]:
        found: dict[tuple[str | None, ...], list[Series]] = {}
        for each in series:
            found.setdefault(self._labels_of(each), []).append(each)
        return found

    def _labels_of(self, series: Series) -> tuple[str | None, ...]:
        if not self._match:
            return ()
        labels = series.label_map()
        return tuple(labels.get(name) for name in self._match)

    def _unmatched(self, field: str, name: str | None, forecast: Forecast) -> str:
        wanted = dict(zip(self._match, self._labels_of(forecast.first), strict=True))
        return (
            f"{field}: no series {quoted(name)} has {json.dumps(wanted)}, as the forecast "
            f"{quoted(forecast.first.name)} {forecast.labels} has; name those meant with series_keys and labels"
        )


def forecasts_of_siblings(series: Iterable[Series]) -> list[Forecast]:
    """The siblings among some series, from two on, by name and labels."""
    found: dict[tuple[str, str, str], list[Series]] = {}
    for each in series:
        for label in _probability_labels(each):
            common = {name: value for name, value in each.label_map().items() if name != label}
            found.setdefault((each.name, canonical_labels(common), label), []).append(each)
    return [
        Forecast(tuple(sorted(siblings, key=_rank)), label, labels)
        for (_, labels, label), siblings in sorted(found.items())
        if len(siblings) > 1
    ]


def names_of_siblings(names: Iterable[str], known: KnownSeries) -> dict[str, Sequence[Series]]:
    """Of some bare names those that stand for a single forecast in several series, with them."""
    found: dict[str, Sequence[Series]] = {}
    for name in names:
        series = [known.by_id[series_id] for series_id in known.by_name.get(name, ())]
        series = [each for each in series if not each.retired]
        together = forecasts_of_siblings(series)
        if len(together) == 1 and len(together[0].series) == len(series):
            found[name] = series
    return found


def _probability_labels(series: Series) -> list[str]:
    """Which of its labels tell siblings apart."""
    return [name for name, value in zip(PROBABILITY_COLUMNS, _probability(series), strict=True) if value is not None]


def _probability(series: Series) -> tuple[str | None, str | None]:
    """Which quantile it is, and which member."""
    if QUANTILE not in series.labels and MEMBER not in series.labels:
        return None, None
    return _quantile_of(series), series.label_map().get(MEMBER)


def _quantile_of(series: Series) -> str | None:
    """The quantile that a series is; None: its label, if it has one, is another text."""
    text = series.label_map().get(QUANTILE)
    try:
        return text if text is not None and canonical_quantile(text) == text else None
    except ValueError:
        return None


def _rank(series: Series) -> tuple[float, str]:
    return float(_quantile_of(series) or 0), series.labels


def _of_field(
    field: str, find: Callable[[str, LabelFilter | None], Sequence[Series]], name: str, labels: LabelFilter | None
) -> Sequence[Series]:
    """The series that a field of the ticket names; errors name the field."""
    try:
        return find(name, labels)
    except (NotFound, InvalidRequest) as error:
        raise (error.of_field(field) if error.field == "series_key" else error) from None


def _the_one(candidates: Iterable[Forecast], labels: LabelFilter | None, field: str, remedy: str) -> Forecast:
    """The only one of several of a name, or without a filter the unlabelled one."""
    found = list(candidates)
    bare = [each for each in found if each.labels == "{}"] if labels is None else []
    if len(found) == 1 or len(bare) == 1:
        return (bare or found)[0]
    listed = ", ".join(sorted(each.labels for each in found)[:10])
    raise InvalidRequest(
        f"{field}: {quoted(found[0].first.name)} is the name of {len(found)} series; add {remedy}: {listed}",
        field=field,
    )


def _check_units(actual: Series, other: Series, field: str) -> None:
    try:
        converter(actual.unit, other.unit, field=field)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error.detail} (series {quoted(other.name)}); name series of one kind") from None
