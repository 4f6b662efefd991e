"""A ticket becomes a plan on one snapshot: series, filters and cut-offs resolved, and how each bucket is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

from timedb.contract.columns import result_columns
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.identity import series_bucket
from timedb.contract.settings import ServerSettings
from timedb.contract.times import MAX_MICROS, from_micros, to_micros
from timedb.contract.wire import ReadTicket, quoted
from timedb.storage.catalog.catalog import Catalog, KnownSeries, Series
from timedb.storage.catalog.unit_changes import in_step, refuse_converted
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.measures.relative import check_time_zone, check_windows
from timedb.storage.measures.units import converter
from timedb.storage.read.answers import Answers
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.read.buckets import BucketRead
from timedb.storage.read.cursor import Cursor
from timedb.storage.read.first_versions import Uploaded
from timedb.storage.read.latest import LastRows
from timedb.storage.read.pivot import Pivot
from timedb.storage.read.reading import ReadPlan, stored_columns
from timedb.storage.read.runs_seen import RunsSeen
from timedb.storage.read.token import Token
from timedb.storage.rows.scan import RowSelection, is_mixed, live_files, shares_bucket
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.removed import refuse_incomplete, refuse_removed, refuse_unseen

__all__ = ["SLICE_ROWS", "ReadLimits", "plan_read", "select_series"]

SLICE_ROWS = 500_000
"""Rows that a read works on at once, about, where nobody says otherwise."""


@dataclass(frozen=True)
class ReadLimits:
    """What a read may ask for: settings of a server, by their names, with their defaults."""

    max_sorted_rows: int = 0
    max_windows: int = 10_000_000
    max_fill_rows: int = 5_000_000
    max_pivot_columns: int = 1000

    @classmethod
    def of(cls, settings: ServerSettings) -> ReadLimits:
        """Those of a server."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


def plan_read(
    ticket: ReadTicket,
    *,
    table: Table,
    catalog: Catalog,
    bucket_digits: int | None,
    last_rows: LastRows,
    limits: ReadLimits,
    runs: RunsSeen,
    cache: BatchCache | None = None,
    slice_rows: int = SLICE_ROWS,
    snapshot: Snapshot | None = None,
    known_series: KnownSeries | None = None,
    at_once_rows: int = 0,
) -> ReadPlan:
    """Resolve a ticket against the newest snapshot, or against that one with the series that were known then.

    Args:
        ticket: The read; the others are what it is about, and limits.
        at_once_rows: Files of so many rows in all are read in one go, whatever their buckets, where every row of them
            that passes the filters is one of the answer.

    Raises:
        InvalidRequest: a column, cursor, series name or version does not fit, or retention has removed rows that the
            answer would need.
        NotFound: a series that the ticket names does not exist.
    """
    result_columns(ticket)
    if ticket.after is not None and ticket.limit is None:
        raise InvalidRequest("after: a cursor goes with a limit")
    if ticket.resample is not None:
        check_time_zone(ticket.resample.time_zone, "resample.time_zone")
    snapshot, known_series = in_step(table, catalog, snapshot, known_series)
    known = known_series.by_id
    series_ids = select_series(ticket, catalog, known_series)
    if ticket.table_version is not None and ticket.table_version > snapshot.version:
        raise InvalidRequest(
            f"table_version: {ticket.table_version} is newer than the lake, which is at {snapshot.version}"
        )
    about = known.values() if series_ids is None else [known[series_id] for series_id in series_ids]
    if ticket.unit is not None:
        _check_units(ticket.unit, about)
    pivot = None if ticket.pivot is None else Pivot.of(ticket, about, known.values(), limits.max_pivot_columns)
    run_ids = runs.named(snapshot, ticket.run_ids, ticket.workflow_id)
    newest = from_micros(snapshot.transactions.get(CHANGE_TIME, 0))
    since = None if ticket.since is None else Token.from_text(ticket.since, field="since", newest=newest)
    selection = _selection(ticket, newest, since, series_ids, run_ids)
    _refuse_gaps(ticket, snapshot, _names_of_buckets(ticket, series_ids, bucket_digits), selection, since)
    for field, version in _begun(ticket, since).items():
        refuse_converted(snapshot, known_series, series_ids, version, field)
    live = live_files(snapshot, selection, bucket_digits)
    if ticket.view == "changes" and sum(max(file.rows, 0) for file in live) <= at_once_rows:
        every = BucketRead.plan(ticket, "", live, selection, runs.uploaded(snapshot))
        buckets = [] if every is None else [every]
    else:
        buckets = _buckets(ticket, selection, live, known_series, bucket_digits, runs.uploaded(snapshot))
    if ticket.relative is not None:
        check_windows(ticket.relative, ticket.start_valid, ticket.end_valid, limits.max_windows)
    columns = stored_columns(ticket)
    return ReadPlan(
        ticket,
        snapshot=snapshot,
        buckets=buckets,
        selection=selection,
        series=known,
        series_version=known_series.version,
        answers=Answers(
            ticket,
            columns,
            store=table.store,
            series=known,
            last_rows=last_rows,
            cache=cache,
            slice_rows=slice_rows,
            place=None if since is None else since.place,
            max_fill_rows=limits.max_fill_rows,
        ),
        for_limited_key=catalog.limited,
        max_sorted_rows=limits.max_sorted_rows,
        pivot=pivot,
    )


def _refuse_gaps(
    ticket: ReadTicket,
    snapshot: Snapshot,
    buckets: Collection[str] | None,
    selection: RowSelection,
    since: Token | None,
) -> None:
    """Refuse a read whose answer lacks rows that retention has removed.

    Raises:
        InvalidRequest: says which field asks for them.
    """
    if since is not None and not since.is_beginning:
        refuse_unseen(snapshot, buckets, ticket.start_valid, after=since.as_of, seen=since.seen)
    elif since is None and selection.as_of is not None:
        refuse_removed(snapshot, buckets, selection.as_of, selection.start_valid)
    for asked, field, wanted in (
        (ticket.view == "first", "view", "the first release"),
        (ticket.numbers_revisions, "columns", "the number of a revision"),
    ):
        if asked:
            refuse_incomplete(snapshot, buckets, ticket.start_valid, field=field, wanted=wanted)


def _begun(ticket: ReadTicket, since: Token | None) -> dict[str, int]:
    """The table versions of the answers that a read goes on with, by what says so."""
    found = {} if ticket.table_version is None else {"table_version": ticket.table_version}
    if since is not None and not since.is_beginning:
        found["since"] = since.table_version
    if ticket.after is not None:
        found["after"] = Cursor.from_text(ticket.after, ticket).table_version
    return found


def _selection(
    ticket: ReadTicket,
    newest: datetime,
    since: Token | None,
    series_ids: Collection[str] | None,
    run_ids: Collection[str] | None,
) -> RowSelection:
    """The filters of a ticket, with ``as_of`` only where it leaves something out."""
    cut_offs, start_valid, end_valid = [ticket.as_of or newest], ticket.start_valid, ticket.end_valid
    if ticket.token is not None:
        token = Token.from_text(ticket.token, field="token", newest=newest)
        if token.place is not None:
            raise InvalidRequest(
                "token: it is of the middle of what was written at once, which no read has seen; it goes with since"
            )
        cut_offs.append(token.as_of)
    if ticket.after is not None:
        cursor = Cursor.from_text(ticket.after, ticket)
        cut_offs.append(cursor.as_of)
        if ticket.order_by == "valid_time" and ticket.is_by_point and ticket.last is None:
            begin = cursor.last["valid_time"]
            if not ticket.descending:
                start_valid = begin
            elif to_micros(begin) < MAX_MICROS:
                end_valid = begin + timedelta(microseconds=1)
    as_of = min(cut_offs)
    return RowSelection(
        series_ids,
        start_valid,
        end_valid,
        ticket.start_known,
        ticket.end_known,
        as_of if as_of < newest else None,  # nothing is younger: no cut-off, so that the tiers can be used
        None if since is None else since.as_of,
        run_ids,
    )


def _check_units(unit: str, about: Iterable[Series]) -> None:
    """Refuse a unit that some series of the selection cannot be converted to, before the first row goes out."""
    for series in about:
        try:
            converter(series.unit, unit, field="unit")
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.detail} (series {quoted(series.name)})") from None


def _buckets(
    ticket: ReadTicket,
    selection: RowSelection,
    live: Sequence[DataFile],
    known: KnownSeries,
    bucket_digits: int | None,
    uploaded: Uploaded,
) -> list[BucketRead]:
    """The buckets that can hold rows of the answer, in order; of a ticket for one bucket at most that one.

    Mixed files are among the files of every bucket whose rows they can hold.
    """
    files: dict[str, list[DataFile]] = {}
    for file in live:
        if not is_mixed(file):
            files.setdefault(file.partition["series_bucket"], []).append(file)
    own: dict[str, list[str]] = {}
    for series_id in selection.series_ids or ():
        own.setdefault(series_bucket(series_id, bucket_digits), []).append(series_id)
    mixed = [file for file in live if is_mixed(file)]
    names = files.keys() | (own or known.buckets(bucket_digits) if mixed else ())
    found = []
    for bucket in sorted(names) if ticket.bucket is None else names & {ticket.bucket}:
        of_bucket = replace(selection, series_ids=own[bucket] if own else selection.series_ids, bucket=bucket)
        shared = [file for file in mixed if shares_bucket(file, bucket) and of_bucket.may_hold(file)]
        found.append(BucketRead.plan(ticket, bucket, [*files.get(bucket, ()), *shared], of_bucket, uploaded))
    return [bucket for bucket in found if bucket is not None]


def _names_of_buckets(
    ticket: ReadTicket, series_ids: Collection[str] | None, bucket_digits: int | None
) -> Collection[str] | None:
    """The buckets that a read is about; None where it may be any."""
    if ticket.bucket is not None:
        return {ticket.bucket}
    return None if series_ids is None else {series_bucket(series_id, bucket_digits) for series_id in series_ids}


def select_series(ticket: ReadTicket, catalog: Catalog, known: KnownSeries) -> Collection[str] | None:
    """The ids of the series that a ticket is about; None: all.

    Raises:
        InvalidRequest: a bare name has several candidates.
        NotFound: a series that the ticket names does not exist.
    """
    if ticket.series_ids is None and ticket.series_keys is None and ticket.labels is None:
        return set(known.by_id) if catalog.limited else None
    chosen: set[str] = set()
    for series_id in ticket.series_ids or ():
        if series_id not in known.by_id:
            raise NotFound(f"series_ids: there is no series {quoted(series_id)}")
        chosen.add(series_id)
    for name in ticket.series_keys or ():
        found = known.find(name, ticket.labels) if ticket.pivot is None else known.named(name, ticket.labels)
        chosen.update(series.series_id for series in found)
    if ticket.series_ids is None and ticket.series_keys is None:
        return {series.series_id for series in known.by_id.values() if series.matches(ticket.labels)}
    if ticket.labels is not None:
        chosen = {series_id for series_id in chosen if known.by_id[series_id].matches(ticket.labels)}
    return chosen
