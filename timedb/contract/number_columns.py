"""Columns of numbers as 64-bit floats, a column at a time; the rule is that of :mod:`timedb.contract.numbers`."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.numbers import EXACT_INTEGERS, float_of

__all__ = ["NumberError", "floats_of", "floats_of_texts"]

_MOST_EXACT_POWER = 22  # 10 to that is the last power of ten that is a float64
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE | re.ASCII)
_SHOWN_CHARS = 40


class NumberError(ValueError):
    """A number that does not fit.

    Attributes:
        index: Its place in the column.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def floats_of(column: pa.Array) -> pa.Array:
    """A column of integers, decimals or floats as float64; nulls stay null.

    Raises:
        NumberError: a number does not fit; says which.
    """
    kind = column.type
    if pa.types.is_decimal(kind):
        return _of_decimals(column)
    if pa.types.is_integer(kind) and kind.bit_width == 64:
        return _of_integers(column)
    return column.cast(pa.float64())


def floats_of_texts(column: pa.Array) -> pa.Array:
    """A column of texts as float64; ``NaN``, ``inf`` and ``Infinity`` are numbers, null stays null.

    Raises:
        NumberError: a text is no number, or the number does not fit.
    """
    try:
        found = column.cast(pa.float64())
    except pa.ArrowInvalid:
        column = pc.utf8_trim_whitespace(column)
        try:
            found = column.cast(pa.float64())
        except pa.ArrowInvalid:
            raise _no_number(column) from None
    _check_large(column, found)
    return found


def _of_integers(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:  # some are beyond 2 to the 53rd, where not every whole number is a float
        found = column.cast(pa.float64(), safe=False)
    _check_large(column, found)
    return found


def _of_decimals(column: pa.Array) -> pa.Array:
    if (found := _of_short_decimals(column)) is not None:
        return found
    texts = column.cast(pa.string())  # which Arrow reads as the nearest float, as it does not a decimal
    found = texts.cast(pa.float64())
    if column.type.scale <= 0:
        _check_large(column, found)
    return found


def _of_short_decimals(column: pa.Array) -> pa.Array | None:
    """Decimals of up to 15 digits: one division of two floats, both exact, is the nearest float. None: others."""
    kind = column.type
    if not pa.types.is_decimal128(kind) or not 0 <= kind.scale <= _MOST_EXACT_POWER:
        return None
    buffer, rows = column.buffers()[1], len(column)
    if buffer is None or not rows:
        return None
    words = np.frombuffer(buffer, "<i8", 2 * rows, 16 * column.offset).reshape(rows, 2)
    low, high = words[:, 0], words[:, 1]
    if (
        (high != low >> 63) | (low > EXACT_INTEGERS) | (low < -EXACT_INTEGERS)
    ).any():  # under a null may stand anything
        return None
    mask = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return pa.array(low / float(10**kind.scale), pa.float64(), mask=mask)


def _check_large(column: pa.Array, found: pa.Array) -> None:
    """Refuse what did not fit, of integers, decimals or texts and the floats that they became."""
    floats = np.abs(pc.fill_null(found, 0.0).to_numpy(zero_copy_only=False))
    with np.errstate(invalid="ignore"):
        large = np.flatnonzero(floats >= EXACT_INTEGERS)
    for index in large.tolist():
        value = column[index].as_py()
        if isinstance(value, str):
            if (text := value.strip()) and _WHOLE.fullmatch(text) is None:
                if np.isinf(floats[index]) and _INFINITE.fullmatch(text) is None:
                    raise NumberError(index, f"{text[:_SHOWN_CHARS]} is too large for a 64-bit float")
                continue
            value = Decimal(text)
        try:
            float_of(value)
        except ValueError as error:
            raise NumberError(index, f"{str(value)[:_SHOWN_CHARS]} {error}") from None


def _no_number(texts: pa.Array) -> NumberError:
    """Which of the texts is no number: half of them, and half of those, until it is one."""
    first, last = 0, len(texts)
    while last - first > 1:
        middle = (first + last) // 2
        try:
            texts.slice(first, middle - first).cast(pa.float64())
            first = middle
        except pa.ArrowInvalid:
            last = middle
    return NumberError(first, f"{texts[first].as_py()[:_SHOWN_CHARS]!a} is not a number")
