"""A file as the run that it would be: read whole, checked, and ready to be sent as often as it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from timedb.contract.columns import decoded
from timedb.contract.digest import RowsDigest, fields_digest
from timedb.contract.errors import InvalidRequest
from timedb.contract.number_columns import NumberError, floats_of
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import quoted
from timedb.files.pieces import Piece
from timedb.layouts.advice import Advice
from timedb.layouts.choosing import Chosen, choose
from timedb.layouts.conversion import Conversion
from timedb.layouts.duplicates import LeftOut, Repeated, Repeats, words_of_rows
from timedb.layouts.layout import Layout
from timedb.layouts.opening import STANDARD_INPUT, OpenTable, open_file
from timedb.layouts.places import Places
from timedb.layouts.sequences import RowsAside
from timedb.layouts.spool import Spool, temporary_files

__all__ = ["Prepared", "Range", "Series", "prepare", "prepare_table", "run_fields"]

_MAX_SERIES_COUNTED = 100_000
Series = tuple[str, str]
"""Name, or id, and labels as JSON text."""


@dataclass
class Range:
    """The first and the last of some times.

    Attributes:
        first, last: Microseconds since 1970; None: there are none.
    """

    first: int | None = None
    last: int | None = None

    def add(self, column: pa.Array) -> None:
        """Widen it by the times of a column."""
        ends = pc.min_max(column.cast(pa.int64()))
        low, high = ends["min"].as_py(), ends["max"].as_py()
        if low is not None:
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)

    def texts(self) -> list[str] | None:
        """First and last, RFC 3339; None: there are none."""
        if self.first is None or self.last is None:
            return None
        return [format_time(from_micros(each)) for each in (self.first, self.last)]


@dataclass
class Prepared:
    """A run that was read from a file and has not been sent.

    Attributes:
        what: How an error calls the file.
        chosen: Which columns are sent.
        rows: How many rows it has.
        dropped: How many said once more what another row says, and were left out.
        known_at: The known_time of all rows, RFC 3339; None: a column says it, or nobody does.
        knows: Whether each row, or the run, says when it became known.
        run_started: The run_start_time, RFC 3339.
        series: Those of its rows; a very long list is cut.
        valid: Their valid times.
        known: Their known times.
        found_out: Option → value, of what was found out about the file and not said.
        spool: The rows.
    """

    what: str
    chosen: Chosen
    spool: Spool
    rows: int = 0
    dropped: int = 0
    known_at: str | None = None
    knows: bool = False
    run_started: str | None = None
    series: set[Series] = field(default_factory=set)
    valid: Range = field(default_factory=Range)
    known: Range = field(default_factory=Range)
    found_out: tuple[tuple[str, str], ...] = ()
    _digest: RowsDigest = field(default_factory=RowsDigest)
    _left_out: LeftOut = field(default_factory=LeftOut)

    def digest(self, fields: Mapping[str, Any]) -> str:
        """The name of the run where nobody gives it one: the same for the same rows under the same fields.

        Args:
            fields: What is said of the run; what is None was not said.
        """
        said = {name: value for name, value in fields.items() if value is not None}
        return fields_digest(json.loads(json.dumps(said, default=str)), self._digest.text())

    def reader(self) -> pa.RecordBatchReader:
        """The rows, from the first; as often as it is asked."""
        source = self.spool.reader()
        if not self._left_out.count:
            return source
        return pa.RecordBatchReader.from_batches(source.schema, _without(source, self._left_out))

    def count(self, batch: pa.RecordBatch, words: Any) -> None:
        """Count one more batch in, by the words of its rows."""
        self._digest.add_words(words)
        self.rows += batch.num_rows
        self.valid.add(batch.column("valid_time"))
        if "known_time" in batch.schema.names:
            self.known.add(batch.column("known_time"))
        if len(self.series) < _MAX_SERIES_COUNTED:
            self.series |= _series_of(batch)


def _without(batches: Iterable[pa.RecordBatch], left_out: LeftOut) -> Iterator[pa.RecordBatch]:
    before = 0
    for batch in batches:
        yield batch.filter(pa.array(~left_out.among(before, batch.num_rows)))
        before += batch.num_rows


def _series_of(batch: pa.RecordBatch) -> set[Series]:
    name = "series_key" if "series_key" in batch.schema.names else "series_id"
    columns = [batch.column(each) for each in (name, "labels") if each in batch.schema.names]
    table = pa.Table.from_arrays(
        [decoded(each).cast(pa.string()) for each in columns], names=["a", "b"][: len(columns)]
    )
    found = table.group_by(table.column_names).aggregate([]).to_pydict()
    return set(zip(found["a"], found.get("b", [""] * len(found["a"])), strict=True))


@contextmanager
def prepare(
    path: Path, layout: Layout, progress: AbstractContextManager[Callable[[int], None]] | None = None
) -> Iterator[Prepared]:
    """Read a file whole and check it; the rows are kept until the block ends.

    Args:
        path: The file; ``-`` is standard input.
        layout: How it is laid out.
        progress: While it is read, called with the rows so far.

    Raises:
        InvalidRequest: names what is wrong, where, and the option that helps.
    """
    with open_file(path, layout) as opened, Spool() as spool:
        name = "" if path == STANDARD_INPUT else path.name
        known_at = _known_by_name(name, layout)
        with progress or nullcontext(_unheard) as show:
            prepared = prepare_table(opened, layout, spool, known_at=known_at, progress=show)
        yield prepared


def _unheard(rows: int) -> None:
    """Nobody is told how far it is."""


@temporary_files()
def prepare_table(
    opened: OpenTable,
    layout: Layout,
    spool: Spool,
    *,
    known_at: str | None = None,
    progress: Callable[[int], None] = _unheard,
) -> Prepared:
    """Read a table whole and check it.

    Args:
        opened: The table.
        layout: How it is laid out.
        spool: Where its rows are kept.
        known_at: When its values became known, by its name.
        progress: Called with the rows so far.

    Raises:
        InvalidRequest: names what is wrong, where, and the option that helps.
        TooLarge: there is no room for temporary files.
    """
    table = opened.table
    seems = ""
    if opened.looks.found_out:
        listed = " ".join(layout.spoken(*each) for each in opened.looks.found_out)
        seems = f" (it was read with {listed}, as it looks)"
    chosen = choose(table.names, layout, opened.what + seems, opened.looks.hint)
    advice = Advice(layout, opened.form, numbers_are_text=table.numbers_are_text)
    conversion = Conversion(layout, chosen, numbers_are_text=table.numbers_are_text, advice=advice, known_at=known_at)
    prepared = Prepared(opened.what, chosen, spool, found_out=opened.looks.found_out, known_at=conversion.known_at)
    batches = _batches(table.pieces(conversion.wanted), conversion, RowsAside(layout, chosen, conversion))
    with Repeats(layout, prepared._digest) as repeats, Places() as places:
        for piece, batch in batches:
            batch = _of_wire(batch, spool.schema)
            words = words_of_rows(_with_floats(batch))
            repeats.add(words)
            places.add(piece)
            prepared.count(batch, words.whole)
            spool.add(batch)
            progress(prepared.rows)
        spool.end()
        if spool.schema is None:
            raise InvalidRequest(f"{opened.what}: holds no rows")
        try:
            prepared._left_out = repeats.end()
        except Repeated as fault:
            raise InvalidRequest(_of_repeated(fault, places, spool, layout)) from None
    prepared.dropped = prepared._left_out.count
    prepared.rows -= prepared.dropped
    prepared.run_started = chosen.run_started or conversion.run_start()
    prepared.knows = prepared.known_at is not None or "known_time" in spool.schema.names
    return prepared


def _batches(
    pieces: Iterable[Piece], conversion: Conversion, aside: RowsAside
) -> Iterator[tuple[Piece, pa.RecordBatch]]:
    for piece in pieces:
        known = aside.without(piece)
        if known.batch.num_rows:
            for batch in conversion.batches(known):
                yield known, batch
    for piece, told in aside.told():
        for batch in conversion.batches(piece, told):
            yield piece, batch


def _of_wire(batch: pa.RecordBatch, schema: pa.Schema | None) -> pa.RecordBatch:
    """A batch of the schema of the first one: later pieces may have other types of text."""
    if schema is None or batch.schema.equals(schema):
        return batch
    return pa.RecordBatch.from_arrays([batch.column(each.name).cast(each.type) for each in schema], schema=schema)


def _with_floats(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With values as they are stored, for the words of rows."""
    index = batch.schema.get_field_index("value")
    column = batch.column(index)
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):
        raise InvalidRequest(f"value: its type {kind} is no number")
    try:
        return batch.set_column(index, "value", floats_of(column))
    except NumberError as error:
        raise InvalidRequest(f"value: row {error.index}: {error}") from None


def _of_repeated(fault: Repeated, places: Places, spool: Spool, layout: Layout) -> str:
    earlier, later = (_row(spool, row) for row in fault.rows)
    where = " and ".join(places.of(row) for row in fault.rows)
    name = later.get("series_key") or later.get("series_id") or ""
    series = quoted(str(name)) + (f" {later['labels']}" if later.get("labels") else "")
    moment = format_time(later["valid_time"]) if later["valid_time"] is not None else "no time"
    if fault.same:
        drop = layout.spoken("duplicates", "drop")
        same = f"with the same value {later['value']}; {drop} keeps one of them"
        return f"valid_time: {where}: {series} has {moment} twice, {same}"
    said = " and ".join(str(each["value"]) for each in (earlier, later))
    return f"valid_time: {where}: {series} has {moment} twice, and they contradict each other: {said}"


def _row(spool: Spool, row: int) -> dict[str, Any]:
    before = 0
    for batch in spool.reader():
        if row < before + batch.num_rows:
            found: dict[str, Any] = batch.slice(row - before, 1).to_pylist()[0]
            return found
        before += batch.num_rows
    raise IndexError(row)


def _known_by_name(name: str, layout: Layout) -> str | None:
    """The known_time that a file's name says, RFC 3339."""
    pattern = layout.said.get("known_time_from_name")
    if pattern is None:
        return None
    option = layout.spoken("known_time_from_name")
    if (match := re.search(pattern, name)) is None:
        raise InvalidRequest(f"{option}: {quoted(pattern)} is not found in the name {quoted(name)}")
    text = "".join(each or "" for each in match.groups()) or match[0]
    digits = re.sub(r"\D", "", text)
    if len(digits) not in (8, 10, 12, 14):
        raise InvalidRequest(
            f"{option}: {quoted(text)} of the name {quoted(name)} is not year, month, day, and maybe hour, minute, "
            "second"
        )
    padded = digits.ljust(14, "0")
    clock = f"{padded[:4]}-{padded[4:6]}-{padded[6:8]} {padded[8:10]}:{padded[10:12]}:{padded[12:]}"
    zone = "Z" if re.search(r"\dZ$", text) or (layout.zone is None and len(digits) == 8) else ""
    from timedb.files.cells import instant_of

    try:
        return format_time(instant_of(clock + zone, layout.zone if not zone else None))
    except ValueError as error:
        hint = f"; say which with {layout.spoken('time_zone')}" if "no time zone" in str(error) else ""
        raise InvalidRequest(f"{option}: {quoted(text)} of the name {quoted(name)} {error}{hint}") from None


def run_fields(prepared: Prepared, said: Mapping[str, Any], file: str, layout: Layout) -> dict[str, Any]:
    """The fields of the upload, its run_id among them.

    Args:
        prepared: The run.
        said: Of ``run_id`` (which may hold ``{file}``), ``workflow_id``, ``run_params`` (JSON text or an object),
            ``unit``, ``create_series``, ``skip_unchanged``, those that were said.
        file: The file's name without its endings.
        layout: How errors name options.

    Raises:
        InvalidRequest: run_params is no JSON object.
    """
    fields = {name: value for name, value in said.items() if value is not None and name != "run_id"}
    if isinstance(params := fields.get("run_params"), str):
        try:
            fields["run_params"] = json.loads(params)
        except ValueError:
            fields["run_params"] = None
        if not isinstance(fields["run_params"], dict):
            spoken = layout.spoken("run_params")
            raise InvalidRequest(f'{spoken}: {quoted(params)} is not a JSON object such as {{"model": "v2"}}')
    times = {"known_time": prepared.known_at, "run_start_time": prepared.run_started}
    fields |= {name: text for name, text in times.items() if text is not None}
    run_id = said.get("run_id")
    return {"run_id": prepared.digest(fields) if run_id is None else str(run_id).replace("{file}", file), **fields}
