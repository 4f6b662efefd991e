"""Corrections: rows appended under a stored revision key, with a new change_time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from timedb.contract.errors import Conflict, Forbidden, InvalidRequest, NotFound
from timedb.contract.identity import RevisionKey, canonical_labels
from timedb.contract.times import format_time, from_micros, parse_time, to_micros
from timedb.contract.wire import UpdateValues, ValueUpdate, quoted
from timedb.storage.catalog.catalog import KnownSeries
from timedb.storage.catalog.resolve import find_series
from timedb.storage.catalog.unit_changes import check_units
from timedb.storage.commit.writes import Answer, CommitContext, Prepared
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.rows import views
from timedb.storage.rows.normalise import Identity, clean_tags
from timedb.storage.rows.orders import POINT, REVISION, WINNER
from timedb.storage.rows.rows import rows_of_frame
from timedb.storage.rows.scan import VALUES_POLARS, RowSelection, live_files, scan
from timedb.storage.tables.commit_marks import converted_transaction
from timedb.storage.tables.schemas import VALUES_DATA

__all__ = ["ASKED", "AskedCorrections", "Corrections", "FindRuns", "StoredRows", "asked_of_message"]

FindRuns = Callable[[Snapshot, Collection[str]], Mapping[str, Mapping[str, Any]]]
"""The records of those of some runs that the caller may write to, by run_id, all looked up at once."""

_FIELDS = ("value", "annotation", "tags", "retracted")
_POINT = list(POINT)
_TIMES = ("valid_time", "valid_time_end", "known_time")
_OLD = {name: f"old_{name}" for name in VALUES_DATA.names if name not in POINT}
ASKED = pl.Schema(
    {
        "item": pl.UInt32(),
        "by_value_id": pl.Boolean(),
        **{name: VALUES_POLARS[name] for name in (*REVISION, *_FIELDS, "changed_by")},
        **{f"sets_{name}": pl.Boolean() for name in _FIELDS},
    }
)
_LEAST_TIME = timedelta(microseconds=1)
_TIME_TEXT = "%Y-%m-%dT%H:%M:%S%.6f+00:00"  # as ``format_time``


@dataclass(frozen=True)
class StoredRows:
    """Looks rows of a tenant up, all versions of them."""

    table: Table
    bucket_digits: int | None

    def at(
        self, snapshot: Snapshot, points: pl.DataFrame, as_of: datetime | None = None, seen: SeenRows | None = None
    ) -> pl.DataFrame:
        """The latest version of every revision at some points, retracted ones included.

        Args:
            snapshot: Of the values table.
            points: ``series_id`` and ``valid_time``.
            as_of: The change_time up to which versions count; None: all.
            seen: What has been read of these points, all versions; only files that came since are read then.
        """
        if not points.height:
            return pl.DataFrame(schema=VALUES_POLARS)
        return views.latest_versions(self._read(snapshot, points, as_of, seen).rows)

    def look_ahead(self, points: pl.DataFrame) -> SeenRows | None:
        """Read what there is at some points as far as is known without a look at the log; None: nothing is."""
        snapshot = self.table.seen
        return None if snapshot is None or not points.height else self._read(snapshot, points, None, None)

    def _read(
        self, snapshot: Snapshot, points: pl.DataFrame, as_of: datetime | None, seen: SeenRows | None
    ) -> SeenRows:
        first, last = points.select(first=pl.col("valid_time").min(), last=pl.col("valid_time").max()).row(0)
        selection = RowSelection(series_ids=set(points["series_id"]), start_valid=first, as_of=as_of)
        files = live_files(snapshot, selection, self.bucket_digits)
        paths = frozenset(file.path for file in files)
        known = seen if seen is not None and seen.paths <= paths else None  # else some have been replaced since
        if known is not None:
            files = [file for file in files if file.path not in known.paths]
            if not files:
                return known
        rows = scan(self.table.store, files, [*selection.predicates(), pl.col("valid_time") <= last])
        rows = rows.join(points.lazy(), on=["series_id", "valid_time"], how="semi")
        found = rows.collect(engine="in-memory")
        return SeenRows(paths, found if known is None else pl.concat([known.rows, found]))


@dataclass(frozen=True)
class SeenRows:
    """What some files hold at some points, all versions."""

    paths: frozenset[str]
    rows: pl.DataFrame


@dataclass(frozen=True)
class AskedCorrections:
    """Corrections as columns, whichever way they came.

    Attributes:
        rows: Which row each means, and what it sets there (columns of :data:`ASKED`).
        update_id: Names the batch; None: a retry is another batch.
        digest: Of its content; empty without an update_id.
        units_seen: ``KnownSeries.units`` when their series were found.
        create: Whether rows that are not there are made, where their run is.
        as_table: Whether it came as a table: errors then name rows, and the answer counts.
    """

    rows: pl.DataFrame
    update_id: str | None
    digest: str
    units_seen: int
    create: bool = True
    as_table: bool = False

    def place(self, item: int, field: str | None = None) -> str:
        """How an error begins that is about an item."""
        if self.as_table:
            return f"row {item}" if field is None else f"{field}: row {item}"
        return f"updates.{item}" if field is None else f"updates.{item}.{field}"


def asked_of_message(
    message: UpdateValues, changed_by: str | None, tenant_id: str, known: KnownSeries
) -> AskedCorrections:
    """The corrections of an ``update_values``.

    Args:
        message: What the client asks for.
        changed_by: The key's e-mail; None on an open lake, where the items may state it.
        tenant_id: The caller's tenant.
        known: The series that the caller may see.

    Raises:
        Forbidden: an item names another tenant.
        NotFound: an item's series does not exist.
        InvalidRequest: an item has no address.
    """
    digest = "" if message.update_id is None else _digest(message)
    rows = _asked(message.updates, changed_by, tenant_id, known)
    return AskedCorrections(rows, message.update_id, digest, known.units)


class Corrections:
    """One batch of corrections that waits for its turn: all of it or nothing.

    Which rows the items mean, and what these hold, has been looked up by then, so that little is left to do in the
    turn, where others wait: only files that came meanwhile are read.

    Args:
        asked: The corrections.
        changed_by: The key's e-mail.
        tenant_id: The caller's tenant.
        stored: Looks stored rows up.
        find_runs: Looks runs up.
    """

    shareable = False

    def __init__(
        self,
        asked: AskedCorrections,
        changed_by: str | None,
        tenant_id: str,
        stored: StoredRows,
        find_runs: FindRuns,
    ) -> None:
        self.rows = asked.rows.height
        self.stamps = asked.rows.height  # one each, unless it changes nothing
        self.key = asked.update_id
        self._asked_for = asked
        self._asked = asked.rows
        self._changed_by = changed_by
        self._tenant_id = tenant_id
        self._stored = stored
        self._find_runs = find_runs
        self._digest = asked.digest
        self._points = asked.rows.select("series_id", "valid_time").unique()
        self._seen = stored.look_ahead(self._points)

    def prepare(self, context: CommitContext) -> Prepared | Answer:
        """The new versions under this turn's stamps.

        Raises:
            NotFound: an item's run or row does not exist.
            InvalidRequest: an item fits several rows, or is the first version of a row and has no value.
            Conflict: the update_id stands for other content, or a series has been converted meanwhile.
        """
        if self.key is not None and (found := context.ledger.updates.known(self.key)) is not None:
            if found["digest"] != self._digest:
                raise Conflict(f"update_id: {quoted(self.key)} has been used already, with other content")
            return Answer(self._answer_again(context.snapshot, json.loads(found["receipt"])))
        valued = set(self._asked.filter("sets_value")["series_id"])
        check_units(context.ledger, context.snapshot, self._asked_for.units_seen, valued, stated=False)
        new = self._new_versions(context.snapshot)
        changed = int(new["changes"].sum())
        answer = self._counts(new) if self._asked_for.as_table else self._answer(new)
        if not changed and self.key is None:
            return Answer(answer)
        stamps = pl.lit(context.stamp) + pl.int_range(pl.len(), dtype=pl.Int64)
        rows = new.filter("changes").with_columns(change_time=stamps.cast(VALUES_POLARS["change_time"]))
        rows = rows.select(VALUES_DATA.names).sort("series_id", "valid_time", "known_time", "change_time")
        last_stamp = context.stamp + max(rows.height - 1, 0)
        if self._asked_for.as_table and changed:
            answer |= {"change_time": format_time(from_micros(last_stamp)), "table_version": context.version}
        info = {} if self.key is None else {"updates": self._record(new, answer, context.stamp, last_stamp)}
        return Prepared(rows_of_frame(rows), last_stamp, answer, info=info)

    def _counts(self, new: pl.DataFrame) -> dict[str, Any]:
        """What the client of a table is told of :meth:`_new_versions`."""
        created, changed = int(new["is_new"].sum()), int(new["changes"].sum())
        return {
            "update_id": self.key,
            "rows": self._asked.height,
            "updated": changed - created,
            "created": created,
            "skipped_no_ops": new.height - changed,
            "change_time": None,
            "table_version": None,
        }

    def _answer(self, new: pl.DataFrame) -> dict[str, Any]:
        """What the client is told of :meth:`_new_versions`."""
        named = new.select(
            "changes",
            value_id=views.value_id(),
            run_id="run_id",
            tenant_id=pl.lit(self._tenant_id),
            valid_time=pl.col("valid_time").dt.strftime(_TIME_TEXT),
            series_id="series_id",
        )
        updated, skipped = (named.filter(which).drop("changes").to_dicts() for which in ("changes", ~pl.col("changes")))
        return {"updated": updated, "skipped_no_ops": skipped}

    def _answer_again(self, snapshot: Snapshot, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the first time, found out anew from the rows as they were then, so that records stay small."""
        if "updated" in receipt:
            return dict(receipt)  # that of a table; or one of release 0.1, which kept the whole answer
        answer = self._answer(self._new_versions(snapshot, before=parse_time(receipt["first_change_time"])))
        converted = map(converted_transaction, self._asked["series_id"].unique())
        if len(answer["skipped_no_ops"]) != receipt["skipped_no_ops"] and any(
            map(snapshot.transactions.get, converted)
        ):
            raise Conflict(
                f"update_id: {quoted(self.key)} is in since {receipt['first_change_time']}; which of its items changed "
                "nothing can no longer be told, for values have been converted to another unit since"
            )
        return answer

    def _record(
        self, new: pl.DataFrame, answer: Mapping[str, Any], first_stamp: int, last_stamp: int
    ) -> dict[str, Any]:
        changed = int(new["changes"].sum())
        receipt = {
            "first_change_time": format_time(from_micros(first_stamp)),
            "skipped_no_ops": new.height - changed,
        }
        if self._asked_for.as_table:
            receipt = dict(answer)
        return {
            "update_id": self.key,
            "rows": changed,
            "change_time": format_time(from_micros(last_stamp)),
            "created_by": self._changed_by,
            "digest": self._digest,
            "receipt": json.dumps(receipt, separators=(",", ":")),
        }

    def _new_versions(self, snapshot: Snapshot, before: datetime | None = None) -> pl.DataFrame:
        """The new version of each row, and whether it ``changes`` anything; of items for one row the last one wins.

        Args:
            snapshot: Of the values table.
            before: The first change_time of these corrections, where they are in already. Items about rows that
                retention has taken since are left out.
        """
        if before is None:
            stored = self._stored.at(snapshot, self._points, seen=self._seen)
        else:
            stored = self._stored.at(snapshot, self._points, before - _LEAST_TIME)
        found = _matched(self._asked, stored)
        runs: Mapping[str, Mapping[str, Any]] = {}
        missing = found.filter(_NEW, ~pl.col("by_value_id"), pl.col("run_id").is_not_null())
        if missing.height:
            runs = self._find_runs(snapshot, set(missing["run_id"]))
            for item, run_id in missing.select("item", "run_id").iter_rows():
                if run_id not in runs:
                    raise NotFound(f"{self._asked_for.place(item, 'run_id')}: there is no run {quoted(run_id)}")
        known_times = {run_id: to_micros(run["known_time"]) for run_id, run in runs.items()}
        known_time = pl.col("run_id").replace_strict(known_times, default=None, return_dtype=pl.Int64)
        found = found.with_columns(run_known_time=known_time.cast(VALUES_POLARS["known_time"]))
        at_fault = _AT_FAULT if self._asked_for.create else _AT_FAULT | _NEW
        if before is not None:
            found = found.filter(~at_fault)
        elif (faults := found.filter(at_fault).head(1)).height:
            self._refuse(faults.row(0, named=True))
        return _applied(found).filter(pl.struct(REVISION).is_last_distinct())

    def _refuse(self, row: Mapping[str, Any]) -> None:
        """Say what is wrong with an item, by its row of :func:`_matched`."""
        run, time = quoted(row["run_id"]), format_time(row["valid_time"])

        def place(field: str | None = None) -> str:
            return self._asked_for.place(row["item"], field)

        if row["run_id"] is None:
            raise NotFound(f"{place()}: there is no value of series {row['series_id']} at {time}")
        if fits := row["fits"]:
            listed = ", ".join(map(format_time, fits[:10]))
            raise InvalidRequest(f"{place('known_time')}: {len(fits)} rows fit; add a known_time: {listed}")
        if row["by_value_id"]:
            key = RevisionKey(*(row[name] for name in ("series_id", *_TIMES, "run_id")))
            raise NotFound(f"{place('value_id')}: there is no row {quoted(key.to_value_id())}")
        if row["known_time"] not in (None, row["run_known_time"]):
            raise NotFound(f"{place()}: run {run} has no such row at {time}")
        if not self._asked_for.create:
            raise NotFound(f"{place()}: run {run} has no such row at {time}; say create to have it made")
        if not row["sets_value"]:
            raise InvalidRequest(
                f"{place('value')}: is missing; run {run} has no row at {time} yet, so its first version needs a value"
            )
        end = format_time(row["valid_time_end"])
        raise InvalidRequest(f"{place('valid_time_end')}: {end} is not after valid_time")


def _asked(updates: Sequence[ValueUpdate], changed_by: str | None, tenant_id: str, known: KnownSeries) -> pl.DataFrame:
    """Items as columns: which row each means, and what it sets there (columns of :data:`ASKED`)."""
    for index, item in enumerate(updates):
        if item.tenant_id is not None and item.tenant_id != tenant_id:
            raise Forbidden(f"updates.{index}.tenant_id: {quoted(item.tenant_id)} is not the caller's tenant")
    rows = []
    named: dict[tuple[str, str | None], str] = {}
    for index, item in enumerate(updates):
        series_id, valid_time, end, known_time, run_id = _address(index, item, known, named)
        if series_id not in known.by_id:
            field = "series_id" if item.value_id is None else "value_id"
            raise NotFound(f"updates.{index}.{field}: there is no series {quoted(series_id)}")
        annotation, tags, said = item.annotation, item.tags, item.model_fields_set
        row = (
            index,
            item.value_id is not None,
            series_id,
            to_micros(valid_time),
            None if end is None else to_micros(end),
            None if known_time is None else to_micros(known_time),
            run_id,
            item.value,
            annotation if annotation and annotation.strip() else None,
            clean_tags(tags) if tags else None,
            item.retracted or None,
            changed_by or item.changed_by,
            *(name in said for name in _FIELDS),
        )
        rows.append(row)
    columns = zip(*rows, strict=True) if rows else [()] * len(ASKED)
    # A number costs Polars a fraction of what a Python datetime does.
    kinds = {name: pl.Int64() if isinstance(kind, pl.Datetime) else kind for name, kind in ASKED.items()}
    return pl.DataFrame(dict(zip(ASKED, columns, strict=True)), schema=kinds).cast(ASKED)


def _address(
    index: int, item: ValueUpdate, known: KnownSeries, named: dict[tuple[str, str | None], str]
) -> tuple[str, datetime, datetime | None, datetime | None, str | None]:
    """How an item says which row it means: a revision key in which known_time and run_id may be left open.

    Args:
        index: Which item it is.
        item: It.
        known: The series.
        named: The ids of names and labels that were looked up; grows.
    """
    if item.value_id is not None:
        try:
            key = RevisionKey.from_value_id(item.value_id)
        except ValueError as error:
            raise InvalidRequest(f"updates.{index}.value_id: {quoted(item.value_id)} {error}") from None
        return key.series_id, key.valid_time, key.valid_time_end, key.known_time, key.run_id
    if item.valid_time is None:
        raise InvalidRequest(f"updates.{index}: needs valid_time, or value_id, to say which row")
    series_id = item.series_id if item.series_key is None else _named(index, item, known, named)
    if series_id is None:
        raise InvalidRequest(f"updates.{index}: needs series_id (or series_key), or value_id, to say which row")
    return series_id, item.valid_time, item.valid_time_end, item.known_time, item.run_id


def _named(index: int, item: ValueUpdate, known: KnownSeries, named: dict[tuple[str, str | None], str]) -> str:
    """The id of the series that an item names."""
    labels = None if item.labels is None else canonical_labels(item.labels)
    name = item.series_key or ""
    if item.series_id is None and (series_id := named.get((name, labels))) is not None:
        return series_id
    try:
        found = find_series(Identity(item.series_id, name, labels, index), known, create=False)
    except (NotFound, InvalidRequest) as error:
        raise type(error)(f"updates.{index}.{error.detail}") from None
    assert found is not None  # none is made here
    return named.setdefault((name, labels), found.series_id)


def _matched(asked: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Items with the stored version that each means (``old_`` columns), and the known_times of all rows that it fits.

    Without a run an item means the winner among the rows that stand.
    """
    pairs = asked.select("item", *REVISION).join(stored.rename(_OLD), on=_POINT, nulls_equal=True)
    known_time, run_id = pl.col("known_time"), pl.col("run_id")
    standing = pl.col("old_retracted").ne_missing(True)
    pairs = pairs.filter(
        known_time.is_null() | (known_time == pl.col("old_known_time")),
        pl.when(run_id.is_null()).then(standing).otherwise(run_id == pl.col("old_run_id")),
    )
    ordered = pairs.sort("item", *(_OLD[name] for name in WINNER.by))
    best = ordered.group_by("item").agg(pl.col(*_OLD.values()).last(), fits=pl.col("old_known_time"))
    return asked.join(best, on="item", how="left", maintain_order="left")


_NEW = pl.col("fits").is_null()
_RUN_IS_NAMED = pl.col("run_id").is_not_null()
_AT_FAULT = (
    (_NEW & ~_RUN_IS_NAMED)
    | (_RUN_IS_NAMED & (pl.col("fits").list.len() > 1).fill_null(False))
    | (_NEW & pl.col("by_value_id"))
    | (_NEW & (pl.col("known_time") != pl.col("run_known_time")).fill_null(False))
    | (_NEW & ~pl.col("sets_value"))
    | (_NEW & (pl.col("valid_time_end") <= pl.col("valid_time")).fill_null(False))
)
"""Items that mean no row, or several, or the first version of a row without what it needs."""


def _applied(found: pl.DataFrame) -> pl.DataFrame:
    """The version that each item makes of its row, null being null and NaN NaN: whether it ``changes`` anything."""
    new = found.select(
        *_POINT,
        "changed_by",
        pl.when(_NEW).then("run_known_time").otherwise("old_known_time").alias("known_time"),
        pl.when(_NEW).then("run_id").otherwise("old_run_id").alias("run_id"),
        *(pl.when(f"sets_{name}").then(name).otherwise(f"old_{name}").alias(name) for name in _FIELDS),
        *(f"old_{name}" for name in _FIELDS),
        is_new=_NEW,
    )
    other = [pl.col(name).ne_missing(pl.col(f"old_{name}")) for name in ("value", "annotation", "tags")]
    turned = pl.col("retracted").fill_null(False) != pl.col("old_retracted").fill_null(False)
    return new.with_columns(changes=pl.any_horizontal("is_new", turned, *other))


def _digest(message: UpdateValues) -> str:
    return hashlib.blake2b(message.model_dump_json(exclude_unset=True).encode(), digest_size=16).hexdigest()
