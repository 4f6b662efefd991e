"""What may be the body of an upload: JSON with the rows in it, or a table, whose run is in the query then."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from timedb.client.frames import open_data
from timedb.contract.columns import UPLOAD_COLUMNS
from timedb.contract.errors import InvalidRequest
from timedb.contract.json_counts import check_json_counts, json_memory_bytes
from timedb.contract.json_keys import object_of
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import WireModel, parse, quoted
from timedb.contract.wire_fields import MAX_TAGS
from timedb.files.table_files import Reading, TableFile, TableKind, TableLimits, open_table
from timedb.layouts.spool import Spool
from timedb.rest_gateway.answer.ipc_sizes import check_stream
from timedb.rest_gateway.ask.bodies import BodyBudget
from timedb.rest_gateway.ask.inputs import read_query
from timedb.rest_gateway.ask.layouts import layout_said, prepared_body
from timedb.rest_gateway.ask.models import RowLines, UploadQuery, UploadRequest
from timedb.rest_gateway.ask.rows import rows_to_table
from timedb.rest_gateway.ask.sent import BodyKind, Sent, received

__all__ = ["RunUpload", "bytes_of_table", "open_body", "read_upload"]

_KINDS: tuple[BodyKind, ...] = ("csv", "parquet", "arrow", "ndjson", "xlsx", "json")
_BATCH_ROWS = 65_536
_LINES_AT_ONCE = 8192
_OF_ROW = re.compile(r"^value_rows\.(\d+)")
_OF_COLUMN = re.compile(r"(?P<column>[a-z_]+): (?:row (?P<row>\d+):? )?")
_PIECES_HELD = 3  # of a table: as it is, as ours, and on its way
_TABLE_PART = 2  # of a body, what its rows take as columns, about
_LAID_OUT_PART = 8  # of a body, what its rows take until they are in the spool, about
_SHEET_PART = 64  # of a workbook, what its unpacked sheet and the cells of it take
_SHEET_BYTES = 64 << 20  # however small a workbook is
_UNPACKED = 8
"""How many times the greatest body a batch of Arrow or a row group of Parquet may be once it is decompressed."""


@dataclass(frozen=True, slots=True)
class RunUpload:
    """A run that is ready to be sent.

    Attributes:
        fields: Of the upload's command, those that were given.
        rows: How many values there are; None if that is known only at the end.
        reader: The values.
        value_key: Whether the body calls ``series_key`` that.
        by_item: Whether its rows are items of ``value_rows``.
    """

    fields: dict[str, Any]
    rows: int | None
    reader: pa.RecordBatchReader
    value_key: bool = True
    by_item: bool = True

    def in_its_words(self, detail: str) -> str:
        """What the Flight server says of a column and row, as the body calls them."""
        found = _OF_COLUMN.match(detail)
        if found is None:
            return detail
        if self.by_item:
            detail = detail.replace("; add labels: ", "; say which by series_id, their labels are ", 1)
        column = "value_key" if self.value_key and found["column"] == "series_key" else found["column"]
        if self.by_item and found["row"]:
            return f"value_rows.{found['row']}.{column}: {detail[found.end() :]}"
        return column + detail[found.end("column") :]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is said of a run beside its body: of which kind it is, how it is laid out, and the run's own fields."""

    kind: BodyKind
    layout: dict[str, Any]
    query: UploadQuery

    @classmethod
    def of(cls, sent: Sent) -> _Asked:
        layout = layout_said(sent.parameters)
        if layout and sent.kind == "json":
            name = next(iter(layout))
            tables = ", ".join(kind for kind in _KINDS if kind != "json")
            raise InvalidRequest(f"{name}: is about tables ({tables}), and the body is JSON", field=name)
        return cls(sent.kind, layout, read_query(UploadQuery, sent.parameters, apart=layout))


async def read_upload(request: Request) -> AsyncIterator[RunUpload]:
    """A dependency that reads the run in a request's body: JSON, a table, or a form with one of them as its file.

    Raises:
        InvalidRequest: it is of no kind that is taken, or not what it says; a table may tell only while it is read.
        TooLarge: it is over the limit, or states more rows than an upload may have.
        Busy: other bodies take up all the room.
    """
    budget: BodyBudget = request.app.state.bodies
    async with received(request, _KINDS, _Asked.of) as (body, asked):
        kind, beside = asked.kind, asked.query
        if kind == "json":
            message = await budget.parse(UploadRequest, body)
            yield await budget.on_thread(body, _bytes_of_rows, partial(_of_json, message, beside))
        elif asked.layout or kind == "xlsx":
            with Spool() as spool:
                size = await run_in_threadpool(_bytes_of_layout, body, kind, budget)
                async with budget.room(size):
                    limits = _limits(budget, size if kind == "xlsx" else None)
                    laid_out = partial(_of_layout, body, kind, asked.layout, _given(beside), limits, spool)
                    yield await run_in_threadpool(laid_out)
        elif kind == "ndjson":
            lines = partial(_of_lines, body, _given(beside), budget.max_json_values)
            yield await budget.on_thread(body, _bytes_of_lines, lines)
        else:
            table = await run_in_threadpool(open_body, body, kind, budget)
            async with budget.room(bytes_of_table(table)):
                yield await run_in_threadpool(_of_table, table, _given(beside))


def _of_json(message: UploadRequest, beside: UploadQuery) -> RunUpload:
    fields = {name: value for name, value in _given(message).items() if name != "value_rows"}
    for name in beside.model_fields_set:
        said = getattr(beside, name)
        if name in message.model_fields_set and getattr(message, name) != said:
            raise InvalidRequest(f"{name}: the query says {quoted(said)}, the body something else; say it once")
        fields[name] = said
    return _of_rows(message, fields)


def _of_lines(body: bytes, fields: dict[str, Any], max_values: int) -> RunUpload:
    lines = ((number, line) for number, line in enumerate(io.BytesIO(body), 1) if line.strip())
    tables: list[pa.Table] = []
    before = 0
    while some := list(itertools.islice(lines, _LINES_AT_ONCE)):
        tables.append(_table_of_lines(some, before, max_values))
        before += len(some)
    table = pa.concat_tables(tables, promote_options="default") if tables else rows_to_table([])
    return RunUpload(fields, table.num_rows, table.to_reader(max_chunksize=_BATCH_ROWS))


def _table_of_lines(lines: list[tuple[int, bytes]], before: int, max_values: int) -> pa.Table:
    """Some lines as rows; ``before``: how many came before them."""
    whole = b'{"value_rows":[' + b",".join(line.strip() for _, line in lines) + b"]}"
    check_json_counts(whole, "body", max_values)
    for number, line in lines:
        try:
            json.loads(line, object_pairs_hook=object_of)
        except json.JSONDecodeError:
            raise InvalidRequest(f"body: line {number} is not JSON") from None
        except RecursionError:
            raise InvalidRequest(f"body: line {number} is nested too deeply") from None
        except ValueError as error:
            raise InvalidRequest(f"body: line {number}: {error}") from None
    try:
        message = parse(RowLines, whole, what="body", max_bytes=len(whole), max_values=max_values)
        return rows_to_table(message.value_rows)
    except InvalidRequest as error:
        detail = _OF_ROW.sub(lambda found: f"value_rows.{before + int(found[1])}", error.detail, count=1)
        raise InvalidRequest(detail) from None


def _of_rows(message: UploadRequest, fields: dict[str, Any]) -> RunUpload:
    table = rows_to_table(message.value_rows)
    return RunUpload(fields, table.num_rows, table.to_reader(max_chunksize=_BATCH_ROWS))


def _bytes_of_rows(body: bytes) -> int:
    return _TABLE_PART * len(body)


def _bytes_of_lines(body: bytes) -> int:
    """About what lines take: all of them as columns, and the slice that is parsed."""
    slices = max(1, body.count(b"\n") // _LINES_AT_ONCE)
    return _bytes_of_rows(body) + json_memory_bytes(body) // slices


def _bytes_of_layout(body: bytes, kind: str, budget: BodyBudget) -> int:
    """About what it takes to read a body by its layout; a sheet may take no more than that."""
    if kind == "xlsx":
        most = _UNPACKED * budget.max_body_bytes
        return min(most, max(_SHEET_BYTES, _SHEET_PART * len(body)))
    if kind == "ndjson":
        check_json_counts(body, "body", budget.max_json_values)
        return _LAID_OUT_PART * len(body) + json_memory_bytes(body)
    return _LAID_OUT_PART * len(body)


def _of_layout(
    body: bytes, kind: str, said: dict[str, Any], fields: dict[str, Any], limits: TableLimits, spool: Spool
) -> RunUpload:
    if kind == "arrow" and limits.group_bytes is not None:
        check_stream(pa.py_buffer(body), "body", limits.group_bytes, MAX_TAGS)
    done = prepared_body(body, kind, said, fields, limits, spool)
    return RunUpload(done.fields, done.rows, done.reader, value_key=False, by_item=False)


def _limits(budget: BodyBudget, group_bytes: int | None = None) -> TableLimits:
    most = group_bytes or _UNPACKED * budget.max_body_bytes
    return TableLimits(rows=budget.max_rows, columns=budget.max_columns, group_bytes=most, list_items=MAX_TAGS)


def bytes_of_table(table: TableFile) -> int:
    """About what it takes to read a table piece by piece."""
    return _PIECES_HELD * table.piece_bytes


def open_body(body: bytes, kind: TableKind, budget: BodyBudget, *, every_key: bool = False) -> TableFile:
    """The table in a body; ``every_key`` as of ``timedb.files.table_files.open_table``.

    Raises:
        InvalidRequest: it is not of that kind.
        TooLarge: it holds more than a body may.
    """
    most = _UNPACKED * budget.max_body_bytes
    longest = check_stream(pa.py_buffer(body), "body", most, MAX_TAGS) if kind == "arrow" else 0
    limits = _limits(budget)
    table = open_table(pa.BufferReader(body), kind, what="body", limits=limits, every_key=every_key)
    return replace(table, piece_bytes=max(longest, table.piece_bytes))


def _of_table(table: TableFile, fields: dict[str, Any]) -> RunUpload:
    reader = table.read(_columns(table.names), Reading(time_zone="UTC"))
    return RunUpload(fields, table.rows, open_data(reader).open(), value_key="value_key" in table.names, by_item=False)


def _columns(names: list[str]) -> Mapping[str, str]:
    """Our column → the body's; ``value_key`` is what the JSON of this gateway calls ``series_key``."""
    columns = {"series_key" if name == "value_key" else name: name for name in names}
    for name in columns:
        if name not in UPLOAD_COLUMNS:
            raise InvalidRequest(f"{quoted(name)[1:-1]}: unknown column{did_you_mean(name, UPLOAD_COLUMNS)}")
    if len(columns) < len(names):
        raise InvalidRequest("series_key: the column is there twice, once as value_key")
    for name in ("valid_time", "value"):
        if name not in columns:
            raise InvalidRequest(f"{name}: the column is missing")
    return columns


def _given(message: WireModel) -> dict[str, Any]:
    """What was said, and the workflow, whose default here is not that of Flight."""
    names = {"workflow_id", *message.model_fields_set}
    return {name: value for name in names if (value := getattr(message, name)) is not None}
