"""Quantiles in their one spelling: as labels of probabilistic forecasts, beside ``member``, and as aggregates.

A quantile is the shortest decimal text of a number in (0, 1): ``0.1``, neither ``0.10`` nor ``1e-1``. So the same
quantile is never two series. A label that is no such number is one as any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

__all__ = [
    "MEMBER",
    "PROBABILITY_COLUMNS",
    "QUANTILE",
    "canonical_quantile",
    "check_quantile",
    "check_quantile_aggregate",
    "level_of",
]

QUANTILE, MEMBER = "quantile", "member"
PROBABILITY_COLUMNS = (QUANTILE, MEMBER)
"""Columns of an upload beside ``series_key``, each a label of that name."""


def canonical_quantile(text: str) -> str:
    """The shortest decimal text of the number that a text says: ``0.10`` and ``1e-1`` are ``0.1``.

    Raises:
        ValueError: it is no number in (0, 1).
    """
    try:
        number = float(Decimal(text.strip()))
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError("is not a number in (0, 1)") from None
    if not 0 < number < 1:
        raise ValueError("is not a number in (0, 1), without 0 and 1")
    return format(Decimal(repr(number)), "f")


def check_quantile(labels: Mapping[str, object]) -> None:
    """Refuse another spelling of a quantile.

    Args:
        labels: Label → value, or for a filter several values, or None.

    Raises:
        ValueError: names the right spelling.
    """
    values = labels.get(QUANTILE)
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, str):
            continue
        try:
            spelled = canonical_quantile(value)
        except ValueError:
            continue
        if spelled != value:
            raise ValueError(f"quantile: {value!a} is another spelling of {spelled!a}; use that")


_AGGREGATE = re.compile(r"(p|percentile|q|quantile|quantile_cont)[ _:(]*([0-9.eE+-]+)\)?", re.ASCII | re.IGNORECASE)


def check_quantile_aggregate(text: str) -> bool:
    """Whether an aggregate is a quantile, ``quantile:0.1``.

    Raises:
        ValueError: it is one in another spelling (``p10``, ``quantile:0.10``); names the right one.
    """
    match = _AGGREGATE.fullmatch(text)
    if match is None:
        return False
    word, number = match.groups()
    try:
        hundredth = number if word.lower()[0] == "q" else str(Decimal(number) / 100)
        spelled = f"{QUANTILE}:{canonical_quantile(hundredth)}"
    except (InvalidOperation, ValueError):
        raise ValueError("is no quantile of a number in (0, 1), such as quantile:0.1") from None
    if spelled != text:
        raise ValueError(f"is another spelling of {spelled}; use that")
    return True


def level_of(aggregate: str) -> float:
    """The level of ``median``, or of an aggregate that :func:`check_quantile_aggregate` knows."""
    return 0.5 if aggregate == "median" else float(aggregate.removeprefix(f"{QUANTILE}:"))
