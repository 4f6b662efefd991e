"""What an operator has taken for meant of what other writers did: the doctor tells of it, and calls it no fault."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from timedb.storage.admin.findings import FOREIGN_COMMIT, WRONG_ROWS, Finding
from timedb.storage.delta.store import Store

__all__ = ["ACCEPTED", "Accepted"]

ACCEPTED = "timedb-accepted.json"
_CAN_BE = (FOREIGN_COMMIT, WRONG_ROWS)
_log = logging.getLogger("timedb.storage")


class Accepted:
    """The file of one folder of tables. The doctor alone writes it, so servers may run.

    Args:
        store: The folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[tuple[str, ...]] = set()
        try:
            self._known = {tuple(map(str, each)) for each in json.loads(store.read(ACCEPTED))["findings"]}
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            _log.error("%s of %s cannot be read, and counts for nothing", ACCEPTED, store.url())

    def take(self, findings: Iterable[Finding]) -> None:
        """Take what can be taken for meant, just as it is: another commit, or other rows of a run, are a fault again.

        Raises:
            OSError: the file could not be written.
        """
        taken = {_key(each) for each in findings if each.fault in _CAN_BE and not each.notice}
        if taken - self._known:
            self._known |= taken
            body = {"findings": sorted(self._known)}
            self._store.replace(ACCEPTED, (json.dumps(body, indent=1) + "\n").encode())

    def judge(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings; what has been taken for meant is only worth knowing."""
        for each in findings:
            if each.fault in _CAN_BE and _key(each) in self._known:
                yield replace(each, notice=True, cure=f"none needed: taken for meant ({each.cure})")
            else:
                yield each


def _key(finding: Finding) -> tuple[str, ...]:
    return finding.table, finding.fault, finding.path, finding.loss or finding.cure
