"""What /openapi.json says beyond what FastAPI finds out by itself: bodies, query parameters, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

from timedb.contract.errors import TimeDBError, Timeout
from timedb.contract.wire import WireModel
from timedb.files.formats import FORMATS
from timedb.layouts.options import FileOption
from timedb.rest_gateway.http.errors import REQUEST_TIMEOUT, STATUS
from timedb.rest_gateway.openapi import examples

__all__ = [
    "ANSWER_HEADERS",
    "ErrorBody",
    "answer_formats",
    "describe_inputs",
    "describe_option",
    "errors",
    "install_openapi",
]

_TEMPLATE = "#/components/schemas/{model}"
ANSWER_HEADERS = {
    "X-As-Of": "The change_time up to which the rows were read",
    "X-Table-Version": "The version of the values table that they were read from",
    "X-Token": "Reads the same again (token), or what was written since (since)",
    "X-Next-Cursor": "Where the next page starts; none: this is the last one",
}
"""What an answer with rows says beside them."""
_TEXT = {"type": "string"}
_BYTES = {"type": "string", "format": "binary"}


class ErrorBody(BaseModel):
    """The body of every error answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "detail": "start_valid: 'x' is not an RFC 3339 time such as 2025-01-01T00:00:00Z",
                    "code": "invalid_request",
                    "request_id": "0d7c2e0d4f0f4d6b8a3a3a0f6f3c9a11",
                }
            ]
        }
    )

    detail: str
    code: str
    request_id: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these statuses besides those that every route shares."""
    return {status: {"model": ErrorBody, "description": _meaning(status)} for status in statuses}


def answer_formats() -> dict[str, Any]:
    """The answer with rows, in the formats that are not the JSON of its model; each says the same in its headers."""
    described = {"json": _TEXT, "ndjson": _TEXT, "csv": _TEXT, "arrow": _BYTES, "parquet": _BYTES}
    return {
        "content": {body.media_types[0]: {"schema": described[body.name]} for body in FORMATS if body.name != "json"},
        "headers": {name: {"schema": _TEXT, "description": text} for name, text in ANSWER_HEADERS.items()},
    }


def _meaning(status: int) -> str:
    if status == REQUEST_TIMEOUT:
        return f"`{Timeout.code}`: the body did not arrive in time"
    kinds = [cls for cls, known in STATUS.items() if known == status and cls is not TimeDBError]
    return "; ".join(f"`{cls.code}`: {cls.summary}" for cls in kinds)


def describe_inputs(
    *,
    body: type[WireModel] | None = None,
    body_required: bool = True,
    query: type[WireModel] | None = None,
    other_bodies: Mapping[str, str | dict[str, Any] | None] | None = None,
) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads its body or query itself.

    Args:
        body: Of JSON.
        body_required: Whether there has to be one.
        query: The query parameters.
        other_bodies: Media type → an example of the bodies that are no JSON, or their schema; None: they are no text.
    """
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": _TEMPLATE.format(model=body.__name__)}
        content: dict[str, Any] = {"application/json": {"schema": schema}}
        for media_type, example in (other_bodies or {}).items():
            text = {"schema": _TEXT, "example": example}
            content[media_type] = {"schema": example or _BYTES} if not isinstance(example, str) else text
        extra["requestBody"] = {"required": body_required, "content": content}
    if query is not None:
        described = query.model_json_schema(ref_template=_TEMPLATE)
        extra["parameters"] = [
            _parameter(name, schema, name in described.get("required", ()))
            for name, schema in described["properties"].items()
        ]
        if body is not None:
            # Generated clients send defaults along, and the body may say otherwise.
            for parameter in extra["parameters"]:
                parameter["schema"].pop("default", None)
    return extra


def _parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    # A parameter that is left out is null to the model, but no text means null in a URL.
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        texts = [each["description"] for each in (schema, options[0]) if "description" in each]
        schema = {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | options[0]
        if texts:
            schema["description"] = ". ".join(texts)
    schema = {key: value for key, value in schema.items() if key != "title"}
    # As one value, where it is a list of one: that is what stands in a URL.
    example = examples.QUERY[name]
    schema["examples"] = [example if schema.get("type") == "array" or not isinstance(example, list) else example[0]]
    described = schema.pop("description", None)
    parameter = {"name": name, "in": "query", "required": required, "schema": schema}
    return parameter | ({"description": described} if described else {})


def describe_option(option: FileOption) -> dict[str, Any]:
    """An option of files as a query parameter."""
    kinds: dict[str, dict[str, Any]] = {
        "flag": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0},
        "texts": {"type": "array", "items": _TEXT},
    }
    schema = dict(kinds.get(option.kind, _TEXT))
    if option.words:
        schema["enum"] = list(option.words)
    example: Any = int(option.example) if option.kind == "count" else option.example
    schema["examples"] = [True if option.kind == "flag" else example]
    return {"name": option.name, "in": "query", "required": False, "schema": schema, "description": option.help}


def _describe_names(schema: Any) -> None:
    """Say of objects with free names what their names and values are in the way that most tools read."""
    if isinstance(schema, list):
        for each in schema:
            _describe_names(each)
    if not isinstance(schema, dict):
        return
    if "propertyNames" in schema and len(schema.get("patternProperties", {})) == 1:
        ((pattern, values),) = schema.pop("patternProperties").items()
        schema["additionalProperties"] = values
        schema["propertyNames"]["pattern"] = pattern
    for each in schema.values():
        _describe_names(each)


def install_openapi(app: FastAPI, bodies: Iterable[type[WireModel]]) -> None:
    """Make ``app.openapi()`` describe the request ``bodies`` too; the document is made once, at the first call."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in bodies:
                described = model.model_json_schema(ref_template=_TEMPLATE)
                schemas |= described.pop("$defs", {})
                schemas[model.__name__] = described
            for schema in schemas.values():
                _describe_names(schema)
            for operation in (each for calls in document["paths"].values() for each in calls.values()):
                if "security" in operation:
                    operation["security"].append({})  # a lake without users
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path":
                        parameter["schema"]["examples"] = [examples.PATH[parameter["name"]]]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
