"""InfluxDB's line protocol as a table: a row for each number, of the series MEASUREMENT.FIELD, tags being labels."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.times import MAX_MICROS, MIN_MICROS
from timedb.contract.wire import quoted
from timedb.files.pieces import Piece
from timedb.files.table_files import TableFile

__all__ = ["PRECISIONS", "open_line_protocol"]

PRECISIONS = {"ns": (1, 1000), "us": (1, 1), "ms": (1000, 1), "s": (1_000_000, 1)}
"""What a timestamp counts → by what it is multiplied, and divided, to be microseconds."""
_NAMES = ["series_key", "labels", "valid_time", "value"]
_BLOCK_BYTES = 4 << 20
_MAX_LINE_BYTES = 64 << 20
_PIECE_ROWS = 1 << 16
_KEY = r"(?:\\.|[^\\,= ])+"
_NAME = re.compile(r"(?:\\.|[^\\, ])+")
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD = re.compile(rf'({_KEY})=("(?:\\.|[^"\\])*"|[^ ,]+)')
_STAMP = re.compile(r" +(-?\d+)[ \r]*$")
_INTEGER = re.compile(r"[+-]?\d+[iu]$")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_ESCAPED = re.compile(r"\\([,= \\])")
Row = tuple[str, str, int, float, int]


def open_line_protocol(source: Any, what: str, precision: str = "ns", ignore: Collection[str] = ()) -> TableFile:
    """Lines as a table with ``series_key``, ``labels`` (JSON), ``valid_time`` and ``value``.

    Args:
        source: The bytes.
        what: How an error calls them.
        precision: What timestamps count, one of :data:`PRECISIONS`.
        ignore: Fields that are left out, such as texts and truth values, which are no numbers.

    Raises:
        InvalidRequest: a line is none; the pieces raise it, with line, text and reason.
    """

    def pieces(columns: Mapping[str, str]) -> Iterable[Piece]:
        rows = _rows(source, what, precision, frozenset(ignore))
        while some := list(islice(rows, _PIECE_ROWS)):
            series, labels, times, values, lines = zip(*some, strict=True)
            arrays = {
                "series_key": pa.array(series, pa.string()),
                "labels": pa.array(labels, pa.string()),
                "valid_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                "value": pa.array(values, pa.float64()),
            }
            batch = pa.RecordBatch.from_pydict({name: arrays[name] for name in dict.fromkeys(columns.values())})
            yield Piece(batch, "line", partial(np.array, lines, dtype=np.int64))

    return TableFile(what, _NAMES, None, pieces)


def _rows(source: Any, what: str, precision: str, ignore: frozenset[str]) -> Iterator[Row]:
    known: dict[str, str] = {}
    for number, line in _lines(source, what):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            yield from _parsed(line, number, precision, ignore, known)
        except ValueError as error:
            raise InvalidRequest(f"{what}: line {number}: {quoted(line[:200])} {error}") from None


def _lines(source: Any, what: str) -> Iterator[tuple[int, str]]:
    before, waiting = 0, b""
    while more := source.read(_BLOCK_BYTES):
        *whole, waiting = (waiting + more).split(b"\n")
        for number, line in enumerate(whole, before + 1):
            yield number, _decoded(line, number, what)
        before += len(whole)
        if len(waiting) > _MAX_LINE_BYTES:
            raise TooLarge(f"{what}: line {before + 1} has over {_MAX_LINE_BYTES} bytes")
    if waiting:
        yield before + 1, _decoded(waiting, before + 1, what)


def _decoded(line: bytes, number: int, what: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{what}: line {number}: is no UTF-8 text") from None


def _parsed(line: str, number: int, precision: str, ignore: frozenset[str], known: dict[str, str]) -> Iterator[Row]:
    line = line.strip(" \r")
    name = _NAME.match(line)
    if name is None:
        raise ValueError("has no measurement")
    at, tags = name.end(), {}
    while tag := _TAG.match(line, at):
        tags[_plain(tag[1])] = _plain(tag[2])
        at = tag.end()
    if at >= len(line) or line[at] != " ":
        raise ValueError("is not MEASUREMENT,TAG=VALUE FIELD=NUMBER TIME")
    text = line[name.end() : at]
    labels = known.get(text) or known.setdefault(
        text, json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else "{}"
    )
    fields, at = _fields(line, at + 1)
    stamp = _STAMP.fullmatch(line, at)
    if stamp is None:
        raise ValueError("has no timestamp" if at >= len(line) else "is not MEASUREMENT,TAG=VALUE FIELD=NUMBER TIME")
    micros = _micros(int(stamp[1]), precision)
    for field, value in fields:
        if field not in ignore:
            yield f"{_plain(name[0])}.{field}", labels, micros, _number(field, value), number


def _fields(line: str, at: int) -> tuple[list[tuple[str, str]], int]:
    found = []
    while field := _FIELD.match(line, at):
        found.append((_plain(field[1]), field[2]))
        at = field.end()
        if line[at : at + 1] != ",":
            return found, at
        at += 1
    raise ValueError("is not MEASUREMENT,TAG=VALUE FIELD=NUMBER TIME")


def _number(field: str, text: str) -> float:
    if _INTEGER.match(text):
        number = int(text[:-1])
        if float(number) != number:
            raise ValueError(f"has {field}={text}, an integer that a float64 cannot hold")
        return float(number)
    if _FLOAT.match(text):
        return float(text)
    raise ValueError(f"has {field}={text[:40]}, which is no number; --ignore {field} leaves that field out")


def _micros(stamp: int, precision: str) -> int:
    factor, divisor = PRECISIONS[precision]
    micros, rest = divmod(stamp * factor, divisor)
    if rest:
        raise ValueError("has a time that is finer than a microsecond")
    if not MIN_MICROS <= micros <= MAX_MICROS:
        raise ValueError(f"has a time outside of the years 1 to 9999, counted in {precision}; --precision says in what")
    return micros


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
