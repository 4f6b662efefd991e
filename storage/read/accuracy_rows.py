"""The rows of an answer about accuracy: names, lead times and figures as Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.columns import IDENTIFIER
from timedb.storage.read.lead_totals import FIGURES, SKILLS
from timedb.storage.read.pairing import Comparison

__all__ = ["accuracy_schema", "rows_of_figures"]

_NAMES = ("series_id", "series_key", "labels", "siblings", "series_unit")
_LEADS: dict[str, pa.DataType] = {
    **dict.fromkeys(("lead_time", "lead_time_end"), pa.duration("us")),
    **dict.fromkeys(("lead_seconds", "lead_seconds_end"), pa.float64()),
}
_SECOND = 1_000_000


def accuracy_schema(*, skills: bool, metadata: Mapping[bytes, bytes] | None = None) -> pa.Schema:
    """The Arrow schema of the figures: a row a forecast and bucket of lead times (its start and its end).

    Args:
        skills: Whether there is a reference.
        metadata: Of the schema.
    """
    figures = [*FIGURES, *(f"skill_{name}" for name in SKILLS.values() if skills)]
    columns: dict[str, pa.DataType] = {
        **dict.fromkeys(_NAMES, IDENTIFIER),
        **_LEADS,
        **dict.fromkeys(figures, pa.float64()),
        **dict.fromkeys(("count", "skipped"), pa.int64()),
    }
    return pa.schema(list(columns.items()), metadata=None if metadata is None else dict(metadata))


def rows_of_figures(
    figures: pl.DataFrame, comparisons: Sequence[Comparison], horizon: int, schema: pa.Schema
) -> pa.RecordBatch:
    """Figures by unit and lead time with the names of their forecasts.

    Args:
        figures: As ``LeadTotals.take`` gives them, a row at least.
        comparisons: Those that the units are numbers of.
        horizon: Microseconds of a bucket of lead times.
        schema: Of the answer.
    """
    units, codes = np.unique(figures["unit"].to_numpy(), return_inverse=True)
    names = [_names_of(comparisons[unit]) for unit in units]
    columns = {name: _texts([each[place] for each in names], codes) for place, name in enumerate(_NAMES)}
    starts = figures["lead"].to_numpy() * horizon
    for name in _LEADS:
        times = starts + horizon if name.endswith("_end") else starts
        columns[name] = pa.array(times, pa.duration("us")) if "time" in name else pa.array(times / _SECOND)
    for name in schema.names:
        if name not in columns:
            columns[name] = figures[name].to_arrow()
    if comparisons[int(units[0])].forecast.siblings is None:
        columns["skipped"] = pa.nulls(figures.height, pa.int64())
    return pa.RecordBatch.from_pydict(columns, schema=schema.remove_metadata())


def _names_of(comparison: Comparison) -> tuple[str | None, ...]:
    forecast = comparison.forecast
    series_id = forecast.first.series_id if forecast.siblings is None else None
    return series_id, forecast.first.name, forecast.labels, forecast.siblings, forecast.first.unit


def _texts(texts: Sequence[str | None], codes: np.ndarray) -> pa.DictionaryArray:
    """Texts by their number; a dictionary's entries are distinct, and none is null."""
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(codes)), encoded.dictionary)
