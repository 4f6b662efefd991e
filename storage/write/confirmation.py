"""Whether a stream of rows is whole: only its client can say so, for one that breaks off looks like one that ends."""

from __future__ import annotations

from timedb.contract.errors import IncompleteUpload

__all__ = ["check_confirmed"]


def check_confirmed(received: int, *announced: int | None) -> None:
    """Refuse what its client has not confirmed.

    Args:
        received: How many rows came.
        announced: How many the client says, in the command or at the end; None where it did not.

    Raises:
        IncompleteUpload: nobody said how many there are, or another number came.
    """
    said = [rows for rows in announced if rows is not None]
    if not said:
        raise IncompleteUpload("the stream ended without rows in the command or a commit marker; nothing was written")
    if wrong := [rows for rows in said if rows != received]:
        raise IncompleteUpload(f"rows: {wrong[0]} were announced, {received} arrived; nothing was written")
