"""What is said to follow what is written."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from timedb.contract.selecting import Filtering
from timedb.contract.wire_fields import Command

__all__ = ["FollowTicket"]


class FollowTicket(Command, Filtering):
    """``do_get`` ticket: every version that passes the filters, as it is committed, without end.

    ``since`` is the token of what was read before, ``now``, or null: from the beginning. ``wait`` false ends the stream
    when all has come that there is by then. ``rows`` false leaves the rows out: what is left says when something new is
    there. Texts are plain.
    """

    op: Literal["follow"] = "follow"
    since: str | None = None
    columns: list[str] | None = None
    wait: bool = True
    rows: bool = True
    identifiers: Literal["plain"] = "plain"

    @model_validator(mode="before")
    @classmethod
    def _gives_what_was_written(cls, given: object) -> object:
        from timedb.contract.wire import ReadCommand  # which imports this module

        others = ReadCommand.model_fields.keys() - cls.model_fields.keys()
        asked = sorted(others.intersection(given)) if isinstance(given, dict) else ()
        if asked:
            raise ValueError(
                f"{asked[0]}: follow gives each version as it was written, and knows no views, cut-offs, orders and "
                "limits"
            )
        return given

    @model_validator(mode="after")
    def _counts_nothing(self) -> Self:
        if "revision" in (self.columns or ()):
            raise ValueError("columns: revision counts the revisions that stand, of which follow knows no end")
        return self
