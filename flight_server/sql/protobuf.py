"""As much of the protobuf wire format as Flight SQL's messages need: they are flat, of text, bytes, numbers and flags.

https://protobuf.dev/programming-guides/encoding/ is the format. A message class names its fields in order, each with
its number and kind; fields that it does not name are skipped, as protobuf wants it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from timedb.contract.errors import InvalidRequest

__all__ = ["Message", "repeated", "single"]

M = TypeVar("M", bound="Message")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class Malformed(ValueError):
    """Bytes that are no message."""


def single(number: int, kind: str, default: Any = None) -> Any:
    """A field that is there once; ``default`` is what it is where it is left out."""
    return field(default=default, metadata={"number": number, "kind": kind, "repeated": False})


def repeated(number: int, kind: str) -> Any:
    """A field that is there any number of times."""
    return field(default=(), metadata={"number": number, "kind": kind, "repeated": True})


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    @classmethod
    def from_bytes(cls: type[M], data: bytes, *, what: str) -> M:
        """Read a message.

        Args:
            data: Its bytes.
            what: How an error calls it.

        Raises:
            InvalidRequest: they are none.
        """
        known = {one.metadata["number"]: one for one in fields(cls)}
        values: dict[str, Any] = {}
        try:
            for number, kind, value in _fields_of(data):
                if number not in known:
                    continue
                spec = known[number]
                read = [_read(each, spec.metadata["kind"]) for each in _unpacked(kind, value, spec.metadata)]
                values[spec.name] = (*values.get(spec.name, ()), *read) if spec.metadata["repeated"] else read[-1]
        except (Malformed, UnicodeDecodeError, IndexError):
            raise InvalidRequest(f"{what}: is neither a JSON object nor a message of Flight SQL") from None
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The message, without the fields that are None."""
        found = bytearray()
        for one in fields(self):
            value = getattr(self, one.name)
            for each in value if one.metadata["repeated"] else () if value is None else (value,):
                found += _written(one.metadata["number"], one.metadata["kind"], each)
        return bytes(found)


def _fields_of(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind in (_BYTES, _FIXED32, _FIXED64):
            size, place = _varint(data, place) if kind == _BYTES else ({_FIXED32: 4, _FIXED64: 8}[kind], place)
            value, place = data[place : place + size], place + size
            if place > len(data):
                raise Malformed
        else:
            raise Malformed
        if number == 0:
            raise Malformed
        yield number, kind, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for position in range(_MAX_VARINT_BYTES):
        byte = data[place + position]
        value |= (byte & 0x7F) << 7 * position
        if not byte & 0x80:
            return value & (1 << 64) - 1, place + position + 1
    raise Malformed


def _unpacked(kind: int, value: int | bytes, metadata: Any) -> Iterator[int | bytes]:
    """The values that a field on the wire stands for: numbers may be packed."""
    numeric = metadata["kind"] in ("flag", "number")
    if numeric and metadata["repeated"] and kind == _BYTES and isinstance(value, bytes):
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            yield number
    elif kind == (_VARINT if numeric else _BYTES):
        yield value
    else:
        raise Malformed


def _read(value: int | bytes, kind: str) -> Any:
    if isinstance(value, int):
        if kind == "flag":
            return bool(value)
        return value - (1 << 64) if value >= 1 << 63 else value
    return value.decode() if kind == "text" else value


def _written(number: int, kind: str, value: Any) -> bytes:
    if kind in ("flag", "number"):
        return _as_varint(number << 3 | _VARINT) + _as_varint(int(value) & (1 << 64) - 1)
    data: bytes = value.encode() if kind == "text" else value
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(data)) + data


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
