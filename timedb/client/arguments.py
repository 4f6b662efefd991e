"""Python values as the contract's models take them, whatever library they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted

__all__ = ["corrections", "plain", "texts"]


_PLAIN = frozenset({str, int, float, bool, type(None), datetime})
_DEEPEST = 200
"""Levels, of which JSON parsers take no more."""


def plain(name: str, value: Any, levels: int = _DEEPEST) -> Any:
    """A value with the types of the standard library: numpy's scalars, pandas' times and UUIDs become what they mean.

    Args:
        name: How an error calls it.
        value: Anything; mappings and lists are looked into.
        levels: How deep.

    Raises:
        InvalidRequest: it is nested deeper, or holds a time that is finer than a microsecond, or one of numpy's, which
            have no time zone.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, datetime):
        return _instant(name, value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping | list | tuple) and not levels:
        raise InvalidRequest(f"{name.partition('.')[0]}: is nested too deeply")
    if isinstance(value, Mapping):
        return {key: plain(f"{name}.{key}" if name else str(key), each, levels - 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(f"{name}.{index}", each, levels - 1) for index, each in enumerate(value)]
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _day(name, value) if value.dtype.kind == "M" else value.item()
    return value


def _day(name: str, value: Any) -> object:
    """A ``numpy.datetime64`` of a date, which means the same everywhere."""
    found = value.item()
    if type(found) is not date and found is not None:  # of its times of day nobody knows in which zone they are
        raise InvalidRequest(f"{name}: {quoted(str(value))} of numpy has no time zone; pass an aware datetime")
    return found


def _instant(name: str, time: datetime) -> datetime | None:
    if time != time:  # pandas' NaT, its null, which is a datetime that is not itself
        return None
    to_pydatetime = getattr(time, "to_pydatetime", None)
    if to_pydatetime is None:
        return time
    if getattr(time, "nanosecond", 0):
        raise InvalidRequest(f"{name}: {quoted(str(time))} is finer than a microsecond")
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


def corrections(updates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The corrections of a batch, each with the types of the standard library.

    Raises:
        InvalidRequest: it is a table, or one correction alone, or an item is no mapping; says what to pass instead.
    """
    kind = type(updates).__name__
    if hasattr(updates, "__arrow_c_stream__") or hasattr(updates, "columns"):
        # Not taken for its rows: in a column of a table null would clear what was meant to stay.
        raise InvalidRequest(
            f"updates: {kind} is a table; pass its rows, as to_dicts() of Polars, to_dict('records') of pandas or"
            " to_pylist() of pyarrow make them: in a row null clears a field, and one that is left out stays"
        )
    if isinstance(updates, Mapping | str) or not isinstance(updates, Iterable):
        raise InvalidRequest(f"updates: {kind} is not a list of corrections; pass [{{...}}, ...]")
    found = []
    for index, update in enumerate(updates):
        if not isinstance(update, Mapping):
            raise InvalidRequest(f"updates.{index}: {quoted(update)} is not a mapping, such as {{'value': 1.0}}")
        found.append(
            {
                key: value if type(value) in _PLAIN else plain(f"updates.{index}.{key}", value)
                for key, value in update.items()
            }
        )
    return found
