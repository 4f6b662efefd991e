"""Answers of the small calls: JSON from plain values, and the models that describe them in the documentation."""

from __future__ import annotations

import json
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

__all__ = [
    "AccuracyRows",
    "ChangeRows",
    "CorrectedRows",
    "Health",
    "LabelValues",
    "ManySeriesCreated",
    "Restored",
    "Run",
    "Runs",
    "Series",
    "SeriesCreated",
    "SeriesInfo",
    "SeriesPage",
    "Service",
    "Updated",
    "Uploaded",
    "ValueRows",
    "Withdrawn",
    "json_answer",
]


def json_answer(content: object) -> Response:
    """A JSON answer; NaN and the infinities become null."""
    try:
        body = orjson.dumps(content)
    except TypeError:  # a run's own parameters may hold integers of more than 64 bits
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, media_type="application/json")


class Service(BaseModel):
    """Answer of ``GET /``; the instance is another one each time that a gateway is started."""

    name: str
    version: str
    instance: str
    endpoints: dict[str, str]


class Health(BaseModel):
    """Answer of ``GET /health``; ``warning`` is there where something may be wrong although all works."""

    status: str
    warning: str | None = None


class SeriesCreated(BaseModel):
    """Answer of ``POST /series``; the message says whether it existed before."""

    series_id: str
    message: str


class ManySeriesCreatedItem(BaseModel):
    """One series of ``POST /series/many``; ``created``: it did not exist before."""

    series_id: str
    created: bool


class ManySeriesCreated(BaseModel):
    """Answer of ``POST /series/many``, in the order of the request."""

    series: list[ManySeriesCreatedItem]


class ListedSeries(BaseModel):
    """One series of ``GET /series``."""

    series_id: str
    name: str
    labels: dict[str, str]
    unit: str
    description: str | None


class SeriesPage(BaseModel):
    """Answer of ``GET /series``."""

    series: list[ListedSeries]
    next_cursor: str | None


class SeriesInfo(BaseModel):
    """One entry of ``GET /list_timeseries``."""

    series_key: str
    description: str | None
    unit: str
    labels: dict[str, str]


class Series(BaseModel):
    """Answer of ``PATCH /series/{series_id}``."""

    model_config = ConfigDict(extra="allow")

    series_id: str
    name: str
    labels: dict[str, str]
    unit: str
    description: str | None
    retired: bool


class LabelValues(BaseModel):
    """Answer of ``GET /series/labels``: every label with its values."""

    labels: dict[str, list[str]]


class WithdrawnNote(BaseModel):
    """When, by whom and why the last rows of a run were withdrawn, so that none stands."""

    time: str
    changed_by: str | None
    reason: str | None


class Uploaded(BaseModel):
    """Answer of ``POST /runs`` and ``POST /upload``; the last two fields where a run that was in already is withdrawn,
    in part or whole.
    """

    run_id: str
    message: str
    series_ids: dict[str, str]
    withdrawn: WithdrawnNote | None = None
    withdrawn_rows: int = 0


class Run(BaseModel):
    """One run, without its values."""

    model_config = ConfigDict(extra="allow")

    run_id: str
    workflow_id: str
    run_start_time: str
    run_finish_time: str | None
    known_time: str
    run_params: dict[str, Any] | None
    rows: int
    change_time: str
    created_by: str | None
    digest: str
    receipt: dict[str, Any]
    withdrawn: WithdrawnNote | None
    withdrawn_rows: int


class Runs(BaseModel):
    """Answer of ``GET /runs``, newest first."""

    runs: list[Run]


class Withdrawn(BaseModel):
    """Answer of ``POST /runs/{run_id}/withdraw``: how many rows were withdrawn."""

    withdrawn: int


class Restored(BaseModel):
    """Answer of ``POST /runs/{run_id}/restore``: how many rows came back, and how many single retractions stay."""

    restored: int
    left_retracted: int


class UpdatedRow(BaseModel):
    """One row of the answer of ``PUT /values``."""

    value_id: str
    run_id: str
    tenant_id: str
    valid_time: str
    series_id: str


class Updated(BaseModel):
    """Answer of ``PUT /values``."""

    updated: list[UpdatedRow]
    skipped_no_ops: list[UpdatedRow]


def _as_asked(schema: dict[str, Any]) -> None:
    """An example; under ``columns`` any field may be missing."""
    schema.pop("required", None)
    schema["examples"] = [
        {
            "valid_time": "2025-01-01T00:00:00.000000+00:00",
            "series_id": "288dd910-eaab-5e01-bdbf-c6387db81bd4",
            "value": 20.5,
            "series_key": "temperature",
            "series_unit": "celsius",
        }
    ]


class Row(BaseModel):
    """One row of ``GET /values``: the first five columns, and on request the others; with ``columns`` those alone."""

    model_config = ConfigDict(json_schema_extra=_as_asked)

    valid_time: str
    series_id: str
    value: float | None
    series_key: str
    series_unit: str
    valid_time_end: str | None = None
    known_time: str | None = None
    change_time: str | None = None
    changed_by: str | None = None
    annotation: str | None = None
    tags: list[str] | None = None
    run_id: str | None = None
    value_id: str | None = None
    retracted: bool | None = None
    revision: int | None = None


class AccuracyRow(BaseModel):
    """One row of ``GET /accuracy``: one forecast and one bucket of lead times, as durations and in seconds.

    Of siblings together ``series_id`` is null; ``labels`` is JSON text. The skills are there with a reference.
    """

    series_id: str | None
    series_key: str
    labels: str
    siblings: str | None
    series_unit: str
    lead_time: str
    lead_time_end: str
    lead_seconds: float
    lead_seconds_end: float
    bias: float | None
    mae: float | None
    rmse: float | None
    pinball: float | None
    coverage: float | None
    wis: float | None
    crps: float | None
    skill_mae: float | None = None
    skill_rmse: float | None = None
    skill_pinball: float | None = None
    skill_wis: float | None = None
    skill_crps: float | None = None
    count: int
    skipped: int | None


class AccuracyRows(BaseModel):
    """Answer of ``GET /accuracy``."""

    count: int
    data: list[AccuracyRow]


class ValueRows(BaseModel):
    """Answer of ``GET /values``."""

    count: int
    data: list[Row]
    next_cursor: str | None = None


class ChangeRows(BaseModel):
    """Answer of ``GET /changes``; the token goes into ``since``."""

    count: int
    data: list[Row]
    token: str


class CorrectedRows(BaseModel):
    """Answer of ``PUT /values`` to a table; times and version are null where nothing changed."""

    update_id: str | None
    rows: int
    updated: int
    created: int
    skipped_no_ops: int
    change_time: str | None
    table_version: int | None
