"""How much a JSON text holds, counted before it is parsed: a few bytes of it may become a thousand times as many."""

from __future__ import annotations

import re

from timedb.contract.errors import TooLarge

__all__ = ["MAX_JSON_VALUES", "check_json_counts", "json_memory_bytes"]

MAX_JSON_VALUES = 2_400_000
"""Of one message. Rows of an upload have five values each or more, so this is what 32 MiB of honest rows hold."""
_VALUES_AN_OBJECT = 4
"""Objects take four times the memory of other values, so there may be a fourth of them."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)


def check_json_counts(body: bytes, what: str, max_values: int = MAX_JSON_VALUES) -> None:
    """Refuse a JSON text that holds too much, whether or not it is one.

    Args:
        body: The text.
        what: How an error calls it.
        max_values: The most values: objects, arrays, texts, numbers and the rest, at any depth. Of objects a fourth.

    Raises:
        TooLarge: it holds more; says how many.

    Examples:
        >>> check_json_counts(b'{"a": [1, "2, 3", {}]}', "body", max_values=8)
        >>> check_json_counts(b"[" + b"[]," * 9 + b"[]]", "body", max_values=8)
        Traceback (most recent call last):
        timedb.contract.errors.TooLarge: body: 11 values are over the limit of 8
    """
    if _fits(body, max_values):
        return
    body = _without_texts(body)  # what stands in them has been counted, too
    if _fits(body, max_values):
        return
    values, objects = _values(body), body.count(b"{")
    if values > max_values:
        raise TooLarge(f"{what}: {values} values are over the limit of {max_values}")
    raise TooLarge(f"{what}: {objects} objects are over the limit of {max_values // _VALUES_AN_OBJECT}")


def json_memory_bytes(body: bytes) -> int:
    """About how many bytes a JSON text takes while it is parsed, itself included; as measured on 64-bit machines."""
    return 3 * len(body) + 100 * _values(body) + 200 * body.count(b"{")


def _without_texts(body: bytes) -> bytes:
    kept, end = bytearray(), 0
    for text in _TEXT.finditer(body):  # one by one: a list of all of them would take twenty times as much as the body
        kept += body[end : text.start()] + b"0"
        end = text.end()
    return bytes(kept + body[end:])


def _fits(body: bytes, max_values: int) -> bool:
    return len(body) <= max_values // 2 or (
        _values(body) <= max_values and body.count(b"{") <= max_values // _VALUES_AN_OBJECT
    )


def _values(body: bytes) -> int:
    """One behind each comma, one more in each container that is not empty, and the outermost."""
    empty = body.count(b"[]") + body.count(b"{}")
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{") - empty
