"""Lifting a lake from the format that it has to the newest one, a step a format version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from storage.store import Store
from timedb.errors import InvalidRequest

__all__ = ["STEPS", "Step", "lift"]

Step = Callable[[Store], None]
"""Changes a lake's files, the store being its folder, from one format version to the next.

It may be stopped at any moment and is then done again from its start, so it must bear to be repeated.
"""

STEPS: Mapping[int, Step] = {}
"""The step that leads away from each format version; version 1 is the first and the newest."""


def lift(
    store: Store,
    marker: dict[str, Any],
    newest: int,
    steps: Mapping[int, Step],
    write: Callable[[dict[str, Any]], None],
) -> dict[str, int]:
    """Take the steps that a lake lacks; what it is at is written down after each.

    Args:
        store: The lake's folder.
        marker: What the lake says of itself, with ``format_version``.
        newest: The format version that is asked for.
        steps: The step away from each version.
        write: Replaces what the lake says of itself.

    Returns:
        ``{from, to}``: the format versions before and after.

    Raises:
        InvalidRequest: the lake is newer, or there is no way to lift it; nothing was changed.
    """
    version = marker["format_version"]
    if version > newest:
        raise InvalidRequest(f"lake: it has format version {version}, this service knows {newest}")
    missing = [step for step in range(version, newest) if step not in steps]
    if missing:
        raise InvalidRequest(f"lake: format version {missing[0]} cannot be lifted")
    for step in range(version, newest):
        steps[step](store)
        write({**marker, "format_version": step + 1})
    return {"from": version, "to": newest}
