"""Python values as the contract's models take them, whatever library they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from timedb.errors import InvalidRequest
from timedb.wire import shown

__all__ = ["plain", "texts"]


def plain(name: str, value: Any) -> Any:
    """A value with the types of the standard library: numpy's scalars, pandas' times and UUIDs become what they mean.

    Args:
        name: How an error calls it.
        value: Anything; mappings and lists are looked into.

    Raises:
        InvalidRequest: a time that is finer than a microsecond.
    """
    if isinstance(value, datetime):
        return _instant(name, value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(f"{name}.{key}" if name else str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(f"{name}.{index}", each) for index, each in enumerate(value)]
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def _instant(name: str, time: datetime) -> datetime:
    to_pydatetime = getattr(time, "to_pydatetime", None)
    if to_pydatetime is None:
        return time
    if getattr(time, "nanosecond", 0):
        raise InvalidRequest(f"{name}: {shown(str(time))} is finer than a microsecond")
    plain_time: datetime = to_pydatetime()
    return plain_time


def texts(value: object) -> object:
    """One text, or several in a list, a tuple or a column, as a list; None stays None."""
    if value is None:
        return None
    if isinstance(value, str | UUID):
        return [str(value)]
    if isinstance(value, Iterable):
        return [str(each) if isinstance(each, UUID) else each for each in value]
    return value
