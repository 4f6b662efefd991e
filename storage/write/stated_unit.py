"""The unit that an upload states of its values, and what becomes of them in the units of their series."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.storage.catalog.resolve import ResolvedSeries

__all__ = ["StatedUnit"]


class StatedUnit:
    """Converts the values of one upload.

    Attributes:
        stored: By series_id the unit that its values were converted to; empty where the upload states none.
        fault: Why they could not be. That refuses a new run, but not the retry of an old one.

    Args:
        unit: Of all values of the upload; None: it states none.
        named: Whether the client named the run, so that it may be a retry.
    """

    def __init__(self, unit: str | None, *, named: bool) -> None:
        self.stored: dict[str, str] = {}
        self.fault: InvalidRequest | None = None
        self._unit = unit
        self._named = named

    def converted(self, table: pa.Table, ids: Sequence[str], series: Sequence[ResolvedSeries]) -> pa.ChunkedArray:
        """Values in the unit of their series: of each that exists its own, of a new one that of the upload.

        Args:
            table: Columns ``value`` and ``series``, an index into ``ids``.
            ids: The ids.
            series: All series of the upload so far.

        Raises:
            InvalidRequest: they do not convert, and the run has no name.
        """
        unit = self._unit
        if unit is None or self.fault is not None:
            return table.column("value")
        from timedb.storage.measures.units import check_unit, convert_column

        for one in series:
            self.stored.setdefault(one.series_id, one.unit or unit)
        names = {one.series_id: one.name for one in series}
        old, new = [unit] * len(ids), [self.stored[series_id] for series_id in ids]
        frame = pl.DataFrame(table.select(["value", "series"]))
        try:
            if any(one.new for one in series):
                check_unit(unit, field="unit")
            values = convert_column(
                frame["value"], frame["series"], old, new, series=[names[series_id] for series_id in ids], field="unit"
            )
        except InvalidRequest as error:
            if not self._named:
                raise
            self.fault = error
            return table.column("value")
        return pa.chunked_array([values.to_arrow()])
