"""What a reader is told of a file that is missing or is not what was written: which table's, which file, what helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import pyarrow as pa

from timedb.contract.errors import Damaged
from timedb.storage.delta.store import Store, table_name

__all__ = ["REMEDY", "check_files", "damage_named", "missing_file"]

REMEDY = "restore a backup; timedb doctor says what is damaged, and what can be mended without one"


def missing_file(store: Store, path: str) -> Damaged:
    """The error for a file that the table's log names and that is not there."""
    return Damaged(f"the file {path} of the table {table_name(store)} is missing: {REMEDY}")


@contextlib.contextmanager
def damage_named(store: Store, path: str) -> Iterator[None]:
    """A block that reads a data file.

    Args:
        store: The table's folder.
        path: The file.

    Raises:
        Damaged: it is missing, or its content is not what was written.
    """
    try:
        yield
    except FileNotFoundError:
        raise missing_file(store, path) from None
    except (pa.ArrowException, ValueError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # of the disk, not of what is on it
        raise Damaged(f"the file {path} of the table {table_name(store)} is damaged: {REMEDY}") from error


def check_files(store: Store, paths: Iterable[str]) -> None:
    """Make sure that files have the checksums that their pages say, before somebody reads them who does not look.

    Raises:
        Damaged: one is missing, or has not.
    """
    for path in paths:
        with damage_named(store, path):
            store.check(path)
