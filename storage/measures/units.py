"""Units of measure: values of one brought to another. The one module that knows pint.

pint is asked about single names only (``MWh``, ``degC``); products, quotients and powers of them are read here, by a
grammar that has no arithmetic in it, because pint's own reader evaluates whatever a client may send. Factors are
exact fractions: 1 EUR/MWh is 1/1000 EUR/kWh and nothing near it.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted

if TYPE_CHECKING:
    import pint

__all__ = ["check_unit", "convert_column", "convert_frame", "converter"]

MAX_UNIT_CHARS = 64
_MAX_EXPONENT = 12
_MAX_POWER = 100  # of a name, all its exponents taken together
_EXACT = 1 << 53
_MIN_GUESSED, _LIKENESS = 3, 0.8  # of names that may have been meant

Floats = np.ndarray[Any, np.dtype[np.float64]]
Convert = Callable[[Floats], Floats]

_CURRENCIES = (
    "AUD BGN BRL CAD CHF CLP CNY CZK DKK EUR GBP GEL HKD HUF IDR ILS INR ISK JPY KRW MDL MKD MXN MYR NOK NZD PHP PLN "
    "RON RSD SEK SGD THB TRY TWD UAH USD VND ZAR"
)
_DEFINITIONS = (
    # No rate of exchange is a constant, so each currency is a kind of its own.
    *(f"{code} = [currency_{code}]" for code in _CURRENCIES.split()),
    # Reactive power is a kind of its own too: it has the dimension of power, but no megawatt is a megavar.
    "volt_ampere_reactive = [reactive_power] = VAr = var = Var = VAR",
    "volt_ampere_reactive_hour = volt_ampere_reactive * hour = VArh = varh = Varh = VARh",
    "watt_peak = watt = Wp",
    "per_unit = 1 = pu",
    "million_Btu = 1e6 * Btu = MMBtu",
    "gram_CO2 = [carbon_dioxide] = gCO2 = gCO2e = gCO2eq",
    "tonne_CO2 = 1e6 * gram_CO2 = tCO2 = tCO2e = tCO2eq",
)
# What most series are of, known without asking pint, which takes most of a second to load.
_COMMON = frozenset(
    (
        *("dimensionless", "percent", "%", "pu", "K", "degC", "celsius", "m", "cm", "mm", "km", "m3", "kg", "g", "t"),
        *(
            "W",
            "kW",
            "MW",
            "GW",
            "Wh",
            "kWh",
            "MWh",
            "GWh",
            "TWh",
            "Wp",
            "kWp",
            "MWp",
            "VAr",
            "kVAr",
            "MVAr",
            "J",
            "kJ",
        ),
        *("VA", "kVA", "MVA", "V", "kV", "A", "kA", "Hz", "MJ", "GJ", "s", "min", "h", "hour", "day", "tonne", "tCO2"),
        *("EUR", "USD", "GBP", "SEK", "NOK", "DKK", "CHF", "PLN", "Pa", "hPa", "bar"),
    )
)
_SPELLINGS = {"€": "EUR", "£": "GBP", "·": "*", "⋅": "*", "\u00d7": "*"}
_RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_TOKEN = re.compile(r"(?P<name>[^\W\d]\w*|°\w+|[%‰])|(?P<number>\d+)|(?P<sign>\*\*|[*/^().-])|(?P<space>\s+)")


def check_unit(text: str, *, field: str) -> None:
    """Refuse what is no unit, before a series gets it.

    Args:
        text: As :func:`converter` takes it. Scales that do not convert (``dB``) are units, too.
        field: Whom an error names.

    Raises:
        InvalidRequest: nobody knows it; names those that may have been meant.
    """
    stripped = text.strip()
    try:
        if len(stripped) > MAX_UNIT_CHARS:
            raise _UnknownError
        _Reader(stripped, _existing).read()
    except _UnknownError:
        raise InvalidRequest(f"{field}: {quoted(text)} is not a unit{_meant(stripped)}") from None


def converter(from_unit: str, to_unit: str, *, field: str) -> Convert | None:
    """What turns values of one unit into values of another.

    Args:
        from_unit, to_unit: Unit text, such as ``EUR/MWh``, ``m3/s``, ``kg m^-2``, ``degC`` or ``%``. A quotient goes
            from left to right: ``J/kg K`` is ``(J/kg)*K``.
        field: Whom an error names.

    Returns:
        A function over float64 arrays that leaves NaN alone; None where there is nothing to do. The same text on
        both sides is nothing to do, also where nobody knows the unit.

    Raises:
        InvalidRequest: one of the units is not known, or they are not of the same kind.
    """
    change = _change(from_unit.strip(), to_unit.strip(), field)
    return None if change is None else change.apply


def convert_column(
    values: pl.Series,
    codes: pl.Series,
    from_units: Sequence[str],
    to_units: Sequence[str],
    *,
    series: Sequence[str],
    field: str,
) -> pl.Series:
    """Values of several series, each brought from one unit to another.

    Args:
        values: float64; null and NaN stay.
        codes: For each value the index of its series.
        from_units, to_units: The units of each series' values, as they are and as they are wanted.
        series: What an error calls each series.
        field: Whom an error names.

    Raises:
        InvalidRequest: as :func:`converter`, for any of the series.
    """
    changes = []
    for old, new, name in zip(from_units, to_units, series, strict=True):
        try:
            changes.append(_change(old.strip(), new.strip(), field))
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.detail} (series {quoted(name)})") from None
    if all(change is None for change in changes):
        return values
    if len(set(changes)) == 1 and (only := changes[0]) is not None:
        # By a column, as below: by one number Polars multiplies with its reciprocal, which is off in the last place.
        over = pl.repeat(only.over, len(values), dtype=pl.Float64, eager=True)
        return ((values * only.times + only.plus) / over).alias(values.name)
    factors = np.array([(change or _UNCHANGED).factors for change in changes])
    times, plus, over = (pl.Series(factors[:, column]).gather(codes) for column in range(3))
    return ((values * times + plus) / over).alias(values.name)


def convert_frame(rows: pl.DataFrame, units: Mapping[str, str], to_unit: str, *, field: str = "unit") -> pl.DataFrame:
    """Rows with their ``value`` in one unit.

    Args:
        rows: Columns ``series_id`` and ``value``, and any others.
        units: The unit of each series.
        to_unit: The unit wanted.
        field: Whom an error names.

    Raises:
        InvalidRequest: as :func:`converter`; names the series.
    """
    if not rows.height:
        return rows
    series_ids = rows["series_id"].cast(pl.String)
    present = series_ids.unique().sort()
    codes = (
        series_ids.cast(pl.Enum(present)).to_physical() if len(present) > 1 else pl.repeat(0, rows.height, eager=True)
    )
    old = [units[series_id] for series_id in present]
    new = [to_unit] * len(old)
    return rows.with_columns(convert_column(rows["value"], codes, old, new, series=present.to_list(), field=field))


@dataclass(frozen=True, slots=True)
class _Change:
    """``(value * times + plus) / over``; ``plus`` is -0.0 for nothing, which changes no value, -0.0 included."""

    times: float
    plus: float
    over: float

    @property
    def factors(self) -> tuple[float, float, float]:
        return (self.times, self.plus, self.over)

    def apply(self, values: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            return (values * self.times + self.plus) / self.over


_UNCHANGED = _Change(1.0, -0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A value ``x`` of it is ``slope * x + intercept`` of the root units ``kind``."""

    slope: Fraction
    intercept: Fraction
    kind: frozenset[tuple[str, Fraction]]


class _UnknownError(Exception):
    """A text that is no unit, or none that can be converted by a factor and a shift."""


def _change(from_unit: str, to_unit: str, field: str) -> _Change | None:
    if from_unit == to_unit:
        return None
    for unit in (from_unit, to_unit):
        if len(unit) > MAX_UNIT_CHARS:
            raise InvalidRequest(
                f"{field}: {quoted(unit)} is longer than {MAX_UNIT_CHARS} characters; {_both(from_unit, to_unit)}"
            )
    try:
        found = _cached_change(from_unit, to_unit)
    except _UnknownError as error:
        raise InvalidRequest(
            f"{field}: {error} is not a unit that can be converted; {_both(from_unit, to_unit)}"
            f"{_meant(to_unit, '') or _meant(from_unit, '')}"
        ) from None
    if found is None:
        raise InvalidRequest(f"{field}: {quoted(from_unit)} and {quoted(to_unit)} are units of different kinds")
    return None if found is _UNCHANGED else found


def _both(from_unit: str, to_unit: str) -> str:
    return f"{quoted(from_unit)} cannot be converted to {quoted(to_unit)}"


@lru_cache(maxsize=4096)
def _cached_change(from_unit: str, to_unit: str) -> _Change | None:
    """How to convert, None for units of different kinds."""
    old, new = _unit(from_unit), _unit(to_unit)
    if old.kind != new.kind:
        return None
    slope, shift = old.slope / new.slope, (old.intercept - new.intercept) / new.slope
    if slope == 1 and shift == 0:
        return _UNCHANGED
    over = lcm(slope.denominator, shift.denominator)
    times, plus = int(slope * over), int(shift * over)
    if max(abs(times), abs(plus), over) > _EXACT:
        try:
            return _Change(float(slope), float(shift) or -0.0, 1.0)
        except OverflowError:
            raise _UnknownError(quoted(from_unit)) from None
    return _Change(float(times), float(plus) or -0.0, float(over))


def _unit(text: str) -> _Unit:
    exponents = _Reader(text).read()
    if len(exponents) == 1 and exponents.total() == 1:
        return _named(next(iter(exponents)))
    slope, kind = Fraction(1), dict[str, Fraction]()
    for name, exponent in exponents.items():
        unit = _named(name)
        # Within a product a degree is a difference of degrees.
        slope *= unit.slope**exponent
        for root, power in unit.kind:
            kind[root] = kind.get(root, Fraction(0)) + power * exponent
    return _Unit(slope, Fraction(0), frozenset((root, power) for root, power in kind.items() if power))


class _Reader:
    """``term ((* or / or nothing) term)*``; a term is a name or brackets, with a whole exponent or none, or 1."""

    def __init__(self, text: str, known: Callable[[str], tuple[str, int]] | None = None) -> None:
        self._text = text
        self._known = known or _known
        plain = _RAISED.sub(lambda raised: "^" + raised[0].translate(_LOWERED), text)
        plain = "".join(_SPELLINGS.get(char, char) for char in plain)
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(plain):
            token = _TOKEN.match(plain, position)
            if token is None:
                raise _UnknownError(quoted(text))
            position = token.end()
            if token.lastgroup != "space":
                self._tokens.append((str(token.lastgroup), token[0]))
        self._next = 0

    def read(self) -> Counter[str]:
        """The exponent of each name."""
        found = self._product()
        if self._next < len(self._tokens) or any(abs(exponent) > _MAX_POWER for exponent in found.values()):
            raise _UnknownError(quoted(self._text))
        return Counter({name: exponent for name, exponent in found.items() if exponent})

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._next += 1
        return token

    def _product(self) -> Counter[str]:
        found = self._term()
        while (token := self._peek())[1] != ")" and token[0] != "end":
            sign = 1
            if token[1] in ("*", "/", "."):
                self._next += 1
                sign = -1 if token[1] == "/" else 1
            for name, exponent in self._term().items():
                found[name] += sign * exponent
        return found

    def _term(self) -> Counter[str]:
        kind, text = self._take()
        if kind == "name":
            name, power = self._known(text)
            found = Counter({name: power})
        elif text == "(":
            found = self._product()
            if self._take()[1] != ")":
                raise _UnknownError(quoted(self._text))
        elif text == "1":
            return Counter()
        else:
            raise _UnknownError(quoted(self._text))
        exponent = self._exponent()
        return Counter({name: power * exponent for name, power in found.items()})

    def _exponent(self) -> int:
        raised = self._peek()[1] in ("^", "**")
        if raised:
            self._next += 1
        sign = 1
        if self._peek()[1] == "-":
            self._next += 1
            sign, raised = -1, True
        if not raised:
            return 1
        kind, digits = self._take()
        if kind != "number" or len(digits) > 2 or int(digits) > _MAX_EXPONENT:
            raise _UnknownError(quoted(self._text))
        return sign * int(digits)


def _known(name: str) -> tuple[str, int]:
    """A name, or one with a digit behind it that is its exponent, as in ``m3``."""
    try:
        _named(name)
    except _UnknownError:
        if not name[-1].isdecimal() or len(name) == 1:
            raise
        _named(name[:-1])
        return name[:-1], int(name[-1])
    return name, 1


def _existing(name: str) -> tuple[str, int]:
    """As :func:`_known`, for names of scales that do not convert, too."""
    if not _exists(name):
        if not name[-1].isdecimal() or len(name) == 1 or not _exists(name[:-1]):
            raise _UnknownError(quoted(name))
        return name[:-1], int(name[-1])
    return name, 1


_lock = threading.Lock()


@lru_cache(maxsize=4096)
def _exists(name: str) -> bool:
    if name in _COMMON:
        return True
    with _lock:
        try:
            return bool(_registry().get_name(name))
        except (AttributeError, ValueError, TypeError):  # UndefinedUnitError is an AttributeError
            return False


_LOOKS = "; units are such as MW, EUR/MWh, m3/s, degC or %, and 'dimensionless' for what has none"


def _meant(text: str, otherwise: str = _LOOKS) -> str:
    """The end of an error: the text with the names that may have been meant, or else what a unit looks like."""
    found: list[str] = []
    position = 0
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "name" and not _exists(token[0]) and not _exists(token[0].rstrip("0123456789") or " "):
            close = _close(token[0])
            if close is None:
                found.clear()
                break
            found += [text[position : token.start()], close]
            position = token.end()
    with suppress(_UnknownError):
        if found:
            meant = "".join([*found, text[position:]])
            _Reader(meant, _existing).read()
            return f"; did you mean {meant!a}?"
    return otherwise


def _close(name: str) -> str | None:
    """The known name that looks most like one that is not."""
    with _lock:
        names = [*sorted(_COMMON), *_CURRENCIES.split(), *(str(each) for each in _registry()._units)]
    folded: dict[str, str] = {}
    for each in names:
        folded.setdefault(each.casefold(), each)
    if name.casefold() in folded or len(name) < _MIN_GUESSED:
        return folded.get(name.casefold())
    close = get_close_matches(name.casefold(), folded, 1, _LIKENESS)
    return folded[close[0]] if close else None


@lru_cache(maxsize=4096)
def _named(name: str) -> _Unit:
    """What pint knows of a single name."""
    with _lock:
        try:
            # pint knows scales that are no straight lines (decibel) and names that are no units (nan).
            found = [_registry().Quantity(Fraction(value), name).to_root_units() for value in (0, 1, 2)]
            magnitudes: list[Any] = [quantity.magnitude for quantity in found]
            zero, one, two = map(Fraction, magnitudes)
            roots: list[tuple[str, Any]] = list(found[0].unit_items())
            kind = frozenset((root, Fraction(power)) for root, power in roots)
        except (AttributeError, ValueError, TypeError, ArithmeticError):  # UndefinedUnitError is an AttributeError
            raise _UnknownError(quoted(name)) from None
    if two - one != one - zero or one == zero:
        raise _UnknownError(quoted(name))
    return _Unit(one - zero, zero, kind)


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Any]:
    import pint  # takes most of a second

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(non_int_type=Fraction)
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry
