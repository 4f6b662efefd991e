"""How long messages may be, and how an answer that came in several of them is put together again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["MESSAGE_BYTES", "MESSAGE_BYTES_ASKED", "MESSAGE_BYTES_HEADER", "joined"]

MESSAGE_BYTES = 4 << 20
"""What most gRPC libraries take at most, and so the most that a server sends to a client that asks for no more."""
MESSAGE_BYTES_ASKED = 16 << 20
"""What our own client asks for: a row, say, of many long tags is then no trouble."""
MESSAGE_BYTES_HEADER = "x-max-message-bytes"
"""How a client asks."""


def joined(pieces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """An answer whose long lists and objects came piece by piece; all else is the same in each piece."""
    whole: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            if isinstance(value, list) and name in whole:
                whole[name].extend(value)
            elif isinstance(value, dict) and name in whole:
                whole[name].update(value)
            else:
                whole[name] = value
    return whole
