"""What a folder of tables is known to hold: which tables, and up to which version at least.

A log that is gone, cut short or replaced by an empty one looks like a table that nobody has written to. So beside the
tables of a tenant, and beside that of the users, lies a file that says which tables there are and how far each had
come. It is read when the tables are opened, and written anew in the background and when they are closed, so no call
waits for it; the logs decide what is so, and this only what cannot be.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping

from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Promised, Table

__all__ = ["INVENTORY", "Inventory"]

INVENTORY = "timedb-tables.json"
_log = logging.getLogger("timedb.storage")


class Inventory:
    """The file of one folder of tables. Thread-safe.

    Args:
        store: The folder.

    Attributes:
        promised: What was known of each table when the file was read, by its name.
        fault: Why the file could not be made use of; None: it could, or there is none, as in lakes of old releases.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing = threading.Lock()
        self.promised: dict[str, Promised] = {}
        self.fault: str | None = None
        try:
            found = json.loads(store.read(INVENTORY))["tables"]
            self.promised = {
                str(name): Promised(str(one["table_id"]), int(one["version"])) for name, one in found.items()
            }
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            self.fault = f"{INVENTORY} cannot be read"
            _log.error("%s of %s cannot be read; it will be written anew from the tables", INVENTORY, store.url())

    def note(self, tables: Mapping[str, Table]) -> bool:
        """Write down how far tables have come, as this process has seen them, where that is news.

        Args:
            tables: By name; those that have not been opened are left as they are known.

        Returns:
            Whether there was something to write.

        Raises:
            OSError: the file could not be written.
        """
        with self._writing:
            seen = {name: known for name, table in tables.items() if (known := table.known()) is not None}
            news = {name: known for name, known in seen.items() if self.promised.get(name) != known}
            # A lake of an older state may have been put in the place of the one that was seen.
            news = {name: known for name, known in news.items() if tables[name].log.stands(known.version)}
            if not news:
                return False
            self.write({**self.promised, **news})
            return True

    def write(self, promised: Mapping[str, Promised]) -> None:
        """Replace the file.

        Raises:
            OSError: it could not be written.
        """
        listed = {name: {"table_id": one.table_id, "version": one.version} for name, one in sorted(promised.items())}
        self._store.replace(INVENTORY, (json.dumps({"tables": listed}, indent=1) + "\n").encode())
        self.promised, self.fault = dict(promised), None
