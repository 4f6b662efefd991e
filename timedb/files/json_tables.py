"""JSON as batches: an array of objects, or an object a line; each row knows its place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.json_keys import check_keys
from timedb.contract.numbers import float_of
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.files.pieces import Piece, Unit

__all__ = ["JsonSource"]

_BLOCK_BYTES = 4 << 20
_MAX_LINE_BYTES = 64 << 20
_MAX_WHOLE_BYTES = 1 << 30
_PIECE_ROWS = 1 << 16
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Row = tuple[int, dict[str, Any]]


class JsonSource:
    """A JSON table whose first rows have been read.

    Attributes:
        names: The columns: the keys of the first rows. A key that comes first in a later piece is an error.

    Args:
        source: The bytes.
        what: How an error calls them.
        lines: Whether they are an object a line; else one array, or an object that holds the table.
        table: Of an object: the key of the table, an array of objects or an object of arrays; None: the only one.
        option: How an error calls ``table``.
        every_key: Whether each row must have every key.

    Raises:
        InvalidRequest: it is not JSON, or something else than objects.
    """

    def __init__(
        self,
        source: Any,
        what: str,
        *,
        lines: bool,
        table: str | None = None,
        option: str = "sheet",
        every_key: bool = False,
    ) -> None:
        self._every_key = every_key
        self._what = what
        self._unit: Unit = "line" if lines else "row"
        rows = _lines(source, what) if lines else _array(source, what, table, option)
        self._pieces = iter(lambda: list(itertools.islice(rows, _PIECE_ROWS)), [])
        self._first = next(self._pieces, [])
        self.names: list[str] = list(dict.fromkeys(key for _, row in self._first for key in row))

    def pieces(self, columns: Mapping[str, str]) -> Iterator[Piece]:
        """The rows, with the types of an upload; times are text still.

        Args:
            columns: Our column → the key. ``value:`` and a name is one more column of numbers, ``scalar:`` one of
                texts, numbers or truth values, as texts.

        Raises:
            InvalidRequest: a value is of another type, or a later row has a key of its own.
        """
        known = set(self.names)
        for rows in itertools.chain([self._first] if self._first else [], self._pieces):
            for number, row in rows:
                if not row.keys() <= known:
                    key = next(key for key in row if key not in known)
                    raise InvalidRequest(f"{self._what}: {self._unit} {number}: {quoted(key)} is in no row before it")
                if self._every_key and len(row) < len(known):
                    key = next(key for key in self.names if key not in row)
                    raise InvalidRequest(
                        f"{self._what}: {self._unit} {number}: {quoted(key)} is missing; here null clears, so each row "
                        "has every key: what is to stay goes into a table of its own"
                    )
            numbers = np.array([number for number, _ in rows], dtype=np.int64)
            arrays = {source: self._column(rows, ours, source) for ours, source in columns.items()}
            yield Piece(pa.RecordBatch.from_pydict(arrays), self._unit, partial(np.asarray, numbers))

    def _column(self, rows: list[Row], ours: str, key: str) -> pa.Array:
        kind, take = _TYPES.get(ours.partition(":")[0], (pa.string(), _text))
        taken = []
        for number, row in rows:
            value = row.get(key)
            try:
                taken.append(None if value is None else take(value))
            except ValueError as error:
                raise InvalidRequest(f"{key}: {self._unit} {number}: {quoted(value)} {error}") from None
        try:
            return pa.array(taken, kind)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise InvalidRequest(f"{key}: {' '.join(str(error).split())}") from None


def _array(source: Any, what: str, table: str | None, option: str) -> Iterator[Row]:
    text = source.read(_MAX_WHOLE_BYTES + 1)
    if len(text) > _MAX_WHOLE_BYTES:
        raise TooLarge(f"{what}: one JSON array of over {_MAX_WHOLE_BYTES} bytes; write an object a line (ndjson)")
    try:
        text = text.removeprefix(b"\xef\xbb\xbf")
        rows = orjson.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{what}: is not JSON: {error}") from None
    try:
        check_keys(text)
    except ValueError as error:
        raise InvalidRequest(f"{what}: {error}") from None
    if isinstance(rows, dict):
        rows = _table_in(rows, what, table, option)
    elif table is not None:
        raise InvalidRequest(f"{option}: {what} is an array of rows, in which there is no {quoted(table)}")
    if not isinstance(rows, list):
        raise InvalidRequest(f"{what}: is not a JSON array of objects, one a row")
    return _objects(enumerate(rows, 1), what, "row")


def _table_in(found: dict[str, Any], what: str, table: str | None, option: str) -> list[Any]:
    """The rows of the table that an object holds: an array of objects, or an object of arrays, one a column."""
    tables = [key for key, value in found.items() if _is_table(value)]
    if table is None:
        if len(tables) != 1:
            there = f"; its tables are {', '.join(tables[:30])}: {option} says which" if tables else ""
            raise InvalidRequest(f"{what}: is not a JSON array of objects, one a row{there}")
        table = tables[0]
    elif table not in tables:
        raise InvalidRequest(f"{option}: {what} has no table {quoted(table)}{did_you_mean(table, tables)}")
    value = found[table]
    if isinstance(value, list):
        return value
    lengths = {key: len(column) for key, column in value.items()}
    if len(set(lengths.values())) > 1:
        (one, longer), (other, shorter) = max(lengths.items(), key=_second), min(lengths.items(), key=_second)
        raise InvalidRequest(f"{what}: {table}: {quoted(one)} has {longer} values, and {quoted(other)} {shorter}")
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


def _second(pair: tuple[str, int]) -> int:
    return pair[1]


def _is_table(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) for each in value)
    return isinstance(value, dict) and bool(value) and all(isinstance(each, list) for each in value.values())


def _lines(source: Any, what: str) -> Iterator[Row]:
    return _objects(_parsed_lines(source, what), what, "line")


def _parsed_lines(source: Any, what: str) -> Iterator[tuple[int, Any]]:
    before, waiting = 0, b""
    while more := source.read(_BLOCK_BYTES):
        *whole, waiting = (waiting + more).split(b"\n")
        for number, line in enumerate(whole, before + 1):
            if line.strip():
                yield number, _json(line, number, what)
        before += len(whole)
        if len(waiting) > _MAX_LINE_BYTES:
            raise TooLarge(f"{what}: line {before + 1} has over {_MAX_LINE_BYTES} bytes")
    if waiting.strip():
        yield before + 1, _json(waiting, before + 1, what)


def _json(line: bytes, number: int, what: str) -> Any:
    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    try:
        found = orjson.loads(line)
    except ValueError:
        raise InvalidRequest(f"{what}: line {number} is not JSON: {quoted(line.decode(errors='replace'))}") from None
    try:
        check_keys(line)
    except ValueError as error:
        raise InvalidRequest(f"{what}: line {number}: {error}") from None
    return found


def _objects(values: Iterable[tuple[int, Any]], what: str, unit: str) -> Iterator[Row]:
    for number, value in values:
        if not isinstance(value, dict):
            raise InvalidRequest(f"{what}: {unit} {number}: {quoted(value)} is not a JSON object")
        yield number, value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return value


def _number(value: object) -> float:
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number (as text only NaN, Infinity and -Infinity are taken)")
    return float_of(value)


def _texts(value: object) -> list[str | None]:
    if not isinstance(value, list) or not all(isinstance(each, str | None) for each in value):
        raise ValueError("is not an array of texts")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _scalar(value: object) -> str:
    if isinstance(value, dict | list):
        raise ValueError("is neither a text nor a number")
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _labels(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_TYPES: dict[str, tuple[pa.DataType, Callable[[Any], Any]]] = {
    "value": (pa.float64(), _number),
    "tags": (pa.list_(pa.string()), _texts),
    "labels": (pa.string(), _labels),
    "retracted": (pa.bool_(), _flag),
    "scalar": (pa.string(), _scalar),
}
