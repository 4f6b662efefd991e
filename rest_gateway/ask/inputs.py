"""How query parameters and JSON bodies become messages: strictly."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from functools import cache
from typing import Any, TypeVar

from fastapi import Request

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import WireModel, parse_object, quoted
from timedb.rest_gateway.ask.bodies import BodyBudget
from timedb.rest_gateway.http.exchange import has_body

__all__ = ["is_json", "json_body", "media_type_of", "query", "read_query"]

M = TypeVar("M", bound=WireModel)


def json_body(model: type[M]) -> Callable[[Request], AsyncIterator[M]]:
    """A dependency that reads the request's JSON body as ``model``; no body at all counts as ``{}``.

    It raises :class:`InvalidRequest`, and what :meth:`BodyBudget.receive` raises.
    """

    async def read(request: Request) -> AsyncIterator[M]:
        budget: BodyBudget = request.app.state.bodies
        media_type = media_type_of(request)
        if (media_type or has_body(request.headers)) and not is_json(media_type):
            raise InvalidRequest(f"Content-Type: {quoted(media_type)} is not application/json")
        async with budget.receive(request) as body:
            yield await budget.parse(model, body)

    return read


def media_type_of(request: Request) -> str:
    """The media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Whether it is one of JSON.

    Browsers send it to a foreign origin only after asking it, which protects an open lake on this machine from the
    pages that its user visits. The same is true of every other type that is taken anywhere here but forms, and bodies
    of no type, of which :mod:`timedb.rest_gateway.http.origins` asks more.
    """
    return media_type == "application/json" or media_type.endswith("+json")


def query(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the query parameters as ``model``; an unknown or repeated one is an error.

    Parameters whose field is a list may be repeated.
    """

    async def read(request: Request) -> M:  # a coroutine, as a plain function would cost a change of threads
        return read_query(model, request.query_params.multi_items())

    return read


def read_query(model: type[M], parameters: Iterable[tuple[str, str]], apart: Collection[str] = ()) -> M:
    """Query parameters as ``model``, with the errors of :func:`query`.

    Args:
        model: What they become.
        parameters: Names and values.
        apart: Parameters that are none of the model's, or are read elsewhere this time.
    """
    lists = _lists_of(model)
    given = [(name, value) for name, value in parameters if name not in apart]
    counts = Counter(name for name, _ in given)
    fields: dict[str, Any] = {}
    for name, value in given:
        if name in lists:
            fields.setdefault(name, []).append(value)
        elif counts[name] > 1 and name in model.model_fields:
            raise InvalidRequest(f"{name}: is given {counts[name]} times")
        else:
            fields[name] = value
    return parse_object(model, fields, what="query")


@cache
def _lists_of(model: type[WireModel]) -> frozenset[str]:
    properties = model.model_json_schema().get("properties", {})
    return frozenset(name for name, schema in properties.items() if _is_list(schema))


def _is_list(schema: dict[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in (schema, *schema.get("anyOf", [])))
