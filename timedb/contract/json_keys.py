"""Keys that stand twice in one object of JSON: a parser takes the last of them and says nothing, so we refuse them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["check_keys", "object_of"]


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs, as the ``object_pairs_hook`` of :mod:`json`.

    Raises:
        ValueError: a key is there twice; names it.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:_SHOWN_CHARS]!a} stands twice in one object")
    return found


def _nothing_of(pairs: list[tuple[str, Any]]) -> None:
    object_of(pairs)  # what it holds is not kept, so that a large text takes no memory


_SHOWN_CHARS = 80
_DECODER = json.JSONDecoder(object_pairs_hook=_nothing_of, parse_float=str, parse_int=str)


def check_keys(text: str | bytes) -> None:
    """Refuse a JSON text, which is known to be one, in which a key stands twice in one object.

    Raises:
        ValueError: names the key; or it is nested too deeply to be looked at.
    """
    try:
        _DECODER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
