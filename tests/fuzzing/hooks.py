"""What schemathesis has to be told of the gateway; it runs in an environment of its own and imports nothing of ours."""

from __future__ import annotations

import random
from typing import Any

import schemathesis
from schemathesis import GenerationMode

_LONGEST_WAIT = 300
_READS = ("/values", "/changes", "/accuracy")
_WHAT_IS_READ = {"name": "temperature", "actual_key": "temperature", "horizon": "6h"}
"""Which the examples of the document make; they are sent first."""
_SHARE_THAT_IS_THERE = 0.8
_MORE = 2


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bodies of NDJSON: whatever text was made up; as bytes, which go as they are."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Make sense of what was made up.

    Of forty options of a read most exclude each other, and no series has a name made of noise: a sound call keeps few
    options, and mostly asks for what there is. ``GET /changes`` waits for a second at most, or thousands of calls would
    stand still for minutes each.
    """
    query = case.query
    if not isinstance(query, dict):
        return
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        _make_sensible(query, case.operation.path)
    wait = str(query.get("wait"))
    if wait.isdigit() and 1 < int(wait) <= _LONGEST_WAIT:
        query["wait"] = 1


def _make_sensible(query: dict[str, Any], path: str) -> None:
    chance = random.Random(repr(sorted(query.items(), key=repr)))  # the same for the same call
    others = sorted(query.keys() - _WHAT_IS_READ.keys())
    for name in chance.sample(others, max(0, len(others) - _MORE)):
        del query[name]
    if path in _READS and chance.random() < _SHARE_THAT_IS_THERE:
        query.pop("series_id", None)
        query |= {name: there for name, there in _WHAT_IS_READ.items() if name in query or name == "name"}
