"""Files that are written for a commit, and whose they are until it has been made."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from timedb.contract.errors import OutcomeUnknown
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store

__all__ = ["NewFiles"]

_log = logging.getLogger("timedb.storage")


class NewFiles:
    """Files of a table that no commit refers to yet; a context that deletes them when it is left.

    They stay where :meth:`keep` has been called, as a commit refers to them, or where the context is left by an
    ``OutcomeUnknown``, as one may: a file too many is vacuumed some day, a file that is missing are lost rows.

    Args:
        store: The table's folder.
        files: Files that have been written already.

    Example:
        ::

            with NewFiles(table.store) as new:
                new.files.append(write_file(table.store, rows, partition))
                if table.commit(snapshot, adds=new.files) is not None:
                    new.keep()
    """

    def __init__(self, store: Store, files: Iterable[DataFile] = ()) -> None:
        self.store = store
        self.files: list[DataFile] = list(files)

    def keep(self) -> None:
        """Leave the files to the table."""
        for file in self.files:
            self.store.release(file.path)
        self.files = []

    def delete(self) -> None:
        """Remove the files. What cannot be removed is left to vacuum: it is nobody's, and no reason to fail."""
        for file in self.files:
            try:
                self.store.delete(file.path)
            except OSError as error:
                _log.warning("a file that nothing refers to could not be removed: %s", error)
        self.files = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OutcomeUnknown):
            self.keep()
        else:
            self.delete()
