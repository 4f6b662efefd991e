"""Runs: upload, list, read, withdraw, restore."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Depends
from starlette.responses import Response

from timedb.client.receipt import Receipt
from timedb.contract.errors import InvalidRequest, NotFound, OutcomeUnknown
from timedb.contract.wire import GetRun, ListRuns, RestoreRun, UploadCommand, WithdrawRun, parse_object
from timedb.rest_gateway.answer.answers import Restored, Run, Runs, Uploaded, Withdrawn, json_answer
from timedb.rest_gateway.ask.forms import FORM_SCHEMA, FORM_TYPE
from timedb.rest_gateway.ask.inputs import json_body, query
from timedb.rest_gateway.ask.layouts import layout_parameters
from timedb.rest_gateway.ask.models import NoQuery, Restoration, RunsQuery, UploadQuery, UploadRequest, Withdrawal
from timedb.rest_gateway.ask.sent import FORMAT_PARAMETER, OCTETS, SHEET_TYPE
from timedb.rest_gateway.ask.uploads import RunUpload, read_upload
from timedb.rest_gateway.http.connection import TheCaller
from timedb.rest_gateway.openapi.document import describe_inputs, describe_option, errors

__all__ = ["router"]

_UPLOAD_TEXT = """\
A run is written once: the same run_id with the same content again is a retry, with other content a conflict. A
`value_key` finds the series of that name, and creates it where there is none.

The body is JSON, or a table by its `Content-Type`: CSV with a line of names, Parquet, an Arrow stream, an Excel
workbook (XLSX), or NDJSON with an item of `value_rows` a line. Of a table the run's own fields are query parameters
(beside JSON they say what the body leaves out), and its columns are `series_id` or `series_key` (`labels` beside it as
JSON text), `valid_time`, `value`, and optionally `valid_time_end`, `known_time`, `annotation` and `tags` (in CSV a JSON
array). Times without an offset are UTC. A table that is laid out otherwise is read with the options of `timedb upload`,
as parameters of the same names with `_` for `-` (its columns are `series_key`, … then, also of NDJSON); `known_time`
and `run_start_time` may name a column then. With one of them, and of a workbook, the run_id is a digest of the run
unless it is said, so that the same body once more adds nothing.

What the body is `format` says where its `Content-Type` does not: beside `application/octet-stream`, or none
(`curl -T forecast.csv '…/upload?format=csv' -X POST`). A form (`multipart/form-data`, as of a browser or of `curl -F
file=@forecast.csv -F run_id=…`) has one file, whose name or type says what it is, and the parameters as fields beside
it; a field that was left empty says nothing.

Every body may be compressed, with `Content-Encoding: gzip` or `zstd`; the limit of `TIMEDB_MAX_BODY_BYTES` holds before
and after. Larger tables go over Arrow Flight."""
_OTHER_BODIES = {
    "text/csv": "series_key,valid_time,value\ntemperature,2025-01-01T00:00:00Z,20.5\n",
    "application/vnd.apache.parquet": None,
    "application/vnd.apache.arrow.stream": None,
    SHEET_TYPE: None,
    "application/x-ndjson": '{"value_key": "temperature", "valid_time": "2025-01-01T00:00:00Z", "value": 20.5}\n',
    FORM_TYPE: FORM_SCHEMA,
    OCTETS: None,
}

router = APIRouter(tags=["runs"])
_NO_QUERY = [Depends(query(NoQuery))]


def _upload(run: Annotated[RunUpload, Depends(read_upload)], caller: TheCaller) -> Response:
    # With an id of the gateway's own, a connection that fails in between can be retried without doubling the run.
    run_id = run.fields.get("run_id") or str(uuid4())
    rows = {} if run.rows is None else {"rows": run.rows}
    command = parse_object(UploadCommand, {**run.fields, "run_id": run_id, **rows})
    try:
        receipt = Receipt.from_message(caller.send(command, run.reader))
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error.detail} (run_id {run_id})", request_id=error.request_id) from error
    except (InvalidRequest, NotFound) as error:
        raise type(error)(run.in_its_words(error.detail), request_id=error.request_id) from error
    withdrawal = receipt.withdrawal_text(f"POST /runs/{quote(run_id)}/restore")
    answer: dict[str, object] = {
        "run_id": receipt.run_id,
        "message": withdrawal or "Run created successfully",
        "series_ids": receipt.series_ids,
    }
    if withdrawal:
        answer |= {"withdrawn": receipt.withdrawn, "withdrawn_rows": receipt.withdrawn_rows}
    return json_answer(answer)


_INPUTS = describe_inputs(body=UploadRequest, query=UploadQuery, other_bodies=_OTHER_BODIES)
_INPUTS["parameters"] += [FORMAT_PARAMETER, *layout_parameters(describe_option)]

for _path, _name in (("/runs", "create_run"), ("/upload", "upload_timeseries")):
    router.add_api_route(
        _path,
        _upload,
        methods=["POST"],
        name=_name,
        operation_id=_name,
        response_model=Uploaded,
        responses=errors(404, 408, 409, 413),
        openapi_extra=_INPUTS,
        summary="Create a new run with time series values",
        description=_UPLOAD_TEXT,
    )


@router.get(
    "/runs",
    response_model=Runs,
    openapi_extra=describe_inputs(query=RunsQuery),
    summary="List runs, newest first",
)
def list_runs(criteria: Annotated[RunsQuery, Depends(query(RunsQuery))], caller: TheCaller) -> Response:
    """The run's records, without their values."""
    given = {name: getattr(criteria, name) for name in criteria.model_fields_set}
    return json_answer(caller.call("list_runs", parse_object(ListRuns, given)))


@router.post(
    "/runs/{run_id:path}/withdraw",
    response_model=Withdrawn,
    responses=errors(404, 408, 413),
    openapi_extra=describe_inputs(body=Withdrawal, body_required=False),
    dependencies=_NO_QUERY,
    summary="Withdraw a run that was wrong",
)
def withdraw_run(
    run_id: str, body: Annotated[Withdrawal, Depends(json_body(Withdrawal))], caller: TheCaller
) -> Response:
    """Its values no longer count; nothing is erased, and `as_of` before the withdrawal still sees them."""
    message = parse_object(WithdrawRun, {"run_id": run_id, **body.model_dump(exclude_unset=True)})
    return json_answer(caller.call("withdraw_run", message))


@router.post(
    "/runs/{run_id:path}/restore",
    response_model=Restored,
    responses=errors(404, 408, 413),
    openapi_extra=describe_inputs(body=Restoration, body_required=False),
    dependencies=_NO_QUERY,
    summary="Undo the withdrawals of a run",
)
def restore_run(
    run_id: str, body: Annotated[Restoration, Depends(json_body(Restoration))], caller: TheCaller
) -> Response:
    """What they took stands again, as it was or as it has been corrected since. Single retractions stay."""
    message = parse_object(RestoreRun, {"run_id": run_id, **body.model_dump(exclude_unset=True)})
    return json_answer(caller.call("restore_run", message))


@router.get(
    "/runs/{run_id:path}",
    response_model=Run,
    responses=errors(404),
    dependencies=_NO_QUERY,
    summary="Read one run",
)
def read_run(run_id: str, caller: TheCaller) -> Response:
    """The run's record, without its values."""
    return json_answer(caller.call("get_run", GetRun(run_id=run_id)))
