"""Reads: a ticket becomes a plan on one snapshot, the plan a stream of record batches, bucket by bucket."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

import polars as pl
import pyarrow as pa

from timedb.contract.columns import (
    COLUMN_TYPES,
    IDENTIFIER,
    META_AS_OF,
    META_CURSOR,
    META_TABLE_VERSION,
    META_TOKEN,
    result_columns,
    result_schema,
)
from timedb.contract.errors import InvalidRequest, NotFound, TooLarge
from timedb.contract.identity import series_bucket
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import ReadTicket, shown
from timedb.storage.boundary import errors_are_ours
from timedb.storage.catalog.catalog import Catalog, KnownSeries, Series
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.table import Table
from timedb.storage.measures.relative import check_time_zone, check_windows
from timedb.storage.measures.units import convert_frame, converter
from timedb.storage.read.answers import answer, is_flat_of_uploads, is_plain, settled_and_fresh, tiers_for
from timedb.storage.read.batch_cache import BatchCache
from timedb.storage.read.cursor import Cursor, sort_columns
from timedb.storage.read.first_rows import FirstRows
from timedb.storage.read.latest import LastRows
from timedb.storage.read.parts import UNKNOWN, ReadPart, rows_of, ticket_of_bucket
from timedb.storage.read.resample import resample
from timedb.storage.read.streaming import stream_rows
from timedb.storage.read.token import Token
from timedb.storage.read.winners import DECISIVE, Area, winners_of
from timedb.storage.rows import views
from timedb.storage.rows.rows import gathered, in_order
from timedb.storage.rows.scan import Selection, live_files
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.removed import refuse_removed
from timedb.storage.tables.schemas import VALUES_DATA

__all__ = ["ReadPlan", "plan_read", "select_series"]

BATCH_ROWS = 65_536
_LARGE_SHARE = 0.2


def _always() -> None:
    """An answer that somebody waits for."""


class ReadPlan:
    """A read on one snapshot; nothing has been opened yet, except under a ``limit``."""

    def __init__(
        self,
        ticket: ReadTicket,
        *,
        table: Table,
        snapshot: Snapshot,
        files: Mapping[str, list[DataFile]],
        selection: Selection,
        series: Mapping[str, Series],
        last_rows: LastRows,
        cache: BatchCache | None,
        for_limited_key: bool,
        max_sorted_rows: int,
    ) -> None:
        self.ticket = ticket
        self.table_version = snapshot.version
        self._newest = snapshot.transactions.get(CHANGE_TIME, 0)
        self._table = table
        self._files = files
        self._selection = selection
        self._series = series
        self._last_rows = last_rows
        self._cache = cache
        self._for_limited_key = for_limited_key
        self._max_sorted_rows = max_sorted_rows
        self._columns = result_columns(ticket)
        self._order = sort_columns(ticket)
        self._page: tuple[pa.Table, str | None] | None = None
        self._sorted: pa.Table | None = None
        self._selections: dict[str, Selection] = {}

    @property
    def as_of(self) -> datetime:
        """The change_time that the answer is resolved to, UTC."""
        newest = from_micros(self._newest)
        return newest if self._selection.as_of is None else min(self._selection.as_of, newest)

    @property
    def token(self) -> str:
        """What reads the same rows again, whatever has been written since."""
        return self.ticket.token or Token(self.as_of, self.table_version).to_text()

    @property
    def whole(self) -> bool:
        """Whether the answer has to be put together before its first row can go out."""
        return self.ticket.limit is not None or (self.ticket.ordered and self.ticket.order_by != "series")

    @property
    def ordered(self) -> bool:
        """Whether the parts, one after the other, are in the order that was asked for."""
        return self.ticket.ordered or self.ticket.limit is not None

    @property
    @errors_are_ours()
    def schema(self) -> pa.Schema:
        """The schema of the answer, with the table version, the resolved ``as_of`` and, under a limit, the cursor."""
        metadata = {
            META_TABLE_VERSION: str(self.table_version).encode(),
            META_AS_OF: format_time(self.as_of).encode(),
            META_TOKEN: self.token.encode(),
        }
        if self.ticket.limit is not None and (cursor := self._limited()[1]) is not None:
            metadata[META_CURSOR] = cursor.encode()
        return result_schema(self.ticket, metadata)

    @property
    def parts(self) -> list[ReadPart]:
        """One part a bucket, or one in all where the order needs it. Their tickets are fixed to this plan's cut-off."""
        fixed = self.in_one_part.ticket
        # Which buckets hold rows, and how many, would tell a limited key of the series that it may not see.
        if self.whole or not self._files or self._for_limited_key:
            return [self.in_one_part]
        return [
            ReadPart(ticket_of_bucket(fixed, bucket), rows_of(self.ticket, self._selection, files))
            for bucket, files in self._files.items()
        ]

    @property
    def in_one_part(self) -> ReadPart:
        """The whole answer as one part, for whoever cannot take as many as there are :attr:`parts`."""
        fixed = self.ticket.model_copy(update={"as_of": self.as_of, "table_version": self.table_version})
        return ReadPart(fixed, self._rows_in_all())

    @errors_are_ours()
    def put_together(self, still_wanted: Callable[[], None]) -> None:
        """Compute now what has to be whole before its first row can go out; of other answers nothing.

        Args:
            still_wanted: Called before each bucket; what it raises ends the work.

        Raises:
            TooLarge: more rows than may be sorted across buckets.
        """
        if self.ticket.limit is not None:
            self._limited(still_wanted)
        elif self.whole:
            self._sorted = self._sorted_whole(still_wanted)

    def reader(self) -> pa.RecordBatchReader:
        """The answer as batches of about 64k rows, computed as they are taken."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of :meth:`reader`.

        Raises:
            TooLarge: more rows than may be sorted across buckets.
        """
        with errors_are_ours():
            yield from self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        schema = result_schema(self.ticket)
        if not self.whole:
            for files in self._files.values():
                if self.ordered:
                    yield from self._finish(in_order(self._gathered(files), self._order), schema)
                    continue
                for batch in self._rows(files):
                    yield from self._finish(pa.Table.from_batches([batch]), schema)
            return
        if self.ticket.limit is not None:
            rows, _ = self._limited()
        else:
            rows, self._sorted = self._sorted_whole() if self._sorted is None else self._sorted, None
        yield from self._finish(rows, schema)

    def _rows_in_all(self) -> int:
        if self._for_limited_key:
            return UNKNOWN
        if self.ticket.limit is not None:
            page, _ = self._limited()
            return int(page.num_rows)
        counts = [rows_of(self.ticket, self._selection, files) for files in self._files.values()]
        return UNKNOWN if UNKNOWN in counts else sum(counts)

    def _rows(self, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        """The rows of a bucket's answer with the stored columns, in no particular order."""
        if self._needs_no_engine(files):
            if is_plain(self.ticket, self._selection, files):
                return self._as_stored(files)
            if is_flat_of_uploads(self.ticket, self._selection, files):
                return self._winners(files)
        return iter(self._view(files).to_batches())

    def _gathered(self, files: Sequence[DataFile]) -> pa.Table:
        names = self._stored_columns()
        empty = pa.schema([(name, COLUMN_TYPES[name]) for name in names]).empty_table()
        return gathered([empty, *self._tables(files)])

    def _tables(self, files: Sequence[DataFile]) -> Iterator[pa.Table]:
        """The batches of :meth:`_rows` as tables of one chunk."""
        names = self._stored_columns()
        for batch in self._rows(files):
            yield pa.Table.from_batches([batch]).select(names)

    def _as_stored(self, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        for file in files:
            yield from self._stored(file, self._stored_columns())

    def _needs_no_engine(self, files: Sequence[DataFile]) -> bool:
        """Whether stored rows can go out as they are; a few rows of a series are picked out faster by the engine."""
        if self.ticket.unit is not None or self.ticket.resample is not None:
            return False
        return self._selection.series_ids is None or self._selection.share_of(files) >= _LARGE_SHARE

    def _stored(self, file: DataFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        bucket = file.partition["series_bucket"]
        if bucket not in self._selections:
            self._selections[bucket] = self._selection.of_bucket(bucket)
        return stream_rows(self._table.store, [file], self._selections[bucket], columns, BATCH_ROWS, self._cache)

    def _winners(self, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        """The winners of a bucket: settled ones as they are stored where no fresh row is near."""
        columns = self._stored_columns()
        deciding = [name for name in VALUES_DATA.names if name in columns or name in DECISIVE]
        settled, competing = settled_and_fresh(self.ticket, self._selection, files)
        rivals: list[pa.Table] = []
        fresh = winners_of(competing, lambda file: self._stored(file, deciding), deciding)
        for file in settled:
            rows = self._stored(file, deciding if fresh.num_rows else columns)
            yield from Area.around(fresh).split(rows, columns, rivals) if fresh.num_rows else rows
        if rivals:
            found = [*rivals, fresh]
            fresh = winners_of(files[:1], lambda _: [one for part in found for one in part.to_batches()], deciding)
        yield from fresh.select(columns).to_batches(max_chunksize=BATCH_ROWS) if fresh.num_rows else ()

    def _view(self, files: Sequence[DataFile]) -> pa.Table:
        columns = self._stored_columns()
        selection = self._selection.of_bucket(files[0].partition["series_bucket"])
        found = answer(self.ticket, selection, self._table.store, files, columns, self._last_rows)
        data = self._resampled(self._converted(found.select(columns))).to_arrow()
        return pa.table({name: _cast(data.column(name), COLUMN_TYPES[name]) for name in data.column_names})

    def _converted(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.ticket.unit is None or "value" not in rows.columns:
            return rows
        units = {series_id: series.unit for series_id, series in self._series.items()}
        return convert_frame(rows, units, self.ticket.unit, field="unit")

    def _resampled(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.ticket.resample is None:
            return rows
        revision = ("series_id", "known_time", "run_id")
        return resample(rows, self.ticket.resample, revision if self.ticket.view == "overlapping" else revision[:1])

    def _stored_columns(self) -> list[str]:
        """The columns of the values table that the answer is made from."""
        wanted = set(self._columns) | (set(self._order) if self.ordered else set())
        if "value_id" in wanted:
            wanted |= set(views.REVISION)
        if wanted & {"series_key", "series_unit"} or self.ticket.unit is not None:
            wanted.add("series_id")
        if self.ticket.resample is not None:
            wanted |= {"value", *views.POINT, *(("known_time", "run_id") if self.ticket.view == "overlapping" else ())}
        return [name for name in VALUES_DATA.names if name in wanted]

    def _sorted_whole(self, still_wanted: Callable[[], None] = _always) -> pa.Table:
        pieces, total = [], 0
        for files in self._files.values():
            still_wanted()
            piece = self._gathered(files)
            total += piece.num_rows
            if total > self._max_sorted_rows:
                raise TooLarge(
                    f"order_by: the answer has more than {self._max_sorted_rows} rows, the limit for an order "
                    "across series; narrow it, set a limit, or order by series"
                )
            pieces.append(piece)
        return in_order(gathered(pieces), self._order) if pieces else result_schema(self.ticket).empty_table()

    def _limited(self, still_wanted: Callable[[], None] = _always) -> tuple[pa.Table, str | None]:
        """The page and the cursor to the next one; None where there is none."""
        if self._page is None:
            limit = self.ticket.limit or 0
            after = None if self.ticket.after is None else Cursor.from_text(self.ticket.after, self.ticket)
            first = FirstRows(self._order, limit + 1)
            for files in self._files.values():
                still_wanted()
                for rows in self._tables(files):
                    first.add(rows if after is None else after.beyond(rows))
                    if min(first.held, limit + 1) > self._max_sorted_rows + 1:
                        raise TooLarge(
                            f"limit: a page of {limit} rows is more than the {self._max_sorted_rows} that are put "
                            "together for one answer; make it smaller"
                        )
            found = first.sorted()
            self._page = self._page_of(result_schema(self.ticket).empty_table() if found is None else found, limit)
        return self._page

    def _page_of(self, rows: pa.Table, limit: int) -> tuple[pa.Table, str | None]:
        if rows.num_rows <= limit:
            return rows, None
        page = rows.slice(0, limit)
        (last,) = page.select(self._order).slice(limit - 1).to_pylist()
        return page, Cursor(last, self.as_of).to_text()

    def _finish(self, rows: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows with wire types, brought to the columns of the answer and cut into batches."""
        if not rows.num_rows:
            return
        columns = {name: rows.column(name) for name in rows.column_names}
        if "value_id" in self._columns:
            columns["value_id"] = _value_ids(rows)
        for name, attribute in (("series_key", "name"), ("series_unit", "unit")):
            if name in self._columns:
                columns[name] = self._series_text(columns["series_id"], attribute)
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        yield from table.to_batches(max_chunksize=BATCH_ROWS)

    def _series_text(self, series_ids: pa.ChunkedArray, attribute: str) -> pa.ChunkedArray:
        """An attribute of each row's series; one dictionary entry a series."""
        chunks = []
        for codes in series_ids.chunks:
            found = [self._series.get(series_id) for series_id in codes.dictionary.to_pylist()]
            texts = pa.array([self._text_of(one, attribute) for one in found], pa.string())
            encoded = texts.dictionary_encode()  # series may share a name; a dictionary's entries are distinct
            chunks.append(pa.DictionaryArray.from_arrays(encoded.indices.take(codes.indices), encoded.dictionary))
        return pa.chunked_array(chunks, IDENTIFIER)

    def _text_of(self, series: Series | None, attribute: str) -> str | None:
        if attribute == "unit" and self.ticket.unit is not None:
            return self.ticket.unit
        return None if series is None else getattr(series, attribute)


def _value_ids(rows: pa.Table) -> pa.ChunkedArray:
    key = rows.select(views.REVISION)
    text = pl.DataFrame(key.cast(pa.schema([VALUES_DATA.field(name) for name in views.REVISION])))
    return text.select(views.value_id()).to_series().to_arrow().cast(COLUMN_TYPES["value_id"])


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):
        return pa.chunked_array([column.cast(kind.value_type).combine_chunks()], kind.value_type).dictionary_encode()
    return column.cast(kind)


def plan_read(
    ticket: ReadTicket,
    *,
    table: Table,
    catalog: Catalog,
    bucket_digits: int | None,
    last_rows: LastRows,
    max_sorted_rows: int,
    max_windows: int,
    cache: BatchCache | None = None,
    snapshot: Snapshot | None = None,
) -> ReadPlan:
    """Resolve a ticket against the newest snapshot, or against that one.

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
    snapshot = table.snapshot() if snapshot is None else snapshot
    known_series = catalog.known()  # after the snapshot: a series is made before its first value
    known = known_series.by_id
    series_ids = select_series(ticket, catalog, known_series)
    if ticket.table_version is not None and ticket.table_version > snapshot.version:
        raise InvalidRequest(
            f"table_version: {ticket.table_version} is newer than the lake, which is at {snapshot.version}"
        )
    if ticket.unit is not None:
        _check_units(ticket.unit, known, series_ids)
    selection = _selection(ticket, from_micros(snapshot.transactions.get(CHANGE_TIME, 0)), series_ids)
    if selection.as_of is not None:
        buckets = _buckets(ticket, series_ids, bucket_digits)
        refuse_removed(snapshot, buckets, selection.as_of, selection.start_valid)
    files = {
        bucket: needed
        for bucket, found in live_files(snapshot, selection, bucket_digits).items()
        if (needed := _needed(ticket, selection, found))
    }
    if ticket.bucket is not None:
        files = {ticket.bucket: files[ticket.bucket]} if ticket.bucket in files else {}
    if ticket.relative is not None:
        check_windows(ticket.relative, ticket.start_valid, ticket.end_valid, max_windows)
    return ReadPlan(
        ticket,
        table=table,
        snapshot=snapshot,
        files=files,
        selection=selection,
        series=known,
        last_rows=last_rows,
        cache=cache,
        for_limited_key=catalog.limited,
        max_sorted_rows=max_sorted_rows,
    )


def _selection(ticket: ReadTicket, newest: datetime, series_ids: Collection[str] | None) -> Selection:
    """The filters of a ticket, with ``as_of`` only where it leaves something out."""
    cut_offs, start_valid, changed_after = [ticket.as_of or newest], ticket.start_valid, None
    if ticket.token is not None:
        cut_offs.append(Token.from_text(ticket.token, field="token", newest=newest).as_of)
    if ticket.since is not None:
        changed_after = Token.from_text(ticket.since, field="since", newest=newest).as_of
    if ticket.after is not None:
        cursor = Cursor.from_text(ticket.after, ticket)
        cut_offs.append(cursor.as_of)
        if ticket.order_by == "valid_time" and ticket.resample is None:
            start_valid = cursor.last["valid_time"]
    as_of = min(cut_offs)
    return Selection(
        series_ids,
        start_valid,
        ticket.end_valid,
        ticket.start_known,
        ticket.end_known,
        as_of if as_of < newest else None,  # nothing is younger: no cut-off, so that the tiers can be used
        changed_after,
    )


def _check_units(unit: str, known: Mapping[str, Series], series_ids: Collection[str] | None) -> None:
    """Refuse a unit that some series of the selection cannot be converted to, before the first row goes out."""
    for series in known.values() if series_ids is None else [known[series_id] for series_id in series_ids]:
        try:
            converter(series.unit, unit, field="unit")
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.detail} (series {shown(series.name)})") from None


def _buckets(
    ticket: ReadTicket, series_ids: Collection[str] | None, bucket_digits: int | None
) -> Collection[str] | None:
    """The buckets that a read is about; None where it may be any."""
    if ticket.bucket is not None:
        return {ticket.bucket}
    return None if series_ids is None else {series_bucket(series_id, bucket_digits) for series_id in series_ids}


def _needed(ticket: ReadTicket, selection: Selection, files: Sequence[DataFile]) -> list[DataFile]:
    """Those of a bucket's files that its answer needs: each bucket for itself, for one may be settled, another not."""
    tiers = tiers_for(ticket, selection, [file for file in files if file.partition["tier"] == "fresh"])
    return [file for file in files if file.partition["tier"] in tiers]


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
            raise NotFound(f"series_ids: there is no series {shown(series_id)}")
        chosen.add(series_id)
    for name in ticket.series_keys or ():
        chosen.update(series.series_id for series in known.find(name, ticket.labels))
    if ticket.series_ids is None and ticket.series_keys is None:
        return {series.series_id for series in known.by_id.values() if series.matches(ticket.labels)}
    if ticket.labels is not None:
        chosen = {series_id for series_id in chosen if known.by_id[series_id].matches(ticket.labels)}
    return chosen
