"""The plan of a read on one snapshot: its parts, and its answer as a stream of record batches, bucket by bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import polars as pl
import pyarrow as pa

from timedb.contract.columns import (
    COLUMN_TYPES,
    IDENTIFIER,
    META_AS_OF,
    META_CURSOR,
    META_SERIES_VERSION,
    META_TABLE_VERSION,
    META_TOKEN,
    result_columns,
    result_schema,
)
from timedb.contract.errors import TooLarge
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import ReadTicket
from timedb.storage.boundary import translating_errors
from timedb.storage.catalog.catalog import Series
from timedb.storage.delta.log import Snapshot
from timedb.storage.memory.server import ROW_BYTES
from timedb.storage.read.answers import Answers
from timedb.storage.read.buckets import BucketRead, rows_of
from timedb.storage.read.cursor import Cursor, sort_columns
from timedb.storage.read.first_rows import FirstRows
from timedb.storage.read.one_end import from_one_end
from timedb.storage.read.parts import UNKNOWN, ReadPart, ticket_of_bucket
from timedb.storage.read.pivot import Pivot
from timedb.storage.read.token import Token
from timedb.storage.read.written_out import written_out
from timedb.storage.rows import views
from timedb.storage.rows.orders import POINT, REVISION
from timedb.storage.rows.rows import gathered, in_order
from timedb.storage.rows.scan import RowSelection
from timedb.storage.tables.commit_marks import CHANGE_TIME
from timedb.storage.tables.schemas import READ_HELD, VALUES_DATA

__all__ = ["ReadPlan", "stored_columns"]


_TIMES_SORTED = 5  # as they come, as one table, their keys, their order, and in order


def _always() -> None:
    """An answer that somebody waits for."""


class ReadPlan:
    """A read on one snapshot; nothing has been opened yet.

    Attributes:
        ticket: What is read.
        table_version: Of the values table.
        buckets: The buckets that hold rows of the answer, in order.
        series_ids: The series that it is about; None: all.
        series: All series that the caller may see, by id.
    """

    def __init__(
        self,
        ticket: ReadTicket,
        *,
        snapshot: Snapshot,
        buckets: Sequence[BucketRead],
        selection: RowSelection,
        series: Mapping[str, Series],
        series_version: str,
        answers: Answers,
        for_limited_key: bool,
        max_sorted_rows: int,
        pivot: Pivot | None = None,
    ) -> None:
        self.ticket = ticket
        self.table_version = snapshot.version
        self.buckets = buckets
        self.series_ids = selection.series_ids
        self.series = series
        self._series_version = series_version
        newest = from_micros(snapshot.transactions.get(CHANGE_TIME, 0))
        self.as_of: datetime = newest if selection.as_of is None else min(selection.as_of, newest)
        """The change_time that the answer is resolved to, UTC."""
        self._answers = answers
        self._for_limited_key = for_limited_key
        self._max_sorted_rows = max_sorted_rows
        self._pivot = pivot
        self._columns = result_columns(ticket)
        self._order = sort_columns(ticket)
        self._whole: tuple[pa.Table, str | None] | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes about which the answer takes batch by batch; what is put together is asked for when it is."""
        return min(self._rows_of_files(), self._answers.rows_at_once(self.buckets)) * ROW_BYTES

    def _rows_of_files(self) -> int:
        return sum(max(file.rows, 0) for bucket in self.buckets for file in bucket.files)

    def groups_at_once(self, groups: Sequence[Collection[str]]) -> Iterator[tuple[Sequence[int], int]]:
        """Groups of series that belong together, cut into as many as may be worked on at once, in their order.

        Args:
            groups: The ids of their series.

        Returns:
            The places of some groups, and how often their rows are those of a slice (1 where they all fit into one);
            more than 1 only for a single group.
        """
        most, counts = self._answers.slice_rows, Counter[str]()
        if self._rows_of_files() > most:
            counts = self._answers.rows_by_series(self.buckets)
        together: list[int] = []
        rows = 0
        for place, series_ids in enumerate(groups):
            own = sum(counts[series_id] for series_id in series_ids)
            if together and rows + own > most:
                yield together, max(1, -(-rows // most))
                together, rows = [], 0
            together.append(place)
            rows += own
        if together:
            yield together, max(1, -(-rows // most))

    def hold(self, grow: Callable[[int], object]) -> None:
        """Have further memory asked for as it is needed: ``grow`` is called with the bytes before they are taken."""
        self._answers.hold = grow

    @property
    def token(self) -> str:
        """What reads the same rows again, whatever has been written since."""
        return self.ticket.token or Token(self.as_of, self.table_version).to_text()

    @property
    def whole(self) -> bool:
        """Whether the answer has to be put together before its first row can go out."""
        sorted_across = self.ticket.is_ordered and self.ticket.order_by != "series"
        return self._pivot is not None or self.ticket.limit is not None or sorted_across

    @property
    def ordered(self) -> bool:
        """Whether the parts, one after the other, are in the order that was asked for."""
        return self._pivot is not None or self.ticket.is_ordered

    @property
    def schema(self) -> pa.Schema:
        """The schema of the answer, with the table version, the resolved ``as_of`` and the token.

        It needs no row. The cursor of a page is known with its last one, and is in the schema of :meth:`reader` alone.
        """
        return self._schema(None)

    def _schema(self, cursor: str | None) -> pa.Schema:
        metadata = {
            META_TABLE_VERSION: str(self.table_version).encode(),
            META_AS_OF: format_time(self.as_of).encode(),
            META_TOKEN: self.token.encode(),
            META_SERIES_VERSION: self._series_version.encode(),
        }
        if cursor is not None:
            metadata[META_CURSOR] = cursor.encode()
        return result_schema(self.ticket, metadata) if self._pivot is None else self._pivot.schema(metadata)

    @property
    def parts(self) -> list[ReadPart]:
        """One part a bucket, or one in all where the order needs it. Their tickets are fixed to this plan's cut-off."""
        whole = self.in_one_part
        # Which buckets hold rows, and how many, would tell a limited key of the series that it may not see.
        if self.whole or not self.buckets or self._for_limited_key:
            return [whole]
        return [ReadPart(ticket_of_bucket(whole.ticket, bucket.bucket), bucket.rows) for bucket in self.buckets]

    @property
    def in_one_part(self) -> ReadPart:
        """The whole answer as one part, for whoever cannot take as many as there are :attr:`parts`."""
        fixed = self.ticket.model_copy(update={"as_of": self.as_of, "table_version": self.table_version})
        return ReadPart(fixed, self._rows_in_all())

    def _rows_in_all(self) -> int:
        if self._for_limited_key or self.ticket.after is not None or not all(each.is_whole for each in self.buckets):
            return UNKNOWN
        if self.ticket.bucket is not None and any(each.rows == UNKNOWN for each in self.buckets):
            return UNKNOWN
        rows = rows_of(file for bucket in self.buckets for file in bucket.files)
        return rows if rows == UNKNOWN or self.ticket.limit is None else min(rows, self.ticket.limit)

    @translating_errors()
    def materialise(self, check_cancelled: Callable[[], None]) -> None:
        """Compute now what has to be whole before its first row can go out; of other answers nothing.

        The next stream of the answer takes it.

        Args:
            check_cancelled: Called before each bucket; what it raises ends the work.

        Raises:
            TooLarge: more rows than may be sorted across buckets.
        """
        if self.whole:
            self._whole = self._materialised(check_cancelled)

    @translating_errors()
    def reader(self) -> pa.RecordBatchReader:
        """The answer as batches of about 64k rows, computed as they are taken; under a ``limit`` its page is now.

        The schema is that of the answer, under a ``limit`` that was reached with the cursor of the next page.

        Raises:
            TooLarge: more rows than may be put together for a page.
        """
        if self.ticket.limit is not None and self._whole is None:
            self._whole = self._materialised(_always)
        cursor = None if self._whole is None else self._whole[1]
        return pa.RecordBatchReader.from_batches(self._schema(cursor), self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches of :meth:`reader`.

        Raises:
            TooLarge: more rows than may be sorted across buckets.
        """
        whole, self._whole = self._whole, None  # in here alone, so that it is let go with the stream
        with translating_errors():
            yield from self._batches(whole)

    def _batches(self, whole: tuple[pa.Table, str | None] | None) -> Iterator[pa.RecordBatch]:
        schema = result_schema(self.ticket)
        if self.whole:
            rows, _ = self._materialised(_always) if whole is None else whole
            yield from self._finish(rows, schema)
            return
        if self.ordered:
            yield from (batch for batch in self.steps() if batch is not None)
            return
        for bucket in self.buckets:
            for batch in self._answers.batches(bucket):
                yield from self._finish(pa.Table.from_batches([batch]), schema)

    def steps(self) -> Iterator[pa.RecordBatch | None]:
        """The batches of an answer that is ordered by series; None after each part that was looked through for it."""
        schema = result_schema(self.ticket)
        for bucket in self.buckets:
            for rows in self._answers.gathered(bucket):
                yield from self._finish(self._in_order(rows), schema)
                yield None

    def _materialised(self, check_cancelled: Callable[[], None]) -> tuple[pa.Table, str | None]:
        """The sorted rows, and under a limit the cursor to the next page; None where there is none."""
        if self.ticket.limit is None:
            return self._sorted(check_cancelled), None
        return self._page(self.ticket.limit, check_cancelled)

    def _sorted(self, check_cancelled: Callable[[], None]) -> pa.Table:
        pieces, total = [], 0
        for bucket in self.buckets:
            check_cancelled()
            found = [self._placed(rows) for rows in self._answers.gathered(bucket)]
            pieces += found
            self._answers.hold(_TIMES_SORTED * sum(piece.nbytes for piece in found))
            total += sum(piece.num_rows for piece in found)
            if total > self._max_sorted_rows:
                field = "order_by" if self._pivot is None else "pivot"
                raise TooLarge(
                    f"{field}: the answer has more than {self._max_sorted_rows} rows, the limit for an order "
                    "across series; narrow it, set a limit, or order by series"
                )
        if not pieces:
            return result_schema(self.ticket).empty_table()
        rows = gathered(pieces)
        pieces.clear()
        return self._in_order(rows)

    def _in_order(self, rows: pa.Table) -> pa.Table:
        return in_order(rows, self._order, descending=self.ticket.descending)

    def _page(self, limit: int, check_cancelled: Callable[[], None]) -> tuple[pa.Table, str | None]:
        after = None if self.ticket.after is None else Cursor.from_text(self.ticket.after, self.ticket)
        # Of a wide row there may be a row for each of its columns.
        wanted = (limit + 1) * (1 if self._pivot is None else len(self._pivot.columns))
        first = FirstRows(self._order, wanted, descending=self.ticket.descending)
        self._answers.hold(min(2 * limit, self._rows_of_files()) * ROW_BYTES)
        for bucket in self.buckets:
            for stretch, end in self._stretches(bucket, wanted):
                check_cancelled()
                for found in self._answers.tables(stretch):
                    rows = self._placed(found)
                    first.add(rows if after is None else after.beyond(rows))
                    if min(first.held, wanted) > self._max_sorted_rows + 1:
                        raise TooLarge(
                            f"limit: a page of {limit} rows is more than the {self._max_sorted_rows} that are put "
                            "together for one answer; make it smaller"
                        )
                if end is not None and first.are_before(end):
                    break
            if self.ticket.order_by == "series" and self._pivot is None and first.held >= wanted:
                break  # the series of later buckets come later
        page = first.sorted()
        if page is None:
            return result_schema(self.ticket).empty_table(), None
        end = limit if self._pivot is None else self._pivot.end_of_rows(page, self._order, limit)
        if page.num_rows <= end:
            return page, None
        (last,) = page.select(self._order).slice(end - 1, 1).to_pylist()
        return page.slice(0, end), Cursor(last, self.as_of, self.table_version, self.ticket.descending).to_text()

    def _stretches(self, bucket: BucketRead, wanted: int) -> Iterable[tuple[BucketRead, int | None]]:
        """A bucket in the order of its valid_times, where that is the order of the answer; else as it is."""
        if self.ticket.order_by != "valid_time" or not self.ticket.is_by_point or self.ticket.last is not None:
            return [(bucket, None)]
        rows = -(-wanted // len(self.buckets))
        return from_one_end(bucket, rows, descending=self.ticket.descending, slice_rows=self._answers.slice_rows)

    def _placed(self, rows: pa.Table) -> pa.Table:
        return rows if self._pivot is None else self._pivot.placed(rows)

    def _finish(self, rows: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows brought to the columns and types of the answer and cut into batches."""
        if not rows.num_rows:
            return
        if self._pivot is not None:
            yield from self._pivot.batches(rows, self._order)
            return
        columns = {name: rows.column(name) for name in rows.column_names}
        if "value_id" in self._columns:
            columns["value_id"] = _value_ids(rows)
        for name, attribute in (("series_key", "name"), ("series_unit", "unit")):
            if name in self._columns:
                columns[name] = self._series_text(columns["series_id"], attribute)
        yield from written_out(pa.table({name: columns[name] for name in schema.names}), schema)

    def _series_text(self, series_ids: pa.ChunkedArray, attribute: str) -> pa.ChunkedArray:
        """An attribute of each row's series; one dictionary entry a series."""
        chunks = []
        for codes in series_ids.chunks:
            found = [self.series.get(series_id) for series_id in codes.dictionary.to_pylist()]
            texts = pa.array([self._text_of(one, attribute) for one in found], pa.string())
            encoded = texts.dictionary_encode()  # series may share a name; a dictionary's entries are distinct
            chunks.append(pa.DictionaryArray.from_arrays(encoded.indices.take(codes.indices), encoded.dictionary))
        return pa.chunked_array(chunks, IDENTIFIER)

    def _text_of(self, series: Series | None, attribute: str) -> str | None:
        if attribute == "unit" and self.ticket.unit is not None:
            return self.ticket.unit
        return None if series is None else getattr(series, attribute)


def _value_ids(rows: pa.Table) -> pa.ChunkedArray:
    key = rows.select(REVISION)
    text = pl.DataFrame(key.cast(pa.schema([VALUES_DATA.field(name) for name in REVISION])))
    return text.select(views.value_id()).to_series().to_arrow().cast(COLUMN_TYPES["value_id"])


def stored_columns(ticket: ReadTicket) -> list[str]:
    """The columns of the values table that an answer is made from, and ``revision`` where it is asked for."""
    wanted = set(result_columns(ticket))
    if ticket.is_ordered or ticket.since is not None:
        wanted |= set(sort_columns(ticket))
    if ticket.last is not None:
        wanted |= set(POINT)
    if "value_id" in wanted:
        wanted |= set(REVISION)
    if wanted & {"series_key", "series_unit"} or ticket.unit is not None:
        wanted.add("series_id")
    if ticket.resample is not None:
        wanted |= {"value", *POINT, *(("known_time", "run_id") if ticket.view == "overlapping" else ())}
    return [name for name in READ_HELD.names if name in wanted]
