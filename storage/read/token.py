"""The token of an answer: the state of the table that it was read from, to read the same again or what follows."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime

from timedb.contract.errors import InvalidRequest
from timedb.contract.times import format_time, parse_time
from timedb.contract.wire import quoted

__all__ = ["Token"]

_MAX_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Token:
    """Which rows an answer could see.

    Change times grow with every commit, so that the rows up to one of them never change afterwards, whatever is
    written or compacted; only retention takes some away, and a read as of a moment before that is refused.

    Attributes:
        as_of: The greatest change_time that it could see, UTC.
        table_version: The version of the values table that it was read from.
    """

    as_of: datetime
    table_version: int

    def to_text(self) -> str:
        """Opaque text for the client."""
        body = {"as_of": format_time(self.as_of), "table_version": self.table_version}
        return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode()

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
            token = cls(parse_time(body["as_of"]), body["table_version"])
            if set(body) != {"as_of", "table_version"} or type(token.table_version) is not int:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(f"{field}: {quoted(text)} is not the token of an answer") from None
        if token.as_of > newest:
            raise InvalidRequest(
                f"{field}: it is of {format_time(token.as_of)}, which is after the newest change here, "
                f"{format_time(newest)}; it belongs to another lake"
            )
        return token
