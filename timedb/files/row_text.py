"""Rows as text, straight from Arrow columns: no Python object a row, a million rows in a quarter of a second.

Each column becomes a pool of texts, with all punctuation around them, and an index into it a row. A row is then one
text of each pool in turn, so that one ``take`` over all pools together lays out the bytes of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.durations import Duration

__all__ = [
    "CSV",
    "CSV_FOR_SPREADSHEETS",
    "JSON",
    "JSON_NON_FINITE_TEXT",
    "NDJSON",
    "NDJSON_NON_FINITE_TEXT",
    "RowWriter",
    "Syntax",
    "csv_header",
]

_TEXT = pa.large_string()
_ROWS_A_CHUNK = 16_384
_BYTES_A_CHUNK = 8 << 20
_MOST_RESERVED = 2 * _BYTES_A_CHUNK
_FEW = 64  # texts for which a call into Arrow costs more than a loop

Indices = npt.NDArray[np.int64]
Column = tuple[pa.Array, Indices]
"""A pool of texts and, for each row, which of them it is."""


def _json_texts(values: pa.Array) -> pa.Array:
    """Texts as JSON strings, quotes included."""
    if len(values) <= _FEW or pc.any(pc.match_substring_regex(values, '["\\\\\x00-\x1f]')).as_py():
        return pa.array([orjson.dumps(value).decode() for value in values.to_pylist()], _TEXT)
    return _join('"', values, '"')


def _csv_texts(values: pa.Array) -> pa.Array:
    """Texts as RFC 4180 fields; the empty text is quoted, which tells it from a null."""
    special = pc.or_(pc.match_substring_regex(values, '[",\r\n]'), pc.equal(pc.binary_length(values), 0))
    if not pc.any(special).as_py():
        return values
    quoted = _join('"', pc.replace_substring(values, '"', '""'), '"')
    return pc.if_else(special, quoted, values)


def _plain_csv_texts(values: pa.Array) -> pa.Array:
    """The same for spreadsheets: before what they would take for a formula stands an apostrophe, which they hide."""
    risky = pc.match_substring_regex(values, "^[=+@\t\r-]")
    if pc.any(risky).as_py():
        values = pc.if_else(risky, _join("'", values, ""), values)
    return _csv_texts(values)


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a format writes a row; fields are always parted by a comma.

    Attributes:
        row_start, row_end: Around each row.
        labelled: Whether the column's name stands before each field.
        quote: Turns texts (without nulls) into fields.
        time_quote: Around a time.
        null: A field without a value.
        non_finite: NaN, Infinity and -Infinity; none: as ``null``.
        space: Behind the commas and colons of JSON.
    """

    row_start: str
    row_end: str
    labelled: bool
    quote: Callable[[pa.Array], pa.Array]
    time_quote: str
    null: str
    non_finite: tuple[str, str, str] | None
    space: str = ""


_QUOTED_NON_FINITE = ('"NaN"', '"Infinity"', '"-Infinity"')

JSON = Syntax(",{", "}", True, _json_texts, '"', "null", None)
JSON_NON_FINITE_TEXT = Syntax(",{", "}", True, _json_texts, '"', "null", _QUOTED_NON_FINITE)
NDJSON = Syntax("{", "}\n", True, _json_texts, '"', "null", None)
NDJSON_NON_FINITE_TEXT = Syntax("{", "}\n", True, _json_texts, '"', "null", _QUOTED_NON_FINITE)
CSV = Syntax("", "\n", False, _csv_texts, "", "", ("NaN", "Infinity", "-Infinity"))
CSV_FOR_SPREADSHEETS = replace(CSV, quote=_plain_csv_texts)
"""Without formulas; an upload of it has other texts than those that were read."""


def csv_header(names: Sequence[str]) -> bytes:
    """The line of names of a CSV file."""
    return ",".join(_csv_texts(pa.array(names, _TEXT)).to_pylist()).encode() + b"\n"


class RowWriter:
    """Writes the rows of batches of one schema.

    Columns may be text (plain or dictionary), ``timestamp[us]``, ``duration[us]``, numbers, boolean and lists of text.

    Args:
        schema: Of the batches.
        syntax: What a row looks like.
    """

    def __init__(self, schema: pa.Schema, syntax: Syntax) -> None:
        self._syntax = syntax
        self._around = _punctuation(schema, syntax)
        self._lone_floats = _lone_floats(schema)
        self._pools: dict[int, tuple[pa.Array, pa.Array]] = {}
        self._pairs: dict[int, tuple[pa.Array, pa.Array, pa.Array]] = {}

    def write(self, batch: pa.RecordBatch) -> Iterator[memoryview]:
        """The rows of a batch as text, in chunks of some megabytes."""
        if not batch.num_rows:
            return
        step = max(1, min(_ROWS_A_CHUNK, _BYTES_A_CHUNK * batch.num_rows // max(1, batch.nbytes)))
        for start in range(0, batch.num_rows, step):
            yield self._rows(batch.slice(start, step))

    def _rows(self, batch: pa.RecordBatch) -> memoryview:
        columns = self._paired([self._column(position, column) for position, column in enumerate(batch.columns)])
        indices = np.empty((batch.num_rows, len(columns)), np.int64)
        offset = 0
        for position, (pool, index) in enumerate(columns):
            np.add(index, offset, out=indices[:, position])
            offset += len(pool)
        pools = [*(pool for pool, _ in columns), _filler(columns)]
        texts = pc.take(pa.concat_arrays(pools), pa.array(indices.ravel()), boundscheck=False)
        _, offsets, data = texts.buffers()
        return memoryview(data)[: int(np.frombuffer(offsets, np.int64)[len(texts)])]

    def _column(self, position: int, column: pa.Array) -> Column:
        before, after = self._around[position]
        if pa.types.is_dictionary(column.type) and _needs_encoding_anew(column):
            column = column.dictionary_decode().dictionary_encode()
        if pa.types.is_floating(column.type):
            pool, index = _numbers(column, self._syntax)
            if position in self._lone_floats:
                return pool, index
            return _join(before, pc.utf8_rtrim(pool, ","), after), index
        if pa.types.is_timestamp(column.type):
            quote = self._syntax.time_quote
            known = _times(column, before + quote, quote + after)
        elif pa.types.is_duration(column.type):
            known = _durations(column, before + self._syntax.time_quote, self._syntax.time_quote + after)
        elif pa.types.is_boolean(column.type):
            known = pa.array([before + "false" + after, before + "true" + after], _TEXT), _filled(column, False)
        elif pa.types.is_dictionary(column.type):
            known = self._dictionary(position, column)
        else:
            texts = (
                _lists(column, self._syntax.space)
                if pa.types.is_list(column.type)
                else column.cast(_TEXT).fill_null("")
            )
            known = _join(before, self._syntax.quote(texts) if self._quotes(column) else texts, after), _all(column)
        return _with_nulls(known, column, before + self._syntax.null + after)

    def _quotes(self, column: pa.Array) -> bool:
        # A list is written as JSON, which is a field of JSON as it stands and a text in CSV.
        return not (pa.types.is_integer(column.type) or (pa.types.is_list(column.type) and self._syntax.labelled))

    def _dictionary(self, position: int, column: pa.DictionaryArray) -> Column:
        dictionary, pool = self._pools.get(position, (None, None))
        if dictionary is None or not dictionary.equals(column.dictionary):
            before, after = self._around[position]
            pool = _join(before, self._syntax.quote(column.dictionary.cast(_TEXT)), after)
            self._pools[position] = column.dictionary, pool
        return pool, _filled(column.indices, 0)

    def _paired(self, columns: list[Column]) -> list[Column]:
        """Neighbours with few texts as one column of all their pairs: a text less to copy for each row."""
        found = columns[:1]
        for position, (pool, index) in enumerate(columns[1:], 1):
            before, first = found[-1]
            if 4 * len(before) * len(pool) > len(index):
                found.append((pool, index))
                continue
            known = self._pairs.get(position)
            if known is None or known[0] is not before or known[1] is not pool:
                known = self._pairs[position] = before, pool, _pairs(before, pool)
            found[-1] = known[2], first if len(pool) == 1 else first * len(pool) + index
        return found


def _pairs(first: pa.Array, second: pa.Array) -> pa.Array:
    one, other = np.divmod(np.arange(len(first) * len(second)), len(second))
    return pc.binary_join_element_wise(first.take(pa.array(one)), second.take(pa.array(other)), pa.scalar("", _TEXT))


def _punctuation(schema: pa.Schema, syntax: Syntax) -> list[tuple[str, str]]:
    """What stands before and after each field of a row."""
    last = len(schema) - 1
    comma, colon = ("," + syntax.space, ":" + syntax.space) if syntax.labelled else (",", "")
    before = [
        (syntax.row_start if position == 0 else comma)
        + (orjson.dumps(name).decode() + colon if syntax.labelled else "")
        for position, name in enumerate(schema.names)
    ]
    after = [""] * last + [syntax.row_end]
    for position in _lone_floats(schema):
        after[position - 1], before[position] = before[position], ""
        before[position + 1] = before[position + 1].removeprefix(",")
    return list(zip(before, after, strict=True))


def _lone_floats(schema: pa.Schema) -> list[int]:
    """Float columns between others: their texts are written with the comma after them and need nothing around."""
    floats = [position for position, field in enumerate(schema) if pa.types.is_floating(field.type)]
    beside = {position + step for position in floats for step in (-1, 1)}
    return [position for position in floats if position not in beside and 0 < position < len(schema) - 1]


def _filler(columns: list[Column]) -> pa.Array:
    """A text that no row has, so long that the mean of the pools is that of the rows.

    Arrow's ``take`` reserves the mean for every row; where that is too little, it copies what it has made, again and
    again.
    """
    sizes = [_text_bytes(pool) for pool, _ in columns]
    means = [size / len(pool) for size, (pool, _) in zip(sizes, columns, strict=True)]
    rows, texts = len(columns[0][1]), sum(len(pool) for pool, _ in columns)
    wanted = min(1.02 * rows * sum(means), _MOST_RESERVED) / (rows * len(columns))
    size = max(0, int(wanted * (texts + 1)) - sum(sizes))
    return pa.LargeStringArray.from_buffers(
        1, pa.py_buffer(np.array([0, size])), pa.py_buffer(np.zeros(size, np.uint8))
    )


def _text_bytes(texts: pa.Array) -> int:
    offsets = np.frombuffer(texts.buffers()[1], np.int64)
    return int(offsets[texts.offset + len(texts)] - offsets[texts.offset])


def _needs_encoding_anew(column: pa.DictionaryArray) -> bool:
    # A large dictionary for few rows costs more than the rows; and a null may stand in the dictionary itself.
    return len(column.dictionary) > 2 * len(column) or column.dictionary.null_count > 0


def _join(before: str, texts: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(before, _TEXT), texts, pa.scalar(after, _TEXT), pa.scalar("", _TEXT))


def _all(column: pa.Array) -> Indices:
    return np.arange(len(column), dtype=np.int64)


def _filled(column: pa.Array, value: int) -> Indices:
    whole = column.fill_null(value) if column.null_count else column
    numbers: Indices = whole.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return numbers


def _with_nulls(known: Column, column: pa.Array, null: str) -> Column:
    if not column.null_count:
        return known
    pool, index = known
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    if is_null.all():
        return pa.array([null], _TEXT), np.zeros(len(index), np.int64)
    return pa.concat_arrays([pool, pa.array([null], _TEXT)]), np.where(is_null, len(pool), index)


def _lists(column: pa.ListArray, space: str) -> pa.Array:
    """Lists of text as JSON arrays, an empty one for null."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    items = _json_texts(column.flatten().cast(_TEXT).fill_null(""))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), items)
    return _join("[", pc.binary_join(lists, pa.scalar("," + space, _TEXT)), "]")


def _numbers(column: pa.Array, syntax: Syntax) -> Column:
    """The shortest texts that read back as the same floats, each with a comma after it."""
    values = column.to_numpy(zero_copy_only=False)
    text = np.frombuffer(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8).copy()
    text[-1] = ord(",")
    offsets = np.concatenate(([1], np.flatnonzero(text == ord(",")) + 1))
    pool = pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(text))
    index = np.arange(len(values), dtype=np.int64)
    finite = np.isfinite(values)
    if (syntax.null == "null" and syntax.non_finite is None) or finite.all():
        return pool, index  # orjson writes null for whatever is not finite
    null = syntax.null
    nan, infinity, minus_infinity = syntax.non_finite or (null, null, null)
    specials = pa.array([f"{word}," for word in (null, nan, infinity, minus_infinity)], _TEXT)
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    which = np.select([is_null, np.isnan(values), values > 0], [0, 1, 2], 3)
    return pa.concat_arrays([pool, specials]), np.where(finite, index, len(pool) + which)


_MICROS_A_DAY = 86_400_000_000
_MICROS_A_SECOND = 1_000_000
_TIME = "0000-00-00T00:00:00.000000+00:00"
_PAIRS = np.array([f"{number:02d}" for number in range(100)], dtype="S2")


def _layout(size: int, *fields: tuple[str, str, int]) -> np.dtype[np.void]:
    """The type of texts of one length, with named places in them: (name, type, offset)."""
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": size})


_DATE_LAYOUT = _layout(10, ("century", "S2", 0), ("year", "S2", 2), ("month", "S2", 5), ("day", "S2", 8))


@cache
def _clock() -> npt.NDArray[np.bytes_]:
    """``HH:MM:SS`` of every second of a day."""
    seconds = np.arange(86_400).astype("datetime64[s]")
    return np.char.partition(np.datetime_as_string(seconds), "T")[:, 2].astype("S8")


def _dates(days: Indices) -> npt.NDArray[np.bytes_]:
    """``YYYY-MM-DD`` of days since 1970."""
    date = days.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    months = month.astype(np.int64)
    years = months // 12 + 1970
    texts = np.full(len(days), b"0000-00-00").view(_DATE_LAYOUT)
    texts["century"] = _PAIRS[years // 100]
    texts["year"] = _PAIRS[years % 100]
    texts["month"] = _PAIRS[months % 12 + 1]
    texts["day"] = _PAIRS[(date - month).astype(np.int64) + 1]
    return texts.view("S10")


def _times(column: pa.Array, before: str, after: str) -> Column:
    """Times as ``YYYY-MM-DDTHH:MM:SS.ffffff+00:00``; neighbours that are equal are written once."""
    micros = _filled(column.view(pa.int64()), 0)
    starts, lengths = _runs(micros)
    if 2 * len(starts) > len(micros):
        return _time_texts(micros, before, after), _all(column)
    return _time_texts(micros[starts], before, after), np.repeat(np.arange(len(starts)), lengths)


def _durations(column: pa.Array, before: str, after: str) -> Column:
    """Lengths of time as ISO 8601, in hours and less; each is written once."""
    lengths, index = np.unique(_filled(column.view(pa.int64()), 0), return_inverse=True)
    return pa.array([f"{before}{Duration(micros=int(each))}{after}" for each in lengths], _TEXT), index.astype(np.int64)


def _runs(numbers: Indices) -> tuple[Indices, Indices]:
    """Where the runs of equal neighbours start, and how long they are."""
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    return starts, np.diff(starts, append=len(numbers))


def _time_texts(micros: Indices, before: str, after: str) -> pa.Array:
    template = (before + _TIME + after).encode()
    shift = len(before.encode())
    layout = _layout(
        len(template),
        ("date", "S10", shift),
        ("clock", "S8", shift + 11),
        *((f"micros{at}", "S2", shift + at) for at in (20, 22, 24)),
    )
    texts = np.full(len(micros), np.void(template)).view(layout)
    days = micros // _MICROS_A_DAY
    starts, lengths = _runs(days)
    texts["date"] = np.repeat(_dates(days[starts]), lengths)
    in_day = micros - days * _MICROS_A_DAY
    seconds = in_day // _MICROS_A_SECOND
    texts["clock"] = _clock()[seconds]
    fraction = in_day - seconds * _MICROS_A_SECOND
    if fraction.any():
        texts["micros20"] = _PAIRS[fraction // 10_000]
        texts["micros22"] = _PAIRS[fraction // 100 % 100]
        texts["micros24"] = _PAIRS[fraction % 100]
    offsets = np.arange(len(micros) + 1, dtype=np.int64) * len(template)
    return pa.LargeStringArray.from_buffers(len(micros), pa.py_buffer(offsets), pa.py_buffer(texts))
