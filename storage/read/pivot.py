"""Wide answers: rows of several series brought side by side, a column for each name, or for each value of a label.

The rows of an answer are gathered long, with the text of their wide row in place of the series, so that they sort, and
are cut into pages, as those of any other read; wide they are made batch by batch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from timedb.contract.columns import COLUMN_TYPES, IDENTIFIER, result_columns
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import ReadCommand, quoted
from timedb.storage.catalog.catalog import Series
from timedb.storage.rows.ranking import numbered
from timedb.storage.rows.rows import keys_of
from timedb.storage.rows.sorting import Integers

__all__ = ["Pivot"]

_CELLS = 1 << 20
_NAME, _WITHOUT = "series_key", "null"
_PLACE = "column"


@dataclass(frozen=True)
class Pivot:
    """How the rows of series become those of a wide answer.

    Attributes:
        of_row: What tells its rows apart, beside times and runs: the name of their series, and labels.
        times: The columns of the long rows that a wide row has, too.
        columns: The columns of values, in order.
    """

    of_row: Sequence[str]
    times: Sequence[str]
    columns: Sequence[str]
    _rows: Mapping[str, tuple[str, int]]
    """By series_id the text of the row, and the place of the column."""

    @classmethod
    def of(cls, read: ReadCommand, series: Collection[Series], every: Collection[Series], most_columns: int) -> Pivot:
        """The columns of a read's answer.

        Args:
            read: A read with ``pivot``.
            series: The series that it is about.
            every: All that the caller may see.
            most_columns: More columns of values are refused.

        Raises:
            InvalidRequest: no series has the label; two columns would have one name, or two values one cell.
            TooLarge: it has more columns.
        """
        by = read.pivot or _NAME
        known = {one.series_id: {**json.loads(one.labels), _NAME: one.name} for one in series}
        _check_label(by, known.values(), every)
        values = {each.get(by) for each in known.values()}
        if len(values) > most_columns:
            raise TooLarge(
                f"pivot: {quoted(by)} makes {len(values)} columns, more than {most_columns}, the limit; ask for fewer "
                "series"
            )
        placed = {value: place for place, value in enumerate(sorted(values, key=lambda value: _order(by, value)))}
        of_row = sorted(
            {key for each in known.values() for key in each if key != by and _differs(key, known.values())},
            key=lambda key: (key != _NAME, key),
        )
        times = [name for name in result_columns(read) if name not in ("series_id", "value")]
        columns = [_WITHOUT if value is None else value for value in placed]
        _check_names([*of_row, *times, *columns], by)
        rows = {
            series_id: (json.dumps([each.get(key) for key in of_row], ensure_ascii=False), placed[each.get(by)])
            for series_id, each in known.items()
        }
        if len(set(rows.values())) < len(rows):
            raise InvalidRequest(f"pivot: {quoted(by)} puts values of two series into one cell; ask for one of them")
        return cls(of_row, times, columns, rows)

    def schema(self, metadata: dict[bytes, bytes] | None = None) -> pa.Schema:
        """The schema of the answer."""
        fields = [(name, IDENTIFIER) for name in self.of_row]
        fields += [(name, COLUMN_TYPES[name]) for name in self.times]
        return pa.schema(fields + [(name, pa.float64()) for name in self.columns], metadata=metadata)

    def placed(self, rows: pa.Table) -> pa.Table:
        """Rows of series with the text of their wide row as ``series_id``, and the place of their column."""
        texts, places = [], []
        for codes in rows.column("series_id").chunks:
            found = [self._rows.get(series_id, ("", -1)) for series_id in codes.dictionary.to_pylist()]
            encoded = pa.array([text for text, _ in found], pa.string()).dictionary_encode()
            texts.append(pa.DictionaryArray.from_arrays(encoded.indices.take(codes.indices), encoded.dictionary))
            places.append(pa.array([place for _, place in found], pa.int32()).take(codes.indices))
        there = rows.column_names.index("series_id")
        placed = rows.set_column(there, "series_id", pa.chunked_array(texts, IDENTIFIER))
        return placed.append_column(_PLACE, pa.chunked_array(places, pa.int32()))

    @staticmethod
    def end_of_rows(rows: pa.Table, order: Sequence[str], count: int) -> int:
        """How many of the rows, which are gathered, placed and in order, belong to the first so many wide rows."""
        return int(np.searchsorted(numbered(*keys_of(rows, order)), count))

    def batches(self, rows: pa.Table, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The wide rows of some rows, one at least, that are gathered, placed and in order."""
        rows = rows.combine_chunks()
        numbers = numbered(*keys_of(rows, order))
        count = int(numbers[-1]) + 1
        step = max(1, _CELLS // max(1, len(self.columns)))
        for first in range(0, count, step):
            begin, end = np.searchsorted(numbers, [first, first + step])
            yield self._wide(rows.slice(begin, end - begin), numbers[begin:end] - first)

    def _wide(self, rows: pa.Table, numbers: Integers) -> pa.RecordBatch:
        heads = pa.array(np.flatnonzero(np.diff(numbers, prepend=-1)))
        one = rows.select(["series_id", *self.times]).take(heads).combine_chunks()
        texts = one.column("series_id").combine_chunks()
        cells = [json.loads(text) for text in texts.dictionary.to_pylist()]
        columns = [
            pa.array([each[place] for each in cells], pa.string()).dictionary_encode()
            for place in range(len(self.of_row))
        ]
        found = [_taken(column, texts.indices) for column in columns]
        found += [one.column(name).combine_chunks() for name in self.times]
        found += self._values(rows, numbers, len(heads))
        return pa.RecordBatch.from_arrays(found, schema=self.schema())

    def _values(self, rows: pa.Table, numbers: Integers, count: int) -> Iterator[pa.Array]:
        value = rows.column("value")
        numeric, known = value.fill_null(0.0).to_numpy(), value.is_valid().to_numpy()
        place = rows.column(_PLACE).to_numpy()
        order = np.argsort(place, kind="stable")
        cuts = np.searchsorted(place[order], np.arange(len(self.columns) + 1))
        for begin, end in pairwise(cuts):
            its = order[begin:end]
            cells, there = np.zeros(count), np.zeros(count, dtype=np.bool_)
            cells[numbers[its]], there[numbers[its]] = numeric[its], known[its]
            yield pa.array(cells, pa.float64(), mask=~there)


def _taken(column: pa.DictionaryArray, places: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(column.indices.take(places), column.dictionary)


def _differs(key: str, series: Collection[Mapping[str, str]]) -> bool:
    return len({each.get(key) for each in series}) > 1


def _order(by: str, value: str | None) -> tuple[bool, float, str]:
    """Quantiles and members in the order of numbers, texts in their own, what has no value last."""
    number = 0.0
    if value is not None and by in PROBABILITY_COLUMNS:
        try:
            number = float(value)
        except ValueError:
            number = math.inf
        number = number if math.isfinite(number) else math.inf
    return value is None, number, value or ""


def _check_label(by: str, series: Collection[Mapping[str, str]], every: Collection[Series]) -> None:
    if not series or any(by in each for each in series):
        return
    labels = sorted({key for one in every for key in json.loads(one.labels)})
    if by not in labels:
        raise InvalidRequest(f"pivot: no series has a label {quoted(by)}{did_you_mean(by, [_NAME, *labels])}")


def _check_names(names: Sequence[str], by: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InvalidRequest(
            f"pivot: the answer would have two columns {quoted(twice[0])}, one of them for a value of {quoted(by)}; "
            "leave out its series, or pivot by another label"
        )
