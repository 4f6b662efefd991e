"""Forecasts against what came: how large the errors were, by lead time.

Forecasts are read as the overlapping view, actual values as the flat view, both of one snapshot. The rows of a series
are brought into one order before they are added up, so that the figures are the same to the last bit wherever the rows
lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from timedb.contract.columns import IDENTIFIER
from timedb.contract.errors import InvalidRequest, NotFound, TooLarge
from timedb.contract.wire import AccuracyTicket, ReadTicket, Selecting, quoted
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Catalog, Series
from timedb.storage.delta.table import Table
from timedb.storage.measures.units import convert_column, converter
from timedb.storage.read.latest import LastRows
from timedb.storage.read.parts import UNKNOWN
from timedb.storage.read.planning import ReadLimits, plan_read, select_series
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.runs_seen import RunsSeen

__all__ = ["AccuracyPart", "AccuracyPlan", "accuracy_schema", "plan_accuracy"]

_DAY = 86_400_000_000
_MATCH = ["valid_time", "valid_time_end"]
_FIGURES = ("bias", "mae", "rmse")
_COLUMNS: dict[str, pa.DataType] = {
    "series_id": IDENTIFIER,
    "lead_seconds": pa.float64(),
    "lead_seconds_end": pa.float64(),
    **dict.fromkeys(_FIGURES, pa.float64()),
    "count": pa.int64(),
}


def accuracy_schema(metadata: Mapping[bytes, bytes] | None = None) -> pa.Schema:
    """The Arrow schema of the figures: a row a forecast series and bucket of lead times (its start and its end)."""
    return pa.schema(list(_COLUMNS.items()), metadata=None if metadata is None else dict(metadata))


@dataclass(frozen=True)
class AccuracyPart:
    """A piece of an answer that can be fetched alone: its ticket; nobody knows yet how many rows it has (-1)."""

    ticket: AccuracyTicket
    rows: int = UNKNOWN


class AccuracyPlan:
    """A comparison on one snapshot; nothing has been opened yet. The surface is that of a ``ReadPlan``.

    Args:
        ticket: What is asked for.
        forecasts: The read of all forecasts, ordered by series.
        actuals: The read of the actual values.
        actual: Their series.
        series: All series by id.
        max_actuals: The most actual values that are held in memory.
    """

    ordered = True

    def __init__(
        self,
        ticket: AccuracyTicket,
        *,
        forecasts: ReadPlan,
        actuals: ReadPlan,
        actual: Series,
        series: Mapping[str, Series],
        max_actuals: int,
    ) -> None:
        self.ticket = ticket
        self.table_version = forecasts.table_version
        self._forecasts = forecasts
        self._actuals = actuals
        self._actual = actual
        self._series = series
        self._max_actuals = max_actuals
        self._grow: Callable[[int], object] = lambda _: None
        self._horizon = ticket.horizon.days * _DAY + ticket.horizon.micros

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
        return accuracy_schema(self._forecasts.schema.metadata)

    @property
    def parts(self) -> list[AccuracyPart]:
        """One part a bucket of forecasts, in the order of the answer."""
        return [self._part(part.ticket) for part in self._forecasts.parts]

    @property
    def in_one_part(self) -> AccuracyPart:
        """All figures as one part, for whoever cannot take as many as there are :attr:`parts`."""
        return self._part(self._forecasts.in_one_part.ticket)

    def _part(self, fixed: ReadTicket) -> AccuracyPart:
        names = ("as_of", "table_version", "bucket")
        return AccuracyPart(self.ticket.model_copy(update={name: getattr(fixed, name) for name in names}))

    @property
    def memory_bytes(self) -> int:
        """Bytes about which it takes beside the actual values, which are asked for as they are read."""
        return self._forecasts.memory_bytes + self._actuals.memory_bytes

    def hold(self, grow: Callable[[int], object]) -> None:
        """Have further memory asked for as it is needed; see ``ReadPlan.hold``."""
        self._grow = grow
        self._forecasts.hold(grow)
        self._actuals.hold(grow)

    def materialise(self, check_cancelled: Callable[[], None]) -> None:
        """Nothing: its first rows can go out before the last are computed."""

    def reader(self) -> pa.RecordBatchReader:
        """The answer, sorted by series_id and lead_seconds, computed series by series as it is taken."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of :meth:`reader`.

        Raises:
            TooLarge: more actual values than may be held in memory.
        """
        with translating_errors():
            actuals = self._read_actuals()
            for rows in _by_whole_series(self._forecasts.batches()):
                yield from self._figures(rows, actuals)

    def _read_actuals(self) -> pl.DataFrame:
        found, count = [pl.DataFrame(schema=_ACTUAL)], 0
        for batch in self._actuals.batches():
            piece = pl.DataFrame(batch).rename({"value": "actual"})
            found.append(_with_numbers(piece, "actual"))
            self._grow(2 * int(found[-1].estimated_size()))
            count += found[-1].height
            if count > self._max_actuals:
                raise TooLarge(
                    f"{_field(self.ticket)}: the series has more than {self._max_actuals} values, the limit; "
                    "narrow start_valid and end_valid"
                )
        return pl.concat(found)

    def _figures(self, rows: pl.DataFrame, actuals: pl.DataFrame) -> Iterator[pa.RecordBatch]:
        """The figures of some series.

        Args:
            rows: All forecasts of each of them, in the order of the read.
            actuals: The actual values that are numbers.
        """
        if self.ticket.series_ids is None and self.ticket.series_keys is None:
            rows = rows.filter(pl.col("series_id") != self._actual.series_id)
        pairs = _with_numbers(rows, "value").join(
            actuals, on=_MATCH, how="inner", nulls_equal=True, maintain_order="left"
        )
        if not pairs.height:
            return
        ids = pairs["series_id"].unique().sort()
        codes = pairs["series_id"].cast(pl.Enum(ids)).to_physical()
        units = [self._series[series_id].unit for series_id in ids]
        own = [self._actual.unit] * len(ids)
        actual = convert_column(pairs["actual"], codes, own, units, series=ids.to_list(), field=_field(self.ticket))
        errors = (pairs["value"] - actual).to_numpy()
        lead = (pairs["valid_time"].to_physical() - pairs["known_time"].to_physical()).to_numpy() // self._horizon
        group = codes.to_numpy().astype(np.int64)
        order = np.lexsort((lead, group))
        group, lead, errors = group[order], lead[order], errors[order]
        heads = np.flatnonzero((np.diff(group, prepend=-1) != 0) | (np.diff(lead, prepend=lead[0]) != 0))
        count = np.diff(heads, append=len(errors))
        columns: dict[str, Any] = {
            "series_id": pa.DictionaryArray.from_arrays(
                pa.array(group[heads], pa.int32()), pa.array(ids.to_list(), pa.string())
            ),
            "lead_seconds": lead[heads] * self._horizon / 1_000_000,
            "lead_seconds_end": (lead[heads] + 1) * self._horizon / 1_000_000,
            **dict(zip(_FIGURES, _means(errors, heads, count), strict=True)),
            "count": count,
        }
        yield pa.RecordBatch.from_pydict(columns, schema=accuracy_schema())


_ACTUAL = {**dict.fromkeys(_MATCH, pl.Datetime("us", "UTC")), "actual": pl.Float64()}


def _with_numbers(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.filter(pl.col(name).is_not_null() & pl.col(name).is_not_nan())


def _means(errors: np.ndarray[Any, Any], heads: np.ndarray[Any, Any], count: np.ndarray[Any, Any]) -> Sequence[Any]:
    with np.errstate(all="ignore"):  # values may be infinite, and squares overflow
        sums = [np.add.reduceat(terms, heads) for terms in (errors, np.abs(errors), errors * errors)]
        bias, mae, square = (total / count for total in sums)
        return bias, mae, np.sqrt(square)


def _by_whole_series(batches: Iterator[pa.RecordBatch]) -> Iterator[pl.DataFrame]:
    """Rows that come ordered by series, in frames that cut no series in two."""
    held: list[pl.DataFrame] = []
    for batch in batches:
        rows = pl.DataFrame(batch).cast({"series_id": pl.String})
        last = rows["series_id"][-1]
        whole = int(rows["series_id"].search_sorted(last, side="left"))
        if whole or (held and held[-1]["series_id"][-1] != last):
            yield pl.concat([*held, rows.head(whole)])
            held = []
        held.append(rows.slice(whole))
    if held:
        yield pl.concat(held)


def plan_accuracy(
    ticket: AccuracyTicket,
    *,
    table: Table,
    catalog: Catalog,
    bucket_digits: int | None,
    runs: RunsSeen,
    max_sorted_rows: int,
) -> AccuracyPlan:
    """Resolve a comparison against the newest snapshot.

    ``start_known``, ``end_known``, ``run_ids`` and ``workflow_id`` are about the forecasts only. The actuals series is
    not compared with itself unless ``series_ids`` or ``series_keys`` name it.

    Raises:
        InvalidRequest: as ``plan_read``; or the actual values cannot be converted to the unit of a
            series that the ticket selects.
        NotFound: a series that the ticket names does not exist.
    """

    def plan(read: ReadTicket) -> ReadPlan:
        return plan_read(
            read,
            table=table,
            catalog=catalog,
            bucket_digits=bucket_digits,
            last_rows=LastRows(table.store),
            limits=ReadLimits(max_sorted_rows),
            runs=runs,
        )

    actual = _actual_series(ticket, catalog)
    selecting = {name: getattr(ticket, name) for name in Selecting.model_fields}
    read = ReadTicket(
        view="overlapping",
        columns=["series_id", *_MATCH, "known_time", "value"],
        ordered=True,
        bucket=ticket.bucket,
        table_version=ticket.table_version,
        **selecting,
    )
    forecasts = plan(read)
    known_series = catalog.known()
    known, chosen = known_series.by_id, select_series(read, catalog, known_series)
    _check_units(actual, [known[series_id] for series_id in (known if chosen is None else chosen)], _field(ticket))
    actuals = plan(
        ReadTicket(
            series_ids=[actual.series_id],
            columns=[*_MATCH, "value"],
            start_valid=ticket.start_valid,
            end_valid=ticket.end_valid,
            as_of=forecasts.as_of,  # it may be planned on a newer snapshot
        )
    )
    return AccuracyPlan(
        ticket,
        forecasts=forecasts,
        actuals=actuals,
        actual=actual,
        series=known,
        max_actuals=max_sorted_rows,
    )


def _field(ticket: AccuracyTicket) -> str:
    return "actual_id" if ticket.actual_key is None else "actual_key"


def _check_units(actual: Series, forecasts: Iterable[Series], field: str) -> None:
    """Refuse a series that the actual values cannot be compared with, before the first row goes out."""
    for unit, one in {series.unit: series for series in forecasts}.items():
        try:
            converter(actual.unit, unit, field=field)
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.detail} (series {quoted(one.name)}); name series of one kind") from None


def _actual_series(ticket: AccuracyTicket, catalog: Catalog) -> Series:
    if ticket.actual_key is None:
        found = catalog.known().by_id.get(ticket.actual_id or "")
        if found is None:
            raise NotFound(f"actual_id: there is no series {quoted(ticket.actual_id)}")
        return found
    try:
        return catalog.known().find(ticket.actual_key)[0]
    except (NotFound, InvalidRequest) as error:
        raise (error.of_field("actual_key") if error.field == "series_key" else error) from None
