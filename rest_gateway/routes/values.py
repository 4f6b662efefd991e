"""Values: read and correct."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from timedb.contract.columns import META_AS_OF, META_CURSOR, META_TABLE_VERSION, META_TOKEN
from timedb.contract.errors import OutcomeUnknown
from timedb.contract.wire import UpdateValues
from timedb.files.formats import BodyFormat, write_body
from timedb.rest_gateway.answer.answers import AccuracyRows, CorrectedRows, Updated, ValueRows, json_answer
from timedb.rest_gateway.answer.formats import choose_format, style_of
from timedb.rest_gateway.ask.corrections import CorrectionsSent, read_corrections
from timedb.rest_gateway.ask.forms import FORM_SCHEMA, FORM_TYPE
from timedb.rest_gateway.ask.inputs import query
from timedb.rest_gateway.ask.models import CorrectionQuery, UpdateRequest
from timedb.rest_gateway.ask.reads import AccuracyQuery, ValuesQuery, in_words_of_the_query
from timedb.rest_gateway.ask.sent import FORMAT_PARAMETER, OCTETS
from timedb.rest_gateway.http.caching import etag_of, not_modified, unchanged
from timedb.rest_gateway.http.connection import CallerClient, TheCaller
from timedb.rest_gateway.http.streaming import streamed
from timedb.rest_gateway.openapi.document import answer_formats, describe_inputs, errors

__all__ = ["router"]

router = APIRouter(tags=["values"])

_HEADERS = {
    META_CURSOR: "X-Next-Cursor",
    META_AS_OF: "X-As-Of",
    META_TABLE_VERSION: "X-Table-Version",
    META_TOKEN: "X-Token",
}
_READ_TEXT = """\
Rows have `valid_time, series_id, value, series_key, series_unit`; `mode=overlapping` adds `known_time`,
`intervals=true` adds `valid_time_end`, and `all_versions=true` adds `known_time, change_time, changed_by, annotation,
tags, run_id, value_id, retracted`. They are sorted by valid_time and series_id, overlapping ones by known_time first,
and versions of one value by change_time; `order_by` and `descending` say otherwise, `last=24` keeps the last 24
valid_times of each series, and `descending=true&limit=24` begins with the 24 newest rows of all. Times are
always `YYYY-MM-DDTHH:MM:SS.ffffff+00:00`.

An unknown query parameter is an error. Without `limit` all rows come in one answer; with it, `next_cursor` is there as
long as there are more rows, to be given back as `cursor`.

`format`, or else `Accept`, chooses the format: JSON (one object; `count` and `next_cursor` stand after `data`), an
Arrow stream, a Parquet file, NDJSON (a row a line), or CSV (a line of names; nulls are empty, tags a JSON array). The
headers `X-Next-Cursor`, `X-As-Of`, `X-Table-Version` and `X-Token` say the same in every format. An answer that breaks
off in the middle has its connection cut, before the last chunk of HTTP: every HTTP client reports that as an error.

**Spreadsheets of some country** read CSV with `delimiter=;`, `decimal=,` and, with `local_times=true`, times of the
clock of `time_zone` without an offset: as `timedb read` writes it, and as `POST /runs` takes it again. `time_zone`
alone asks for the daily gate; beside `local_times` the gate is asked for with `days_ahead`.

Data frames take an address or what `urllib.request.urlopen` (with a key: `httpx.get(…).content`) makes of it:
`pd.read_csv(url)`, `pd.read_parquet(url)`, `pl.read_csv(urlopen(url))`, `pl.read_parquet(urlopen(url))`. Given the
address itself Polars asks for ranges, which are not served: the answer is made while it is sent. HEAD says what GET
would begin with.

**NaN and infinity**: JSON has no such numbers, so JSON and NDJSON write null for them, which keeps `value` a column of
numbers for pandas and the like. `non_finite=text` writes `"NaN"`, `"Infinity"` and `"-Infinity"` instead, which tells
them from null. CSV writes `NaN`, `Infinity` and `-Infinity`, Arrow and Parquet keep all of them as they are. Uploads
take the numbers as JSON text or as the literals that Python's json writes."""


_OTHER_BODIES = {
    "text/csv": "series_key,valid_time,value,annotation\ntemperature,2025-01-01T00:00:00Z,21.5,checked\n",
    "application/vnd.apache.parquet": None,
    "application/vnd.apache.arrow.stream": None,
    "application/x-ndjson": '{"series_key": "temperature", "valid_time": "2025-01-01T00:00:00Z", "value": 21.5}\n',
    FORM_TYPE: FORM_SCHEMA,
    OCTETS: None,
}
_CORRECTING = describe_inputs(body=UpdateRequest, query=CorrectionQuery, other_bodies=_OTHER_BODIES)
_CORRECTING["parameters"].append(FORMAT_PARAMETER)
_ACCURACY_TEXT = """\
Every revision of the selected series is compared with the value of the actuals series (`actual_id`, or `actual_key`
with `actual_labels`) at the same valid_time. Its lead time, `valid_time - known_time`, falls into a bucket `horizon`
long. A row a forecast and bucket: `series_id, series_key, labels` (JSON text), `siblings, series_unit, lead_time,
lead_time_end` (ISO 8601) and the same as `lead_seconds, lead_seconds_end`; then the figures. Errors (`bias, mae, rmse`)
are forecast minus actual, in the forecast's unit; a quantile also has `pinball` and `coverage`, the share of actuals at
or below it. Series that differ in the label `quantile` or `member` alone are siblings: together they have rows of their
own behind, with `series_id` null, `wis` and `crps`; `skipped` counts the forecasts that were not whole. With
`reference_key` there are `skill_mae` and so on: 1 less the score over that of the reference, over the valid times and
buckets that both have; null where the reference scores 0. `format` or `Accept` chooses the format, as for
`GET /values`."""


@router.get(
    "/values",
    response_model=ValueRows,
    responses={
        200: answer_formats(),
        **errors(404, 413),
    },
    openapi_extra=describe_inputs(query=ValuesQuery),
    summary="Read time series values",
    description=_READ_TEXT,
)
def read_values(
    asked: Annotated[ValuesQuery, Depends(query(ValuesQuery))],
    caller: TheCaller,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Stream the rows as they come from the Flight server."""
    make_body = choose_format(accept, asked.format)
    return _answer(request, caller, asked, make_body)


@router.get(
    "/accuracy",
    response_model=AccuracyRows,
    responses={
        200: answer_formats(),
        **errors(404),
    },
    openapi_extra=describe_inputs(query=AccuracyQuery),
    summary="Compare forecasts with actual values",
    description=_ACCURACY_TEXT,
)
def read_accuracy(
    asked: Annotated[AccuracyQuery, Depends(query(AccuracyQuery))],
    caller: TheCaller,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Stream the figures as they come from the Flight server."""
    return _answer(request, caller, asked, choose_format(accept, asked.format))


@router.put(
    "/values",
    response_model=Updated | CorrectedRows,
    responses=errors(404, 408, 409, 413),
    openapi_extra=_CORRECTING,
    summary="Update existing time series records",
)
def update_values(
    sent: Annotated[UpdateValues | CorrectionsSent, Depends(read_corrections)], caller: TheCaller
) -> Response:
    """Corrections, all of them or none. A field that is left out stays, null clears it; every version is kept.

    A row is addressed by `run_id`, `series_id` and `valid_time`, by `value_id`, or by `series_id` and `valid_time`,
    which means the row that `GET /values` shows. `update_id` makes a retry answer as the first time.

    The body is JSON, or a table by its `Content-Type` (or by `format`, or in a form, as of `POST /runs`): CSV with a
    line of names, Parquet, an Arrow stream, or NDJSON. The columns of a table are `series_id` or `series_key` (beside
    it `labels`) and `valid_time`, where needed `valid_time_end`, `known_time` and `run_id`, or `value_id` alone; and
    what becomes of the rows: `value`, `annotation`, `tags`, `retracted`. A column that is not there stays, an
    empty or null cell clears. Of a table `update_id` and `create` are query parameters, and the answer counts: `rows,
    updated, created, skipped_no_ops`.
    """
    if isinstance(sent, UpdateValues):
        return json_answer(caller.call("update_values", sent))
    try:
        return json_answer(caller.send(sent.command, sent.reader))
    except OutcomeUnknown as error:
        again = f"{error.detail} (update_id {sent.command.update_id})"
        raise OutcomeUnknown(again, request_id=error.request_id) from error


def _answer(
    request: Request,
    caller: CallerClient,
    asked: ValuesQuery | AccuracyQuery,
    make_body: type[BodyFormat],
) -> Response:
    local = asked.local_csv(make_body.name) if isinstance(asked, ValuesQuery) else None
    with in_words_of_the_query():
        stream = caller.stream(asked.to_command())
    metadata = stream.schema.metadata or {}
    tag = etag_of(request, metadata, make_body.media_types[0])
    if not_modified(request.headers, tag):
        stream.close()
        return unchanged(tag)
    cursor = metadata.get(META_CURSOR, b"").decode() or None
    said = {"non_finite_text": False, "without_formulas": False}
    if isinstance(asked, ValuesQuery):
        said = {"non_finite_text": asked.non_finite == "text", "without_formulas": asked.without_formulas}
    body = make_body(stream.schema, style_of(cursor, **said))
    return streamed(
        write_body(body, stream) if local is None else local.pieces(stream.schema, stream),
        stream.close,
        media_type=body.media_types[0],
        headers={name: metadata[key].decode() for key, name in _HEADERS.items() if metadata.get(key)} | {"ETag": tag},
    )
