"""Scores added up by lead time, and the figures that they make, beside those of a reference.

Rows come piece by piece. What falls into one stretch of valid_time is added up first, then the stretches in their
order; a piece never cuts a stretch, so that the figures are the same to the last bit however the rows were cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from timedb.storage.measures.units import converter
from timedb.storage.read.pairing import Forecast
from timedb.storage.read.scored_points import MATCH, Places, Scorer, heads_of
from timedb.storage.read.scores import Floats

__all__ = ["FIGURES", "SKILLS", "STRETCH", "LeadTotals", "References", "scores_as_reference", "summed"]

STRETCH = 1 << 36
"""Microseconds: 19 hours, about."""

FIGURES = ("bias", "mae", "rmse", "pinball", "coverage", "wis", "crps")
SKILLS = {"absolute": "mae", "square": "rmse", "pinball": "pinball", "interval": "wis", "crps": "crps"}
"""Which figure each score makes, for those that a reference can be compared by."""

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_KEYS = ("unit", "lead")


def summed(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The sums of all other columns by some keys (whole numbers), in their order; added up in the order of the rows."""
    if not rows.height:
        return rows
    columns = [rows[name].to_numpy() for name in keys]
    order = np.lexsort(columns[::-1])
    columns = [column[order] for column in columns]
    heads = heads_of(columns)
    found = {name: column[heads] for name, column in zip(keys, columns, strict=True)}
    others = [name for name in rows.columns if name not in found]
    with np.errstate(all="ignore"):  # scores may be infinite
        sums = {name: np.add.reduceat(rows[name].to_numpy()[order], heads) for name in others}
    return pl.DataFrame(found | sums)


@dataclass(frozen=True)
class References:
    """What the forecasts of some comparisons have to beat.

    Attributes:
        forecasts: Each of them once.
        numbers: Of each comparison the number of its reference among them; -1: it has none.
        points: Their scores by point: ``unit`` (that number), the columns of ``MATCH`` as whole numbers, ``lead``,
            and the sums ``count`` and those of scores.
    """

    forecasts: Sequence[Forecast]
    numbers: Places
    points: pl.DataFrame


class LeadTotals:
    """The scores of some comparisons, added up by lead time.

    Args:
        scorer: Of the scores.
        references: What the forecasts have to beat; None: nothing.
    """

    def __init__(self, scorer: Scorer, references: References | None) -> None:
        self._terms = scorer.terms
        self._scores = [name for name in SKILLS if name in scorer.terms]
        self._comparisons = scorer.comparisons
        self._references = references
        self._parts: list[pl.DataFrame] = []

    def add(self, scored: pl.DataFrame) -> None:
        """Take scored points; of the stretches of valid_time of a unit that they touch, all points at once."""
        if not scored.height:
            return
        scored = scored.with_columns(stretch=pl.col("valid_time") // STRETCH)
        keys = [*_KEYS, "stretch"]
        sums = summed(scored.drop(MATCH), keys)
        if self._references is not None:
            for each in self._compared(scored, self._references):
                sums = sums.join(each, on=keys, how="left")
            sums = sums.with_columns(pl.col(name).fill_null(0) for name in sums.columns)
        self._parts.append(sums)

    def _compared(self, scored: pl.DataFrame, references: References) -> Iterator[pl.DataFrame]:
        """The sums over the points and lead times that the reference has, too: the forecast's, and its own."""
        keys = [*_KEYS, "stretch"]
        numbers = pl.Series("reference", references.numbers[scored["unit"].to_numpy()])
        theirs = {name: f"theirs_{name}" for name in ("count", *self._scores)}
        points = references.points.select(
            pl.col("unit").alias("reference"), *MATCH, "lead", *(pl.col(k).alias(v) for k, v in theirs.items())
        )
        on = ["reference", *MATCH, "lead"]
        both = scored.with_columns(numbers).filter(pl.col("count") > 0)
        both = both.join(points, on=on, how="inner", maintain_order="left")
        ours = [pl.col(name).alias(f"common_{name}") for name in ("count", *self._scores)]
        yield summed(both.select(*keys, *ours), keys)
        once = both.unique(["unit", *MATCH, "lead"], keep="first", maintain_order=True)
        yield summed(once.select(*keys, *theirs.values()), keys)

    def take(self, before: int | None = None) -> pl.DataFrame:
        """The figures of the units before some number, by unit and lead time; they are let go of.

        Args:
            before: None: all of them.

        Returns:
            ``unit``, ``lead``, :data:`FIGURES`, where there are references the skill by each figure of :data:`SKILLS`
            as ``skill_…``, ``count`` and ``skipped``; null: there is no such figure.
        """
        if not self._parts:
            return pl.DataFrame()
        held = pl.concat(self._parts)
        done = held if before is None else held.filter(pl.col("unit") < before)
        self._parts = [] if before is None else [held.filter(pl.col("unit") >= before)]
        if not done.height:
            return pl.DataFrame()
        sums = summed(done.drop("stretch"), _KEYS)
        count = sums["count"].to_numpy()
        with np.errstate(all="ignore"):
            figures = _figures({name: sums[name].to_numpy() / count for name in self._terms})
            skills = {} if self._references is None else self._skills(sums, self._references)
        has = {SKILLS[name]: self._has(sums, name) & (count > 0) for name in self._scores}
        series = has.get("mae", np.zeros(len(count), np.bool_))
        has |= {"bias": series, "coverage": has.get("pinball", series)}
        columns = [_masked(name, figures.get(name), has.get(name), sums.height) for name in FIGURES]
        if self._references is not None:
            named = ((f"skill_{name}", *skills.get(name, (None, None))) for name in SKILLS.values())
            columns += [_masked(name, values, known, sums.height) for name, values, known in named]
        return sums.select(*_KEYS).with_columns(columns).with_columns(sums["count"], sums["skipped"])

    def _has(self, sums: pl.DataFrame, score: str) -> Mask:
        """Whether the forecast of each row has a score."""
        units: Mask = np.array([score in each.forecast.scores for each in self._comparisons], np.bool_)
        found: Mask = units[sums["unit"].to_numpy()]
        return found

    def _skills(self, sums: pl.DataFrame, references: References) -> dict[str, tuple[Floats, Mask]]:
        """Figure → the skill by it, and where there is one."""
        units = sums["unit"].to_numpy()
        numbers = references.numbers[units]
        scale = np.array([self._scale(unit) for unit in range(len(self._comparisons))])[units]
        found = {}
        for score in self._scores:
            ours = sums[f"common_{score}"].to_numpy() / sums["common_count"].to_numpy()
            theirs = sums[f"theirs_{score}"].to_numpy() / sums["theirs_count"].to_numpy()
            if score == "square":
                ours, theirs = np.sqrt(ours), np.sqrt(theirs)
            theirs = theirs * scale
            known = np.array([*(score in scores_as_reference(each) for each in references.forecasts), False])[numbers]
            has = self._has(sums, score) & known & (sums["common_count"].to_numpy() > 0) & (theirs != 0)
            found[SKILLS[score]] = 1.0 - ours / theirs, has
        return found

    def _scale(self, unit: int) -> float:
        """What a difference in the unit of the reference is in that of the forecast."""
        each = self._comparisons[unit]
        if each.reference is None:
            return 1.0
        convert = converter(each.reference.first.unit, each.forecast.first.unit, field="reference_key")
        if convert is None:
            return 1.0
        zero, one = convert(np.array([0.0, 1.0]))
        return float(one - zero)


def scores_as_reference(forecast: Forecast) -> frozenset[str]:
    """The scores by which others can be compared with it; a series for itself has by its error those of siblings."""
    return forecast.scores | {"interval", "crps"} if forecast.siblings is None else forecast.scores


def _figures(means: Mapping[str, Floats]) -> dict[str, Floats]:
    """The figures that means of scores are."""
    found = {SKILLS[name]: mean for name, mean in means.items() if name in SKILLS}
    if "rmse" in found:
        found |= {"rmse": np.sqrt(found["rmse"]), "bias": means["error"], "coverage": means["below"]}
    return found


def _masked(name: str, values: Floats | None, has: Mask | None, height: int) -> pl.Series:
    """A column with nulls where there is no such figure."""
    if values is None or has is None:
        return pl.Series(name, [None] * height, dtype=pl.Float64)
    return pl.Series(name, values).zip_with(pl.Series(has), pl.Series([None] * height, dtype=pl.Float64))
