"""Where a lake may lie: every reader of Delta tables has to find it, and some unescape what they take for a URI."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator

from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import local_path
from timedb.contract.wire import quoted

__all__ = ["refuse_unreadable"]

_REFUSED = "%" if os.sep == "\\" else "%\\"


def refuse_unreadable(uri: str, *, field: str) -> None:
    """Refuse an address at which delta-rs or DuckDB would not find the tables, or would find others.

    Args:
        uri: The address of a lake, or of what is to be one; of a folder also what it links to counts.
        field: What the message calls it.

    Raises:
        InvalidRequest: it has a percent sign, a backslash or a control character, or is no text.
    """
    for text in _texts(uri):
        for character in text:
            if character in _REFUSED or unicodedata.category(character) in ("Cc", "Cs"):
                raise InvalidRequest(
                    f"{field}: {quoted(text)} has the character {character!a}, at which delta-rs and DuckDB look "
                    "for the tables elsewhere; take a folder without it"
                )


def _texts(uri: str) -> Iterator[str]:
    folder = local_path(uri)
    yield uri if folder is None else str(folder.absolute())
    if folder is not None:
        yield str(folder.resolve())
