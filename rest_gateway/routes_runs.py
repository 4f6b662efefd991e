"""Runs: upload, list, read, withdraw."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends
from starlette.responses import Response

from rest_gateway.answers import Runs, Uploaded, Withdrawn, json_answer
from rest_gateway.connection import TheCaller
from rest_gateway.inputs import json_body, query
from rest_gateway.models import NoQuery, RunsQuery, UploadRequest, Withdrawal
from rest_gateway.openapi import describe_inputs, errors
from rest_gateway.rows import rows_to_table
from timedb.errors import OutcomeUnknown
from timedb.wire import GetRun, ListRuns, UploadCommand, WithdrawRun, parse_object

__all__ = ["router"]

_BATCH_ROWS = 65_536

router = APIRouter(tags=["runs"])
_NO_QUERY = [Depends(query(NoQuery))]


def _upload(body: Annotated[UploadRequest, Depends(json_body(UploadRequest))], caller: TheCaller) -> Response:
    """A run is written once: the same run_id with the same content again is a retry, with other content a conflict.

    A `value_key` finds the series of that name, and creates it where there is none.
    """
    table = rows_to_table(body.value_rows)
    fields = {name: getattr(body, name) for name in UploadRequest.model_fields if name != "value_rows"}
    # With an id of the gateway's own, a connection that fails in between can be retried without doubling the run.
    fields["run_id"] = run_id = body.run_id or str(uuid4())
    given = {name: value for name, value in fields.items() if value is not None}
    command = parse_object(UploadCommand, {**given, "rows": table.num_rows})
    try:
        receipt = caller.send(command, table.to_reader(max_chunksize=_BATCH_ROWS))
    except OutcomeUnknown as error:
        raise OutcomeUnknown(f"{error.detail} (run_id {run_id})", request_id=error.request_id) from error
    return json_answer(
        {
            "run_id": receipt["run_id"],
            "message": "Run created successfully",
            "series_ids": receipt["series_ids"],
        }
    )


for _path, _name in (("/runs", "create_run"), ("/upload", "upload_timeseries")):
    router.add_api_route(
        _path,
        _upload,
        methods=["POST"],
        name=_name,
        operation_id=_name,
        response_model=Uploaded,
        responses=errors(404, 409, 413),
        openapi_extra=describe_inputs(body=UploadRequest),
        dependencies=_NO_QUERY,
        summary="Create a new run with time series values",
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
    responses=errors(404, 413),
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


@router.get(
    "/runs/{run_id:path}",
    response_model=dict[str, object],
    responses=errors(404),
    dependencies=_NO_QUERY,
    summary="Read one run",
)
def read_run(run_id: str, caller: TheCaller) -> Response:
    """The run's record, without its values."""
    return json_answer(caller.call("get_run", GetRun(run_id=run_id)))
