"""Values: read and correct."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from rest_gateway.answers import Updated, ValueRows, json_answer
from rest_gateway.connection import TheCaller
from rest_gateway.formats import FORMATS, choose_format, write_body
from rest_gateway.inputs import json_body, query
from rest_gateway.models import NoQuery, UpdateRequest, ValuesQuery
from rest_gateway.openapi import describe_inputs, errors
from rest_gateway.streaming import streamed
from timedb.columns import AUDIT_COLUMNS, META_AS_OF, META_CURSOR, META_TABLE_VERSION
from timedb.wire import ReadCommand, UpdateValues, parse_object

__all__ = ["router"]

router = APIRouter(tags=["values"])

_HEADERS = {META_CURSOR: "X-Next-Cursor", META_AS_OF: "X-As-Of", META_TABLE_VERSION: "X-Table-Version"}
_READ_TEXT = """\
Rows have `valid_time, series_id, value, series_key, series_unit`; `mode=overlapping` adds `known_time`,
`intervals=true` adds `valid_time_end`, and `all_versions=true` adds `known_time, change_time, changed_by, annotation,
tags, run_id, value_id, retracted`. They are sorted by valid_time and series_id, overlapping ones by known_time first,
and versions of one value by change_time. Times are always `YYYY-MM-DDTHH:MM:SS.ffffff+00:00`.

An unknown query parameter is an error. Without `limit` all rows come in one answer; with it, `next_cursor` is there as
long as there are more rows, to be given back as `cursor`.

`Accept` chooses the format: JSON (one object; `count` and `next_cursor` stand after `data`), an Arrow stream, NDJSON
(the last line is the trailer `{"_end": true, "count": n}`), or CSV (nulls are empty, tags a JSON array). The headers
`X-Next-Cursor`, `X-As-Of` and `X-Table-Version` say the same in every format. An answer that breaks off in the middle
is an error: its connection is cut, and NDJSON lacks `"_end": true`.

**NaN and infinity**: JSON has no such numbers, so JSON and NDJSON write null for them, which keeps `value` a column of
numbers for pandas and the like. `non_finite=text` writes `"NaN"`, `"Infinity"` and `"-Infinity"` instead, which tells
them from null. CSV writes `NaN`, `Infinity` and `-Infinity`, Arrow keeps all of them as they are. Uploads take the
numbers as JSON text or as the literals that Python's json writes."""


def _read_command(asked: ValuesQuery) -> ReadCommand:
    columns = ["valid_time", "series_id", "value", "series_key", "series_unit"]
    if asked.intervals:
        columns.insert(1, "valid_time_end")
    if asked.mode == "overlapping":
        columns.insert(0, "known_time")
    if asked.all_versions:
        columns += [name for name in AUDIT_COLUMNS if name not in columns]
    fields: dict[str, Any] = {
        "view": asked.mode,
        "series_ids": asked.series_id,
        "series_keys": asked.name,
        "relative": asked.relative(),
        "columns": columns,
        "ordered": True,
        "order_by": "valid_time" if asked.mode == "flat" else "known_time",
        "after": asked.cursor,
    }
    same = ("labels", "start_valid", "end_valid", "start_known", "end_known", "as_of", "all_versions", "limit")
    fields |= {name: getattr(asked, name) for name in same}
    return parse_object(ReadCommand, {name: value for name, value in fields.items() if value is not None})


@router.get(
    "/values",
    response_model=ValueRows,
    responses={
        200: {"content": {media_type: {} for body in FORMATS[1:] for media_type in body.media_types[:1]}},
        **errors(404, 413),
    },
    openapi_extra=describe_inputs(query=ValuesQuery),
    summary="Read time series values",
    description=_READ_TEXT,
)
def read_values(
    asked: Annotated[ValuesQuery, Depends(query(ValuesQuery))],
    caller: TheCaller,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Stream the rows as they come from the Flight server."""
    make_body = choose_format(accept)
    stream = caller.stream(_read_command(asked))
    metadata = stream.schema.metadata or {}
    cursor = metadata.get(META_CURSOR, b"").decode() or None
    body = make_body(stream.schema, cursor, non_finite_text=asked.non_finite == "text")
    return streamed(
        write_body(body, stream),
        stream.close,
        media_type=body.media_types[0],
        headers={name: metadata[key].decode() for key, name in _HEADERS.items() if metadata.get(key)},
        on_failure=body.failure,
    )


@router.put(
    "/values",
    response_model=Updated,
    responses=errors(404, 409, 413),
    openapi_extra=describe_inputs(body=UpdateRequest),
    dependencies=[Depends(query(NoQuery))],
    summary="Update existing time series records",
)
def update_values(body: Annotated[UpdateRequest, Depends(json_body(UpdateRequest))], caller: TheCaller) -> Response:
    """Corrections, all of them or none. A field that is left out stays, null clears it; every version is kept.

    A row is addressed by `run_id`, `series_id` and `valid_time`, by `value_id`, or by `series_id` and `valid_time`,
    which means the row that `GET /values` shows. `update_id` makes a retry answer as the first time.
    """
    given: dict[str, Any] = {"updates": list(body.updates)}
    if body.update_id is not None:
        given["update_id"] = body.update_id
    return json_answer(caller.call("update_values", parse_object(UpdateValues, given)))
