"""Units: known answers, what is refused, and that no unit text can do harm."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timedb.contract.errors import InvalidRequest
from timedb.storage.measures.units import convert_frame, converter

NAN = float("nan")


def converted(value: float, from_unit: str, to_unit: str) -> float:
    """One value in another unit; the same where there is nothing to do."""
    convert = converter(from_unit, to_unit, field="unit")
    return value if convert is None else float(convert(np.array([value]))[0])


@pytest.mark.parametrize(
    ("value", "from_unit", "to_unit", "expected"),
    [
        (20.0, "degC", "kelvin", 293.15),
        (293.15, "K", "°C", 20.0),
        (212.0, "degF", "degC", 100.0),
        (37.0, "°C", "°F", 98.6),
        (50.1, "percent", "dimensionless", 0.501),
        (50.1, "%", "1", 0.501),
        (0.25, "pu", "%", 25.0),
        (7.0, "‰", "%", 0.7),
        (45.3, "EUR/MWh", "EUR/kWh", 0.0453),
        (0.0453, "EUR/kWh", "EUR/MWh", 45.3),
        (1.25, "SEK/kWh", "SEK/MWh", 1250.0),
        (2.5, "k€", "EUR", 2500.0),
        (30.0, "€/MWh", "EUR/kWh", 0.03),
        (3.0, "MVAr", "kvar", 3000.0),
        (3.0, "MVArh", "kVArh", 3000.0),
        (3.0, "MVA", "kVA", 3000.0),
        (12.0, "MWh/h", "MW", 12.0),
        (12.0, "MWh/d", "kW", 500.0),
        (3.6, "GJ", "MWh", 1.0),
        (8.0, "kWp", "W", 8000.0),
        (36.0, "km/h", "m/s", 10.0),
        (36.0, "km h^-1", "m s-1", 10.0),
        (36.0, "km·h⁻¹", "m*s**-1", 10.0),
        (1.0, "m3/s", "l/s", 1000.0),
        (1.0, "m³/s", "m^3/h", 3600.0),
        (1000.0, "W/m2", "kW/(m^2)", 1.0),
        (5.0, "J/(kg K)", "J/kg/degC", 5.0),
        (18.0, "degC/h", "K/s", 0.005),
        (1013.25, "hPa", "mbar", 1013.25),
        (250.0, "gCO2/kWh", "tCO2eq/MWh", 0.25),
        (180.0, "deg", "rad", np.pi),
        (60.0, "1/min", "Hz", 1.0),
        (2.0, " MW", "kW ", 2000.0),
    ],
)
def test_known_answers(value: float, from_unit: str, to_unit: str, expected: float) -> None:
    assert converted(value, from_unit, to_unit) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("unit", ["MW", "dimensionless", "happiness", "2**10**10**10", "dB", "x" * 255, "%%%"])
def test_the_same_text_is_nothing_to_do_whoever_knows_it(unit: str) -> None:
    assert converter(unit, unit, field="unit") is None


@pytest.mark.parametrize(("left", "right"), [("MWh/h", "MW"), ("kWh", "kilowatt_hour"), ("hPa", "mbar"), ("1", "pu")])
def test_other_words_for_the_same_unit_are_nothing_to_do(left: str, right: str) -> None:
    assert converter(left, right, field="unit") is None


@pytest.mark.parametrize(
    ("from_unit", "to_unit"),
    [
        ("EUR/MWh", "SEK/MWh"),  # no rate of exchange is a constant
        ("EUR", "MWh"),
        ("MVAr", "MW"),
        ("dimensionless", "MW"),
        ("MW", "MWh"),
        ("degC", "K*K"),
        ("rpm", "Hz"),  # a revolution is not a radian is not a number
        ("gCO2", "g"),
    ],
)
def test_units_of_different_kinds_are_refused_by_name(from_unit: str, to_unit: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        converter(from_unit, to_unit, field="unit")
    assert str(refused.value) == f"unit: {from_unit!r} and {to_unit!r} are units of different kinds"


HOSTILE = [
    "happiness",
    "2**10**10**10",
    "m**10**10",
    "9**9**9**9**9 m",
    "m^99999999999999999999",
    "((((((((km^12)^12)^12)^12)^12)^12)^12)^12)",
    "(" * 64,
    "(" * 5000 + "m" + ")" * 5000,
    "m*" * 30 + "m**101",
    "x" * 255,
    "m\x00",
    "m;import os",
    "__import__('os').system('true')",
    "m if 1 else s",
    "lambda: 0",
    "[m]",
    "{m}",
    "1e308 m",
    "1e999",
    "nan",
    "inf",
    "m/0",
    "0 m",
    "0.5 m",
    "-m",
    "m-",
    "m/",
    "/m",
    "m**",
    "m^-",
    "()",
    "m)",
    "dB",
    "dBm",
    "neper",
    "°",
    "🚀",
    "²",
    "m^²",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:30])
def test_texts_that_are_no_unit_are_refused_at_once_with_both_units(text: str) -> None:
    for pair in ((text, "m"), ("m", text)):
        with pytest.raises(InvalidRequest, match=r"^unit: .* cannot be converted to ") as refused:
            converter(*pair, field="unit")
        assert len(str(refused.value)) < 400
        assert "'m'" in str(refused.value)


@given(st.text(alphabet="kMmsWhgEUR°%²³⁻/*^()-+. 01239_e\n\\'\"", max_size=70), st.sampled_from(["m", "EUR/MWh"]))
def test_no_text_gets_anything_but_an_answer_or_a_refusal(text: str, other: str) -> None:
    there = back = None
    with suppress(InvalidRequest):
        there, back = converter(text, other, field="unit"), converter(other, text, field="unit")
    if there is not None and back is not None:
        assert back(there(np.array([1.0]))) == pytest.approx(1.0)


def test_what_is_no_number_stays_as_it_is() -> None:
    convert = converter("degF", "degC", field="unit")
    scale = converter("MW", "kW", field="unit")
    assert convert is not None
    assert scale is not None
    found = convert(np.array([NAN, np.inf, -np.inf, 32.0]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [np.inf, -np.inf, 0.0]
    assert np.signbit(scale(np.array([-0.0]))).tolist() == [True]
    assert scale(np.array([1e306])).tolist() == [np.inf]


def test_a_frame_of_several_series_and_units() -> None:
    rows = pl.DataFrame(
        {
            "series_id": ["b", "a", "c", "b", "a"],
            "value": [1.0, None, 3.0, NAN, -0.0],
            "run_id": ["r", "s", "t", "u", "v"],
        }
    )
    units = {"a": "kW", "b": "MW", "c": "W", "unused": "degC"}
    found = convert_frame(rows, units, "kW")
    assert found.drop("value").equals(rows.drop("value"))
    assert found["value"].to_list()[:3] == [1000.0, None, 0.003]
    assert found["value"].is_nan().to_list() == [False, None, False, True, False]
    assert str(found["value"][4]) == "-0.0"
    only = rows.filter(pl.col("series_id") == "b")
    assert convert_frame(only, units, "GW")["value"][0] == 0.001
    assert convert_frame(only.cast({"series_id": pl.Categorical}), units, "kW")["value"][0] == 1000.0
    assert convert_frame(rows.clear(), units, "degC").is_empty()


def test_alone_and_among_others_a_number_becomes_the_nearest_one() -> None:
    values = [0.1 * number for number in range(1, 2000)]
    frame = pl.DataFrame({"series_id": ["a"] * len(values), "value": values})
    others = pl.DataFrame({"series_id": ["b"], "value": [1.0]})
    units = {"a": "kW", "b": "GW"}
    alone = convert_frame(frame, units, "MW")["value"].to_list()
    assert alone == [value / 1000 for value in values]
    assert convert_frame(pl.concat([frame, others]), units, "MW")["value"].to_list()[:-1] == alone
    assert convert_frame(pl.DataFrame({"series_id": ["a"], "value": [0.0]}), {"a": "degC"}, "K")["value"][0] == 273.15


def test_a_frame_that_cannot_be_converted_names_the_series() -> None:
    rows = pl.DataFrame({"series_id": ["a", "b"], "value": [1.0, 2.0]})
    with pytest.raises(InvalidRequest, match=r"^unit: 'degC' and 'MW' are units of different kinds \(series 'b'\)$"):
        convert_frame(rows, {"a": "MW", "b": "degC"}, "MW")


def test_pint_is_loaded_when_it_is_needed_by_many_threads_at_once() -> None:
    """In a process of its own, so that nobody has loaded it yet."""
    code = """
import sys, threading
import numpy as np
import flight_server, timedb.storage.write.uploads
from timedb.storage.measures.units import converter
loaded = "pint" in sys.modules
pairs = [("MW", "kW", 1000), ("EUR/MWh", "EUR/kWh", 0.001), ("m3/s", "l/s", 1000), ("GJ", "MJ", 1000)]
found = []
def convert(number):
    for left, right, factor in pairs[number % 4:] + pairs[:number % 4]:
        found.append(float(converter(left, right, field="unit")(np.ones(1))[0]) == factor)
threads = [threading.Thread(target=convert, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(loaded, len(found), all(found))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "32", "True"]
