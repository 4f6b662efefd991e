"""Which of several rows stands for all of them: the one table of orders. Kernels and SQL texts are made from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CONTENT", "FIRST", "LAST", "NEWEST", "NULLABLE", "POINT", "REVISION", "VERSION", "WINNER", "Order"]

POINT = ("series_id", "valid_time", "valid_time_end")
"""What a value is about."""

REVISION = (*POINT, "known_time", "run_id")
"""The revision key."""

CONTENT = ("value", "annotation", "tags")
"""What a revision says of its point."""

NULLABLE = frozenset({"valid_time_end"})
"""The only column of an order that can be null; a null is less than every value."""


@dataclass(frozen=True, slots=True)
class Order:
    """Of the rows that agree in ``key`` the greatest by ``by`` stands for all, or the least; the first counts most."""

    key: tuple[str, ...]
    by: tuple[str, ...]
    least: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a sort that puts rows of one key together, in the order."""
        return (*self.key, *self.by)

    def numbered(self) -> Order:
        """The same for rows that have a number, ``point``, in place of the columns of :data:`POINT`."""
        return replace(self, key=("point", *(name for name in self.key if name not in POINT)))


VERSION = Order(REVISION, ("change_time",))
"""The version of a revision: the one that was written last."""

WINNER = Order(POINT, ("known_time", "change_time", "run_id"))
"""The winner of a point: of the revisions that stand the one that was known last."""

FIRST = Order(POINT, ("known_time", "published", "run_id"), least=True)
"""The first release of a point: of the revisions that stand the one that was known first; ``published`` is the
change_time of its first version."""

NEWEST = Order(("series_id",), WINNER.by)
"""The newest revision of a series: its run, by run_id and known_time, is the newest run."""

LAST = Order(("series_id",), ("valid_time", "valid_time_end", *WINNER.by))
"""The last value of a series: the winner of its last point."""
