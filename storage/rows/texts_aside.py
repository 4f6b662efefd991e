"""Texts kept out of the query engine, which writes shared text out row by row where it joins, sorts and shifts rows."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from timedb.storage.rows.rows import ROWS, rows_of_frame
from timedb.storage.tables.schemas import READ_HELD

__all__ = ["TextsAside"]

_ASIDE = ("annotation", "tags")


class TextsAside:
    """Has numbers go through queries in place of annotations and tags, which no view looks at.

    Of frames that come from one :meth:`take_out`, annotations are equal exactly where their numbers are.
    """

    def __init__(self) -> None:
        self._held: dict[str, list[pa.Array]] = {name: [] for name in _ASIDE}
        self._count = dict.fromkeys(_ASIDE, 0)

    def take_out(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with numbers in place of texts; null stays null."""
        names = [name for name in _ASIDE if name in rows.columns]
        numbers = []
        for name, column in zip(names, rows_of_frame(rows, names).columns, strict=True):
            texts = column.combine_chunks()
            if name == "annotation":
                numbers.append(pl.Series(name, texts.indices.cast(pa.int64())) + self._count[name])
                texts = texts.dictionary
            else:
                every = pl.select(pl.int_range(self._count[name], self._count[name] + len(texts)).alias(name))
                present = pl.Series(texts.is_valid())
                numbers.append(every.select(pl.when(present).then(name).alias(name)).to_series())
            self._held[name].append(texts)
            self._count[name] += len(texts)
        return rows.with_columns(numbers)

    def put_back(self, rows: pl.DataFrame, names: Sequence[str]) -> pa.Table:
        """Some columns of rows as ``READ_HELD`` has them, texts in place of their numbers."""
        plain = rows_of_frame(rows, [name for name in names if name not in _ASIDE])
        columns = {
            name: plain.column(name) if name in plain.column_names else self._texts(rows[name]) for name in names
        }
        return pa.table(columns, schema=pa.schema([READ_HELD.field(name) for name in names]))

    def text(self, number: int | None) -> str | None:
        """The annotation that a number stands for."""
        if number is None:
            return None
        text: str | None = self._dictionary("annotation")[number].as_py()
        return text

    def number_of(self, text: str | None) -> int | None:
        """The number of an annotation that stands for another from here on."""
        if text is None:
            return None
        self._held["annotation"].append(pa.array([text], pa.string()))
        self._count["annotation"] += 1
        return self._count["annotation"] - 1

    def _texts(self, numbers: pl.Series) -> pa.Array:
        places = numbers.rechunk().to_arrow()
        if numbers.name == "tags":
            return self._dictionary("tags").take(places)
        return pa.DictionaryArray.from_arrays(places.cast(pa.int32()), self._dictionary("annotation"))

    def _dictionary(self, name: str) -> pa.Array:
        """All that is held of a column."""
        held = self._held[name]
        if len(held) != 1:
            kind = ROWS.field(name).type if name == "tags" else pa.string()
            held[:] = [pa.concat_arrays(held) if held else pa.array([], kind)]
        return held[0]
