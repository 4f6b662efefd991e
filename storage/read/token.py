"""The token of an answer: the state of the table that it was read from, to read the same again or what follows."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, from_micros, parse_time
from timedb.contract.wire import quoted
from timedb.storage.read.cursor import Place

__all__ = ["Token"]

_MAX_CHARS = 8000  # a run_id may have 255 characters, each of which JSON may write as twelve
_BEGINNING = from_micros(0)


@dataclass(frozen=True, slots=True)
class Token:
    """Which rows an answer could see.

    Change times grow with every commit, so that the rows up to one of them never change afterwards, whatever is
    written or compacted; only retention takes some away, and a read as of a moment before that is refused.

    Attributes:
        as_of: The greatest change_time that it could see, UTC.
        table_version: The version of the values table that it was read from.
        place: How far into what was written after ``as_of``, where a follower was left in the middle of it: a large
            upload is one commit.
    """

    as_of: datetime
    table_version: int
    place: Place | None = None

    @classmethod
    def beginning(cls) -> Token:
        """Before all that was ever written."""
        return cls(_BEGINNING, 0)

    def to_text(self) -> str:
        """Opaque text for the client."""
        body: dict[str, Any] = {"as_of": format_time(self.as_of), "table_version": self.table_version}
        if self.place is not None:
            body |= self.place.to_json()
        return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode()

    @property
    def is_beginning(self) -> bool:
        """Whether nothing has been read, so that nothing can be missed that is gone."""
        return self.place is None and self.as_of == _BEGINNING

    @property
    def seen(self) -> datetime:
        """The change_time up to which retention's work is in what was read, UTC."""
        return self.as_of if self.place is None else self.place.until

    @classmethod
    def from_text(cls, text: str, *, field: str, newest: datetime) -> Token:
        """Read a token back.

        Args:
            text: What :meth:`to_text` gave.
            field: How an error calls it.
            newest: The greatest change_time that there is.

        Raises:
            InvalidRequest: it is none, or one of another lake or of the future.
        """
        try:
            if len(text) > _MAX_CHARS:
                raise ValueError
            body = json.loads(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
            place = Place.from_json(body) if "until" in body else None
            token = cls(parse_time(body["as_of"]), body["table_version"], place)
            known = {"as_of", "table_version", *(() if place is None else ("until", "last"))}
            if set(body) != known or type(token.table_version) is not int:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(f"{field}: {quoted(text)} is not the token of an answer") from None
        if token.seen > newest:
            raise InvalidRequest(
                f"{field}: it is of {format_time(token.seen)}, which is after the newest change here, "
                f"{format_time(newest)}; it belongs to another lake"
            )
        return token
