"""Forecasts beside what came, scored point by point: rows of a read become rows with an error, or a score, each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl

from timedb.contract.quantiles import MEMBER
from timedb.contract.times import MIN_MICROS
from timedb.storage.measures.units import convert_column
from timedb.storage.read.pairing import Comparison, Forecast
from timedb.storage.read.scores import Floats, interval_score, member_crps, pinball, quantile_crps
from timedb.storage.rows import views
from timedb.storage.rows.orders import POINT, Order

__all__ = [
    "ACTUALS",
    "MATCH",
    "NO_END",
    "Places",
    "Scorer",
    "SeriesScorer",
    "SiblingScorer",
    "heads_of",
    "with_numbers",
]

Places = np.ndarray[Any, np.dtype[np.int64]]
MATCH = ["valid_time", "valid_time_end"]
ACTUALS = {"actual_id": pl.String(), **dict.fromkeys(MATCH, pl.Datetime("us", "UTC")), "actual": pl.Float64()}
"""Actual values: numbers, each point once."""
NO_END = MIN_MICROS - 1
"""What stands for a ``valid_time_end`` that is not there."""

_AS_ISSUED = Order((*POINT, "known_time"), ("change_time", "run_id"))
"""Of several runs with one known_time the one that the flat view takes."""
_FEWEST_MEMBERS = 2


def with_numbers(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows in which a column is a number."""
    return rows.filter(pl.col(name).is_not_null() & pl.col(name).is_not_nan())


class Scorer(ABC):
    """Scores the forecasts of some comparisons.

    Attributes:
        columns: Of the values that it needs.
        terms: What it says of each forecast, a column each.
        comparisons: Those that it knows; rows of other series are left out.

    Args:
        comparisons: As above.
        horizon: Microseconds of a bucket of lead times.
        field: Whom an error about units names.
    """

    columns: ClassVar[Sequence[str]]
    terms: ClassVar[Sequence[str]]

    def __init__(self, comparisons: Sequence[Comparison], horizon: int, field: str) -> None:
        self.comparisons = comparisons
        self._horizon = horizon
        self._field = field
        every = [(each, series) for each in comparisons for series in each.forecast.series]
        self._units = [series.unit for _, series in every], [each.forecast.first.unit for each, _ in every]
        self._actual_units = [each.actual.unit for each, _ in every]
        self._names = [series.name for _, series in every]
        counts = [len(each.forecast.series) for each in comparisons]
        self._places = pl.DataFrame(
            {
                "series_id": pl.Series([series.series_id for _, series in every], dtype=pl.String),
                "actual_id": pl.Series([each.actual.series_id for each, _ in every], dtype=pl.String),
                "unit": np.repeat(np.arange(len(counts)), counts),
                "place": np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
                "code": np.arange(len(every)),
            }
        )

    @abstractmethod
    def score(self, rows: pl.DataFrame, actuals: pl.DataFrame) -> pl.DataFrame:
        """The forecasts among some rows that have an actual value, with their scores.

        Args:
            rows: With :attr:`columns`, all rows of their points.
            actuals: As :data:`ACTUALS`.

        Returns:
            ``unit`` (the number of the comparison), the columns of :data:`MATCH` as whole numbers, ``lead`` (the number
            of the bucket of lead times), ``count`` and ``skipped`` (1 and 0, or where it does not count 0 and 1), and
            the terms.
        """

    def _paired(self, rows: pl.DataFrame, actuals: pl.DataFrame) -> pl.DataFrame:
        """Numbers with the actual value beside them, in the order of the rows, and both in the unit of the forecast."""
        found = with_numbers(rows, "value").join(self._places, on="series_id", how="inner", maintain_order="left")
        found = found.join(actuals, on=["actual_id", *MATCH], how="inner", nulls_equal=True, maintain_order="left")
        how: dict[str, Any] = {"codes": found["code"], "series": self._names, "field": self._field}
        value = convert_column(found["value"], from_units=self._units[0], to_units=self._units[1], **how)
        actual = convert_column(found["actual"], from_units=self._actual_units, to_units=self._units[1], **how)
        lead = found["valid_time"].to_physical() - found["known_time"].to_physical()
        lead = lead // self._horizon  # downwards, so that buckets begin at zero
        times = found.select(pl.col(MATCH).to_physical().fill_null(NO_END))
        return found.with_columns(value.alias("value"), actual.alias("actual"), lead.alias("lead"), *times)


class SeriesScorer(Scorer):
    """Scores series, each for itself: its error, and whether the actual value is at or below it."""

    columns = ("series_id", *MATCH, "known_time", "value")
    terms = ("error", "absolute", "square", "pinball", "below")

    def score(self, rows: pl.DataFrame, actuals: pl.DataFrame) -> pl.DataFrame:
        """As :meth:`Scorer.score`, in the order of the rows; each counts. Without a quantile ``pinball`` is 0."""
        pairs = self._paired(rows, actuals)
        levels = [each.forecast.levels for each in self.comparisons]
        level = np.array([float(each[0]) if each else np.nan for each in levels])[pairs["unit"].to_numpy()]
        forecast, actual = pairs["value"].to_numpy(), pairs["actual"].to_numpy()
        with np.errstate(all="ignore"):  # values may be infinite, and squares overflow
            error = forecast - actual
            absolute, square = np.abs(error), error * error
        loss = np.where(np.isnan(level), 0.0, pinball(forecast, actual, level))
        below = (actual <= forecast).astype(np.float64)
        terms = dict(zip(self.terms, (error, absolute, square, loss, below), strict=True))
        ones = pl.Series(np.ones(pairs.height, np.int64))
        return pairs.select("unit", *MATCH, "lead").with_columns(
            count=ones, skipped=ones - 1, **{name: pl.Series(term) for name, term in terms.items()}
        )


class SiblingScorer(Scorer):
    """Scores siblings together: what they say of one point with one known_time is one forecast.

    It counts only with all quantiles, or with two members; else it is skipped. ``interval`` is 0 where there is none.
    """

    columns = (*SeriesScorer.columns, "change_time", "run_id")
    terms = ("interval", "crps")

    def score(self, rows: pl.DataFrame, actuals: pl.DataFrame) -> pl.DataFrame:
        """As :meth:`Scorer.score`, by unit, point and known_time."""
        pairs = self._paired(views.picked(rows, _AS_ISSUED), actuals)
        keys = ["unit", *MATCH, "known_time"]
        pairs = pairs.sort(*keys, "place")
        heads = heads_of([pairs[name].to_numpy() for name in keys])
        sizes = np.diff(heads, append=pairs.height)
        points = pairs[heads].select("unit", *MATCH, "lead")
        units = points["unit"].to_numpy()
        complete = np.zeros(len(heads), np.bool_)
        found = {name: np.zeros(len(heads)) for name in self.terms}
        for unit in np.unique(units):
            of_unit = slice(*np.searchsorted(units, [unit, unit + 1]))
            forecast = self.comparisons[unit].forecast
            fewest = _FEWEST_MEMBERS if forecast.siblings == MEMBER else len(forecast.series)
            whole = of_unit.start + np.flatnonzero(sizes[of_unit] >= fewest)
            complete[whole] = True
            for name, scores in _scores(forecast, pairs, heads[whole], sizes[whole]).items():
                found[name][whole] = scores
        counted = pl.Series(complete.astype(np.int64))
        return points.with_columns(
            count=counted, skipped=1 - counted, **{name: pl.Series(scores) for name, scores in found.items()}
        )


def heads_of(columns: Sequence[np.ndarray[Any, Any]]) -> Places:
    """Where rows that agree in some sorted columns begin."""
    differs = np.zeros(len(columns[0]), np.bool_)
    differs[:1] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(differs)


def _scores(
    forecast: Forecast,
    pairs: pl.DataFrame,
    heads: Places,
    sizes: Places,
) -> dict[str, Floats]:
    """The scores of forecasts of siblings.

    Args:
        forecast: The siblings.
        pairs: Their values, each with its ``place`` among the siblings and its actual value.
        heads, sizes: Where the values of each forecast begin, and how many there are.
    """
    row = np.repeat(np.arange(len(heads)), sizes)
    taken = np.repeat(heads - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(row))
    values = np.full((len(heads), len(forecast.series)), np.nan)
    values[row, pairs["place"].to_numpy()[taken]] = pairs["value"].to_numpy()[taken]
    actual = pairs["actual"].to_numpy()[heads]
    if forecast.siblings == MEMBER:
        return {"crps": member_crps(values, actual)}
    scores = {"crps": quantile_crps(values, actual, forecast.levels)}
    if "interval" in forecast.scores:
        scores["interval"] = interval_score(values, actual, forecast.levels)
    return scores
