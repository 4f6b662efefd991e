"""Scores of probabilistic forecasts, point by point; the formulas, with their sources, are in ``docs/scores.md``.

All are about one forecast a row and are lower for better ones; values may be infinite, which makes some of them NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

__all__ = ["Floats", "has_intervals", "interval_score", "member_crps", "pinball", "quantile_crps"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

_MEDIAN = Decimal("0.5")


def pinball(forecast: Floats, actual: Floats, level: Floats | float) -> Floats:
    """The pinball loss of a quantile: ``level * (actual - forecast)``, or above the actual ``(1 - level)`` times.

    Args:
        forecast: Values of the quantile.
        actual: What came, of the same shape.
        level: In (0, 1).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        error = actual - forecast
        return np.where(error >= 0, level, np.asarray(level) - 1.0) * error


def _halves(levels: Sequence[str]) -> tuple[list[tuple[int, int]], int | None]:
    """Where the symmetric pairs of quantiles are, each with the lower first, and where the median is."""
    exact = [Decimal(level) for level in levels]
    places = {level: place for place, level in enumerate(exact)}
    pairs = [(place, places[1 - level]) for level, place in places.items() if level < _MEDIAN and 1 - level in places]
    return pairs, places.get(_MEDIAN)


def has_intervals(levels: Sequence[str]) -> bool:
    """Whether some quantiles hold a symmetric pair, or the median, without which there is no interval score."""
    pairs, median = _halves(levels)
    return bool(pairs) or median is not None


def interval_score(forecasts: Floats, actual: Floats, levels: Sequence[str]) -> Floats:
    """The weighted interval score, with the weights of Bracher et al.: half the level that an interval leaves out.

    Args:
        forecasts: A row a forecast, a column a quantile.
        actual: What came, one a row.
        levels: The quantiles as text, one a column; those without their counterpart do not count.
    """
    pairs, median = _halves(levels)
    total = np.zeros(len(actual))
    with np.errstate(invalid="ignore", over="ignore"):
        for low, high in pairs:
            outside = 2.0 * float(Decimal(levels[low]))
            lower, upper = forecasts[:, low], forecasts[:, high]
            below, above = np.maximum(lower - actual, 0.0), np.maximum(actual - upper, 0.0)
            total += 0.5 * outside * (upper - lower) + below + above
        if median is not None:
            total += 0.5 * np.abs(actual - forecasts[:, median])
        return total / (len(pairs) + (0.0 if median is None else 0.5))


def quantile_crps(forecasts: Floats, actual: Floats, levels: Sequence[str]) -> Floats:
    """The CRPS by quantiles: twice the mean of their pinball losses.

    Args:
        forecasts, actual, levels: As of :func:`interval_score`; every quantile counts.
    """
    losses = pinball(forecasts, actual[:, None], np.array([float(level) for level in levels]))
    with np.errstate(invalid="ignore", over="ignore"):
        found: Floats = 2.0 * losses.mean(axis=1)
        return found


def member_crps(forecasts: Floats, actual: Floats) -> Floats:
    """The fair CRPS of an ensemble: the members' mean distance from the actual, less half of that between two of them.

    Args:
        forecasts: A row a forecast, a column a member; NaN: it says nothing. At least two of a row are numbers.
        actual: What came, one a row.
    """
    count = np.count_nonzero(~np.isnan(forecasts), axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.nansum(np.abs(forecasts - actual[:, None]), axis=1) / count
        # Of two neighbours in order the gap between them lies between so many pairs of members.
        gaps = np.diff(np.sort(forecasts, axis=1), axis=1)
        below = np.arange(1, forecasts.shape[1])
        pairs = below * (count[:, None] - below)
        spread = np.where(pairs > 0, gaps * pairs, 0.0).sum(axis=1)
        found: Floats = distance - spread / (count * (count - 1))
        return found
