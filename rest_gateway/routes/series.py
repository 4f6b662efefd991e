"""Series: create, list, edit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from timedb.contract import wire
from timedb.contract.wire import CreateManySeries, CreateSeries, ListSeries, UpdateSeries, parse_object
from timedb.rest_gateway.answer.answers import (
    LabelValues,
    ManySeriesCreated,
    Series,
    SeriesCreated,
    SeriesInfo,
    SeriesPage,
    json_answer,
)
from timedb.rest_gateway.ask.inputs import json_body, query
from timedb.rest_gateway.ask.models import (
    NewManySeries,
    NewSeries,
    NoQuery,
    SeriesChange,
    SeriesLabelsQuery,
    SeriesPageQuery,
    SeriesQuery,
)
from timedb.rest_gateway.http.connection import TheCaller
from timedb.rest_gateway.openapi.document import describe_inputs, errors

__all__ = ["router"]

router = APIRouter(tags=["series"])
_NO_QUERY = [Depends(query(NoQuery))]


@router.post(
    "/series",
    response_model=SeriesCreated,
    responses=errors(408, 409, 413),
    openapi_extra=describe_inputs(body=NewSeries),
    dependencies=_NO_QUERY,
    summary="Create a new time series",
)
def create_series(body: Annotated[NewSeries, Depends(json_body(NewSeries))], caller: TheCaller) -> Response:
    """The same series again is no error; with another unit it is a conflict."""
    message = parse_object(CreateSeries, body.model_dump(exclude_unset=True))
    result = caller.call("create_series", message)
    text = "Series created successfully" if result["created"] else "Series already exists"
    return json_answer({"series_id": result["series_id"], "message": text})


@router.post(
    "/series/many",
    response_model=ManySeriesCreated,
    responses=errors(408, 409, 413),
    openapi_extra=describe_inputs(body=NewManySeries),
    dependencies=_NO_QUERY,
    summary="Create many time series",
)
def create_many_series(
    body: Annotated[NewManySeries, Depends(json_body(NewManySeries))], caller: TheCaller
) -> Response:
    """All of them or none; what each gets is in the order of the request."""
    items = [one.model_dump(exclude_unset=True) for one in body.series]
    return json_answer(caller.call("create_many_series", parse_object(CreateManySeries, {"series": items})))


@router.get(
    "/series",
    response_model=SeriesPage,
    openapi_extra=describe_inputs(query=SeriesPageQuery),
    summary="List time series, page by page",
)
def list_series(criteria: Annotated[SeriesPageQuery, Depends(query(SeriesPageQuery))], caller: TheCaller) -> Response:
    """By name; under a `search` the best answers first. `next_cursor`, given back as `after`, gets the next page."""
    given = {"limit": criteria.limit, **criteria.model_dump(exclude_unset=True)}
    page = caller.call("list_series", parse_object(ListSeries, given))
    return json_answer({"series": page["series"], "next_cursor": page.get("cursor")})


@router.get(
    "/list_timeseries",
    response_model=dict[str, SeriesInfo],
    openapi_extra=describe_inputs(query=SeriesQuery),
    summary="List all time series (series_id -> series_key mapping)",
)
def list_timeseries(criteria: Annotated[SeriesQuery, Depends(query(SeriesQuery))], caller: TheCaller) -> Response:
    """All series that are not retired, by series_id; `GET /series` lists them page by page."""
    message = parse_object(ListSeries, criteria.model_dump(exclude_unset=True))
    return json_answer(
        {
            series["series_id"]: {
                "series_key": series["name"],
                "description": series["description"],
                "unit": series["unit"],
                "labels": series["labels"],
            }
            for series in caller.call("list_series", message)["series"]
        }
    )


@router.get(
    "/series/labels",
    response_model=LabelValues,
    openapi_extra=describe_inputs(query=SeriesLabelsQuery),
    summary="List the labels of all series and their values",
)
def list_series_labels(
    criteria: Annotated[SeriesLabelsQuery, Depends(query(SeriesLabelsQuery))], caller: TheCaller
) -> Response:
    """Every label key with the values that it has."""
    message = parse_object(wire.SeriesLabels, criteria.model_dump(exclude_unset=True))
    return json_answer(caller.call("series_labels", message))


@router.patch(
    "/series/{series_id}",
    response_model=Series,
    responses=errors(404, 408, 409, 413),
    openapi_extra=describe_inputs(body=SeriesChange, body_required=False),
    dependencies=_NO_QUERY,
    summary="Rename a series, set its unit or description right, or retire it",
)
def update_series(
    series_id: str, body: Annotated[SeriesChange, Depends(json_body(SeriesChange))], caller: TheCaller
) -> Response:
    """A field left out stays as it is. A rename keeps the id; a unit is declared, or all numbers are converted."""
    message = parse_object(UpdateSeries, {"series_id": series_id, **body.model_dump(exclude_unset=True)})
    return json_answer(caller.call("update_series", message))
