"""Numbers as 64-bit floats: the nearest one, a whole number back as it was, and never infinite by accident."""

from __future__ import annotations

import random
import struct
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pytest

from timedb.contract.errors import InvalidRequest
from timedb.contract.number_columns import NumberError, floats_of, floats_of_texts
from timedb.contract.numbers import float_of
from timedb.contract.wire import UpdateValues, parse

DECIMALS = [
    pa.decimal32(9, 2),
    pa.decimal64(18, 6),
    pa.decimal128(10, 2),
    pa.decimal128(38, 20),
    pa.decimal256(76, 40),
    pa.decimal128(12, -3),
    pa.decimal256(40, -3),
]


@pytest.mark.parametrize("kind", DECIMALS, ids=str)
def test_decimals_become_the_nearest_float(kind: pa.DataType) -> None:
    draw = random.Random(7)
    most = min(kind.precision, 12) if kind.scale < 0 else kind.precision  # whole numbers have a rule of their own
    digits = [draw.randrange(10 ** draw.randint(1, most)) * draw.choice((1, -1)) for _ in range(2_000)]
    exact = [Decimal(number).scaleb(-kind.scale, _EXACT_CONTEXT) for number in digits]
    column = pa.array([None, *exact, None, Decimal(0)], kind)
    assert floats_of(column).to_pylist() == [None, *(float(number) for number in exact), None, 0.0]
    assert floats_of(column.slice(5, 9)).to_pylist() == [float(number) for number in exact[4:13]]


def test_a_price_is_what_csv_makes_of_it() -> None:
    column = pa.array([Decimal("9877.38"), Decimal("0.12345678901234567890")], pa.decimal128(38, 20))
    assert floats_of(column).to_pylist() == [9877.38, 0.12345678901234567890]
    assert floats_of_texts(pa.array(["9877.38", "0.12345678901234567890"])).equals(floats_of(column))


FIT = [0, 2**53, -(2**53), 2**53 + 2, 2**60, 2**63, 1_152_921_504_606_847_000]
MISFIT = [2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1]


def _columns(number: int) -> list[pa.Array]:
    """A whole number, in every column that can hold it."""
    ints = [kind for kind, low, high in _RANGES if low <= number < high]
    return [pa.array([1, None, number], kind) for kind in (*ints, pa.decimal128(38, 0), pa.decimal256(76, 0))]


@pytest.mark.parametrize("number", FIT)
def test_a_whole_number_that_comes_back_is_taken(number: int) -> None:
    for column in _columns(number):
        assert floats_of(column).to_pylist() == [1.0, None, float(number)], column.type
    assert floats_of_texts(pa.array([str(number)])).to_pylist() == [float(number)]
    assert float_of(number) == float_of(Decimal(number)) == _read(str(number)) == float(number)


@pytest.mark.parametrize("number", MISFIT)
def test_a_whole_number_that_does_not_come_back_is_refused(number: int) -> None:
    for column in _columns(number):
        with pytest.raises(NumberError, match=f"^{number} is a whole number") as caught:
            floats_of(column)
        assert caught.value.index == 2
    with pytest.raises(NumberError, match=f"^{number} is a whole number"):
        floats_of_texts(pa.array(["1", str(number)]))
    for single in (number, Decimal(number)):
        with pytest.raises(ValueError, match="whole number"):
            float_of(single)
    with pytest.raises(InvalidRequest, match=f"value: {number} is a whole number"):
        _read(str(number))


@pytest.mark.parametrize("text", ["1e309", "-1e309", "9" * 400, "9" * 400 + ".5", "123456.7e400"])
def test_what_is_beyond_the_range_is_not_infinite(text: str) -> None:
    with pytest.raises(NumberError, match="too large"):
        floats_of_texts(pa.array(["0", text]))
    with pytest.raises(ValueError, match="too large"):
        float_of(Decimal(text))
    with pytest.raises(InvalidRequest, match="too large"):
        _read(text)


def test_the_infinities_are_numbers_where_they_are_said() -> None:
    texts = pa.array(["inf", "-Infinity", " NaN", "+INF"])
    assert str(floats_of_texts(texts).to_pylist()) == "[inf, -inf, nan, inf]"
    assert [_read(text) for text in ('"Infinity"', "Infinity", '"-Infinity"')] == [np.inf, np.inf, -np.inf]


@pytest.mark.parametrize("text", ["one", "", "1 000", "0x10", "1,5", "1_0", "\u0661"])
def test_a_text_that_is_no_number_is_shown(text: str) -> None:
    texts = pa.array([*["1.5"] * 40, text, *["2"] * 7])
    with pytest.raises(NumberError) as caught:
        floats_of_texts(texts)
    assert (caught.value.index, str(caught.value)) == (40, f"{text!a} is not a number")


def test_floats_stay_what_they_are() -> None:
    draw = random.Random(11)
    floats = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(5_000)] + [-0.0, 5e-324, np.inf]
    column = pa.array(floats, pa.float64())
    assert floats_of(column).view(pa.int64()).equals(column.view(pa.int64()))
    finite = column.filter(pa.array(np.isfinite(floats)))
    written = pa.array([repr(number) for number in finite.to_pylist()])
    assert floats_of_texts(written).view(pa.int64()).equals(finite.view(pa.int64()))
    for kind in (pa.float16(), pa.float32()):
        halves = pa.array(np.array([0.1, -0.0, 65504, np.nan], kind.to_pandas_dtype()))
        assert str(floats_of(halves).to_pylist()) == str(np.array(halves).astype(np.float64).tolist())


_EXACT_CONTEXT = Context(prec=100)
_RANGES = [(pa.int64(), -(2**63), 2**63), (pa.uint64(), 0, 2**64)]


def _read(number: str) -> float | None:
    """The value of a correction as it stands in JSON."""
    body = f'{{"updates": [{{"value_id": "x", "value": {number}}}]}}'
    return parse(UpdateValues, body.encode(), what="body", max_bytes=10_000).updates[0].value
