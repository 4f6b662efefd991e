"""What a call sends: of which kind its body is, and what is said beside it, in the query or in a form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeVar, get_args

from fastapi import Request

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.formats import READ_SUFFIXES
from timedb.rest_gateway.ask.bodies import BodyBudget
from timedb.rest_gateway.ask.forms import FORM_TYPE, Form
from timedb.rest_gateway.ask.inputs import is_json, media_type_of
from timedb.rest_gateway.http.exchange import has_body

__all__ = ["FORMAT_PARAMETER", "OCTETS", "SHEET_TYPE", "BodyKind", "Sent", "received"]

BodyKind = Literal["json", "csv", "parquet", "arrow", "ndjson", "xlsx"]
SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OCTETS = "application/octet-stream"
_KINDS: dict[str, BodyKind] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    SHEET_TYPE: "xlsx",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
}
_SAY_NOTHING = ("", OCTETS)
# What browsers say of a file whose suffix they do not know, or know from a spreadsheet.
_SAY_NOTHING_OF_FILES = (*_SAY_NOTHING, "text/plain", "application/vnd.ms-excel")
FORMAT_PARAMETER: dict[str, Any] = {
    "name": "format",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": list(get_args(BodyKind)), "examples": ["csv"]},
    "description": "What the body is, where neither its Content-Type nor, in a form, the name of the file says it",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent, but the body itself.

    Attributes:
        kind: Of the body.
        parameters: What is said beside it, but its format.
    """

    kind: BodyKind
    parameters: list[tuple[str, str]]


@asynccontextmanager
async def received(
    request: Request, kinds: Collection[BodyKind], understood: Callable[[Sent], T]
) -> AsyncIterator[tuple[bytes, T]]:
    """The body of a call, and what is understood of the rest: before the body is read, unless that says it.

    Args:
        request: The call.
        kinds: What its body may be.
        understood: Reads what is said beside the body.

    Raises:
        InvalidRequest: the body is of no kind that is taken, or nothing says of which; or it is a form that has not one
            file.
        TooLarge, Busy: as :meth:`BodyBudget.receive`; the form has too many parts.
    """
    budget: BodyBudget = request.app.state.bodies
    form = Form.announced_by(request)
    if form is None:
        found = understood(_by_head(request, kinds))
        async with budget.receive(request) as body:
            yield body, found
    else:
        async with budget.receive(request, form.file_in) as body:
            yield body, understood(_by_form(request, form, kinds))


def _by_head(request: Request, kinds: Collection[BodyKind]) -> Sent:
    said, parameters = _format_in(request.query_params.multi_items(), kinds)
    media_type = media_type_of(request)
    if not media_type and said is None and not has_body(request.headers):
        return Sent("json", parameters)
    return Sent(_kind(media_type, said, kinds, _SAY_NOTHING), parameters)


def _by_form(request: Request, form: Form, kinds: Collection[BodyKind]) -> Sent:
    said, parameters = _format_in([*request.query_params.multi_items(), *form.fields], kinds)
    if said is None and form.media_type in _SAY_NOTHING_OF_FILES:
        said = READ_SUFFIXES.get(PurePath(form.filename).suffix.lower())
    return Sent(_kind(form.media_type, said, kinds, _SAY_NOTHING_OF_FILES), parameters)


def _format_in(
    parameters: list[tuple[str, str]], kinds: Collection[BodyKind]
) -> tuple[str | None, list[tuple[str, str]]]:
    """What the parameters say of the format, and the others."""
    name = FORMAT_PARAMETER["name"]
    said = {value for key, value in parameters if key == name}
    if len(said) > 1:
        raise InvalidRequest(f"{name}: is said twice, as {' and '.join(map(quoted, sorted(said)))}", field=name)
    for text in said:
        if text not in kinds:
            raise InvalidRequest(f"{name}: {quoted(text)} is none of {', '.join(kinds)}", field=name)
    return next(iter(said), None), [each for each in parameters if each[0] != name]


def _kind(media_type: str, said: str | None, kinds: Collection[BodyKind], say_nothing: Collection[str]) -> BodyKind:
    found: BodyKind | None = "json" if is_json(media_type) else _KINDS.get(media_type)
    if found is None and media_type in say_nothing:
        found = next((kind for kind in kinds if kind == said), None)
        if found is None:
            what = f"{quoted(media_type)} does not say what the body is" if media_type else "is missing"
            raise InvalidRequest(f"Content-Type: {what}; say format=, one of {', '.join(kinds)}")
    if found is None or found not in kinds:
        taken = [
            name for name, kind in _KINDS.items() if kind in kinds and name.split("/")[1] not in ("ndjson", "jsonl")
        ]
        raise InvalidRequest(f"Content-Type: {quoted(media_type)} is none of {', '.join((*taken, FORM_TYPE))}")
    if said not in (None, found):
        raise InvalidRequest(f"format: {quoted(said)} is not what the Content-Type says, {media_type}", field="format")
    return found
