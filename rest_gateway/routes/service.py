"""What the service says of itself: ``/``, ``/health``, ``/metrics``."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from timedb._version import __version__
from timedb.contract.errors import Busy, TimeDBError, Unavailable
from timedb.contract.wire import Nothing
from timedb.rest_gateway.answer.answers import Health, Service, json_answer
from timedb.rest_gateway.ask.inputs import query
from timedb.rest_gateway.ask.models import NoQuery
from timedb.rest_gateway.http.caching import NOT_KEPT
from timedb.rest_gateway.http.connection import TheCaller
from timedb.rest_gateway.http.metrics import METRICS_TYPE, Metrics
from timedb.rest_gateway.http.probes import Probes
from timedb.rest_gateway.openapi.document import errors

__all__ = ["ENDPOINTS", "router"]

ENDPOINTS = {
    "read_values": "GET /values - Read time series values",
    "read_changes": "GET /changes - Follow what is written",
    "read_accuracy": "GET /accuracy - Compare forecasts with actual values, by lead time",
    "upload_timeseries": "POST /upload - Upload time series data (create a new run with values)",
    "create_run": "POST /runs - Create a new run with values (the same call as /upload)",
    "create_series": "POST /series - Create a new time series",
    "create_many_series": "POST /series/many - Create many time series in one call",
    "list_series": "GET /series - List time series, page by page",
    "list_timeseries": "GET /list_timeseries - List all time series (series_id -> series_key mapping)",
    "update_records": "PUT /values - Update existing time series records",
    "update_series": "PATCH /series/{series_id} - Rename a series, set its unit or description right, or retire it",
    "list_series_labels": "GET /series/labels - List the labels of all series and their values",
    "list_runs": "GET /runs - List runs, newest first",
    "read_run": "GET /runs/{run_id} - Read one run",
    "withdraw_run": "POST /runs/{run_id}/withdraw - Withdraw a run that was wrong; nothing is erased",
    "restore_run": "POST /runs/{run_id}/restore - Undo the withdrawals of a run",
    "health": "GET /health - Whether the service works",
    "live": "GET /health/live - Whether this gateway runs",
    "metrics": "GET /metrics - Figures for Prometheus",
    "docs": "GET /docs - This API, to read and to try",
    "ui": "GET /ui - A page that shows series, their revisions and their corrections",
}
"""Every call: name -> "VERB /path - text". The names are part of the contract."""

_BY_ACCEPT = {"Vary": "Accept"}

router = APIRouter(tags=["service"], dependencies=[Depends(query(NoQuery))])
_log = logging.getLogger("timedb.rest")


@router.get("/", response_model=Service, summary="What this service is and which calls it has")
async def read_service(request: Request) -> Response:
    """Name, version, instance and endpoints. Needs no key. A browser is sent to the page."""
    if _is_browser(request.headers.get("accept", "")):
        return RedirectResponse("ui", status_code=307, headers=_BY_ACCEPT)
    answer = json_answer(
        {"name": "TimeDB API", "version": __version__, "instance": request.app.state.instance, "endpoints": ENDPOINTS}
    )
    answer.headers.update(_BY_ACCEPT)
    return answer


def _is_browser(accept: str) -> bool:
    """Whether a caller asks for pages, and not for JSON: browsers name text/html, programs do not."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "text/html" in named and "application/json" not in named


@router.get("/health", response_model=Health, responses=errors(503), summary="Whether the service works")
async def read_health(request: Request) -> Response:
    """Asks the Flight server, and waits a few seconds for it at most. Needs no key."""
    probes: Probes = request.app.state.probes
    request_id = request.state.request_id
    try:
        health = await probes.health(request_id)
    except TimeDBError as error:
        _log.warning("the Flight server is not well: %s: %s request_id=%s", error.code, error.detail, request_id)
        raise Unavailable("the Flight server does not answer") from error
    if not health["ok"]:
        reason = health.get("reason", "its writes are stuck")
        _log.warning("the Flight server is not well: %s request_id=%s", reason, request_id)
        raise Busy(f"the Flight server answers, but {reason}")
    told = {"warning": health["warning"]} if "warning" in health else {}
    return _momentary(json_answer({"status": "ok", **told}))


@router.get("/health/live", response_model=Health, summary="Whether this gateway runs")
async def read_liveness() -> Response:
    """Asks nobody: whoever restarts gateways should not do it because the Flight server is away. Needs no key."""
    return _momentary(json_answer({"status": "ok"}))


@router.get("/metrics", responses=errors(401, 503), response_class=Response, summary="Figures for Prometheus")
def read_metrics(request: Request, caller: TheCaller) -> Response:
    """Calls and latencies of this gateway and of the Flight server, files and queues of the lake: docs/metrics.md."""
    of_server: str = caller.call("metrics", Nothing())["text"]
    metrics: Metrics = request.app.state.metrics
    return _momentary(Response(metrics.text() + of_server.encode(), media_type=METRICS_TYPE))


def _momentary(answer: Response) -> Response:
    answer.headers.update(NOT_KEPT)
    return answer
