"""Numbers as 64-bit floats, by one rule at every door.

A number with places is the nearest float64 (ties to even). A whole number (an integer, a decimal without places, digits
alone in a text) must come back as the number that it was: as the float's exact value, or as its shortest text, which is
how JavaScript writes a float. What is beyond the range of a float64 is refused, never infinite.
"""

from __future__ import annotations

from decimal import Decimal
from math import isinf

__all__ = ["EXACT_INTEGERS", "float_of"]

EXACT_INTEGERS = 1 << 53
"""Up to here, in both directions, every whole number is a float64."""

_TOO_LARGE = "is too large for a 64-bit float"


def float_of(number: float | Decimal) -> float:
    """One number as a float: an int, a float (which stays what it is) or a Decimal.

    Raises:
        ValueError: it is a whole number that does not come back, or is beyond the range of a float64.
    """
    if isinstance(number, float):
        return float(number)
    try:
        found = float(number)
    except OverflowError:
        raise ValueError(_TOO_LARGE) from None
    if isinstance(number, Decimal):
        if not number.is_finite():
            return found
        if not isinf(found) and number.as_tuple().exponent < 0:  # type: ignore[operator] # a finite one has a number there
            return found
    if isinf(found):
        raise ValueError(_TOO_LARGE)
    if abs(found) >= EXACT_INTEGERS and int(number) not in (int(found), int(Decimal(repr(found)))):
        raise ValueError(f"is a whole number that no 64-bit float holds; the nearest is {int(found)}")
    return found
