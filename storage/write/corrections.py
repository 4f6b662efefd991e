"""Corrections: rows appended under a stored revision key, with a new change_time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import polars as pl
import pyarrow as pa

from timedb.contract.errors import Conflict, Forbidden, InvalidRequest, NotFound
from timedb.contract.identity import RevisionKey
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import UpdateValues, ValueUpdate, shown
from timedb.storage.catalog.catalog import Catalog
from timedb.storage.commit.lane import Answer, Prepared, Turn
from timedb.storage.delta.table import Table
from timedb.storage.rows import views
from timedb.storage.rows.normalise import clean_tags
from timedb.storage.rows.orders import REVISION, WINNER
from timedb.storage.rows.scan import Selection, live_files, scan
from timedb.storage.tables.schemas import VALUES_DATA

__all__ = ["Corrections", "StoredRows"]

Row = dict[str, Any]
FIELDS = ("value", "annotation", "tags", "retracted")


@dataclass(frozen=True)
class StoredRows:
    """Looks rows of a tenant up, all versions of them."""

    table: Table
    bucket_digits: int | None

    def at(self, turn: Turn, points: Iterable[tuple[str, datetime]]) -> dict[tuple[str, datetime], list[Row]]:
        """The latest version of every revision at each (series_id, valid_time), retracted ones included."""
        wanted = pl.DataFrame(
            list(points), schema={"series_id": pl.String, "valid_time": pl.Datetime("us", "UTC")}, orient="row"
        ).unique()
        if not wanted.height:
            return {}
        times = wanted["valid_time"]
        first, last = times.min(), times.max()
        selection = Selection(series_ids=set(wanted["series_id"]))
        files = [
            file
            for bucket in live_files(turn.snapshot, selection, self.bucket_digits).values()
            for file in bucket
            if Selection(start_valid=first if isinstance(first, datetime) else None).may_hold(file)
        ]
        rows = scan(self.table.store, files, [*selection.predicates(), pl.col("valid_time").is_between(first, last)])
        rows = rows.join(wanted.lazy(), on=["series_id", "valid_time"], how="semi")
        found: dict[tuple[str, datetime], list[Row]] = {}
        for row in views.latest_versions(rows.collect(engine="in-memory")).iter_rows(named=True):
            found.setdefault((row["series_id"], row["valid_time"]), []).append(row)
        return found


@dataclass
class Corrections:
    """One batch of corrections that waits for its turn: all of it or nothing.

    Args:
        message: What the client asks for.
        changed_by: The key's e-mail; None on an open lake, where the items may state it.
        tenant_id: The caller's tenant.
        stored: Looks stored rows up.
        find_run: run_id -> the run's record, or None.
    """

    message: UpdateValues
    changed_by: str | None
    tenant_id: str
    catalog: Catalog
    stored: StoredRows
    find_run: Callable[[str], Mapping[str, Any] | None]

    shareable = False

    @property
    def rows(self) -> int:
        """How many corrections wait for the commit."""
        return len(self.message.updates)

    @property
    def stamps(self) -> int:
        """A change_time each, unless they change nothing."""
        return len(self.message.updates)

    @property
    def key(self) -> str | None:
        """The ``update_id``, by which a retry is known again; None: it has none."""
        return self.message.update_id

    def prepare(self, turn: Turn) -> Prepared | Answer:
        """The new versions under this turn's stamps.

        Raises:
            Forbidden: an item names another tenant.
            NotFound: an item's series, run or row does not exist.
            InvalidRequest: an item fits several rows, or is the first version of a row and has no value.
            Conflict: the update_id stands for other content.
        """
        for index, item in enumerate(self.message.updates):
            if item.tenant_id is not None and item.tenant_id != self.tenant_id:
                raise Forbidden(f"updates.{index}.tenant_id: {shown(item.tenant_id)} is not the caller's tenant")
        # Before a retry is answered: the answer is about series that the caller must be allowed to see.
        keys = [self._key_of(index, item) for index, item in enumerate(self.message.updates)]
        digest = _digest(self.message)
        if (
            self.message.update_id is not None
            and (found := turn.ledger.updates.find(self.message.update_id)) is not None
        ):
            if found["digest"] != digest:
                raise Conflict(f"update_id: {shown(self.message.update_id)} has been used already, with other content")
            return Answer(json.loads(found["receipt"]))
        changes = self._resolve(turn, keys)
        updated, skipped = [], []
        rows: list[Row] = []
        for old, new in changes:
            if old is not None and _same(old, new):
                skipped.append(self._reference(new))
                continue
            rows.append({**new, "change_time": from_micros(turn.stamp + len(rows))})
            updated.append(self._reference(new))
        answer = {"updated": updated, "skipped_no_ops": skipped}
        if not rows and self.message.update_id is None:
            return Answer(answer)
        last_stamp = turn.stamp + max(len(rows) - 1, 0)
        info = self._info(answer, digest, len(rows), last_stamp)
        return Prepared(_to_arrow(rows), last_stamp, answer, info=info)

    def _info(self, answer: dict[str, Any], digest: str, rows: int, stamp: int) -> dict[str, dict[str, Any]]:
        if self.message.update_id is None:
            return {}
        record = {
            "update_id": self.message.update_id,
            "rows": rows,
            "change_time": format_time(from_micros(stamp)),
            "created_by": self.changed_by,
            "digest": digest,
            "receipt": json.dumps(answer, separators=(",", ":")),
        }
        return {"updates": record}

    def _resolve(self, turn: Turn, keys: Sequence[_Address]) -> list[tuple[Row | None, Row]]:
        """(stored version or None, new version) of each row; where a row is named twice, the last item wins."""
        for index, item in enumerate(self.message.updates):
            if item.run_id is not None and self.find_run(item.run_id) is None:
                raise NotFound(f"updates.{index}.run_id: there is no run {shown(item.run_id)}")
        found = self.stored.at(turn, [(key.series_id, key.valid_time) for key in keys])
        changes: dict[tuple[Any, ...], tuple[Row | None, Row]] = {}
        for index, (item, key) in enumerate(zip(self.message.updates, keys, strict=True)):
            old = self._pick(index, item, key, found.get((key.series_id, key.valid_time), []))
            new = self._apply(index, item, key, old)
            revision = tuple(new[name] for name in REVISION)
            changes.pop(revision, None)
            changes[revision] = old, new
        return list(changes.values())

    def _key_of(self, index: int, item: ValueUpdate) -> _Address:
        if item.value_id is not None:
            try:
                key = RevisionKey.from_value_id(item.value_id)
            except ValueError as error:
                raise InvalidRequest(f"updates.{index}.value_id: {shown(item.value_id)} {error}") from None
            address = _Address(key.series_id, key.valid_time, key.valid_time_end, key.known_time, key.run_id)
        else:
            if item.series_id is None or item.valid_time is None:
                raise InvalidRequest(f"updates.{index}: needs series_id and valid_time, or value_id, to say which row")
            address = _Address(item.series_id, item.valid_time, item.valid_time_end, item.known_time, item.run_id)
        if address.series_id not in self.catalog.all():
            field = "value_id" if item.value_id is not None else "series_id"
            raise NotFound(f"updates.{index}.{field}: there is no series {shown(address.series_id)}")
        return address

    def _pick(self, index: int, item: ValueUpdate, address: _Address, rows: list[Row]) -> Row | None:
        fits = [row for row in rows if address.fits(row)]
        if address.run_id is None:
            fits = [row for row in fits if not row["retracted"]]
            if not fits:
                where = f"series {address.series_id} at {format_time(address.valid_time)}"
                raise NotFound(f"updates.{index}: there is no value of {where}")
            return max(fits, key=itemgetter(*WINNER.by))
        if len(fits) > 1:
            listed = ", ".join(format_time(row["known_time"]) for row in fits[:10])
            raise InvalidRequest(f"updates.{index}.known_time: {len(fits)} rows fit; add a known_time: {listed}")
        if not fits and item.value_id is not None:
            raise NotFound(f"updates.{index}.value_id: there is no row {shown(item.value_id)}")
        return fits[0] if fits else None

    def _apply(self, index: int, item: ValueUpdate, address: _Address, old: Row | None) -> Row:
        fields = item.model_fields_set
        base = old if old is not None else self._first_version(index, item, address)
        new = {**base, "changed_by": self.changed_by or item.changed_by}
        if "value" in fields:
            new["value"] = item.value
        if "annotation" in fields:
            new["annotation"] = item.annotation if item.annotation and item.annotation.strip() else None
        if "tags" in fields:
            new["tags"] = clean_tags(item.tags)
        if "retracted" in fields:
            new["retracted"] = item.retracted or None
        return new

    def _first_version(self, index: int, item: ValueUpdate, address: _Address) -> Row:
        run = self.find_run(address.run_id or "")
        if run is None or (address.known_time is not None and address.known_time != run["known_time"]):
            raise NotFound(
                f"updates.{index}: run {shown(address.run_id)} has no such row at {format_time(address.valid_time)}"
            )
        if "value" not in item.model_fields_set:
            raise InvalidRequest(
                f"updates.{index}.value: is missing; run {shown(address.run_id)} has no row at "
                f"{format_time(address.valid_time)} yet, so its first version needs a value"
            )
        if address.valid_time_end is not None and address.valid_time_end <= address.valid_time:
            raise InvalidRequest(
                f"updates.{index}.valid_time_end: {format_time(address.valid_time_end)} is not after valid_time"
            )
        return {
            **dict.fromkeys(VALUES_DATA.names),
            "series_id": address.series_id,
            "valid_time": address.valid_time,
            "valid_time_end": address.valid_time_end,
            "known_time": run["known_time"],
            "run_id": address.run_id,
        }

    def _reference(self, row: Row) -> dict[str, Any]:
        key = RevisionKey(*(row[name] for name in REVISION))
        return {
            "value_id": key.to_value_id(),
            "run_id": row["run_id"],
            "tenant_id": self.tenant_id,
            "valid_time": format_time(row["valid_time"]),
            "series_id": row["series_id"],
        }


@dataclass(frozen=True, slots=True)
class _Address:
    """How an item says which row it means; ``valid_time_end`` None is a value without an end."""

    series_id: str
    valid_time: datetime
    valid_time_end: datetime | None
    known_time: datetime | None
    run_id: str | None

    def fits(self, row: Row) -> bool:
        return (
            row["valid_time_end"] == self.valid_time_end
            and self.known_time in (None, row["known_time"])
            and self.run_id in (None, row["run_id"])
        )


def _same(old: Row, new: Row) -> bool:
    """Whether a correction changes nothing: null equals null, NaN equals NaN."""
    return all(_equal(old[name], new[name]) for name in ("value", "annotation", "tags")) and bool(
        old["retracted"]
    ) == bool(new["retracted"])


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


def _to_arrow(rows: list[Row]) -> pa.Table:
    table = pa.Table.from_pylist([{name: row[name] for name in VALUES_DATA.names} for row in rows], schema=VALUES_DATA)
    return table.sort_by([(name, "ascending") for name in ("series_id", "valid_time", "known_time", "change_time")])


def _digest(message: UpdateValues) -> str:
    return hashlib.blake2b(message.model_dump_json(exclude_unset=True).encode(), digest_size=16).hexdigest()
