"""Changes of the units of series: their order is that of the log of the values, and the series table follows it.

A unit and the numbers that are of it lie in two tables, and no commit is of both. So a change of a unit is a commit of
the values, which holds the converted numbers, if any, and its record; the series table takes the new unit over right
afterwards, by whoever sees first that it has not. A read takes a version of each table that are in step.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from timedb.contract.errors import Busy, Conflict, Internal, InvalidRequest
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import quoted
from timedb.storage.catalog.catalog import Catalog, KnownSeries, StoredCatalog
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.tables.commit_marks import CHANGE_TIME, UNITS, converted_transaction

__all__ = ["ChangeOfUnit", "check_units", "follow_units", "in_step", "refuse_converted"]

_ATTEMPTS = 100


@dataclass(frozen=True)
class ChangeOfUnit:
    """That a series has got another unit.

    Attributes:
        series_id: Which one.
        old, new: The units.
        converted: Whether the stored numbers were converted; else they have been of the new unit all along.
        before: The values version of the change of a unit before this one; 0: there is none.
    """

    series_id: str
    old: str
    new: str
    converted: bool
    before: int

    def record(self, snapshot: Snapshot, who: str | None) -> dict[str, Any]:
        """The record of the change, which is committed on a snapshot."""
        return {
            "update_id": _key(snapshot.version + 1),
            "rows": 0,
            "change_time": format_time(from_micros(snapshot.transactions.get(CHANGE_TIME, 0))),
            "created_by": who,
            "digest": "",
            "receipt": json.dumps(asdict(self), separators=(",", ":")),
        }


def _key(version: int) -> str:
    """The key in ``updates`` of a record; no client's update_id has a control character."""
    return f"change_of_unit\x1f{version}"


def in_step(
    table: Table, catalog: Catalog, pinned: Snapshot | None = None, seen: KnownSeries | None = None
) -> tuple[Snapshot, KnownSeries]:
    """A version of the values and the series with the units that its numbers are of.

    Args:
        table: The values table.
        catalog: The series.
        pinned: The version of the values that it has to be; None: the newest.
        seen: The series that were seen with that; None: those of now.

    Raises:
        Busy: a unit has been changed since the version that it has to be.
    """
    for _ in range(_ATTEMPTS):
        snapshot = table.snapshot() if pinned is None else pinned
        known = catalog.known() if seen is None else seen  # after the snapshot: a series is made before its first value
        values = snapshot.transactions.get(UNITS, 0)
        if known.units == values:
            return snapshot, known
        if seen is not None or (known.units > values and pinned is not None):
            break
        if known.units < values:
            catalog.follow(snapshot)
    raise Busy("the unit of a series has just changed; retry")


def follow_units(catalog: StoredCatalog, ledger: Ledger, snapshot: Snapshot) -> None:
    """Have the series table take over the changes of units that a version of the values has."""
    known, newest = catalog.known(), snapshot.transactions.get(UNITS, 0)
    if known.units < newest:
        ledger.catch_up(snapshot)
        changes = list(_changes(ledger, known.units, newest))
        catalog.set_units({change.series_id: change.new for change in reversed(changes)}, newest)


def _changes(ledger: Ledger, after: int, until: int) -> Iterator[ChangeOfUnit]:
    """The changes of units since a values version, the last one first; the ledger knows the commits."""
    while until > after:
        record = ledger.updates.known(_key(until))
        if record is None:
            raise Internal(f"there is no record of the change of a unit at version {until}")
        change = ChangeOfUnit(**json.loads(record["receipt"]))
        yield change
        until = change.before


def check_units(ledger: Ledger, snapshot: Snapshot, seen: int, series_ids: Collection[str], *, stated: bool) -> None:
    """Refuse numbers that were meant for the unit that a series had before.

    Args:
        ledger: Knows the commits of the snapshot.
        snapshot: That the numbers would be committed on.
        seen: ``KnownSeries.units`` when their series were found.
        series_ids: Their series.
        stated: Whether the client said the unit of its numbers, so that they can be converted anew.

    Raises:
        Busy: they were converted to a unit that a series no longer has.
        Conflict: a series has been converted, and nobody said what unit the numbers are of.
    """
    newest = snapshot.transactions.get(UNITS, 0)
    if newest == seen:
        return
    for change in _changes(ledger, seen, newest):
        if change.series_id in series_ids and stated:
            raise Busy(f"unit: the unit of the series {change.series_id} has just changed; retry")
        if change.series_id in series_ids and change.converted:
            raise Conflict(
                f"unit: the series {change.series_id} has been converted from {quoted(change.old)} to "
                f"{quoted(change.new)} while these values came in, and nothing says of which unit they are; send them "
                "again once they are of the new one, or uploads with their unit"
            )


def refuse_converted(
    snapshot: Snapshot, known: KnownSeries, series_ids: Collection[str] | None, version: int, field: str
) -> None:
    """Refuse to go on with an answer whose numbers were of another unit.

    Args:
        snapshot: The values table.
        known: The series, in step with it.
        series_ids: The series that the read is about; None: all.
        version: Of the values table that the answer began with.
        field: What of the read goes on with it.

    Raises:
        InvalidRequest: names the field and the series.
    """
    if snapshot.transactions.get(UNITS, 0) <= version:
        return
    for series_id in known.by_id if series_ids is None else series_ids:
        if snapshot.transactions.get(converted_transaction(series_id), 0) > version:
            series = known.by_id[series_id]
            raise InvalidRequest(
                f"{field}: the values of the series {quoted(series.name)} ({series_id}) have been converted to "
                f"{quoted(series.unit)} since then; begin again"
            )
