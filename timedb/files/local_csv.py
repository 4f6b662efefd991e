"""CSV for a spreadsheet of some country: another delimiter, a decimal comma, local times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.cells import check_time_zone

__all__ = ["LocalCsv"]

_FORMULA = r"^[=+\-@\t\r]"


@dataclass(frozen=True, slots=True)
class LocalCsv:
    """How such a file is written.

    Attributes:
        delimiter: Between cells.
        decimal: ``.`` or ``,``.
        zone: Times are local ones of this zone, without an offset; None: UTC, with one.
        without_formulas: Texts that begin like a formula get ``'`` before them.
    """

    delimiter: str = ","
    decimal: str = "."
    zone: str | None = None
    without_formulas: bool = False

    @classmethod
    def of(
        cls,
        delimiter: str | None,
        decimal: str | None,
        *,
        local_times: bool,
        time_zone: str | None,
        without_formulas: bool,
        spoken: Callable[[str], str],
    ) -> LocalCsv | None:
        """As options say it; None where they say nothing of it.

        Args:
            delimiter, decimal: As they were said; None: they were not.
            local_times: Whether times are those of the zone.
            time_zone: The zone.
            without_formulas: For spreadsheets.
            spoken: How an error names an option.

        Raises:
            InvalidRequest: an option does not fit, or local times have no zone.
        """
        if delimiter is None and decimal is None and not local_times:
            return None
        if local_times and time_zone is None:
            raise InvalidRequest(f"{spoken('local_times')}: of which zone? {spoken('time_zone')} says it")
        check_time_zone(spoken("time_zone"), time_zone)
        cut = {None: ",", "tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
        if cut is None or len(cut) != 1 or not cut.isascii() or cut.isalnum() or cut in '"\r\n\0':
            named = spoken("delimiter")
            raise InvalidRequest(f"{named}: {quoted(str(delimiter))} is not one character (tab stands for the tab)")
        point = decimal or "."
        if point not in (".", ","):
            raise InvalidRequest(f"{spoken('decimal')}: {quoted(point)} is neither . nor ,")
        return cls(cut, point, time_zone if local_times else None, without_formulas)

    def pieces(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
        """The file, piece by piece, with a line of names."""
        yield self._written(pl.DataFrame(schema.empty_table()), header=True)
        for batch in batches:
            yield self._written(pl.DataFrame(batch), header=False)

    def _written(self, frame: pl.DataFrame, *, header: bool) -> bytes:
        frame = frame.with_columns(self._shown(name, kind) for name, kind in frame.schema.items())
        if self.without_formulas:
            frame = frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${0}"))
        return frame.write_csv(
            separator=self.delimiter, decimal_comma=self.decimal == ",", include_header=header
        ).encode()

    def _shown(self, name: str, kind: pl.DataType) -> pl.Expr:
        column = pl.col(name)
        if isinstance(kind, pl.Datetime):
            if self.zone is None:
                return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
            return column.dt.convert_time_zone(self.zone).dt.strftime("%Y-%m-%d %H:%M:%S%.f")
        if isinstance(kind, pl.Categorical | pl.Enum):
            return column.cast(pl.String)
        if isinstance(kind, pl.List):
            return column.map_elements(lambda each: json.dumps(each.to_list(), ensure_ascii=False), pl.String)
        return column
